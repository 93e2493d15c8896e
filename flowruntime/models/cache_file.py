"""Answers given before, in a file: `.flow/cache.sqlite`, for other runs and processes of the project.

Owns: the format of the file and its one table, what is let go of.
Does not own: which request may be answered from it (gateway), work on it off the loop (sqlite_file).

Always holds: a row whose checksum differs is a miss and is deleted. At most `MAX_BYTES` of answers and
`MAX_ENTRIES` are kept, the oldest go first. A file that cannot be used costs its answers and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flowcore.store_errors import StoreError
from flowruntime.models.kept import Answer, DamagedAnswerError, checked, packed, sum_of
from flowruntime.state.sqlite_file import SqliteFile
from flowruntime.state.sqlite_format import SqliteFormat

MAX_BYTES: Final = 1024 * 1024 * 1024
MAX_ENTRIES: Final = 1_000_000
_CHECKED_EVERY: Final = 256
"""Writes between two looks at how much there is."""

FORMAT: Final = SqliteFormat(
    what="a cache of answers",
    mark=0x466C5243,  # FlRC
    migrations=(
        (
            """
            CREATE TABLE answers (
                hash TEXT NOT NULL PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL, sum INTEGER NOT NULL
            ) WITHOUT ROWID
            """,
            "CREATE INDEX answers_by_age ON answers (at)",
        ),
    ),
)


class FileCache:
    """By content hash.

    Args:
        folder: `.flow` of the project.
        report: told once of what makes the file useless.
        max_bytes, max_entries: kept at most.

    Holds: two threads and two connections once used.
    """

    def __init__(
        self,
        folder: str,
        report: Callable[[str], None],
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._file: Final = SqliteFile(Path(folder) / "cache.sqlite", FORMAT)
        self._report: Final = report
        self._max_bytes: Final = max_bytes
        self._max_entries: Final = max_entries
        self._written = 0
        self._broken = False
        self.hits = self.misses = self.damaged = 0

    async def get(self, name: str, wall_s: float, ttl_s: float | None) -> Answer | None:
        """The answer kept under that hash, unless it is older than that or damaged."""
        rows: list[Any] = []
        if not self._broken:
            try:
                rows = await self._file.read(lambda connection: _found(connection, name), doing="look up")
            except StoreError as fault:
                self._break(fault)
        if not rows or (ttl_s is not None and wall_s - rows[0][0] > ttl_s):
            self.misses += 1
            return None
        at, body, found = rows[0]
        try:
            answer = checked(body, found, name, at)
        except DamagedAnswerError:
            self.damaged += 1
            self.misses += 1
            await self._write(lambda connection: connection.execute(_DELETE, (name,)))
            return None
        self.hits += 1
        return answer

    async def put(self, name: str, answer: Answer, wall_s: float) -> None:
        """Keep an answer."""
        body = packed(answer)
        row = (name, wall_s, body, sum_of(name, wall_s, body))
        self._written += 1
        look = self._written % _CHECKED_EVERY == 1

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
            if look:
                self._shrink(connection)

        await self._write(work)

    async def aclose(self) -> None:
        """Close the file. Idempotent."""
        await self._file.aclose()

    async def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        if self._broken:
            return
        try:
            await self._file.write(work, doing="keep")
        except StoreError as fault:
            self._break(fault)

    def _break(self, fault: StoreError) -> None:
        if not self._broken:
            self._broken = True
            self._report(
                f"answers of models are not cached any more: {fault}; calls are made as if there were no "
                f"cache"
            )

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Let go of the oldest, down to nine tenths of what is allowed; on the thread that writes."""
        count, nbytes = connection.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM answers"
        ).fetchone()
        if count <= self._max_entries and nbytes <= self._max_bytes:
            return
        few, little = 0.9 * self._max_entries, 0.9 * self._max_bytes
        for name, size in connection.execute("SELECT hash, length(body) FROM answers ORDER BY at").fetchall():
            if count <= few and nbytes <= little:
                return
            connection.execute(_DELETE, (name,))
            count, nbytes = count - 1, nbytes - size


_DELETE: Final = "DELETE FROM answers WHERE hash = ?"


def _found(connection: sqlite3.Connection, name: str) -> list[Any]:
    return connection.execute("SELECT at, body, sum FROM answers WHERE hash = ?", (name,)).fetchall()
