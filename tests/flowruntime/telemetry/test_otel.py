"""What OpenTelemetry's own SDK sees of a run."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowcore.events import (
    ErrorInfo,
    ExecutionEvent,
    NodeCompleted,
    NodeFailed,
    NodeRetrying,
    RowCounts,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from flowcore.workflow import Workflow
from flowruntime.events.bus import EventBus
from flowruntime.telemetry import otel
from flowruntime.telemetry.metrics import Metrics
from flowruntime.telemetry.otel import export_telemetry
from tests.behaviour.harness import Script, later, runtime, same, virtual

ERROR = ErrorInfo(kind="NodeTimeoutError", message="too late")
WHO: dict[str, Any] = {"workflow_id": "w", "execution_id": "x"}
SPAN: dict[str, Any] = {"started_at": 1.0, "ended_at": 2.5}


class Traced:
    """A bus whose spans land in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = provider
        self.bus = EventBus(clock=lambda: 1.0)
        self.stop: Callable[[], None] = export_telemetry(
            self.bus,
            Metrics(),
            tracer_provider=provider,
            meter_provider=MeterProvider(shutdown_on_exit=False),
        )

    def publish(self, *events: ExecutionEvent) -> None:
        for event in events:
            self.bus.publish(event)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def traced() -> Traced:
    return Traced()


def begun(execution_id: str | None = "x") -> WorkflowStarted:
    return WorkflowStarted(workflow_id="w", execution_id=execution_id, name="triage", mode="request", nodes=2)


def test_a_run_is_one_span_and_each_node_one_below_it_with_its_own_times(traced: Traced) -> None:
    traced.publish(
        begun(),
        NodeCompleted(**WHO, **SPAN, node="clean", rows=3),
        WorkflowCompleted(**WHO, started_at=1.0, ended_at=4.0, counts=RowCounts(completed=3)),
    )
    spans = traced.spans()
    run, node = spans["workflow triage"], spans["node clean"]
    assert node.parent is not None
    assert run.context is not None
    assert node.parent.span_id == run.context.span_id
    assert (node.start_time, node.end_time, run.end_time) == (10**9, 25 * 10**8, 4 * 10**9)
    assert attributes(run)["flow.rows.completed"] == 3
    assert attributes(run)["flow.outcome"] == "completed"
    assert attributes(node)["flow.rows"] == 3


def test_a_request_that_waits_has_a_span_for_each_pass_and_none_between(traced: Traced) -> None:
    traced.publish(begun(), WorkflowPaused(**WHO, reason="waits for an answer to ask"))
    first = traced.spans()["workflow triage"]
    assert attributes(first)["flow.outcome"] == "paused"
    assert attributes(first)["flow.reason"] == "waits for an answer to ask"
    traced.publish(
        WorkflowResumed(**WHO, paused_s=60.0), WorkflowCompleted(**WHO, started_at=1.0, ended_at=4.0)
    )
    second = traced.spans()["workflow w"]
    assert (attributes(second)["flow.outcome"], attributes(second)["flow.paused_s"]) == ("completed", 60.0)
    traced.stop()
    assert len(traced.exporter.get_finished_spans()) == 2


def test_a_continuous_run_that_is_paused_stays_one_span(traced: Traced) -> None:
    run = WorkflowStarted(workflow_id="w", execution_id="x", name="triage", mode="stream", nodes=2)
    traced.publish(run, WorkflowPaused(**WHO, reason="asked"), WorkflowResumed(**WHO, paused_s=1.0))
    assert traced.spans() == {}
    traced.publish(WorkflowCompleted(**WHO, started_at=1.0, ended_at=4.0))
    assert list(traced.spans()) == ["workflow triage"]


def test_failures_are_the_spans_status_with_the_errors_kind(traced: Traced) -> None:
    traced.publish(
        begun(),
        NodeRetrying(**WHO, node="call", attempt=1, max_attempts=2, delay_s=0.1, error=ERROR),
        NodeFailed(**WHO, **SPAN, node="call", attempt=2, error=ERROR),
        WorkflowFailed(**WHO, **SPAN, error=ERROR, node="call"),
    )
    spans = traced.spans()
    for span in spans.values():
        assert span.status.description == "too late"
        assert attributes(span)["error.type"] == "NodeTimeoutError"
    assert [event.name for event in spans["workflow triage"].events] == ["flow.retry"]


