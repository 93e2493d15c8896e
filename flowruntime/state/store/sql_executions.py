"""Executions in SQL: a step is one UPDATE that names the revision it was decided at.

Owns: the statements on `flow_executions`. Does not own: which steps are legal (entries), waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flowcore.states import WorkflowState
from flowruntime.state.store.codec import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    check_text,
    checked_limit,
    checked_time,
    checked_words,
)
from flowruntime.state.store.database import Database, ForeignKeyFault, Statement, insert, select, update
from flowruntime.state.store.entries import (
    ALL_EXECUTIONS,
    STATES,
    ExecutionFilter,
    ExecutionHead,
    Held,
    Page,
    StoredExecution,
    stepped,
)
from flowruntime.state.store.paging import Query, after_execution, execution_cursor, page_of
from flowruntime.state.store.refusals import already_stored, changed, no_workflow_for, not_stored, readable
from flowruntime.state.store.rows import (
    EXECUTION,
    INPUTS,
    RESULT,
    WAIT,
    execution_head,
    execution_row,
    new_execution_row,
    new_wait_row,
    stored_execution,
    value_row,
)

_ALL: Final = (*EXECUTION, *INPUTS, *RESULT)
_SELECT: Final = select(EXECUTION, "flow_executions")
_GET: Final = select(_ALL, "flow_executions", "WHERE id = $1")
_INSERT: Final = insert("flow_executions", _ALL)
_NEVER_CHANGED: Final = (
    "id", "workflow_id", "workflow_version", "workflow_hash", "created_at", *INPUTS,
)  # fmt: skip
_CHANGED: Final = ("state", "state_text", "revision", "started_at", "ended_at", "owner", "row_sum", *RESULT)
_STEP: Final = update("flow_executions", _CHANGED, where=("id", "revision"))
_ENDED: Final = "SELECT id FROM flow_executions WHERE ended_at < $1 ORDER BY ended_at LIMIT $2"
_ENDED_BY: Final = (
    "SELECT id FROM flow_executions WHERE ended_at < $1 AND owner = $2 ORDER BY ended_at LIMIT $3"
)
_INSERT_WAIT: Final = insert("flow_waits", WAIT)
_PRUNED_AT_ONCE: Final = 200


class SqlExecutions:
    """See `flowruntime.state.store.protocol.ExecutionStore`."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database

    async def create(self, execution: StoredExecution) -> None:
        row = new_execution_row(execution)
        try:
            new = await self._database.write(Statement.of(_INSERT, *row), doing="executions.create")
        except ForeignKeyFault as fault:
            raise no_workflow_for(self._database.url, execution) from fault
        if not new and not await self._is_there(execution.id, row):
            raise already_stored(self._database.url, "execution", execution.id)

    async def hold(self, held: Sequence[Held]) -> frozenset[str]:
        if not held:
            return frozenset()
        held = sorted(held, key=lambda each: each.execution.id)  # in one order everywhere: no deadlock
        executions = [new_execution_row(each.execution) for each in held]
        query = Query("SELECT id FROM flow_executions")
        query.one_of("id", [each.execution.id for each in held])
        found = await self._database.read(
            query.sql("id", len(held)), *query.arguments, doing="executions.hold"
        )
        there = frozenset(row[0] for row in found)
        waits = [new_wait_row(wait) for each in held if each.execution.id not in there for wait in each.waits]
        try:
            statements = [Statement(_INSERT, executions), Statement(_INSERT_WAIT, waits)]
            await self._database.write(*(each for each in statements if each.rows), doing="executions.hold")
        except ForeignKeyFault as fault:
            raise no_workflow_for(self._database.url, held[0].execution) from fault
        return there

    async def get(self, id: str) -> StoredExecution:
        row = await self._row(id)
        with readable(self._database.url, f"execution {id!r}"):
            return stored_execution(row)

    async def step(
        self,
        execution: ExecutionHead,
        following: WorkflowState,
        *,
        at: float,
        by: str = "",
        result: Any = None,
    ) -> ExecutionHead:
        after = stepped(execution, following, at=checked_time("at", at), by=by, result=result)
        row = dict(zip(EXECUTION, execution_row(after), strict=True))
        row |= dict(zip(RESULT, value_row(after.id, result, what="result"), strict=True))
        changes = [row[name] for name in _CHANGED]
        statement = Statement.of(_STEP, *changes, execution.id, execution.revision)
        if not await self._database.write(statement, doing="executions.step"):
            await self._check_taken(execution, after, [row[name] for name in (*EXECUTION, *RESULT)])
        return after

    async def list(
        self, filter: ExecutionFilter = ALL_EXECUTIONS, *, limit: int = 100, after: str | None = None
    ) -> Page[ExecutionHead]:
        query = Query(_SELECT)
        if filter.workflow_id is not None:
            check_text("workflow_id", filter.workflow_id, most_bytes=MAX_NAME_BYTES)
            query.where("workflow_id = ?", filter.workflow_id)
        query.one_of("state", checked_words("states", filter.states, STATES))
        if filter.owner is not None:
            check_text("owner", filter.owner, most_bytes=MAX_ID_BYTES, empty=True)
            query.where("owner = ?", filter.owner)
        if filter.created_from is not None:
            query.where("created_at >= ?", checked_time("created_from", filter.created_from))
        if filter.created_before is not None:
            query.where("created_at < ?", checked_time("created_before", filter.created_before))
        if after is not None:
            query.where("(created_at, id) < (?, ?)", *after_execution(after))
        sql = query.sql("created_at DESC, id DESC", checked_limit(limit) + 1)
        rows = await self._database.read(sql, *query.arguments, doing="executions.list")
        with readable(self._database.url, "an execution"):
            return page_of([execution_head(row) for row in rows], limit, execution_cursor)

    async def prune(self, ended_before: float, *, owner: str | None = None) -> int:
        pruned = 0
        query, arguments = _ENDED, [checked_time("ended_before", ended_before)]
        if owner is not None:
            check_text("owner", owner, most_bytes=MAX_ID_BYTES, empty=True)
            query, arguments = _ENDED_BY, [*arguments, owner]
        while rows := await self._database.read(query, *arguments, _PRUNED_AT_ONCE, doing="executions.prune"):
            ids = [(row[0],) for row in rows]
            await self._database.write(
                Statement("DELETE FROM flow_journal WHERE execution_id = $1", ids),
                Statement("DELETE FROM flow_executions WHERE id = $1", ids),
                doing="executions.prune",
            )
            pruned += len(ids)
        return pruned

    async def _row(self, id: str) -> Sequence[Any]:
        check_text("id of an execution", id, most_bytes=MAX_ID_BYTES)
        rows = await self._database.read(_GET, id, doing="executions.get")
        if not rows:
            raise not_stored(self._database.url, "execution", id)
        return rows[0]

    async def _is_there(self, id: str, row: Sequence[Any]) -> bool:
        """Whether this was stored before, whatever steps were taken since."""
        found, wanted = (dict(zip(_ALL, columns, strict=True)) for columns in (await self._row(id), row))
        return all(found[name] == wanted[name] for name in _NEVER_CHANGED)

    async def _check_taken(self, before: ExecutionHead, after: ExecutionHead, wanted: Sequence[Any]) -> None:
        """Whether the step that found another revision is the one that made it, its answer being lost."""
        row = await self._row(before.id)
        if after.owner and [*row[: len(EXECUTION)], *row[-len(RESULT) :]] == list(wanted):
            return
        with readable(self._database.url, f"execution {before.id!r}"):
            raise changed(self._database.url, before, execution_head(row[: len(EXECUTION)]))
