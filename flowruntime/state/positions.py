"""Committed positions of sources whose system keeps none: one SQLite file, by workflow, node and partition.

Owns: the format of the file and its one table.
Does not own: work on it off the loop (sqlite_file), what a position means (connectors), when to commit (run).

Always holds: a saved position is durable when `save` returns; a file that is damaged, or not of positions, is
an error and never an empty start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from flowcore.errors import SourceError
from flowcore.findings import shown
from flowcore.health import Health, HealthContext
from flowcore.store_errors import StoreError
from flowruntime.crashpoints import crash_point
from flowruntime.state.sqlite_file import SqliteFile, Work
from flowruntime.state.sqlite_format import SqliteFormat

T = TypeVar("T")

_NO_SUM: Final = -1
"""Of rows that were written before there were sums."""
_VERSION_1: Final = (
    """
    CREATE TABLE positions (
        workflow TEXT NOT NULL, node TEXT NOT NULL, partition TEXT NOT NULL, position BLOB NOT NULL,
        PRIMARY KEY (workflow, node, partition)
    )
    """,
)
_VERSION_2: Final = (f"ALTER TABLE positions ADD COLUMN sum INTEGER NOT NULL DEFAULT {_NO_SUM}",)
_VERSION_3: Final = (
    """
    CREATE TABLE running (
        run TEXT NOT NULL PRIMARY KEY, workflow TEXT NOT NULL, pid INTEGER NOT NULL, deaths INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE notes (
        workflow TEXT NOT NULL, node TEXT NOT NULL, partition TEXT NOT NULL, position BLOB NOT NULL,
        deaths INTEGER NOT NULL, active INTEGER NOT NULL, PRIMARY KEY (workflow, node, partition, position)
    )
    """,
)
"""Marks of running workflows, and notes of records worked on alone (flowruntime.state.quarantine)."""

FORMAT: Final = SqliteFormat(
    what="a file of positions",
    mark=0x466C5250,  # FlRP
    migrations=(_VERSION_1, _VERSION_2, _VERSION_3),
    unmarked_table="positions",
)


def position_name(node_id: str, node_type: str) -> str:
    """Under which name a source's positions are kept: another type under an old id does not inherit them."""
    return f"{node_id}:{node_type}"


def partition_name(partition: str) -> str:
    """A partition as it is kept: the name of a file need not be text, and then its bytes stand for it."""
    try:
        partition.encode()
    except UnicodeEncodeError:
        return "\0" + partition.encode("utf-8", "surrogateescape").decode("latin-1")
    return partition


def write_position(position: Any) -> bytes:
    """A position as it is kept."""
    return msgspec.json.encode(position)


def read_position(kept: bytes) -> Any:
    """The position that `write_position` wrote.

    Raises:
        SourceError: it did not write this.
    """
    try:
        return msgspec.json.decode(kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise SourceError(
            f"what was kept of a position is damaged: {fault} (it begins with {shown(kept[:60])}); restore "
            "the file of positions from a copy, or move it away and run with --fresh"
        ) from fault


class PositionStore:
    """Positions in `folder/positions.sqlite`; the file is made with the first save.

    Holds: two threads and two connections once used.
    """

    def __init__(self, folder: str) -> None:
        self._file: Final = SqliteFile(Path(folder) / "positions.sqlite", FORMAT)

    async def load(self, workflow: str, node: str, partition: str) -> Any | None:
        """The committed position; None when there is none.

        Raises:
            SourceError: the file cannot be read.
        """
        if not self._file.path.exists():
            return None
        with self._translated():
            rows = await self._file.read(
                lambda connection: connection.execute(
                    "SELECT position, sum FROM positions WHERE workflow = ? AND node = ? AND partition = ?",
                    (workflow, node, _key(partition)),
                ).fetchall(),
                doing="load",
            )
        if not rows:
            return None
        kept, found = rows[0]
        if found not in (_NO_SUM, _sum(workflow, node, _key(partition), kept)):
            raise SourceError(
                f"positions file {str(self._file.path)!r}: the position of {partition!r} of {node!r} is not "
                "as it was written: its sum differs; restore the file from a copy, or move it away and run "
                "with --fresh",
                path=str(self._file.path),
            )
        return read_position(kept)

    async def save(self, workflow: str, node: str, partition: str, position: Any) -> None:
        """Keep a committed position, durably.

        Raises:
            SourceError: it cannot be written; nothing was changed.
        """
        data = write_position(position)
        await self._write(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
            (workflow, node, _key(partition), data, _sum(workflow, node, _key(partition), data)),
            "save",
        )

    async def forget(self, workflow: str, node: str) -> None:
        """Begin a source anew."""
        if self._file.path.exists():
            await self._write(
                "DELETE FROM positions WHERE workflow = ? AND node = ?", (workflow, node), "forget"
            )

    async def transact(self, work: Work[T], doing: str) -> T:
        """Do `work` on the file, as a whole or not at all, durably.

        Raises:
            SourceError: it cannot be written; nothing was changed.
        """
        with self._translated():
            return await self._file.write(work, doing=doing)

    async def health(self, ctx: HealthContext) -> Health:
        """Whether positions can be read; before the first is saved, whether the file could be made."""
        del ctx
        if self._file.path.exists():
            with self._translated():
                rows = await self._file.read(
                    lambda connection: connection.execute("SELECT count(*) FROM positions").fetchall(),
                    doing="count",
                )
            return Health("ok", f"{rows[0][0]} positions in {str(self._file.path)!r}")
        return await asyncio.to_thread(self._could_be_made)

    def _could_be_made(self) -> Health:
        folder = self._file.path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if os.access(folder, os.W_OK | os.X_OK):
            return Health("ok", f"nothing saved yet; {str(self._file.path)!r} can be made")
        return Health("failing", f"{str(folder)!r} may not be written to; give FlowRuntime(state_dir=...)")

    async def aclose(self) -> None:
        """Close the file. Idempotent."""
        await self._file.aclose()

    async def _write(self, statement: str, arguments: tuple[Any, ...], doing: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            crash_point("positions.before_write")
            connection.execute(statement, arguments)

        with self._translated():
            await self._file.write(work, doing=doing)
        crash_point("positions.after_write")

    @contextlib.contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except StoreError as fault:
            raise SourceError(
                f"positions file {str(self._file.path)!r}: {fault}; or move it away and run with --fresh",
                path=str(self._file.path),
            ) from fault


def _sum(*columns: object) -> int:
    """CRC-32 of a row: SQLite itself does not notice when a digit of a position has changed."""
    return zlib.crc32(msgspec.msgpack.encode(columns))


def _key(partition: str) -> str | bytes:
    """As SQLite takes it: the name of a file need not be text, and then it is kept as the bytes it is."""
    try:
        partition.encode()
    except UnicodeEncodeError:
        return partition.encode("utf-8", "surrogateescape")
    return partition
