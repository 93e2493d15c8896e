"""What the event bus is told of requests: their beginning, their one end, and the nodes that did not run.

Owns: these events, made of a result. Does not own: when a request begins and ends (requests), events of nodes
(telemetry).

Always holds: one terminal event per request; a request that waits for an answer is paused, which is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.errors import CancelledRowError
from flowcore.events import (
    ErrorInfo,
    NodeSkipped,
    RowCounts,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from flowcore.states import Cancelled, Completed, Failed, Paused

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.result import RunResult


def publish_started(bus: EventBus, workflow_id: str, execution_id: str, graph: ResolvedGraph) -> None:
    """A request has begun."""
    if bus.active and bus.wants(WorkflowStarted):
        bus.publish(
            WorkflowStarted(
                workflow_id=workflow_id,
                execution_id=execution_id,
                name=graph.name,
                mode="request",
                nodes=len(graph.nodes),
            )
        )


def publish_resumed(bus: EventBus, workflow_id: str, execution_id: str, paused_s: float) -> None:
    """A request that waited goes on."""
    if bus.active and bus.wants(WorkflowResumed):
        bus.publish(WorkflowResumed(workflow_id=workflow_id, execution_id=execution_id, paused_s=paused_s))


def publish_ended(bus: EventBus, result: RunResult) -> None:
    """A request has ended: what did not run of it, and its one terminal event. One that waits is paused."""
    if not bus.active:
        return
    if isinstance(result.state, Paused):
        bus.publish(
            WorkflowPaused(
                workflow_id=result.workflow_id,
                execution_id=result.execution_id,
                reason=result.state.reason,
                waits=tuple(result.waits),
            )
        )
        return
    skipped(bus, result.workflow_id, result.execution_id, result)
    common: dict[str, Any] = {
        "workflow_id": result.workflow_id,
        "execution_id": result.execution_id,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "counts": row_counts(result),
    }
    state = result.state
    if isinstance(state, Completed):
        bus.publish(WorkflowCompleted(**common))
    elif isinstance(state, Failed):
        error = result.cause or CancelledRowError("failed")
        bus.publish(WorkflowFailed(**common, error=ErrorInfo.of(error), node=_node_of(result)))
    elif isinstance(state, Cancelled):
        bus.publish(WorkflowCancelled(**common, reason=state.reason))
    else:
        failed = tuple(node for node, outcome in result.outcomes.items() if outcome.state == "failed")
        bus.publish(WorkflowPartial(**common, failed_nodes=failed))


def _node_of(result: RunResult) -> str | None:
    """The node whose failure is the cause of the result; None when no node's is."""
    for node, errors in result.errors.items():
        if any(error is result.cause for error in errors):
            return node
    return None


def skipped(bus: Any, workflow_id: str, execution_id: str, result: RunResult) -> None:
    """NodeSkipped for every node that did not run."""
    if not bus.wants(NodeSkipped):
        return
    for node, outcome in result.outcomes.items():
        if outcome.state in ("skipped", "cancelled"):
            by_node = outcome.cause in result.outcomes
            reason = "cancelled" if outcome.state == "cancelled" else "failed" if by_node else "not_taken"
            bus.publish(
                NodeSkipped(
                    workflow_id=workflow_id,
                    execution_id=execution_id,
                    node=node,
                    cause=outcome.cause or "",
                    reason=reason,
                )
            )


def row_counts(result: RunResult) -> RowCounts:
    """Rows of all nodes together."""
    return RowCounts(
        received=result.records,
        completed=sum(outcome.rows for outcome in result.outcomes.values()),
        failed=sum(outcome.failed for outcome in result.outcomes.values()),
        skipped=sum(1 for outcome in result.outcomes.values() if outcome.state == "skipped"),
        cancelled=sum(1 for outcome in result.outcomes.values() if outcome.state == "cancelled"),
    )
