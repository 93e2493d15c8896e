"""The journal in SQL: many entries, one commit.

Owns: the statements on `flow_journal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flowruntime.state.store.codec import MAX_ID_BYTES, check_text
from flowruntime.state.store.database import Database, Statement, insert, select
from flowruntime.state.store.entries import JournalEntry
from flowruntime.state.store.refusals import readable
from flowruntime.state.store.rows import JOURNAL, Row, journal_entry, journal_row

_KEY: Final = ("execution_id", "node", "path", "call")
_INSERT: Final = insert("flow_journal", JOURNAL)
_GET: Final = select(JOURNAL, "flow_journal", "WHERE execution_id = $1 ORDER BY node, path, call")
_DROP: Final = "DELETE FROM flow_journal WHERE execution_id = $1"


class SqlJournal:
    """See `flowruntime.state.store.protocol.JournalStore`."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database

    async def put(self, entries: Sequence[JournalEntry]) -> None:
        if entries:
            # In the order of their keys: two puts of the same entries then never wait for each other.
            rows = sorted((journal_row(entry) for entry in entries), key=_key)
            await self._database.write(Statement(_INSERT, rows), doing="journal.put")

    async def get_all(self, execution_id: str) -> Sequence[JournalEntry]:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        rows = await self._database.read(_GET, execution_id, doing="journal.get_all")
        with readable(self._database.url, f"the journal of execution {execution_id!r}"):
            return [journal_entry(row) for row in rows]

    async def drop(self, execution_id: str) -> None:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        await self._database.write(Statement.of(_DROP, execution_id), doing="journal.drop")


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[: len(_KEY)])
