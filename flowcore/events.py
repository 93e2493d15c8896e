"""What happened in a run, as plain values: one frozen type per kind of event.

Owns: the kinds of `ExecutionEvent`, the fields all of them share, and `Gap`, which stands for events missed.
Does not own: their text and binary form (`flowcore.event_codec`), delivery (`flowruntime.events`), or when
the engine publishes one.

Always holds: an event is immutable plain data; times are Unix seconds, UTC, from the runtime's clock; `seq`
and `at` are given by the bus at publication, every other time by whoever saw it happen. Values that flowed
through the workflow are absent unless capture was asked for, secrets always. A kind that changes its fields
raises its `version` default and leaves an upcaster behind, so that old recordings load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from flowcore.errors import FlowError, describe_error

NodeEventChannel: TypeAlias = Literal["progress", "log", "token", "data"]
RunMode: TypeAlias = Literal["request", "stream"]


MAX_DEPTH = 64
"""Of payloads that are no values; what lies deeper is replaced by a text."""


class ExecutionEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=True):
    """What every event says of itself. The tag, field `kind` in encoded form, is the name of the class."""

    workflow_id: str
    execution_id: str | None = None
    """The request, or the root record of a stream with its children; None for facts about the whole run."""
    task: str | None = None
    """The task (source group and partition) of a continuous run; None for requests."""
    seq: int = 0
    """Position on the bus, from 1, dense; 0 until published. Starts anew with each bus."""
    at: float = 0.0
    """When it was published; 0.0 until then."""
    version: int = 1
    """Of the fields of this kind, not of FlowRx."""

    @property
    def subject(self) -> str | None:
        """The node or stage this is about; None for the workflow as a whole."""
        return None


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An exception as an event carries it."""

    kind: str
    """Name of its class."""
    message: str
    retriable: bool = False
    facts: Mapping[str, Any] = {}
    """Its public attributes, plain data."""

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """What `error` says, without the traceback."""
        facts = describe_error(error)
        kind, message = str(facts.pop("kind")), str(facts.pop("message"))
        retriable = isinstance(error, FlowError) and error.retriable
        return cls(kind=kind, message=message, retriable=retriable, facts=facts)


class RowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by what became of them, since the start of what the event is about."""

    received: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    dropped: int = 0
    """Left out on purpose, by a filter."""
    cancelled: int = 0


# --- the workflow as a whole --------------------------------------------------------------------------


class WorkflowStarted(ExecutionEvent, frozen=True, kw_only=True):
    """A request began, or a continuous run opened its sources."""

    name: str
    mode: RunMode
    nodes: int
    """How many the workflow declares."""


class _Ended(ExecutionEvent, frozen=True, kw_only=True):
    started_at: float
    ended_at: float
    counts: RowCounts = RowCounts()

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return self.ended_at - self.started_at


class WorkflowCompleted(_Ended, frozen=True, kw_only=True):
    """Every row was handled and none failed."""


class WorkflowPartial(_Ended, frozen=True, kw_only=True):
    """The run went to its end, but some rows failed or were skipped."""

    failed_nodes: tuple[str, ...]


class WorkflowFailed(_Ended, frozen=True, kw_only=True):
    """The run ended because of an error."""

    error: ErrorInfo
    node: str | None = None
    """The node that failed; None when no node did (a source, the engine, the deadline)."""


class WorkflowCancelled(_Ended, frozen=True, kw_only=True):
    """The run was told to end before it was complete."""

    reason: str


class WorkflowPaused(ExecutionEvent, frozen=True, kw_only=True):
    """Sources stopped being read; what was in flight goes on."""

    reason: str


class WorkflowResumed(ExecutionEvent, frozen=True, kw_only=True):
    """Sources are read again."""

    paused_s: float


# --- one node -----------------------------------------------------------------------------------------


class _NodeFact(ExecutionEvent, frozen=True, kw_only=True):
    node: str
    """Its id; nested workflows prefix theirs: `outer/inner`."""

    @property
    def subject(self) -> str | None:
        """The node."""
        return self.node


class NodeStarted(_NodeFact, frozen=True, kw_only=True):
    """A node was given rows."""

    started_at: float
    attempt: int = 1
    rows: int = 1


class NodeCompleted(_NodeFact, frozen=True, kw_only=True):
    """A node finished rows without failing."""

    started_at: float
    ended_at: float
    """The node's own end, not when its siblings or its batch were done."""
    attempt: int = 1
    rows: int = 1
    dropped: int = 0
    """How many of `rows` it left out on purpose."""
    outputs: Any = msgspec.UNSET
    """By port, plain data; absent unless capture was asked for."""

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return self.ended_at - self.started_at


