"""The call journal: what a record's calls gave, until the record is committed, so that it is paid once.

Owns: `CallJournal`, `.flow/calls.sqlite`; `CallName`, which call of which record an entry is.
Does not own: which calls are journaled (policy), where a record stands (sources), work off the loop
(sqlite_file).

Always holds: an answer is durable before the node gets it. A record that comes again after its process died
gets the same answers for the same requests; a request that has changed is made anew. Entries go with the
commit of their record's position, or of its request's end; what no commit reaches is let go of after
`KEPT_S`.

What is paid twice in spite of it: calls under way when the process died, whose answers had not been written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from flowcore.store_errors import StoreDamagedError
from flowruntime.crashpoints import crash_point
from flowruntime.models.kept import Answer, DamagedAnswerError, checked, packed, sum_of
from flowruntime.state.sqlite_file import SqliteFile
from flowruntime.state.sqlite_format import SqliteFormat

KEPT_S: Final = 7 * 86_400.0

FORMAT: Final = SqliteFormat(
    what="a journal of calls",
    mark=0x466C524A,  # FlRJ
    migrations=(
        (
            """
            CREATE TABLE calls (
                record TEXT NOT NULL, call TEXT NOT NULL, request TEXT NOT NULL, at REAL NOT NULL,
                body BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (record, call)
            ) WITHOUT ROWID
            """,
            "CREATE INDEX calls_by_age ON calls (at)",
            "CREATE INDEX calls_by_call ON calls (call)",
        ),
    ),
)


class CallName(NamedTuple):
    """Which call it is."""

    record: str
    """Workflow, source, partition and position; or the execution."""
    call: str
    """Lineage of the row, node, hash of its configuration, number of the call."""


class CallJournal:
    """The entries of one project.

    Args:
        folder: `.flow` of the project.

    Holds: two threads and two connections once used; the name of each record with entries.
    """

    def __init__(self, folder: str) -> None:
        self._file: Final = SqliteFile(Path(folder) / "calls.sqlite", FORMAT)
        self._records: set[str] | None = None
        """Those with entries; None: not read yet."""
        self.hits = self.kept = 0

    async def find(
        self, name: CallName, request: str, wall_s: float, *, anywhere: bool = False
    ) -> Answer | None:
        """What the call gave before; None: it was not made, or asked for something else.

        Args:
            name: of the call.
            request: its content hash.
            wall_s: now, Unix seconds.
            anywhere: whatever record made the call.

        Raises:
            StoreError: the journal cannot be read, or the entry is damaged: going on would pay again.
        """
        if self._records is None:
            records = await self._file.write(lambda connection: _begin(connection, wall_s), doing="open")
            self._records = set(records) | (self._records or set())
        if not (self._records if anywhere else name.record in self._records):
            return None
        rows = await self._file.read(
            lambda connection: _found(connection, name, anywhere), doing="look up a call"
        )
        if not rows or rows[0][2] != request:
            return None
        record, call, asked, at, body, found = rows[0]
        try:
            answer = checked(body, found, record, call, asked, at)
        except DamagedAnswerError as fault:
            raise StoreDamagedError(
                f"store {self._file.url}: the entry of call {name.call!r} of record {record!r} is damaged: "
                f"{fault}; delete the file to pay for the calls of unfinished records again",
                url=self._file.url,
            ) from fault
        self.hits += 1
        return answer

    async def keep(self, name: CallName, request: str, answer: Answer, wall_s: float) -> None:
        """Keep what the call gave, durably.

        Raises:
            StoreError: it cannot be kept.
        """
        body = packed(answer)
        row = (*name, request, wall_s, body, sum_of(*name, request, wall_s, body))
        if self._records is not None:
            self._records.add(name.record)
        crash_point("calls.before_journal")
        await self._file.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?)", row
            ),
            doing="keep a call",
        )
        crash_point("calls.after_journal")
        self.kept += 1

    async def forget(self, records: Iterable[str]) -> None:
        """These records are committed and will not come again.

        Raises:
            StoreError: their entries could not be deleted; they are let go of later.
        """
        known = self._records or set()
        gone = [(record,) for record in records if record in known]
        if not gone:
            return
        await self._file.write(
            lambda connection: connection.executemany("DELETE FROM calls WHERE record = ?", gone),
            doing="forget calls",
        )
        known.difference_update(record for (record,) in gone)

    def statistics(self) -> dict[str, Any]:
        """Hits and entries written since the start, records with entries now."""
        return {"hits": self.hits, "kept": self.kept, "records": len(self._records or ())}

    async def aclose(self) -> None:
        """Close the file. Idempotent."""
        await self._file.aclose()


def _found(connection: sqlite3.Connection, name: CallName, anywhere: bool) -> list[Any]:  # noqa: FBT001 - of `find`
    if anywhere:
        return connection.execute("SELECT * FROM calls WHERE call = ? LIMIT 1", (name.call,)).fetchall()
    return connection.execute("SELECT * FROM calls WHERE record = ? AND call = ?", name).fetchall()


def _begin(connection: sqlite3.Connection, wall_s: float) -> list[str]:
    """Let go of what is too old; the records that are left."""
    connection.execute("DELETE FROM calls WHERE at < ?", (wall_s - KEPT_S,))
    return [str(row[0]) for row in connection.execute("SELECT DISTINCT record FROM calls")]
