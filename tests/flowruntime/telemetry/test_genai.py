"""Calls of models in OpenTelemetry's words: spans and metrics after the GenAI conventions, and no secret."""

# pyright: reportDeprecated=false
# The conventions for models have moved to a registry of their own; this package is what is published of them.

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode

from flowcore import Workflow, node
from flowcore.context import NodeContext
from flowcore.llm.calls import Prompt, Target
from flowcore.llm.endpoint import Endpoint
from flowcore.values import Secret
from flowruntime.models.report import host_of
from flowruntime.telemetry import genai
from tests.behaviour.harness import runtime, virtual
from tests.flowruntime.models.counting import Counting, ask, at, no_key, unavailable

TARGET = Target(
    endpoints=(
        Endpoint(
            provider="counting",
            base_url="https://user:hunter2@models.example:8443/v1?key=sk-hidden",
            api_key=Secret("sk-1234567890", name="K"),
        ),
    )
)


def test_every_name_is_one_the_conventions_publish() -> None:
    """Against the package OpenTelemetry generates from its registry: attributes, values, metrics, units."""
    constants = {value for value in vars(genai).values() if isinstance(value, str)}
    ours = {value for value in constants if value.startswith("gen_ai.")}
    metrics = {value for value in ours if value.startswith("gen_ai.client.")}
    assert ours - metrics <= {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    assert {genai.ADDRESS, genai.PORT} == {server_attributes.SERVER_ADDRESS, server_attributes.SERVER_PORT}
    assert error_attributes.ERROR_TYPE == genai.ERROR_TYPE
    published = _made_by(
        gen_ai_metrics.create_gen_ai_client_token_usage,
        gen_ai_metrics.create_gen_ai_client_operation_duration,
        gen_ai_metrics.create_gen_ai_client_operation_time_to_first_chunk,
    )
    assert _made_by(genai.CallMetrics) == published
    assert set(published) == metrics
    operations = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    assert {"chat", "embeddings"} <= operations
    assert {"input", "output"} == {value.value for value in gen_ai_attributes.GenAiTokenTypeValues}
    providers = {value.value for value in gen_ai_attributes.GenAiProviderNameValues}
    assert set(genai.PROVIDERS.values()) <= providers
    installed = {point.name for point in entry_points(group="flowrx.llm_providers")}
    told = {genai.PROVIDERS.get(name, name) for name in installed}
    assert {
        "openai",
        "anthropic",
        "deepseek",
        "groq",
        "perplexity",
        *genai.PROVIDERS.values(),
    } <= told & providers


def _made_by(*makers: Callable[[Meter], object]) -> dict[str, str]:
    """The instruments that are made, with their units."""
    found: dict[str, str] = {}

    class Noting(NoOpMeter):
        def create_histogram(self, name: str, unit: str = "", *args: Any, **more: Any) -> Any:
            found[name] = unit
            return super().create_histogram(name, unit, *args, **more)

    for make in makers:
        make(Noting("noting"))
    return found


def test_an_endpoint_is_named_by_its_host_alone() -> None:
    assert host_of(TARGET.endpoints[0]) == "models.example:8443"
    assert host_of(Endpoint(provider="x", base_url="localhost:11434")) == "localhost:11434"
    assert host_of(Endpoint(provider="x", base_url="http://[::1]:99999999/")) == "::1"
    assert host_of(Endpoint(provider="x")) == ""


@virtual
async def test_each_call_is_a_span_below_its_execution_and_counts_in_three_histograms() -> None:
    @node("genai.call")
    async def call(value: str, ctx: NodeContext) -> str:
        prompt = Prompt(name="greet", version="1")
        pieces = [piece.text async for piece in ctx.models.stream(ask(value), TARGET, prompt=prompt)]
        return "".join(pieces)

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    metering = MeterProvider([reader], shutdown_on_exit=False)
    wf = Workflow("calls")
    wf.add(call, id="call")
    async with runtime(llm_providers={"counting": Counting(unavailable())}) as rt:
        rt.export_telemetry(meter_provider=metering, tracer_provider=tracing)
        await rt.execute(wf, {"call": {"value": "x"}})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    span, parent = spans["chat m"], spans["workflow calls"]
    assert span.kind is SpanKind.CLIENT
    assert span.parent is not None
    assert parent.context is not None
    assert span.parent.span_id == parent.context.span_id
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "counting"
    assert attributes["gen_ai.usage.input_tokens"] == 10
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert (attributes["server.address"], attributes["server.port"]) == ("models.example", 8443)
    assert (attributes["flow.attempts"], attributes["flow.node"]) == (2, "call")
    told = str([dict(each.attributes or {}) for each in spans.values()]) + str(_points(reader))
    assert "hunter2" not in told
    assert "sk-" not in told
    points = _points(reader)
    assert points["gen_ai.client.token.usage"] == {"input": 10, "output": 5}
    assert points["gen_ai.client.operation.duration"][None] > 0
    assert points["gen_ai.client.operation.time_to_first_chunk"][None] > 0
    metering.shutdown()


@virtual
async def test_a_call_that_failed_says_with_what() -> None:
    exporter = InMemorySpanExporter()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    async with runtime(llm_providers={"counting": Counting(then=no_key())}) as rt:
        rt.export_telemetry(meter_provider=MeterProvider(shutdown_on_exit=False), tracer_provider=tracing)
        with suppress(PermissionError):
            await rt.models.generate(ask(), at())
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {})["error.type"] == "AuthenticationError"
    assert span.status.status_code is StatusCode.ERROR


def _points(reader: InMemoryMetricReader) -> dict[str, dict[Any, float]]:
    """Sums by instrument and kind of token."""
    data: Any = reader.get_metrics_data()
    found: dict[str, dict[Any, float]] = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name.startswith("gen_ai"):
                    found.setdefault(metric.name, {}).update(
                        {
                            point.attributes.get("gen_ai.token.type"): point.sum
                            for point in metric.data.data_points
                        }
                    )
    return found
