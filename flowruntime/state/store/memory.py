"""A store in memory: gone with the process; for tests, and for runtimes that were told of no other.

Owns: keeping rows in dictionaries.
Does not own: any rule; those are in rows, entries and flowcore.waits.

Always holds: it answers as the stores on disk do, errors included; nothing it was given or gave out is shared
with what it keeps.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, get_args

from flowcore.states import WorkflowState
from flowcore.waits import KeptWaitKind, Wait, WaitState, answered, cancelled, expired
from flowcore.workflow import Workflow
from flowruntime.state.store.codec import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    check_text,
    check_version,
    checked_limit,
    checked_time,
    checked_words,
    write_workflow,
)
from flowruntime.state.store.entries import (
    ALL_EXECUTIONS,
    ALL_WAITS,
    STATES,
    ExecutionFilter,
    ExecutionHead,
    Held,
    JournalEntry,
    Page,
    StoredExecution,
    StoredWorkflow,
    WaitFilter,
    WorkflowHead,
    stepped,
)
from flowruntime.state.store.paging import (
    after_execution,
    after_version,
    after_wait,
    after_workflow,
    execution_cursor,
    page_of,
    version_cursor,
    wait_cursor,
    workflow_cursor,
)
from flowruntime.state.store.refusals import (
    already_stored,
    ambiguous,
    changed,
    closed,
    in_use,
    no_version,
    no_workflow_for,
    not_stored,
)
from flowruntime.state.store.rows import (
    EXECUTION,
    INPUTS,
    WAIT,
    Row,
    execution_head,
    execution_row,
    journal_entry,
    journal_row,
    new_execution_row,
    new_wait_row,
    stored_execution,
    stored_wait,
    stored_workflow,
    value_row,
    wait_row,
    workflow_head,
    workflow_row,
)

URL: Final = "memory:"
FINISHED: Final = 1_000
"""Finished executions that are kept unless told otherwise."""

_ENDED_AT: Final = EXECUTION.index("ended_at")
_STATE_AT: Final = EXECUTION.index("state")
_OWNER_AT: Final = EXECUTION.index("owner")
_WORKFLOW_AT: Final = EXECUTION.index("workflow_id")
_WAIT_STATE_AT: Final = WAIT.index("state")
_WAIT_KIND_AT: Final = WAIT.index("kind")
_WAIT_OF_AT: Final = WAIT.index("execution_id")
_EXPIRES_AT: Final = WAIT.index("expires_at")
_VALUES_AT: Final = len(EXECUTION)
_RESULT_AT: Final = len(EXECUTION) + len(INPUTS)


class MemoryStore:
    """A store in memory.

    Args:
        finished: how many finished executions are kept; then the one that ended first is pruned.

    Holds: every workflow, every execution that has not ended and `finished` that have, each with its waits;
        journals until they are dropped or their execution is pruned.
    """

    def __init__(self, *, finished: int = FINISHED) -> None:
        self._kept: Final = _Kept()
        self.workflows: Final = _Workflows(self._kept)
        self.executions: Final = _Executions(self._kept, finished)
        self.waits: Final = _Waits(self._kept)
        self.journal: Final = _Journal(self._kept)

    @property
    def url(self) -> str:
        return URL

    async def open(self) -> None:
        self._kept.check("open")

    async def ping(self) -> None:
        self._kept.check("ping")

    async def aclose(self) -> None:
        self._kept.closed = True

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._kept.executions)} executions)"


class _Kept:
    """The rows, by their keys."""

    def __init__(self) -> None:
        self.workflows: Final[dict[str, dict[int, Row]]] = {}
        self.executions: Final[dict[str, Row]] = {}
        self.ended: Final[OrderedDict[str, float]] = OrderedDict()
        """When, by id, in the order in which they were told to have ended."""
        self.waits: Final[dict[str, Row]] = {}
        self.waits_of: Final[dict[str, list[str]]] = {}
        self.journal: Final[dict[str, dict[tuple[str, str, int], Row]]] = {}
        self.closed = False

    def check(self, doing: str) -> None:
        if self.closed:
            raise closed(URL, doing)

    def forget(self, execution_id: str) -> None:
        """An execution with its waits and its journal."""
        del self.executions[execution_id]
        del self.ended[execution_id]
        for wait_id in self.waits_of.pop(execution_id, ()):
            del self.waits[wait_id]
        self.journal.pop(execution_id, None)


class _Workflows:
    def __init__(self, kept: _Kept) -> None:
        self._kept: Final = kept

    async def put(self, workflow: Workflow, *, at: float | None = None) -> WorkflowHead:
        created_at = time.time() if at is None else checked_time("at", at)
        id = str(workflow.id or workflow.name)
        check_text("id of a workflow", id, most_bytes=MAX_NAME_BYTES)
        check_text("name of a workflow", workflow.name, most_bytes=MAX_NAME_BYTES)
        document, hash = write_workflow(workflow)
        self._kept.check("workflows.put")
        versions = self._kept.workflows.setdefault(id, {})
        if versions and (newest := _head_of(versions[max(versions)])).hash == hash:
            return newest
        version = max(versions, default=0) + 1
        head = WorkflowHead(id=id, version=version, name=workflow.name, hash=hash, created_at=created_at)
        versions[version] = (*workflow_row(head), document)
        return head

    async def get(self, name: str, version: int | None = None) -> StoredWorkflow:
        check_version(version)
        versions = self._kept.workflows[self._id_of(name, "workflows.get")]
        row = versions.get(max(versions) if version is None else version)
        if row is None:
            raise no_version(URL, name, version)
        return stored_workflow(row)

    async def list(self, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        self._kept.check("workflows.list")
        heads = [_head_of(versions[max(versions)]) for versions in self._kept.workflows.values()]
        if after is not None:
            (last,) = after_workflow(after)
            heads = [head for head in heads if head.id > last]
        return page_of(sorted(heads, key=lambda head: head.id), checked_limit(limit), workflow_cursor)

    async def versions(self, name: str, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        versions = self._kept.workflows[self._id_of(name, "workflows.versions")]
        heads = [_head_of(versions[version]) for version in sorted(versions, reverse=True)]
        if after is not None:
            (last,) = after_version(after)
            heads = [head for head in heads if head.version < last]
        return page_of(heads, checked_limit(limit), version_cursor)

    async def delete(self, name: str, version: int | None = None) -> None:
        check_version(version)
        id = self._id_of(name, "workflows.delete")
        versions = self._kept.workflows[id]
        if version is not None and version not in versions:
            raise no_version(URL, name, version)
        used = (execution_head(row[:_VALUES_AT]) for row in self._kept.executions.values())
        if any(each.workflow_id == id and version in {None, each.workflow_version} for each in used):
            raise in_use(URL, id, version)
        for each in list(versions) if version is None else [version]:
            del versions[each]
        if not versions:
            del self._kept.workflows[id]

    def _id_of(self, name: str, doing: str) -> str:
        check_text("name of a workflow", name, most_bytes=MAX_NAME_BYTES)
        self._kept.check(doing)
        if name in self._kept.workflows:
            return name
        ids = [
            id
            for id, versions in self._kept.workflows.items()
            if any(_head_of(row).name == name for row in versions.values())
        ]
        if not ids:
            raise not_stored(URL, "workflow", name)
        if len(ids) > 1:
            raise ambiguous(URL, name, sorted(ids))
        return ids[0]


class _Executions:
    def __init__(self, kept: _Kept, finished: int) -> None:
        self._kept: Final = kept
        self._finished: Final = finished

    async def create(self, execution: StoredExecution) -> None:
        row = new_execution_row(execution)
        self._kept.check("executions.create")
        there = self._kept.executions.get(execution.id)
        if there is None:
            if execution.workflow_version not in self._kept.workflows.get(execution.workflow_id, {}):
                raise no_workflow_for(URL, execution)
            self._kept.executions[execution.id] = row
        elif _beginning(there) != _beginning(row):
            raise already_stored(URL, "execution", execution.id)

    async def hold(self, held: Sequence[Held]) -> frozenset[str]:
        rows = [
            (
                each.execution,
                new_execution_row(each.execution),
                [(wait, new_wait_row(wait)) for wait in each.waits],
            )
            for each in held
        ]
        self._kept.check("executions.hold")
        for execution, _, _ in rows:
            if execution.workflow_version not in self._kept.workflows.get(execution.workflow_id, {}):
                raise no_workflow_for(URL, execution)
        there = frozenset(execution.id for execution, _, _ in rows if execution.id in self._kept.executions)
        for execution, row, waits in rows:
            if execution.id in there:
                continue
            self._kept.executions[execution.id] = row
            for wait, wait_columns in waits:
                self._kept.waits[wait.id] = wait_columns
                self._kept.waits_of.setdefault(execution.id, []).append(wait.id)
        return there

    async def get(self, id: str) -> StoredExecution:
        return stored_execution(self._row(id, "executions.get"))

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
        head, value = execution_row(after), value_row(after.id, result, what="result")
        row = self._row(execution.id, "executions.step")
        wanted = (*head, *row[_VALUES_AT:_RESULT_AT], *value)
        now = execution_head(row[:_VALUES_AT])
        if now.revision != execution.revision:
            if by and row == wanted:
                return after
            raise changed(URL, execution, now)
        self._kept.executions[execution.id] = wanted
        if after.ended_at is not None:
            self._kept.ended[after.id] = after.ended_at
            while len(self._kept.ended) > self._finished:
                self._kept.forget(next(iter(self._kept.ended)))
        return after

    async def list(
        self, filter: ExecutionFilter = ALL_EXECUTIONS, *, limit: int = 100, after: str | None = None
    ) -> Page[ExecutionHead]:
        self._kept.check("executions.list")
        states = checked_words("states", filter.states, STATES)
        first, end = (
            None if time is None else checked_time("created", time)
            for time in (filter.created_from, filter.created_before)
        )
        last = None if after is None else after_execution(after)
        heads = [
            execution_head(row[:_VALUES_AT])
            for row in self._kept.executions.values()
            if (filter.workflow_id is None or row[_WORKFLOW_AT] == filter.workflow_id)
            and (not states or row[_STATE_AT] in states)
            and (filter.owner is None or row[_OWNER_AT] == filter.owner)
        ]
        found = [
            head
            for head in heads
            if (first is None or head.created_at >= first)
            and (end is None or head.created_at < end)
            and (last is None or _place(head) < last)
        ]
        return page_of(sorted(found, key=_place, reverse=True), checked_limit(limit), execution_cursor)

    async def prune(self, ended_before: float, *, owner: str | None = None) -> int:
        self._kept.check("executions.prune")
        ended_before = checked_time("ended_before", ended_before)
        gone = [
            id
            for id, ended in self._kept.ended.items()
            if ended < ended_before and (owner is None or self._kept.executions[id][_OWNER_AT] == owner)
        ]
        for id in gone:
            self._kept.forget(id)
        return len(gone)

    def _row(self, id: str, doing: str) -> Row:
        check_text("id of an execution", id, most_bytes=MAX_ID_BYTES)
        self._kept.check(doing)
        if id not in self._kept.executions:
            raise not_stored(URL, "execution", id)
        return self._kept.executions[id]


class _Waits:
    def __init__(self, kept: _Kept) -> None:
        self._kept: Final = kept

    async def open(self, wait: Wait) -> None:
        row = new_wait_row(wait)
        self._kept.check("waits.open")
        there = self._kept.waits.get(wait.id)
        if there is None:
            if wait.execution_id not in self._kept.executions:
                raise not_stored(URL, "execution", wait.execution_id, f", so wait {wait.id!r} was not stored")
            self._kept.waits[wait.id] = row
            self._kept.waits_of.setdefault(wait.execution_id, []).append(wait.id)
        elif _opened(there) != _opened(row):
            raise already_stored(URL, "wait", wait.id)

    async def get(self, id: str) -> Wait:
        check_text("id of a wait", id, most_bytes=MAX_ID_BYTES)
        self._kept.check("waits.get")
        if id not in self._kept.waits:
            raise not_stored(URL, "wait", id)
        return stored_wait(self._kept.waits[id])

    async def list(
        self, filter: WaitFilter = ALL_WAITS, *, limit: int = 100, after: str | None = None
    ) -> Page[Wait]:
        states = checked_words("states", filter.states, get_args(WaitState))
        kinds = checked_words("kinds", filter.kinds, get_args(KeptWaitKind))
        of_states = checked_words("execution_states", filter.execution_states, STATES)
        last = None if after is None else after_wait(after)

        def wanted(row: Row) -> bool:
            execution = self._kept.executions[row[_WAIT_OF_AT]]
            return (
                (not states or row[_WAIT_STATE_AT] in states)
                and (not kinds or row[_WAIT_KIND_AT] in kinds)
                and (filter.workflow_id is None or execution[_WORKFLOW_AT] == filter.workflow_id)
                and (not of_states or execution[_STATE_AT] in of_states)
            )

        waits = self._all("waits.list", of=filter.execution_id, wanted=wanted)
        found = [wait for wait in waits if last is None or _place(wait) > last]
        return page_of(sorted(found, key=_place), checked_limit(limit), wait_cursor)

    async def answer(self, id: str, answer: Any, *, at: float, by: str = "") -> Wait:
        at = checked_time("at", at)
        return await self._close(id, lambda wait: answered(wait, answer, at=at, by=by))

    async def due(self, now: float, *, limit: int = 100, held_of: str | None = None) -> Sequence[Wait]:
        now = checked_time("now", now)

        def wanted(row: Row) -> bool:
            if row[_WAIT_STATE_AT] != "open" or row[_EXPIRES_AT] is None or row[_EXPIRES_AT] > now:
                return False
            execution = self._kept.executions[row[_WAIT_OF_AT]]
            held = execution[_STATE_AT] == "pending" and execution[_WORKFLOW_AT] == held_of
            return held_of is None or held

        due = self._all("waits.due", wanted=wanted)
        return sorted(due, key=lambda wait: (wait.expires_at, wait.id))[: checked_limit(limit)]

    async def expire(self, id: str, *, at: float) -> Wait:
        at = checked_time("at", at)
        return await self._close(id, lambda wait: expired(wait, at=at))

    async def cancel(self, execution_id: str, *, at: float) -> None:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        at = checked_time("at", at)
        for wait in self._all("waits.cancel", of=execution_id):
            if wait.state == "open":
                self._kept.waits[wait.id] = wait_row(cancelled(wait, at=at))

    async def _close(self, id: str, close: Callable[[Wait], Wait]) -> Wait:
        closed_wait = close(await self.get(id))
        self._kept.waits[id] = wait_row(closed_wait)
        return closed_wait

    def _all(
        self, doing: str, *, of: str | None = None, wanted: Callable[[Row], bool] = lambda _: True
    ) -> list[Wait]:
        self._kept.check(doing)
        rows: Iterable[Row] = self._kept.waits.values()
        if of is not None:
            check_text("execution_id", of, most_bytes=MAX_ID_BYTES)
            rows = (self._kept.waits[id] for id in self._kept.waits_of.get(of, ()))
        return [stored_wait(row) for row in rows if wanted(row)]


class _Journal:
    def __init__(self, kept: _Kept) -> None:
        self._kept: Final = kept

    async def put(self, entries: Sequence[JournalEntry]) -> None:
        rows = [journal_row(entry) for entry in entries]
        self._kept.check("journal.put")
        for execution_id, node, path, call, *rest in rows:
            row = (execution_id, node, path, call, *rest)
            self._kept.journal.setdefault(execution_id, {}).setdefault((node, path, call), row)

    async def get_all(self, execution_id: str) -> Sequence[JournalEntry]:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        self._kept.check("journal.get_all")
        entries = [journal_entry(row) for row in self._kept.journal.get(execution_id, {}).values()]
        return sorted(entries, key=lambda entry: (entry.node, entry.path, entry.call))

    async def drop(self, execution_id: str) -> None:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        self._kept.check("journal.drop")
        self._kept.journal.pop(execution_id, None)


def _head_of(row: Row) -> WorkflowHead:
    return workflow_head(row[:-1])


def _beginning(row: Row) -> Row:
    """What of an execution never changes."""
    return (*row[:5], *row[_VALUES_AT:_RESULT_AT])


def _opened(row: Row) -> Row:
    """What of a wait never changes."""
    return row[:8]


def _place(entry: ExecutionHead | Wait) -> tuple[float, str]:
    """Its place in a list; texts compare by code points, which is how their bytes do in other stores."""
    return entry.created_at, entry.id
