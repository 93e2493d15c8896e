"""Results: what a request or run came to, truthfully.

Owns: `RunResult`, `NodeOutcome`, `StreamOutcome` and making them from what was recorded.
Does not own: deciding when a run is over.

Always holds: a result with a failed node is never ok; every node of the workflow has an outcome; a skipped
or cancelled one names its cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcore.errors import RunFailedError, describe_error
from flowcore.events import OpenWait
from flowcore.states import Cancelled, Completed, Failed, Partial, Paused, WorkflowState
from flowruntime.execute.counts import NodeCounts
from flowruntime.substream.plain import plain_of

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetter
    from flowcore.frame import Failure
    from flowruntime.compile.plan import Plan
    from flowruntime.execute.execution import Execution, Seen

OutcomeState = Literal["completed", "failed", "skipped", "cancelled", "waiting"]


class NodeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one node."""

    state: OutcomeState
    cause: str | None = None
    """For skipped and cancelled: the node that kept it from running, `branch not taken`, or why the whole
    request was cancelled."""
    rows: int = 0
    """Rows it finished; more than one below an expanding node."""
    failed: int = 0
    replaced: int = 0
    """Of the failed ones: rows that went on with the node's fallback, which is its output then."""
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
    continuous runs. A Stream is a list of its items where nothing follows the port, else what became of it:
    `{"stream": "ended", "items": 12}`."""
    outcomes: dict[str, NodeOutcome] = {}
    errors: dict[str, list[BaseException]] = {}
    """By node, in order; at most `MAX_ERRORS` each in a continuous run, `counts` has them all."""
    captured: dict[str, list[Any]] = {}
    """By sink: what it would have written, when the request brought the source's values itself."""
    counts: dict[str, NodeCounts] = {}
    records: int = 0
    """Root records settled."""
    handled: bool = False
    """There were failures, and every one went to an error connection or to a dead letter that is kept, or its
    row went on with the node's fallback."""
    dead_letters: int = 0
    """Dead letters kept."""
    letters: list[DeadLetter] = []
    """Of a request: its dead letters. Where its sinks were captured, these were, too: nothing was written."""
    attempts: int = 1
    """Of a request: how often it went through the workflow; the last one is what is told here."""
    abandoned: int = 0
    """Records a stop left unfinished at its deadline; nothing of them was emitted after it, nothing
    committed."""
    held: int = 0
    """Of a run: rows of its workflow that wait, stored, when it ended; some may be of earlier runs. They come
    back when they are answered (`flow waits`, `flow resume`) or their time has come, in the next run. Of an
    answered
    row: 1."""
    returned: int = 0
    """Of a run: rows that came back and are settled; not among `records`."""
    started_at: float = 0.0
    ended_at: float = 0.0
    cause: BaseException | None = None
    """The exception behind a failed state."""
    waits: list[OpenWait] = []
    """Of a paused request: what it waits for. It goes on by `runtime.resume(execution_id, answer)`."""

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
        if isinstance(self.state, Paused):
            raise RunFailedError(
                f"workflow {self.workflow_id!r} is paused ({self.state.reason}), and has no result yet; "
                f"resume execution {self.execution_id!r}",
                result=self,
            )
        first = self.cause or next((errors[0] for errors in self.errors.values() if errors), None)
        failed = ", ".join(sorted(self.errors)) or "no node"
        reason = f": {first}" if first is not None else ""
        raise RunFailedError(
            f"workflow {self.workflow_id!r} is {self.state.name}; failed: {failed}{reason}", result=self
        ) from first

    def with_outputs(
        self, outputs: Mapping[str, Mapping[str, Any]], captured: Mapping[str, Sequence[Any]] | None = None
    ) -> RunResult:
        """The same result with other outputs, and other captured values where they are given."""
        kept = self.captured if captured is None else {sink: list(rows) for sink, rows in captured.items()}
        return msgspec.structs.replace(
            self, outputs={node: dict(ports) for node, ports in outputs.items()}, captured=kept
        )

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
            "dead_letters": self.dead_letters,
            "letters": [{"id": letter.id, "node": letter.node} for letter in self.letters],
            "attempts": self.attempts,
            "abandoned": self.abandoned,
            "held": self.held,
            "returned": self.returned,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_s": self.ended_at - self.started_at,
            **({"waits": [msgspec.to_builtins(wait) for wait in self.waits]} if self.waits else {}),
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


class Reporting:
    """What results need to know of a plan, worked out once for all requests."""

    __slots__ = ("_senders", "nodes")

    def __init__(self, plan: Plan) -> None:
        repeated = _repeated_nodes(plan)
        self.nodes: list[_Reported] = [
            _Reported(
                node_id,
                is_sink=node.role == "sink",
                structured=node.role not in ("source", "sink") and node.node.structured_output,
                repeated=node_id in repeated,
                ports=tuple(port.name for port in node.definition.outputs),
            )
            for node_id, node in plan.graph.nodes.items()
        ]
        self._senders: dict[str, list[str]] = {}
        """Above each node, along connections of rows that did not fail."""
        for connection in plan.graph.connections:
            if connection.kind != "error":
                self._senders.setdefault(connection.to_node, []).append(connection.from_node)

    def skip_causes(self, execution: Execution) -> dict[str, str]:
        """For nodes that did not run: the node above them that failed, or waits."""
        if not any(seen.failures or seen.waiting for seen in execution.nodes.values()):
            return {}
        causes: dict[str, str] = {}
        failed_at: dict[str, str] = {}
        """The node itself when it failed, else one above it that did and whose other rows may have passed."""
        for node in self.nodes:
            seen = execution.nodes.get(node.id)
            senders = self._senders.get(node.id, ())
            above = next((failed_at[sender] for sender in senders if sender in failed_at), None)
            if seen is not None and (len(seen.failures) > seen.replaced or seen.waiting):
                failed_at[node.id] = node.id
            elif above is not None:
                failed_at[node.id] = above
                if seen is None:
                    causes[node.id] = above
        return causes


