"""A store in a PostgreSQL database, for several machines.

Owns: the pool of connections, carrying out statements, and bringing the schema up to date.
Does not own: tables and statements (schema, the `sql_` modules), failures (postgres_faults), urls (url).

Always holds: a commit is on the server's disk when it is answered (`synchronous_commit`); no statement runs
longer than the timeout; connections that died are replaced, so that a store outlives a restart of its server.
The driver, asyncpg, is imported with the first use.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, Final

from flowcore.store_errors import StoreError, StoreExtraError, StoreFormatError, StoreVersionError
from flowruntime.state.store.database import ForeignKeyFault, Statement
from flowruntime.state.store.postgres_faults import is_lost, translated
from flowruntime.state.store.refusals import closed
from flowruntime.state.store.schema import TABLES, VERSION, migrations
from flowruntime.state.store.sql import SqlStore
from flowruntime.state.store.url import StoreUrl, read_store_url

STATEMENT_TIMEOUT: Final = timedelta(seconds=30)
CONNECT_TIMEOUT: Final = timedelta(seconds=10)
CLOSE_TIMEOUT: Final = timedelta(seconds=10)

_STORE: Final = "flow_store"
"""The table that says what the others are."""
_MARK: Final = "flowrx store"
_LOCK: Final = 0x466C5253
"""Key of the advisory lock under which one process at a time changes the schema."""
_STEPS: Final = migrations(text='TEXT COLLATE "C"', whole="BIGINT", real="DOUBLE PRECISION")
_GRACE_S: Final = 5.0
"""What a statement's answer may take beyond the server's own timeout."""
_FOREIGN_KEY: Final = "23503"


class PostgresStore(SqlStore):
    """A store in the database a url names.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE`. The option `pool` is how many
            connections are used at most (10); others are the driver's (`sslmode`, `passfile`, ...) and the
            server's (`search_path`, ...). What is left out comes from PGHOST, PGUSER, PGPASSWORD, ...
        statement_timeout: after which the server gives a statement up.
        connect_timeout: for a new connection.
        close_timeout: how long `aclose` lets what was begun finish; then its connections are cut.

    Holds: the connections of its pool once used.
    """

    def __init__(
        self,
        url: str | StoreUrl,
        *,
        statement_timeout: timedelta = STATEMENT_TIMEOUT,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        close_timeout: timedelta = CLOSE_TIMEOUT,
    ) -> None:
        target = read_store_url(url) if isinstance(url, str) else url
        super().__init__(PostgresDatabase(target, statement_timeout, connect_timeout, close_timeout))


class PostgresDatabase:
    """See `flowruntime.state.store.database.Database`."""

    def __init__(
        self,
        target: StoreUrl,
        statement_timeout: timedelta,
        connect_timeout: timedelta,
        close_timeout: timedelta,
    ) -> None:
        self._target: Final = target
        self._statement_s: Final = statement_timeout.total_seconds()
        self._connect_s: Final = connect_timeout.total_seconds()
        self._close_s: Final = close_timeout.total_seconds()
        self._opening: Final = asyncio.Lock()
        self._pool: Any = None
        self._closed = False
        self._gave_up = False
        self._begun = 0
        self._idle: Final = asyncio.Event()
        self._idle.set()

    @property
    def url(self) -> str:
        return self._target.shown

    async def open(self) -> None:
        await self._opened("open")

    async def read(self, sql: str, *arguments: Any, doing: str) -> Sequence[Sequence[Any]]:
        try:
            return await self._read(sql, arguments, doing)
        except StoreError as fault:
            if fault.__cause__ is None or not is_lost(fault.__cause__):
                raise
        # The connection had died, maybe long ago; reading again does no harm.
        return await self._read(sql, arguments, doing)

    async def write(self, *statements: Statement, doing: str) -> int:
        outcome = "nothing"
        try:
            async with self._connection(doing) as connection:
                outcome = "unknown"
                return await _carry_out(connection, statements)
        except StoreError:
            raise
        except Exception as fault:
            if getattr(fault, "sqlstate", None) == _FOREIGN_KEY:
                raise ForeignKeyFault(str(fault)) from fault
            self._raise(fault, doing, outcome=outcome)
            raise

    async def aclose(self) -> None:
        """Finish what was begun, as long as `close_timeout` lets it; more is refused from now on."""
        self._closed = True
        async with self._opening:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._close_s):
                # The driver's pool closes connections under statements that begin meanwhile
                # ("unknown protocol state"), so it is closed only when nobody uses it.
                await self._idle.wait()
                await pool.close()
        except TimeoutError:
            self._gave_up = True
            pool.terminate()

    @contextlib.asynccontextmanager
    async def _connection(self, doing: str) -> AsyncGenerator[Any]:
        """A connection of the pool; `aclose` waits until it is given back."""
        pool = await self._opened(doing)
        self._begun += 1
        self._idle.clear()
        try:
            async with pool.acquire(timeout=self._statement_s) as connection:
                if self._gave_up:  # it was being made when the pool was ended, which nobody told it
                    connection.terminate()
                    raise closed(self.url, doing)
                yield connection
        finally:
            self._begun -= 1
            if not self._begun:
                self._idle.set()

    async def _read(self, sql: str, arguments: Sequence[Any], doing: str) -> Sequence[Sequence[Any]]:
        try:
            async with self._connection(doing) as connection:
                return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        except StoreError:
            raise
        except Exception as fault:
            self._raise(fault, doing, outcome="nothing")
            raise

    async def _opened(self, doing: str) -> Any:
        """The pool, made and its schema looked at when that has not been done."""
        async with self._opening:
            if self._closed:
                raise closed(self.url, doing)
            if self._pool is None:
                self._pool = await self._make_pool(doing)
            return self._pool

    async def _make_pool(self, doing: str) -> Any:
        driver = _driver(self.url)
        pool: Any = None
        try:
            pool = driver.create_pool(
                self._target.dsn,
                min_size=0,
                max_size=self._target.pool,
                timeout=self._connect_s,
                command_timeout=self._statement_s + _GRACE_S,
                server_settings=self._server_settings(),
                reset=_leave_as_it_is,
            )
            await pool
            async with pool.acquire() as connection:
                await _bring_up_to_date(connection, self.url)
        except BaseException as fault:
            if pool is not None:
                with contextlib.suppress(Exception):  # it was never opened
                    pool.terminate()
            if isinstance(fault, Exception):
                self._raise(fault, doing, outcome="nothing")
            raise
        return pool

    def _server_settings(self) -> dict[str, str]:
        """For every connection; what the url says wins, but for what durability rests on."""
        settings = {
            "application_name": "flowrx",
            "statement_timeout": str(round(self._statement_s * 1000)),
            "idle_in_transaction_session_timeout": str(round((self._statement_s + _GRACE_S) * 1000)),
        }
        said = {name: value for name, value in settings.items() if name not in self._target.options}
        return {**said, "synchronous_commit": "on"}

    def _raise(self, fault: Exception, doing: str, *, outcome: str) -> None:
        """Raise the error of ours, if it is one of the server or the way to it."""
        if self._closed and outcome == "nothing" and is_lost(fault):
            raise closed(self.url, doing) from fault  # it waited for a connection, and there will be none
        ours = translated(fault, self.url, doing, outcome=outcome)
        if ours is None:
            return
        # What the driver says of a url it does not understand may hold parts of it.
        raise ours from None if _tells_of_url(ours) else fault


def _tells_of_url(fault: StoreError) -> bool:
    from flowcore.store_errors import StoreUrlError

    return isinstance(fault, StoreUrlError)


def _driver(url: str) -> Any:
    try:
        import asyncpg
    except ImportError as fault:
        raise StoreExtraError(
            f"store {url}: it needs asyncpg, which is not installed; nothing was changed: "
            "uv pip install 'flowrx[postgres]'",
            url=url,
            extra="postgres",
        ) from fault
    return asyncpg


async def _leave_as_it_is(_: Any) -> None:
    """No session state is ever set, so none is to be reset when a connection goes back: a round trip less."""


async def _carry_out(connection: Any, statements: Sequence[Statement]) -> int:
    if len(statements) == 1 and len(statements[0].rows) == 1:
        return _changed(await connection.execute(statements[0].sql, *statements[0].rows[0]))
    async with connection.transaction():
        for statement in statements:
            await connection.executemany(statement.sql, statement.rows)
    return 0


def _changed(status: str) -> int:
    """How many rows a command changed: `UPDATE 1`, `INSERT 0 1`."""
    count = status.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


# --- the schema -----------------------------------------------------------------------------------------


async def _bring_up_to_date(connection: Any, url: str) -> None:
    """Make or migrate the tables; several processes may try at once, and one does.

    Raises:
        StoreFormatError, StoreVersionError: what is there is something else; it was left as it is.
    """
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreFormatError(
            f"store {url}: the database keeps texts as {encoding}, which cannot hold every text; nothing was "
            "changed. Create one with ENCODING 'UTF8'",
            url=url,
        )
    if await _version(connection, url) == VERSION:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        version = await _version(connection, url)
        await _migrate(connection, version, url)


async def _tables(connection: Any, *names: str) -> dict[str, set[str]]:
    """Those of the tables that are there, with their columns.

    Asks the catalogue: `to_regclass` may still say what held before another process got the lock first.
    """
    rows = await connection.fetch(
        "SELECT c.relname, a.attname FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relname = ANY($1::text[]) AND pg_catalog.pg_table_is_visible(c.oid)",
        names,
    )
    return {table: {column for each, column in rows if each == table} for table, _ in rows}


async def _version(connection: Any, url: str) -> int:
    """Of the schema; 0 when there is none."""
    found = await _tables(connection, _STORE)
    if not found:
        return 0
    if found[_STORE] != {"mark", "version"}:
        raise _foreign(url, _STORE)
    rows = await connection.fetch("SELECT mark, version FROM flow_store")
    if len(rows) != 1 or rows[0][0] != _MARK:
        raise _foreign(url, _STORE)
    version = int(rows[0][1])
    if version > VERSION:
        raise StoreVersionError(
            f"store {url}: its schema has version {version}, the newest known here is {VERSION}: a newer "
            "FlowRx made it. It was left as it is; use that FlowRx, or a newer one",
            url=url,
            found=version,
            known=VERSION,
        )
    return version


async def _migrate(connection: Any, version: int, url: str) -> None:
    if version == 0:
        for table in await _tables(connection, *TABLES):
            raise _foreign(url, table)
        await connection.execute("CREATE TABLE flow_store (mark TEXT NOT NULL, version BIGINT NOT NULL)")
        await connection.execute("INSERT INTO flow_store VALUES ($1, 0)", _MARK)
    for step in _STEPS[version:]:
        for statement in step:
            await connection.execute(statement)
    await connection.execute("UPDATE flow_store SET version = $1", VERSION)


def _foreign(url: str, table: str) -> StoreFormatError:
    return StoreFormatError(
        f"store {url}: there is a table {table!r} that is not a store's; it was left as it is. Name another "
        "database, or another schema by the option search_path",
        url=url,
    )
