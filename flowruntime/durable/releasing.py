"""The steps of a row that waits which any process may take: letting it go on, ending it.

Owns: `release`, `end_row`, `waits_of`, and telling of a row that was given up.
Does not own: when they are taken (ready, answering), the rule (flowcore.waits).

Always holds: of all who take a step one does, by compare-and-set; who ends a row tells of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.events import WorkflowCancelled
from flowcore.states import Cancelled, Paused
from flowcore.store_errors import ExecutionChangedError
from flowcore.waits import Wait, ends_cancelled, is_over
from flowruntime.durable.held import DONE, READY
from flowruntime.state.store.entries import MAX_PAGE, ExecutionHead, WaitFilter

if TYPE_CHECKING:
    from flowruntime.state.store.protocol import Store


async def waits_of(store: Store, execution_id: str) -> list[Wait]:
    """What an execution waits for, or has waited for."""
    found: list[Wait] = []
    after: str | None = None
    while True:
        page = await store.waits.list(WaitFilter(execution_id=execution_id), limit=MAX_PAGE, after=after)
        found.extend(page.items)
        after = page.after
        if after is None:
            return found


async def release(store: Store, execution: ExecutionHead, *, at: float, bus: Any) -> ExecutionHead:
    """Let a row go on, or end, where what it waits for is over; as it is stored now.

    Args:
        store: where.
        execution: the row's.
        at: Unix seconds.
        bus: told of a row that ends here.
    """
    while execution.state.name == "pending":
        waits = await waits_of(store, execution.id)
        if not is_over(waits):
            break
        try:
            if ends_cancelled(waits):
                return await end_row(store, execution, "nobody answered in time", at=at, bus=bus)
            return await store.executions.step(execution, Paused("may go on"), at=at, by=READY)
        except ExecutionChangedError:
            execution = await store.executions.get(execution.id)
    return execution


async def end_row(
    store: Store, execution: ExecutionHead, reason: str, *, at: float, bus: Any
) -> ExecutionHead:
    """Give a row up: it ends cancelled, and its record is known should it be read again.

    Raises:
        ExecutionChangedError: somebody else was faster.
    """
    ended = await store.executions.step(execution, Cancelled(reason), at=at, by=DONE)
    await store.waits.cancel(execution.id, at=at)
    tell_cancelled(ended, reason, bus)
    return ended


def tell_cancelled(execution: ExecutionHead, reason: str, bus: Any) -> None:
    """Its one terminal event."""
    bus.publish(
        WorkflowCancelled(
            workflow_id=execution.workflow_id,
            execution_id=execution.id,
            started_at=execution.started_at or execution.created_at,
            ended_at=execution.ended_at or 0.0,
            reason=reason,
        )
    )
