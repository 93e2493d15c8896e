"""Events as lines: for people (pretty) and for programs (JSON).

Owns: wording of one event. Does not own: the events (flowcore.events), where lines go.

Always holds: one event is one line, whatever text it carries.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from flowcore.event_codec import CODEC
from flowcore.events import (
    BreakerChanged,
    ErrorInfo,
    ExecutionEvent,
    Gap,
    LimitChanged,
    LlmCall,
    LoopBlocked,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodePaused,
    NodeResumed,
    NodeRetrying,
    NodeSkipped,
    NodeStarted,
    RecordDeadLettered,
    RowCounts,
    RowHeld,
    RowReturned,
    StageProgress,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowRetrying,
    WorkflowStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LONGEST: Final = 400
_MILLISECOND: Final = 1e-3
_MINUTE: Final = 60.0


def json_line(event: ExecutionEvent | Gap) -> str:
    """The event as the recording has it."""
    return CODEC.encode_json(event).decode()


def pretty_line(event: ExecutionEvent | Gap) -> str:
    """`12:34:56.789  NodeFailed        classify  ValueError: ...`; times are UTC."""
    if isinstance(event, Gap):
        missed = f"{event.missed:,}" if event.exact else f"at most {event.missed:,}"
        return f"{'':12}  {'Gap':<17} {missed} events missed ({event.first_seq} to {event.last_seq})"
    at = dt.datetime.fromtimestamp(event.at, dt.UTC).strftime("%H:%M:%S.%f")[:-3]
    words = [event.subject or "", _detail(event)]
    return f"{at}  {type(event).__name__:<17} {'  '.join(word for word in words if word)}".rstrip()


def seconds(duration_s: float | None) -> str:
    """A duration in three or four characters and its unit: `0.4 ms`, `12 ms`, `1.2 s`, `3m05s`."""
    if duration_s is None:
        return "-"
    if duration_s < _MILLISECOND:
        return f"{duration_s * 1e6:.0f} us"
    if duration_s < 1:
        return f"{duration_s * 1e3:.3g} ms"
    if duration_s < _MINUTE:
        return f"{duration_s:.3g} s"
    minutes, rest = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _detail(event: ExecutionEvent) -> str:
    worded = _DETAILS.get(type(event))
    text = "" if worded is None else " ".join(worded(event).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _error(error: ErrorInfo) -> str:
    return f"{error.kind}: {error.message}"


def _counts(counts: RowCounts) -> str:
    named = ((name, getattr(counts, name)) for name in counts.__struct_fields__)
    return ", ".join(f"{count:,} {name}" for name, count in named if count)


def _attempt(attempt: int, rows: int) -> str:
    words = [f"attempt {attempt}" if attempt > 1 else "", f"{rows:,} rows" if rows > 1 else ""]
    return ", ".join(word for word in words if word)


def _ended(event: Any) -> str:
    return f"{seconds(event.duration_s)}  {_counts(event.counts)}"


def _node_ended(event: Any) -> str:
    return f"{seconds(event.duration_s)}  {_attempt(event.attempt, event.rows)}"


def _then(event: NodeFailed) -> str:
    """What is done with the row, where it goes on or is kept."""
    words = {"fallback": "goes on with its fallback", "dead_letter": "becomes a dead letter"}
    return f"; {words[event.then]}" if event.then in words else ""


def _progress(event: StageProgress) -> str:
    times = f"p50 {seconds(event.p50_s)}, p99 {seconds(event.p99_s)}"
    return f"{event.rate_per_s:,.0f}/s, {event.in_flight:,} in flight, {times}; {_counts(event.counts)}"


def _llm_call(event: LlmCall) -> str:
    tokens = f"{event.input_tokens:,} + {event.output_tokens:,} tokens"
    cost = "" if event.cost_usd is None else f", ${event.cost_usd:.4g}"
    kept = ", cached" if event.cached else ", journaled" if event.journaled else ""
    tries = f", {event.attempts} attempts" if event.attempts > 1 else ""
    failed = "" if event.error is None else f"; {event.error}"
    return f"{seconds(event.duration_s)}  {event.provider} {event.model}  {tokens}{cost}{tries}{kept}{failed}"


def _retrying(event: NodeRetrying | WorkflowRetrying) -> str:
    attempt = f"attempt {event.attempt} of {event.max_attempts}"
    return f"{attempt}, next in {seconds(event.delay_s)}: {_error(event.error)}"


_DETAILS: Final[dict[type[ExecutionEvent], Callable[[Any], str]]] = {
    WorkflowStarted: lambda event: f"{event.name} as a {event.mode}, {event.nodes} nodes",
    WorkflowCompleted: _ended,
    WorkflowPartial: lambda event: f"{_ended(event)}; failed in {', '.join(event.failed_nodes)}",
    WorkflowFailed: lambda event: f"{_ended(event)}; {event.node or ''} {_error(event.error)}",
    WorkflowCancelled: lambda event: f"{_ended(event)}; {event.reason}",
    WorkflowPaused: lambda event: event.reason,
    WorkflowResumed: lambda event: f"after {seconds(event.paused_s)}",
    NodeStarted: lambda event: _attempt(event.attempt, event.rows),
    NodeCompleted: _node_ended,
    NodeFailed: lambda event: f"{_node_ended(event)}  {_error(event.error)}{_then(event)}",
    NodeRetrying: _retrying,
    WorkflowRetrying: _retrying,
    NodeSkipped: lambda event: f"{event.reason} because of {event.cause}",
    RowHeld: lambda event: f"row {event.row_id} waits: {', '.join(wait.wait_kind for wait in event.waits)}",
    RowReturned: lambda event: f"row {event.row_id} after {seconds(event.held_s)}",
    RecordDeadLettered: lambda event: f"letter {event.letter_id}  {_error(event.error)}",
    NodePaused: lambda event: event.reason,
    NodeResumed: lambda event: f"after {seconds(event.paused_s)}",
    NodeEvent: lambda event: f"{event.channel} {event.data!r}",
    StageProgress: _progress,
    LimitChanged: lambda event: f"{event.before:,} -> {event.capacity:,}",
    BreakerChanged: lambda event: f"{event.resource} was {event.before}, is {event.state}",
    LlmCall: _llm_call,
    LoopBlocked: lambda event: f"the loop was blocked for {seconds(event.blocked_s)}",
}
