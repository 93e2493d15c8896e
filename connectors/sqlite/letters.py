"""Dead letters in a SQLite database: one table, found by index, changed in place beside the letter itself.

Owns: `SqliteLetters`, the schema and its version.
Does not own: the rules of steps and edits (flowcore.dead_letters), the sink type (sqlite.dead_letters).

Always holds: what a call wrote is on the disk when it has returned (synchronous FULL); a letter's own row is
never rewritten but for the columns beside it; a database of something else, or of a later version, is refused
and not touched. Blocking calls run in a thread, one at a time.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from connectors.turns import Turns
from flowcore.dead_letters import (
    EVERY_LETTER,
    BrokenEntry,
    DeadLetter,
    Filed,
    LetterFilter,
    LetterPage,
    LetterState,
    changes_state,
    with_edit,
)
from flowcore.errors import LetterNotFoundError, ParseError, SinkError
from flowcore.letter_log import decode_entry, encode_entry

if TYPE_CHECKING:
    from collections.abc import Generator

    from flowcore.context import SinkContext

R = TypeVar("R")
Row = tuple[Any, ...]

MAGIC: Final = 0x464C444C
"""The `application_id` of such a database: FLDL."""
VERSION: Final = 1

_PATIENCE_S: Final = 30.0
_PLACE: Final = re.compile("[0-9]{1,18}")
_SCHEMA: Final = f"""
CREATE TABLE letters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, node TEXT NOT NULL,
    error TEXT NOT NULL, letter BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'pending', edit BLOB,
    note TEXT NOT NULL DEFAULT '', changed_at REAL
);
CREATE INDEX letters_by_state ON letters (state, seq);
CREATE INDEX letters_by_time ON letters (at);
PRAGMA application_id = {MAGIC};
PRAGMA user_version = {VERSION};
"""
_COLUMNS: Final = "seq, id, letter, state, edit, note, changed_at"


class SqliteLetters:
    """A store of dead letters; see `flowcore.dead_letters.DeadLetterStore`.

    Settles         when `write` returns: the transaction is on the disk.
    Waits           at most 30 s for another writer of the database.
    Holds           what is written, or one page.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        """As given; used in messages."""
        self._path = Path(path)
        self._ctx: SinkContext | None = None
        self._connection: sqlite3.Connection | None = None
        self._turns = Turns()

    async def open(self, ctx: SinkContext) -> None:
        """Nothing is made before the first write."""
        self._path = Path(ctx.allowed_path(self.path))
        self._ctx = ctx

    async def close(self) -> None:
        self._ctx = None
        await self._turns.run(self._disconnect)

    # --- the protocol -----------------------------------------------------------------------------------

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        given = list(letters)

        def insert(connection: sqlite3.Connection) -> None:
            rows = [(each.id, each.at, each.node, each.error.kind, encode_entry(each)) for each in given]
            connection.executemany(
                "INSERT OR IGNORE INTO letters (id, at, node, error, letter) VALUES (?, ?, ?, ?, ?)", rows
            )

        await self._change(insert)

    async def list(
        self, wanted: LetterFilter = EVERY_LETTER, *, limit: int = 100, after: str | None = None
    ) -> LetterPage:
        if after is not None and _PLACE.fullmatch(after) is None:
            raise LetterNotFoundError(
                f"{after!r} is no place in {self.path!r}; give what the page before named as next",
                letter=after,
            )
        condition, arguments = _condition(wanted, int(after or 0))
        statement = f"SELECT {_COLUMNS} FROM letters WHERE {condition} ORDER BY seq LIMIT ?"  # noqa: S608 - names of columns; values are bound
        rows = await self._read(statement, (*arguments, limit + 1))
        shown = rows[:limit]
        letters: list[Filed] = []
        broken: list[BrokenEntry] = []
        for row in shown:
            try:
                letters.append(_filed(row))
            except (ParseError, msgspec.MsgspecError) as fault:
                broken.append(BrokenEntry(where=f"{self.path}: letter {row[1]}", reason=str(fault)))
        place = str(shown[-1][0]) if len(rows) > limit and shown else None
        return LetterPage(letters=tuple(letters), next=place, broken=tuple(broken))

    async def get(self, letter_id: str) -> Filed:
        statement = f"SELECT {_COLUMNS} FROM letters WHERE id = ?"  # noqa: S608 - names of columns
        rows = await self._read(statement, (letter_id,))
        return self._only(rows, letter_id)

    async def replace(self, letter_id: str, record: object) -> Filed:
        at = self._context.now().timestamp()

        def edit(connection: sqlite3.Connection) -> Filed:
            statement = f"SELECT {_COLUMNS} FROM letters WHERE id = ?"  # noqa: S608 - names of columns
            found = self._only(connection.execute(statement, (letter_id,)).fetchall(), letter_id)
            changed = with_edit(found, record, at=at)
            connection.execute(
                "UPDATE letters SET edit = ?, changed_at = ? WHERE id = ?",
                (msgspec.json.encode(record), at, letter_id),
            )
            return changed

        return await self._change(edit)

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        wanted = msgspec.json.encode(list(ids)).decode()
        at = self._context.now().timestamp()

        def update(connection: sqlite3.Connection) -> None:
            found: list[tuple[str, LetterState]] = connection.execute(
                "SELECT id, state FROM letters WHERE id IN (SELECT value FROM json_each(?))", (wanted,)
            ).fetchall()
            due = [letter_id for letter_id, now in found if changes_state(letter_id, now, state)]
            connection.executemany(
                "UPDATE letters SET state = ?, note = ?, changed_at = ? WHERE id = ?",
                [(state, note, at, letter_id) for letter_id in due],
            )

        await self._change(update)

    # --- the database ---------------------------------------------------------------------------------

    @property
    def _context(self) -> SinkContext:
        if self._ctx is None:
            raise SinkError(f"{self.path!r} is not open for dead letters", path=self.path)
        return self._ctx

    def _only(self, rows: Sequence[Row], letter_id: str) -> Filed:
        if not rows:
            raise LetterNotFoundError(
                f"{self.path!r} has no dead letter with the id {letter_id!r}; `flow dlq list` shows those "
                "there are",
                letter=letter_id,
            )
        try:
            return _filed(rows[0])
        except (ParseError, msgspec.MsgspecError) as fault:
            raise SinkError(
                f"{self.path!r}: letter {letter_id} cannot be read: {fault}; restore the database, or see "
                "the column letter of its row",
                path=self.path,
            ) from fault

    async def _read(self, statement: str, arguments: Sequence[Any]) -> Sequence[Row]:
        """The rows; none where there is no database yet."""
        self._context  # noqa: B018 - raises when it is closed

        def select() -> Sequence[Row]:
            if self._connection is None and not self._path.exists():
                return ()
            with self._translated("read"):
                return self._connected().execute(statement, tuple(arguments)).fetchall()

        return await self._turns.run(select)

    async def _change(self, change: Callable[[sqlite3.Connection], R]) -> R:
        """Do `change` in one transaction."""
        self._context  # noqa: B018 - raises when it is closed

        def transact() -> R:
            with self._translated("write"):
                connection = self._connected()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = change(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise
                return result

        return await self._turns.run(transact)

    @contextmanager
    def _translated(self, doing: str) -> Generator[None]:
        try:
            yield
        except SinkError:
            raise
        except (sqlite3.Error, OSError) as fault:
            raise SinkError(
                f"cannot {doing} the dead letters in {self.path!r}: {fault}; check that it is a database of "
                "dead letters, its folder's permissions and free space",
                path=self.path,
            ) from fault

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, check_same_thread=False, timeout=_PATIENCE_S, isolation_level=None
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in an empty database; refuse what is not ours."""
        if _identity(connection) == (0, 0) and not _tables(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            self._make_table(connection)
        magic, version = _identity(connection)  # read anew: another store may have made the table just now
        if (magic, version) != (MAGIC, VERSION):
            known = f"dead letters of version {version}, this is version {VERSION}"
            what = known if magic == MAGIC else "something else"
            raise SinkError(
                f"{self.path!r} is a database of {what}; name another file. It was not touched",
                path=self.path,
                version=version,
            )
        connection.execute("PRAGMA synchronous = FULL")

    def _make_table(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not _tables(connection):  # else another process was faster
                for statement in _SCHEMA.split(";")[:-1]:
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # a full disk ends it by itself
        connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    found: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return found


def _identity(connection: sqlite3.Connection) -> tuple[int, int]:
    """The marks a database bears from the commit on that makes its tables."""
    return _pragma(connection, "application_id"), _pragma(connection, "user_version")


def _tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())


def _condition(wanted: LetterFilter, after: int) -> tuple[str, list[Any]]:
    """The filter as SQL, and what is bound to it."""
    parts = ["seq > ?"]
    bound: list[Any] = [after]
    for condition, names in (
        ("id IN (SELECT value FROM json_each(?))", wanted.ids),
        ("node IN (SELECT value FROM json_each(?))", wanted.nodes),
        ("error IN (SELECT value FROM json_each(?))", wanted.errors),
        ("state IN (SELECT value FROM json_each(?))", wanted.states),
    ):
        if names:
            parts.append(condition)
            bound.append(msgspec.json.encode(sorted(names)).decode())
    if wanted.since is not None:
        parts.append("at >= ?")
        bound.append(wanted.since)
    return " AND ".join(parts), bound


def _filed(row: Row) -> Filed:
    """A row as its letter.

    Raises:
        ParseError, MsgspecError: it is none.
    """
    _, letter_id, raw, state, edit, note, changed_at = row
    letter = decode_entry(raw)
    if not isinstance(letter, DeadLetter):
        raise ParseError(f"the row of {letter_id} holds no letter", reason="another entry")
    record = msgspec.UNSET if edit is None else msgspec.json.decode(edit)
    return Filed(letter=letter, state=state, edit=record, note=note, changed_at=changed_at)
