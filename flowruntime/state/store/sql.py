"""A store over a database: its four parts behind one object.

Owns: putting them together. Does not own: the parts (the `sql_` modules), databases (sqlite, postgres).
"""

from __future__ import annotations

from typing import Final, Self

from flowruntime.state.store.database import Database
from flowruntime.state.store.sql_executions import SqlExecutions
from flowruntime.state.store.sql_journal import SqlJournal
from flowruntime.state.store.sql_waits import SqlWaits
from flowruntime.state.store.sql_workflows import SqlWorkflows


class SqlStore:
    """See `flowruntime.state.store.protocol.Store`."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self.workflows: Final = SqlWorkflows(database)
        self.executions: Final = SqlExecutions(database)
        self.waits: Final = SqlWaits(database)
        self.journal: Final = SqlJournal(database)

    @property
    def url(self) -> str:
        return self._database.url

    async def open(self) -> None:
        await self._database.open()

    async def ping(self) -> None:
        await self._database.read("SELECT 1", doing="ping")

    async def aclose(self) -> None:
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"
