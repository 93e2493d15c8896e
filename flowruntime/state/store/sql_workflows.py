"""Workflows in SQL: versions are numbered by insertion, and a race for a number is run again.

Owns: the statements on `flow_workflows`. Does not own: their form as text (codec), the schema.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from flowcore.workflow import Workflow
from flowruntime.state.store.codec import (
    MAX_NAME_BYTES,
    check_text,
    check_version,
    checked_limit,
    checked_time,
    write_workflow,
)
from flowruntime.state.store.database import Database, ForeignKeyFault, Statement, insert, select
from flowruntime.state.store.entries import Page, StoredWorkflow, WorkflowHead
from flowruntime.state.store.paging import (
    Query,
    after_version,
    after_workflow,
    page_of,
    version_cursor,
    workflow_cursor,
)
from flowruntime.state.store.refusals import ambiguous, in_use, no_version, not_stored, readable
from flowruntime.state.store.rows import DOCUMENT, WORKFLOW, stored_workflow, workflow_head, workflow_row

_SELECT: Final = select(WORKFLOW, "flow_workflows")
_SELECT_ALL: Final = select((*WORKFLOW, *DOCUMENT), "flow_workflows")
_INSERT: Final = insert("flow_workflows", (*WORKFLOW, *DOCUMENT))
_NEWEST: Final = select(WORKFLOW, "flow_workflows", "WHERE id = $1 ORDER BY version DESC LIMIT 1")
_DELETE_ALL: Final = "DELETE FROM flow_workflows WHERE id = $1"
_DELETE_ONE: Final = "DELETE FROM flow_workflows WHERE id = $1 AND version = $2"
_IDS_OF_NAME: Final = "SELECT DISTINCT id FROM flow_workflows WHERE name = $1 ORDER BY id LIMIT 6"
_IS_NEWEST: Final = (
    "version = (SELECT MAX(version) FROM flow_workflows AS other WHERE other.id = flow_workflows.id)"
)


class SqlWorkflows:
    """See `flowruntime.state.store.protocol.WorkflowStore`."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database

    async def put(self, workflow: Workflow, *, at: float | None = None) -> WorkflowHead:
        created_at = time.time() if at is None else checked_time("at", at)
        id = str(workflow.id or workflow.name)
        check_text("id of a workflow", id, most_bytes=MAX_NAME_BYTES)
        check_text("name of a workflow", workflow.name, most_bytes=MAX_NAME_BYTES)
        document, hash = write_workflow(workflow)
        while True:
            newest = await self._newest(id)
            if newest is not None and newest.hash == hash:
                return newest
            version = 1 if newest is None else newest.version + 1
            head = WorkflowHead(id=id, version=version, name=workflow.name, hash=hash, created_at=created_at)
            row = (*workflow_row(head), document)
            if await self._database.write(Statement.of(_INSERT, *row), doing="workflows.put"):
                return head
            # Another one took the number meanwhile.

    async def get(self, name: str, version: int | None = None) -> StoredWorkflow:
        check_version(version)
        id = await self._id_of(name)
        query = Query(_SELECT_ALL)
        query.where("id = ?", id)
        if version is not None:
            query.where("version = ?", version)
        rows = await self._database.read(
            query.sql("version DESC", 1), *query.arguments, doing="workflows.get"
        )
        if not rows:
            raise no_version(self._database.url, name, version)
        with readable(self._database.url, f"workflow {name!r}"):
            return stored_workflow(rows[0])

    async def list(self, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        query = Query(_SELECT)
        query.where(_IS_NEWEST)
        if after is not None:
            query.where("id > ?", *after_workflow(after))
        return await self._page(query, "id", limit, workflow_cursor)

    async def versions(self, name: str, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        query = Query(_SELECT)
        query.where("id = ?", await self._id_of(name))
        if after is not None:
            query.where("version < ?", *after_version(after))
        return await self._page(query, "version DESC", limit, version_cursor)

    async def delete(self, name: str, version: int | None = None) -> None:
        check_version(version)
        id = await self._id_of(name)
        every, one = Statement.of(_DELETE_ALL, id), Statement.of(_DELETE_ONE, id, version)
        try:
            gone = await self._database.write(every if version is None else one, doing="workflows.delete")
        except ForeignKeyFault as fault:
            raise in_use(self._database.url, id, version) from fault
        if not gone:
            raise no_version(self._database.url, name, version)

    async def _newest(self, id: str) -> WorkflowHead | None:
        rows = await self._database.read(_NEWEST, id, doing="workflows.put")
        with readable(self._database.url, f"workflow {id!r}"):
            return workflow_head(rows[0]) if rows else None

    async def _id_of(self, name: str) -> str:
        """The id that `name` is, or that the one workflow of that name has."""
        check_text("name of a workflow", name, most_bytes=MAX_NAME_BYTES)
        if await self._newest(name) is not None:
            return name
        rows = await self._database.read(_IDS_OF_NAME, name, doing="workflows.get")
        ids = [str(row[0]) for row in rows]
        if not ids:
            raise not_stored(self._database.url, "workflow", name)
        if len(ids) > 1:
            raise ambiguous(self._database.url, name, ids)
        return ids[0]

    async def _page(
        self, query: Query, order: str, limit: int, cursor: Callable[[WorkflowHead], str]
    ) -> Page[WorkflowHead]:
        sql = query.sql(order, checked_limit(limit) + 1)
        rows = await self._database.read(sql, *query.arguments, doing="workflows.list")
        with readable(self._database.url, "a workflow"):
            return page_of([workflow_head(row) for row in rows], limit, cursor)
