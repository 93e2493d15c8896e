"""OpenTelemetry: FlowRx's metrics and spans, exported when the operator turns it on.

Owns: `export_telemetry`, the instruments that read `Metrics`, the spans made of events.
Does not own: exporters and sampling (the application configures its providers), counting (metrics), events
(bus).

Always holds: this is off by default and the packages are imported when it is turned on. A span is made from
events, after the fact, with the times they carry: nothing is ever current across a yield or a callback, and
a run costs the same whether its spans are sampled or not. At most `MAX_OPEN` executions are followed at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.events import (
    TERMINAL_KINDS,
    ErrorInfo,
    ExecutionEvent,
    Gap,
    LlmCall,
    NodeCompleted,
    NodeFailed,
    NodeRetrying,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from flowruntime.telemetry.genai import CallMetrics, call_span
from flowruntime.telemetry.metrics import Family, Metrics

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from flowruntime.events.bus import EventBus
    from flowruntime.events.listener import Listener

MAX_OPEN = 10_000
"""Executions with an open span; beyond, the oldest is ended and marked `flow.unfinished`."""

SCOPE = "flowrx"

_SPAN_KINDS = (
    WorkflowStarted, *TERMINAL_KINDS, WorkflowPaused, WorkflowResumed,
    NodeCompleted, NodeFailed, NodeRetrying, LlmCall,
)  # fmt: skip


def export_telemetry(
    bus: EventBus,
    metrics: Metrics,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    version: str | None = None,
) -> Callable[[], None]:
    """Turn on metrics and spans; returns how to turn spans off again, which also ends the open ones.

    Args:
        bus: whose events become spans.
        metrics: read by observable instruments whenever the provider collects; those cannot be taken back.
        meter_provider: the application's; None takes the global one.
        tracer_provider: likewise.
        version: of FlowRx, for the instrumentation scope.
    """
    from opentelemetry import metrics as otel_metrics
    from opentelemetry import trace

    meter = otel_metrics.get_meter(SCOPE, version or "", meter_provider)
    metrics.watch(lambda family: _instrument(meter, family))
    spans = EventSpans(trace.get_tracer(SCOPE, version, tracer_provider))
    listener = spans.attach(bus)
    calls = bus.listen(CallMetrics(meter), (LlmCall,), name="calls of models")

    def stop() -> None:
        listener.close()
        calls.close()
        spans.end_all()

    return stop


def _instrument(meter: Meter, family: Family) -> None:
    from opentelemetry.metrics import Observation

    def read(_: CallbackOptions) -> list[Observation]:
        return [Observation(sample.value, dict(sample.labels)) for sample in family.samples()]

    if family.kind == "counter":
        meter.create_observable_counter(family.name, [read], unit=family.unit, description=family.help)
    else:
        meter.create_observable_gauge(family.name, [read], unit=family.unit, description=family.help)


class EventSpans:
    """One span per execution, one below it per node call, from the bus's events.

    A span of a run is open from its first event to its terminal one; a node's is made whole when it is done.
    A request that waits for an answer has a span for each pass: nothing is open while it is paused.
    Events missed by the bus leave a span event `flow.gap` on every open span.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: OrderedDict[tuple[str, str | None], Span] = OrderedDict()
        self._requests: set[tuple[str, str | None]] = set()
        """Those of `_open` that are requests."""

    def attach(self, bus: EventBus) -> Listener:
        """Follow the events of `bus`."""
        return bus.listen(self, _SPAN_KINDS, name="spans", on_end=lambda _: self.end_all())

    def __call__(self, event: ExecutionEvent | Gap) -> None:
        """Take in the next event."""
        match event:
            case WorkflowStarted():
                self._start(event)
            case WorkflowCompleted() | WorkflowPartial() | WorkflowFailed() | WorkflowCancelled():
                self._end(event)
            case WorkflowPaused():
                self._pause(event)
            case WorkflowResumed():
                self._resume(event)
            case NodeCompleted() | NodeFailed():
                self._node(event)
            case NodeRetrying():
                self._retrying(event)
            case LlmCall():
                more = _attributes(event, {"flow.node": event.node} if event.node else {})
                call_span(self._tracer, event, self._parent(event), more)
            case Gap():
                for span in self._open.values():
                    span.add_event("flow.gap", {"flow.missed": event.missed})
            case _:
                pass  # kinds are chosen in `attach`

    def end_all(self) -> None:
        """End what is still open, marked `flow.unfinished`."""
        while self._open:
            self._end_unfinished()

    def _start(self, event: WorkflowStarted) -> None:
        if len(self._open) >= MAX_OPEN:
            self._end_unfinished()
        span = self._tracer.start_span(
            f"workflow {event.name}",
            context=None,  # below the caller's span, if any
            start_time=_ns(event.at),
            attributes=_attributes(event, {"flow.workflow.name": event.name, "flow.mode": event.mode}),
        )
        self._open[event.workflow_id, event.execution_id] = span
        if event.mode == "request":
            self._requests.add((event.workflow_id, event.execution_id))

    def _pause(self, event: WorkflowPaused) -> None:
        """A request's pass is over; a continuous run only stops reading."""
        key = (event.workflow_id, event.execution_id)
        if key not in self._requests:
            return
        self._requests.discard(key)
        span = self._open.pop(key)
        span.set_attribute("flow.outcome", "paused")
        span.set_attribute("flow.reason", event.reason)
        span.end(_ns(event.at))

    def _resume(self, event: WorkflowResumed) -> None:
        """A request goes on: a pass of its own."""
        key = (event.workflow_id, event.execution_id)
        if key in self._open:
            return
        if len(self._open) >= MAX_OPEN:
            self._end_unfinished()
        span = self._tracer.start_span(
            f"workflow {event.workflow_id}",
            context=None,
            start_time=_ns(event.at),
            attributes=_attributes(event, {"flow.mode": "request"}),
        )
        span.set_attribute("flow.paused_s", event.paused_s)
        self._open[key] = span
        self._requests.add(key)

    def _end(self, event: WorkflowCompleted | WorkflowPartial | WorkflowFailed | WorkflowCancelled) -> None:
        key = (event.workflow_id, event.execution_id)
        self._requests.discard(key)
        span = self._open.pop(key, None)
        if span is None:
            return
        for name, count in msgspec.structs.asdict(event.counts).items():
            span.set_attribute(f"flow.rows.{name}", count)
        span.set_attribute("flow.outcome", type(event).__name__.removeprefix("Workflow").lower())
        match event:
            case WorkflowFailed():
                _fail(span, event.error)
            case WorkflowPartial():
                _fail(span, None, f"failed nodes: {', '.join(event.failed_nodes)}")
            case WorkflowCancelled():
                span.set_attribute("flow.reason", event.reason)
            case WorkflowCompleted():
                pass
        span.end(_ns(event.ended_at))

    def _node(self, event: NodeCompleted | NodeFailed) -> None:
        span = self._tracer.start_span(
            f"node {event.node}",
            context=self._parent(event),
            start_time=_ns(event.started_at),
            attributes=_attributes(event, {"flow.node": event.node, "flow.rows": event.rows}),
        )
        span.set_attribute("flow.attempt", event.attempt)
        if isinstance(event, NodeFailed):
            _fail(span, event.error)
            if event.then is not None:
                span.set_attribute("flow.then", event.then)
        span.end(_ns(event.ended_at))

    def _retrying(self, event: NodeRetrying) -> None:
        span = self._run_span(event)
        if span is not None:
            attributes: dict[str, Any] = {
                "flow.node": event.node,
                "flow.attempt": event.attempt,
                "flow.delay_s": event.delay_s,
                "error.type": event.error.kind,
            }
            span.add_event("flow.retry", attributes, timestamp=_ns(event.at))

    def _run_span(self, event: ExecutionEvent) -> Span | None:
        return self._open.get(self._key(event))

    def _parent(self, event: ExecutionEvent) -> Context | None:
        return self._below(self._key(event))

    def _key(self, event: ExecutionEvent) -> tuple[str, str | None]:
        """Of the span an event belongs to: its own execution's, else that of the run whose record it is."""
        own = (event.workflow_id, event.execution_id)
        if own in self._open or event.execution_id is None:
            return own
        return (event.workflow_id, event.execution_id.partition("/")[0])

    def _below(self, key: tuple[str, str | None]) -> Context | None:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        span = self._open.get(key)
        return Context() if span is None else set_span_in_context(span, Context())

    def _end_unfinished(self) -> None:
        key, span = self._open.popitem(last=False)
        self._requests.discard(key)
        span.set_attribute("flow.unfinished", value=True)
        span.end()


def _attributes(event: ExecutionEvent, more: dict[str, str | int]) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"flow.workflow.id": event.workflow_id, **more}
    if event.execution_id is not None:
        attributes["flow.execution.id"] = event.execution_id
    if event.task is not None:
        attributes["flow.task"] = event.task
    return attributes


def _fail(span: Span, error: ErrorInfo | None, message: str = "") -> None:
    from opentelemetry.trace import Status, StatusCode

    if error is not None:
        span.set_attribute("error.type", error.kind)
        message = error.message
    span.set_status(Status(StatusCode.ERROR, message))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
