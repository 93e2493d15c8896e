"""Results: what a request or run came to, truthfully.

Owns: `RunResult`, `NodeOutcome`, `StreamOutcome` and making them from what was recorded.
Does not own: deciding when a run is over.

Always holds: a result with a failed node is never ok; every node of the workflow has an outcome; a skipped
or cancelled one names its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcore.errors import RunFailedError, describe_error
from flowcore.states import Cancelled, Completed, Failed, Partial, WorkflowState
from flowruntime.execute.counts import NodeCounts

if TYPE_CHECKING:
    from flowruntime.compile.plan import Plan
    from flowruntime.execute.execution import Execution, Seen

OutcomeState = Literal["completed", "failed", "skipped", "cancelled"]


class NodeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one node."""

    state: OutcomeState
    cause: str | None = None
    """For skipped and cancelled: the node, or the branch not taken, that kept it from running."""
    rows: int = 0
    """Rows it finished; more than one below an expanding node."""
    failed: int = 0
    attempts: int = 0
    started_at: float | None = None
    """Unix seconds."""
    ended_at: float | None = None

    @property
    def duration(self) -> timedelta | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return timedelta(seconds=self.ended_at - self.started_at)


class RunResult(msgspec.Struct, kw_only=True):
    """What a request or a run came to."""

    workflow_id: str
    execution_id: str
    state: WorkflowState
    outputs: dict[str, dict[str, Any]] = {}
    """By node and port; for nodes that ran several times the values in order, as a list. Empty for
    continuous runs."""
    outcomes: dict[str, NodeOutcome] = {}
    errors: dict[str, list[BaseException]] = {}
    """By node, in order; at most `MAX_ERRORS` each in a continuous run, `counts` has them all."""
    captured: dict[str, list[Any]] = {}
    """By sink: what it would have written, when the request brought the source's values itself."""
    counts: dict[str, NodeCounts] = {}
    records: int = 0
    """Root records settled."""
    handled: bool = False
    """There were failures, and every one went to an error connection."""
    abandoned: int = 0
    """Records a stop left unfinished at its deadline; nothing of them was emitted after it, nothing
    committed."""
    started_at: float = 0.0
    ended_at: float = 0.0
    cause: BaseException | None = None
    """The exception behind a failed state."""

    @property
    def ok(self) -> bool:
        """True only when everything succeeded."""
        return self.state.ok

    @property
    def duration(self) -> timedelta:
        return timedelta(seconds=self.ended_at - self.started_at)

    def raise_for_state(self) -> RunResult:
        """Return itself when completed.

        Raises:
            RunFailedError: otherwise; `result` is this object, `__cause__` the first error.
        """
        if self.ok:
            return self
        first = self.cause or next((errors[0] for errors in self.errors.values() if errors), None)
        failed = ", ".join(sorted(self.errors)) or "no node"
        reason = f": {first}" if first is not None else ""
        raise RunFailedError(
            f"workflow {self.workflow_id!r} is {self.state.name}; failed: {failed}{reason}", result=self
        ) from first

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON; values of outputs are left as they are."""
        return {
            "workflow_id": self.workflow_id,
            "execution_id": self.execution_id,
            "state": self.state.name,
            "ok": self.ok,
            "outputs": self.outputs,
            "captured": self.captured,
            "outcomes": {node: msgspec.to_builtins(outcome) for node, outcome in self.outcomes.items()},
            "errors": {
                node: [describe_error(error) for error in errors] for node, errors in self.errors.items()
            },
            "counts": {node: msgspec.to_builtins(counts) for node, counts in self.counts.items()},
            "records": self.records,
            "handled": self.handled,
            "abandoned": self.abandoned,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_s": self.ended_at - self.started_at,
        }


MAX_ERRORS = 100


class StreamOutcome(msgspec.Struct, kw_only=True):
    """What became of one item of `rt.stream`."""

    index: int
    value: Any = None
    """The output of the workflow's end: one value when one node ends it, else a mapping by node id."""
    error: BaseException | None = None
    dropped: bool = False
    """Left out on purpose: no end of the workflow was reached."""

    @property
    def ok(self) -> bool:
        return self.error is None


def outcome_of(execution: Execution, plan: Plan, node_id: str, skipped_by: str | None) -> NodeOutcome:
    """The outcome of one node in one execution."""
    seen = execution.nodes.get(node_id)
    if seen is None:
        state: OutcomeState = (
            "cancelled" if execution.stopped is not None and skipped_by is None else "skipped"
        )
        cause = skipped_by or (
            execution.stopped.node if execution.stopped is not None else "branch not taken"
        )
        return NodeOutcome(state=state, cause=cause)
    if seen.failures:
        state = "failed"
    elif seen.cancelled:
        state = "cancelled"
    else:
        state = "completed"
    del plan
    return NodeOutcome(
        state=state,
        cause=execution.stopped.node if state == "cancelled" and execution.stopped is not None else None,
        rows=seen.rows,
        failed=len(seen.failures),
        attempts=max(1, seen.attempts),
        started_at=seen.started or None,
        ended_at=seen.ended or None,
    )