def test_a_partial_run_is_an_error_and_a_cancelled_one_says_why(traced: Traced) -> None:
    traced.publish(begun(), WorkflowPartial(**WHO, **SPAN, failed_nodes=("a", "b")))
    assert traced.spans()["workflow triage"].status.description == "failed nodes: a, b"
    traced.publish(begun(), WorkflowCancelled(**WHO, **SPAN, reason="told to"))
    assert attributes(traced.spans()["workflow triage"])["flow.reason"] == "told to"


@virtual
async def test_a_node_of_a_stream_is_below_the_streams_span_and_of_no_other_runs() -> None:
    wf = Workflow("told")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"), wf.add(later, id="b"))
    async with runtime() as rt:
        provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        rt.export_telemetry(tracer_provider=provider)
        for _ in range(2):
            await (await rt.start(wf, sources={"s": Script([[1, 2]])})).wait()
    spans = exporter.get_finished_spans()
    runs = {span.context.span_id: span for span in spans if span.name == "workflow told" and span.context}
    nodes = [span for span in spans if span.name.startswith("node ")]
    assert len(runs) == 2
    assert len(nodes) == 2 * 2 * 2
    assert Counter(span.parent.span_id for span in nodes if span.parent is not None) == dict.fromkeys(runs, 4)


def test_a_run_that_has_not_ended_is_marked_so_when_the_export_ends(traced: Traced) -> None:
    traced.publish(begun())
    traced.stop()
    assert attributes(traced.spans()["workflow triage"])["flow.unfinished"] is True


def test_a_request_is_below_the_callers_span(traced: Traced) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("handler") as handler:
        traced.publish(begun(), WorkflowCompleted(**WHO, **SPAN))
    parent = traced.spans()["workflow triage"].parent
    assert parent is not None
    assert parent.span_id == handler.get_span_context().span_id


def test_nothing_is_current_after_an_event(traced: Traced) -> None:
    traced.publish(begun())
    from opentelemetry.trace import get_current_span

    assert not get_current_span().get_span_context().is_valid


def test_executions_that_never_end_are_bounded(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "MAX_OPEN", 1)
    traced.publish(begun("x"), begun("y"))
    assert [attributes(span)["flow.execution.id"] for span in traced.exporter.get_finished_spans()] == ["x"]


def test_turned_off_again_the_bus_is_idle(traced: Traced) -> None:
    assert traced.bus.active
    traced.stop()
    assert not traced.bus.active


def test_metrics_are_read_when_they_are_collected_also_families_that_came_later() -> None:
    reader, metrics = InMemoryMetricReader(), Metrics()
    queue = [1, 2, 3]
    metrics.counter("flow_rows_total", "Rows", node="a").value += 5
    provider = MeterProvider([reader], shutdown_on_exit=False)
    export_telemetry(EventBus(), metrics, meter_provider=provider, tracer_provider=TracerProvider())
    metrics.gauge("flow_queued", "Queued rows", lambda: len(queue), stage="s")
    metrics.counter("flow_rows_total", "Rows", node="b").value += 1
    data = reader.get_metrics_data()
    assert data is not None
    points: dict[tuple[object, ...], object] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        read: list[Any] = list(metric.data.data_points)
        points |= {(metric.name, *point.attributes.values()): point.value for point in read}
    assert points == {("flow_rows_total", "a"): 5, ("flow_rows_total", "b"): 1, ("flow_queued", "s"): 3}


def test_importing_telemetry_loads_neither_opentelemetry_nor_structlog() -> None:
    program = (
        "import sys, flowruntime.telemetry.otel, flowruntime.telemetry.logs;"
        "print([name for name in ('opentelemetry', 'structlog', 'rich', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