class NodeFailed(_NodeFact, frozen=True, kw_only=True):
    """A node failed for good on rows: no retry follows."""

    started_at: float
    ended_at: float
    error: ErrorInfo
    attempt: int = 1
    rows: int = 1

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return self.ended_at - self.started_at


class NodeRetrying(_NodeFact, frozen=True, kw_only=True):
    """An attempt failed and another one follows after `delay_s`."""

    attempt: int
    """The one that failed."""
    max_attempts: int
    delay_s: float
    error: ErrorInfo


class NodeSkipped(_NodeFact, frozen=True, kw_only=True):
    """A node did not run for rows because of what happened before it."""

    cause: str
    """The node whose failure, skip or branch kept the rows away."""
    reason: Literal["failed", "skipped", "not_taken", "cancelled"]
    rows: int = 1


class NodeEvent(_NodeFact, frozen=True, kw_only=True):
    """What a node itself had to say, through its context."""

    channel: NodeEventChannel
    data: Any
    """What the node gave, as plain data: text for `log` and `token`, a fraction or mapping for `progress`."""
    level: Literal["debug", "info", "warning", "error"] = "info"


# --- how it goes --------------------------------------------------------------------------------------


class StageProgress(ExecutionEvent, frozen=True, kw_only=True):
    """How one stage of the plan is doing; published at intervals, best taken with policy `conflate`."""

    stage: str
    nodes: tuple[str, ...]
    counts: RowCounts
    """Since the start of the run."""
    rate_per_s: float
    """Rows finished per second over the last interval."""
    interval_s: float
    p50_s: float | None = None
    """Median time of a row in the stage over the last interval; None when no row finished."""
    p99_s: float | None = None
    queued: int = 0
    capacity: int | None = None
    """Bound of the queue; None for a stage without one."""
    in_flight: int = 0
    credit: int | None = None
    """Rows the stage would still take; None when it has no limit of its own."""

    @property
    def subject(self) -> str | None:
        """The stage."""
        return self.stage


class LoopBlocked(ExecutionEvent, frozen=True, kw_only=True):
    """The event loop did not turn for `blocked_s`: code that should have been offloaded ran on it."""

    node: str | None
    """None when the watchdog saw no node's code on the stack."""
    stack: str
    """Of the loop's thread, innermost last."""
    blocked_s: float

    @property
    def subject(self) -> str | None:
        """The node."""
        return self.node


Event: TypeAlias = (
    WorkflowStarted
    | WorkflowCompleted
    | WorkflowPartial
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowPaused
    | WorkflowResumed
    | NodeStarted
    | NodeCompleted
    | NodeFailed
    | NodeRetrying
    | NodeSkipped
    | NodeEvent
    | StageProgress
    | LoopBlocked
)
"""Every kind there is: match on it and let `assert_never` guard the rest."""

KINDS: tuple[type[ExecutionEvent], ...] = get_args(Event)
TERMINAL_KINDS: tuple[type[ExecutionEvent], ...] = (
    WorkflowCompleted,
    WorkflowPartial,
    WorkflowFailed,
    WorkflowCancelled,
)
"""Exactly one of these ends every run."""


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=True):
    """Stands where events are missing: events delivered plus `missed` make what was published."""

    missed: int
    first_seq: int
    """The missed ones lie between this and `last_seq`, both included; so may some that were delivered or not
    wanted."""
    last_seq: int
    exact: bool = True
    """False after resuming with a filter from before the history: how many of the lost ones matched is not
    known any more, and `missed` counts them all."""

    def joined(self, other: Gap) -> Gap:
        """One gap for both."""
        return Gap(
            missed=self.missed + other.missed,
            first_seq=min(self.first_seq, other.first_seq),
            last_seq=max(self.last_seq, other.last_seq),
            exact=self.exact and other.exact,
        )