def outputs_of(seen: Seen, *, structured: bool, repeated: bool, ports: tuple[str, ...]) -> dict[str, Any]:
    """A node's outputs by port: a value, or a list of values for nodes that run several times."""
    values = [value for _, value in sorted(seen.values, key=lambda item: item[0])]
    if not structured:
        if repeated:
            return {"out": values}
        return {"out": values[-1]} if values else {}
    found: dict[str, Any] = {}
    for port in ports:
        given = [
            item for value in values if (item := getattr(value, port, msgspec.UNSET)) is not msgspec.UNSET
        ]
        if repeated:
            found[port] = given
        elif given:
            found[port] = given[-1]
    return found


def result_of(
    execution: Execution,
    plan: Plan,
    *,
    workflow_id: str,
    ended: float,
    error: BaseException | None = None,
    cancelled: str | None = None,
) -> RunResult:
    """The result of a request.

    Args:
        execution: with all of its nodes done or given up.
        plan: it ran by.
        workflow_id: of the runtime's.
        ended: when the last row was settled, Unix seconds.
        error: what ended the whole request (its deadline, the engine), beside what its nodes did.
        cancelled: the reason, when it was cancelled from outside.
    """
    graph = plan.graph
    repeated = repeated_nodes(plan)
    failed_above = _skip_causes(execution, plan)
    outcomes: dict[str, NodeOutcome] = {}
    outputs: dict[str, dict[str, Any]] = {}
    errors: dict[str, list[BaseException]] = {}
    for node_id, node in graph.nodes.items():
        outcomes[node_id] = outcome_of(execution, plan, node_id, failed_above.get(node_id))
        seen = execution.nodes.get(node_id)
        if seen is None:
            continue
        if seen.failures:
            errors[node_id] = [failure.error for failure in seen.failures]
        if seen.values or (seen.rows and node_id in repeated and node.role != "sink"):
            structured = node.role not in ("source", "sink") and node.node.structured_output
            ports = tuple(port.name for port in node.definition.outputs)
            outputs[node_id] = outputs_of(
                seen, structured=structured, repeated=node_id in repeated, ports=ports
            )
    failures = sum(len(found) for found in errors.values())
    state, cause = _state_of(execution, error, cancelled, failures)
    return RunResult(
        workflow_id=workflow_id,
        execution_id=execution.id,
        state=state,
        outputs=outputs,
        outcomes=outcomes,
        errors=errors,
        captured=execution.captures,
        records=1,
        handled=failures > 0 and execution.handled == failures and isinstance(state, Partial),
        started_at=execution.started,
        ended_at=ended,
        cause=cause,
    )


def _state_of(
    execution: Execution, error: BaseException | None, cancelled: str | None, failures: int
) -> tuple[WorkflowState, BaseException | None]:
    if cancelled is not None:
        return Cancelled(cancelled), None
    if error is not None:
        return Failed(describe_error(error)), error
    if execution.stopped is not None:
        return Failed(describe_error(execution.stopped.error)), execution.stopped.error
    return (Partial(), None) if failures else (Completed(), None)


def repeated_nodes(plan: Plan) -> frozenset[str]:
    """Nodes that may run several times in one execution: their rows do not live in the root scope."""
    roots = {entry.scope for entry in plan.entries}
    found: set[str] = set()
    for stage in plan.stages:
        # An expanding node's own output lives in its children's scope, a collecting one's in its parent's.
        if stage.scope not in roots and stage.kind != "sink":
            found.update(stage.node_ids)
    return frozenset(found)


def _skip_causes(execution: Execution, plan: Plan) -> dict[str, str]:
    """For nodes that did not run: the failed node above them."""
    causes: dict[str, str] = {}
    incoming: dict[str, list[str]] = {}
    for connection in plan.graph.connections:
        if connection.kind != "error":
            incoming.setdefault(connection.to_node, []).append(connection.from_node)
    failed_at: dict[str, str] = {}
    """The node itself when it failed, else one above it that did and whose other rows may have passed."""
    for node_id in plan.graph.nodes:
        seen = execution.nodes.get(node_id)
        above = next((failed_at[sender] for sender in incoming.get(node_id, ()) if sender in failed_at), None)
        if seen is not None and seen.failures:
            failed_at[node_id] = node_id
        elif above is not None:
            failed_at[node_id] = above
            if seen is None:
                causes[node_id] = above
    return causes


def counts_by_node(plan: Plan, total: Mapping[str, NodeCounts]) -> dict[str, NodeCounts]:
    """Counters in the workflow's order."""
    return {node_id: total.get(node_id, NodeCounts()) for node_id in plan.graph.nodes}