class _Reported:
    """One node, as far as results care."""

    __slots__ = ("id", "is_sink", "ports", "repeated", "structured")

    def __init__(
        self, node_id: str, *, is_sink: bool, structured: bool, repeated: bool, ports: tuple[str, ...]
    ) -> None:
        self.id = node_id
        self.is_sink = is_sink
        self.structured = structured
        """Its values are structs with a field per port."""
        self.repeated = repeated
        """It may run several times in one execution."""
        self.ports = ports


def _outcome_of(execution: Execution, seen: Seen | None, skipped_by: str | None) -> NodeOutcome:
    stopped = execution.stopped
    if seen is None:
        return NodeOutcome(
            state="cancelled" if stopped is not None and skipped_by is None else "skipped",
            cause=skipped_by or (_reason_of(stopped) if stopped is not None else "branch not taken"),
        )
    state: OutcomeState = (
        "failed"
        if seen.failures
        else "cancelled"
        if seen.cancelled
        else "waiting"
        if seen.waiting
        else "completed"
    )
    return NodeOutcome(
        state=state,
        cause=_reason_of(stopped) if state == "cancelled" and stopped is not None else None,
        rows=seen.rows,
        failed=len(seen.failures),
        replaced=seen.replaced,
        attempts=max(1, seen.attempts),
        started_at=seen.started or None,
        ended_at=seen.ended or None,
    )


def _reason_of(stopped: Failure) -> str:
    """The node that stopped the execution, else why it was stopped from outside."""
    return stopped.node or str(stopped.error)


def _outputs_of(seen: Seen, node: _Reported) -> dict[str, Any]:
    """A node's outputs by port: a value, or a list of values for nodes that run several times."""
    if len(seen.values) == 1 and not node.structured and not node.repeated:
        return {"out": seen.values[0][1]}
    values = [value for _, value in sorted(seen.values, key=lambda item: item[0])]
    if not node.structured:
        if node.repeated:
            return {"out": values}
        return {"out": values[-1]} if values else {}
    found: dict[str, Any] = {}
    for port in node.ports:
        given = [
            item for value in values if (item := getattr(value, port, msgspec.UNSET)) is not msgspec.UNSET
        ]
        if node.repeated:
            found[port] = given
        elif given:
            found[port] = given[-1]
    return found


def result_of(
    execution: Execution,
    reporting: Reporting,
    *,
    workflow_id: str,
    ended: float,
    error: BaseException | None = None,
    cancelled: str | None = None,
) -> RunResult:
    """The result of a request.

    Args:
        execution: with all of its nodes done or given up.
        reporting: of the plan it ran by.
        workflow_id: of the runtime's.
        ended: when the last row was settled, Unix seconds.
        error: what ended the whole request (its deadline, the engine), beside what its nodes did.
        cancelled: the reason, when it was cancelled from outside.
    """
    skip_causes = reporting.skip_causes(execution)
    outcomes: dict[str, NodeOutcome] = {}
    outputs: dict[str, dict[str, Any]] = {}
    errors: dict[str, list[BaseException]] = {}
    for node in reporting.nodes:
        seen = execution.nodes.get(node.id)
        outcomes[node.id] = _outcome_of(execution, seen, skip_causes.get(node.id))
        if seen is None:
            continue
        if seen.failures:
            errors[node.id] = [failure.error for failure in seen.failures]
        if seen.values or (seen.rows and node.repeated and not node.is_sink):
            outputs[node.id] = _outputs_of(seen, node)
            if execution.has_streams:
                outputs[node.id] = plain_of(outputs[node.id])
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
        attempts=execution.attempt,
        handled=failures > 0 and execution.handled == failures and isinstance(state, Partial),
        dead_letters=execution.kept_letters,
        letters=execution.letters,
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
    waiting = [node_id for node_id, seen in execution.nodes.items() if seen.waiting]
    if waiting:
        return Paused(f"waits for an answer to {', '.join(waiting)}"), None
    return (Partial(), None) if failures else (Completed(), None)


def _repeated_nodes(plan: Plan) -> frozenset[str]:
    """Nodes that may run several times in one execution: their rows do not live in the root scope."""
    roots = {entry.scope for entry in plan.entries}
    found: set[str] = set()
    for stage in plan.stages:
        # An expanding node's own output lives in its children's scope, a collecting one's in its parent's.
        if stage.scope not in roots and stage.kind != "sink":
            found.update(stage.node_ids)
    return frozenset(found)
