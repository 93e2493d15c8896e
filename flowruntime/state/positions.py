"""Committed positions of sources whose system keeps none: one SQLite file, by workflow, node and partition.

Owns: the file and its one table. Does not own: what a position means (connectors), when to commit (run).

Always holds: a saved position is durable when `save` returns; work is done off the loop thread, one call at
a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from flowcore.errors import SourceError


def position_name(node_id: str, node_type: str) -> str:
    """Under which name a source's positions are kept: another type under an old id does not inherit them."""
    return f"{node_id}:{node_type}"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (
    workflow TEXT NOT NULL, node TEXT NOT NULL, partition TEXT NOT NULL, position BLOB NOT NULL,
    PRIMARY KEY (workflow, node, partition)
)
"""


class PositionStore:
    """Positions in `folder/positions.sqlite`; the file is made with the first save."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "positions.sqlite"
        self._lock = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None

    async def load(self, workflow: str, node: str, partition: str) -> Any | None:
        """The committed position; None when there is none.

        Raises:
            SourceError: the file cannot be read.
        """
        if not self._path.exists():
            return None
        rows = await self._run(
            "SELECT position FROM positions WHERE workflow = ? AND node = ? AND partition = ?",
            (workflow, node, partition),
        )
        return msgspec.json.decode(rows[0][0]) if rows else None

    async def save(self, workflow: str, node: str, partition: str, position: Any) -> None:
        """Keep a committed position, durably.

        Raises:
            SourceError: it cannot be written; nothing was changed.
        """
        await self._run(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
            (workflow, node, partition, msgspec.json.encode(position)),
        )

    async def forget(self, workflow: str, node: str) -> None:
        """Begin a source anew."""
        if self._path.exists():
            await self._run("DELETE FROM positions WHERE workflow = ? AND node = ?", (workflow, node))

    async def _run(self, statement: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        async with self._lock:
            work = asyncio.ensure_future(asyncio.to_thread(self._execute, statement, arguments))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await _ended(work)  # its thread goes on, and no other may use the connection
                raise

    def _execute(self, statement: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(self._path, check_same_thread=False, timeout=30)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute(_SCHEMA)
            with self._connection:
                return self._connection.execute(statement, arguments).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise SourceError(
                f"positions file {str(self._path)!r}: {error}; check the folder's permissions and free "
                "space, or run with --fresh after moving the file away",
                path=str(self._path),
            ) from error

    async def aclose(self) -> None:
        """Close the file. Idempotent."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await asyncio.to_thread(connection.close)


async def _ended(work: asyncio.Future[Any]) -> None:
    """Until `work` is done, whatever is cancelled meanwhile; its result or error is of no interest then."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()
