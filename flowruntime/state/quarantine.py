"""Which record a process died on: a marker per running workflow, a note per record that is worked on alone.

Owns: the rule (`blamed`), and what is read and written in both tables.
Does not own: the tables (positions, in whose file they are), working on records one by one, the letters of
quarantined ones (flowruntime.execute.careful).

Most processes die of something else than a record (a deployment, the machine), so one death says little: only
after `SUSPICIOUS` deaths in a row, with no progress between, are records worked on one by one.

Always holds: a marker is durable before a record is read, and gone when its run has ended in whatever way
the process survived; a note is durable before its record is begun. What is found at a start was therefore
left by a process that died, and the record under an active note is one it died on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from flowruntime.state.positions import PositionStore


SUSPICIOUS: Final = 2
"""Deaths in a row after which it may be a record's fault."""

Record = tuple[str, str, bytes]
"""Node, partition and position, encoded: which record it is."""


def blamed(left: Iterable[tuple[Record, int, bool]]) -> dict[Record, int]:
    """How often processes died on each record, from the notes one that died has left.

    Args:
        left: record, deaths before, whether it was being worked on.
    """
    return {record: deaths + active for record, deaths, active in left if deaths or active}


class Deaths:
    """The marker and the notes of one workflow.

    Args:
        store: of positions, in whose file they are.
        workflow: its name.
    """

    def __init__(self, store: PositionStore, workflow: str) -> None:
        self._store = store
        self._workflow = workflow
        self._run = ""
        self._deaths: dict[Record, int] = {}
        self.in_a_row = 0
        """Processes that died running the workflow, without progress between."""

    @property
    def suspicious(self) -> bool:
        """Whether records are to be worked on one by one."""
        return self.in_a_row >= SUSPICIOUS or bool(self._deaths)

    async def begin(self, run: str) -> None:
        """Mark the workflow as running, and find out whether processes that ran it have died."""

        def work(connection: sqlite3.Connection) -> tuple[int, list[Any]]:
            where = (self._workflow,)
            left = connection.execute(
                "SELECT run, pid, deaths FROM running WHERE workflow = ?", where
            ).fetchall()
            dead = [(name, before) for name, pid, before in left if not _lives(name, pid)]
            connection.executemany("DELETE FROM running WHERE run = ?", [(name,) for name, _ in dead])
            in_a_row = 1 + max(before for _, before in dead) if dead else 0
            mark = (run, self._workflow, os.getpid(), in_a_row)
            connection.execute("INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?)", mark)
            if not dead:
                return 0, []
            notes = connection.execute(
                "SELECT node, partition, position, deaths, active FROM notes WHERE workflow = ?", where
            ).fetchall()
            found = blamed(
                ((node, name, where), deaths, active) for node, name, where, deaths, active in notes
            )
            connection.executemany(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, 0)",
                [(self._workflow, *record, deaths) for record, deaths in found.items()],
            )
            return in_a_row, list(found.items())

        self._run = run
        _ALIVE.add(run)
        self.in_a_row, found = await self._store.transact(work, "begin")
        self._deaths = dict(found)

    async def progressed(self) -> None:
        """More is committed than may come again: whatever the last process died of lies behind."""
        self.in_a_row = 0
        await self._store.transact(
            lambda connection: connection.execute(
                "UPDATE running SET deaths = 0 WHERE run = ?", (self._run,)
            ),
            "progressed",
        )

    async def note(self, node: str, partition: str, position: object) -> int:
        """Write down that a record is begun; how often a process has died on it before."""
        record = (node, partition, msgspec.json.encode(position))
        deaths = self._deaths.get(record, 0)
        row = (self._workflow, *record, deaths)
        await self._store.transact(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, 1)", row
            ),
            "note",
        )
        return deaths

    async def clear(self, node: str, partition: str, position: object) -> None:
        """The record that was begun has settled."""
        record = (node, partition, msgspec.json.encode(position))
        self._deaths.pop(record, None)
        row = (self._workflow, *record)
        await self._store.transact(
            lambda connection: connection.execute(
                "DELETE FROM notes WHERE workflow = ? AND node = ? AND partition = ? AND position = ?", row
            ),
            "clear",
        )

    async def end(self) -> None:
        """The run has ended, and the process has not died."""
        where = (self._workflow,)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM running WHERE run = ?", (self._run,))
            if not connection.execute("SELECT 1 FROM running WHERE workflow = ?", where).fetchall():
                connection.execute("DELETE FROM notes WHERE workflow = ?", where)

        _ALIVE.discard(self._run)
        await self._store.transact(work, "end")


_ALIVE: Final[set[str]] = set()
"""Runs of this process."""


def _lives(run: str, pid: int) -> bool:
    """Whether a run is at work, here or in another process that has that id."""
    if pid == os.getpid():
        return run in _ALIVE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
