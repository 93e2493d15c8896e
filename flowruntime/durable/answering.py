"""Answering and giving up rows of continuous runs, from any process that has their store.

Owns: `row_result`, `let_go_on`, `give_up`: what an answer does to a row, what is told of it.
Does not own: taking the answer (resuming), the run in which the row goes on (holds).

Always holds: a row is let go on only when nothing it waits for is open; of all who end an execution one tells
of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.errors import FlowError
from flowcore.states import Cancelled, Paused, Running
from flowcore.store_errors import ExecutionBusyError, ExecutionChangedError
from flowruntime.durable.held import DONE, READY, is_held
from flowruntime.durable.holding import open_waits
from flowruntime.durable.owner import is_gone
from flowruntime.durable.releasing import release, tell_cancelled, waits_of
from flowruntime.execute.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowruntime.state.store.entries import ExecutionHead, StoredExecution
    from flowruntime.state.store.protocol import Store


async def row_result(store: Store, execution: ExecutionHead, *, now: float) -> RunResult:
    """Where a row stands: paused until it is back in a run, and what it still waits for."""
    waits = [wait for wait in await waits_of(store, execution.id) if wait.state == "open"]
    state = execution.state
    if not state.finished:
        state = Paused("waits" if waits else "goes on in a run of its workflow")
        if isinstance(execution.state, Running):
            state = Running()
    return RunResult(
        workflow_id=execution.workflow_id,
        execution_id=execution.id,
        state=state,
        held=0 if state.finished else 1,
        waits=[] if state.finished else list(open_waits(waits)),
        started_at=execution.created_at,
        ended_at=now,
    )


async def let_go_on(store: Store, execution: ExecutionHead, *, at: float, bus: Any) -> ExecutionHead:
    """Let a row go on where it can: it was answered, its time is up, or the process of its run is gone."""
    if isinstance(execution.state, Running) and is_gone(execution.owner):
        try:
            return await store.executions.step(execution, Paused("taken over"), at=at, by=READY)
        except ExecutionChangedError:
            return await store.executions.get(execution.id)
    return await release(store, execution, at=at, bus=bus)


async def give_up(
    store: Store,
    execution_id: str,
    reason: str,
    *,
    at: float,
    bus: Any,
    ended: Callable[[StoredExecution], FlowError],
) -> ExecutionHead:
    """End an execution that waits as cancelled; idempotent.

    Args:
        store: where.
        execution_id: of a paused request, or of a row.
        reason: kept with it.
        at: Unix seconds.
        bus: told once.
        ended: the error of one that has ended otherwise.

    Raises:
        NotStoredError: there is none.
        ExecutionEndedError: it has ended otherwise.
        ExecutionBusyError: it is at work.
    """
    while True:
        stored = await store.executions.get(execution_id)
        if isinstance(stored.state, Cancelled):
            await store.waits.cancel(execution_id, at=at)  # should who cancelled it have died before
            return stored
        if stored.state.finished:
            raise ended(stored)
        if isinstance(stored.state, Running) and not is_gone(stored.owner):
            raise ExecutionBusyError(
                f"execution {execution_id!r} is at work in {stored.owner!r}, and does not wait; "
                "it was not given up",
                id=execution_id,
                owner=stored.owner,
            )
        by = DONE if is_held(stored.inputs) else ""
        try:
            head = await store.executions.step(stored, Cancelled(reason), at=at, by=by)
        except ExecutionChangedError:
            continue  # somebody else was faster; look again
        await store.waits.cancel(execution_id, at=at)
        tell_cancelled(head, reason, bus)
        return head
