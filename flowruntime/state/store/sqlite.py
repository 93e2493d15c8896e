"""A store in one SQLite file, for one machine; several processes may use it.

Owns: the mark of the file, and carrying out statements on it.
Does not own: threads, commits, failures (flowruntime.state.sqlite_file), tables (schema).
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from flowruntime.state.sqlite_file import BUSY_S, SqliteFile
from flowruntime.state.sqlite_format import SqliteFormat
from flowruntime.state.store.database import ForeignKeyFault, Statement
from flowruntime.state.store.schema import migrations
from flowruntime.state.store.sql import SqlStore

FORMAT: Final = SqliteFormat(
    what="a store",
    mark=0x466C5253,  # FlRS
    migrations=migrations(text="TEXT", whole="INTEGER", real="REAL"),
)
_PLACEHOLDER: Final = re.compile(r"\$(\d+)")


class SqliteStore(SqlStore):
    """A store in the file at `path`, made when it is used first.

    Args:
        path: relative to the folder that is the current one now.
        busy_s: how long another process may hold the file before an operation gives up.

    Holds: two threads and two connections once used.
    """

    def __init__(self, path: str | Path, *, busy_s: float = BUSY_S) -> None:
        super().__init__(SqliteDatabase(SqliteFile(path, FORMAT, busy_s=busy_s)))


class SqliteDatabase:
    """See `flowruntime.state.store.database.Database`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file: Final = file

    @property
    def url(self) -> str:
        return self._file.url

    async def open(self) -> None:
        await self._file.write(lambda _: None, doing="open")

    async def read(self, sql: str, *arguments: Any, doing: str) -> Sequence[Sequence[Any]]:
        text, order = _in_sqlite(sql)
        values = [arguments[place] for place in order]
        return await self._file.read(
            lambda connection: connection.execute(text, values).fetchall(), doing=doing
        )

    async def write(self, *statements: Statement, doing: str) -> int:
        return await self._file.write(lambda connection: _carry_out(connection, statements), doing=doing)

    async def aclose(self) -> None:
        await self._file.aclose()


def _carry_out(connection: sqlite3.Connection, statements: Sequence[Statement]) -> int:
    changed = 0
    try:
        for statement in statements:
            text, order = _in_sqlite(statement.sql)
            rows = ([arguments[place] for place in order] for arguments in statement.rows)
            changed = connection.executemany(text, rows).rowcount
    except sqlite3.IntegrityError as fault:
        if fault.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise ForeignKeyFault(str(fault)) from fault
        raise
    return changed


@functools.lru_cache(maxsize=256)
def _in_sqlite(sql: str) -> tuple[str, tuple[int, ...]]:
    """The statement with SQLite's placeholders, and the argument for each of them."""
    order = tuple(int(place) - 1 for place in _PLACEHOLDER.findall(sql))
    return _PLACEHOLDER.sub("?", sql), order
