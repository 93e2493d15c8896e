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
CircuitState: TypeAlias = Literal["closed", "open", "half_open"]
FailureHandling: TypeAlias = Literal[
    "stop_workflow", "continue", "dead_letter", "error_port", "fallback", "retry_workflow"
]
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


class OpenWait(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution waits for, as its event and its result tell it."""

    id: str
    node: str
    wait_kind: str
    """`approval`, `form`, `signal`; `delay`: nobody is asked."""
    title: str = ""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer."""
    expires_at: float | None = None
    """Unix seconds."""
    path: str = ""
    """Which row of the node: its lineage."""


class WorkflowPaused(ExecutionEvent, frozen=True, kw_only=True):
    """A run: sources stopped being read; what was in flight goes on. A request: all that is left waits."""

    reason: str
    waits: tuple[OpenWait, ...] = ()
    """Of a request: what for."""


class WorkflowResumed(ExecutionEvent, frozen=True, kw_only=True):
    """Sources are read again, or a request that waited goes on."""

    paused_s: float


class WorkflowRetrying(ExecutionEvent, frozen=True, kw_only=True):
    """An attempt of a record failed, and it goes through the workflow again after `delay_s`."""

    node: str
    """Where it failed."""
    attempt: int
    """The one that failed."""
    max_attempts: int
    delay_s: float
    error: ErrorInfo

    @property
    def subject(self) -> str | None:
        """The node."""
        return self.node


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
    then: FailureHandling | None = None
    """What is done with the rows; None in recordings that are older than this field."""
    version: int = 2

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


class RecordDeadLettered(_NodeFact, frozen=True, kw_only=True):
    """A row was given up on and its letter is kept, durably; the record and values stand in the letter."""

    letter_id: str
    error: ErrorInfo
    attempts: int = 1
    source: str | None = None
    """Where the record came from; None for a request that filled no source."""
    partition: str | None = None


class RowHeld(_NodeFact, frozen=True, kw_only=True):
    """A row of a continuous run waits: it is stored, and its record no longer in flight because of it."""

    row_id: str
    """As what it is answered or given up (`runtime.resume`, `flow resume`)."""
    waits: tuple[OpenWait, ...]
    """What for."""


class RowReturned(_NodeFact, frozen=True, kw_only=True):
    """A stored row is back at its node, as a record of its own."""

    row_id: str
    held_s: float
    """Since it was stored."""


class NodePaused(_NodeFact, frozen=True, kw_only=True):
    """A node takes no further rows; what it works on goes on."""

    reason: str


class NodeResumed(_NodeFact, frozen=True, kw_only=True):
    """A node takes rows again."""

    paused_s: float


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


class LimitChanged(ExecutionEvent, frozen=True, kw_only=True):
    """A limit on rows in work was given another bound while it is in use."""

    limit: str
    """`node:classify`, `type:http.request`, `resource:gpu`, `*`; of the whole runtime without a workflow; of
    a model `model:NAME:` and `concurrency`, `requests_per_minute`, `tokens_per_minute` or `cool_down`."""
    before: int
    capacity: int

    @property
    def subject(self) -> str | None:
        """The limit."""
        return self.limit


class BreakerChanged(ExecutionEvent, frozen=True, kw_only=True):
    """A circuit breaker opened, let a probe through, or closed again."""

    node: str
    """Whose call made it change; others may share the circuit."""
    resource: str
    """`resource:NAME`, or `node:WORKFLOW/NODE` for a node without one."""
    before: CircuitState
    state: CircuitState
    opened: int
    """How often it has opened."""

    @property
    def subject(self) -> str | None:
        """The resource."""
        return self.resource


class LlmCall(ExecutionEvent, frozen=True, kw_only=True):
    """A call of a model is over: one for each call of a node or client. It holds no prompt and no key."""

    node: str
    """Empty for a client outside of workflows."""
    operation: Literal["chat", "embeddings"]
    provider: str
    """Who answered, or was asked last; of a call answered from what is kept: who would have been asked."""
    model: str
    endpoint: str = ""
    """Host and port; empty: the provider's own."""
    prompt: str = ""
    prompt_version: str = ""
    input_tokens: int = 0
    """As the provider counted, over all attempts that said so."""
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of `input_tokens`: from the provider's own cache."""
    cost_usd: float | None = None
    """Of all attempts; None: the price is not known."""
    attempts: int = 0
    """Requests made; 0 when it was answered from what was kept."""
    hedged: bool = False
    cached: bool = False
    """Answered from the cache, or by an equal call under way."""
    journaled: bool = False
    """Answered from the journal: it was paid in an earlier run."""
    started_at: float = 0.0
    duration_s: float = 0.0
    """Waiting for limits and for retries included."""
    first_token_s: float | None = None
    """Of a stream: until its first piece."""
    error: str | None = None
    """Kind of what it failed with; None: it did not."""

    @property
    def subject(self) -> str | None:
        """The node."""
        return self.node or None


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
    | WorkflowRetrying
    | NodeStarted
    | NodeCompleted
    | NodeFailed
    | NodeRetrying
    | NodeSkipped
    | RecordDeadLettered
    | RowHeld
    | RowReturned
    | NodePaused
    | NodeResumed
    | NodeEvent
    | StageProgress
    | LimitChanged
    | BreakerChanged
    | LlmCall
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
