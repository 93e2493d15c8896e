"""Calls of models as OpenTelemetry's GenAI conventions have them: one span and three histograms a call.

Owns: the names of those conventions that are used here, a call's span, `CallMetrics`.
Does not own: when they are exported (otel), counting tokens (flowruntime.models).

Always holds: both are made of the `LlmCall` event, after the fact: no span is ever current. No prompt, answer
or key is in any of it. A call that was answered from what was kept has a span and no metrics.

Source: OpenTelemetry semantic conventions for generative AI, client spans and client metrics; the names are
our own constants, because their Python module is not stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flowcore.events import ExecutionEvent, Gap, LlmCall

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
PROMPT: Final = "gen_ai.prompt.name"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - of the conventions
ADDRESS: Final = "server.address"
PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - likewise
DURATION: Final = "gen_ai.client.operation.duration"
FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"

PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Providers the conventions have another name for; all others are told by their own."""

_TOKEN_BUCKETS: Final = [4.0**power for power in range(14)]
_SECOND_BUCKETS: Final = [0.01 * 2.0**power for power in range(14)]


def attributes_of(event: LlmCall) -> dict[str, str | int]:
    """What a call's span and metrics share: closed sets, and no ids."""
    provider = PROVIDERS.get(event.provider, event.provider)
    found: dict[str, str | int] = {OPERATION: event.operation, PROVIDER: provider, MODEL: event.model}
    host, _, port = event.endpoint.rpartition(":")
    if event.endpoint:
        found[ADDRESS] = host or port
    if host and port.isdecimal():
        found[PORT] = int(port)
    if event.error is not None:
        found[ERROR_TYPE] = event.error
    return found


def call_span(tracer: Tracer, event: LlmCall, below: Context | None, more: Mapping[str, Any]) -> None:
    """Make the span of a call, whole.

    Args:
        tracer: makes it.
        event: the call.
        below: the span of its execution.
        more: attributes of FlowRx's own.
    """
    from opentelemetry.trace import SpanKind, Status, StatusCode

    span = tracer.start_span(
        f"{event.operation} {event.model}".rstrip(),
        context=below,
        kind=SpanKind.CLIENT,
        start_time=_ns(event.started_at),
        attributes={**more, **attributes_of(event)},
    )
    span.set_attribute(INPUT_TOKENS, event.input_tokens)
    span.set_attribute(OUTPUT_TOKENS, event.output_tokens)
    if event.cached_tokens:
        span.set_attribute(CACHED_TOKENS, event.cached_tokens)
    span.set_attribute("flow.attempts", event.attempts)
    for name, value in (
        ("flow.cost_usd", event.cost_usd),
        (PROMPT, event.prompt or None),
        ("flow.prompt.version", event.prompt_version or None),
        (FIRST_CHUNK_S, event.first_token_s),
    ):
        if value is not None:
            span.set_attribute(name, value)
    for flag in ("hedged", "cached", "journaled"):
        if getattr(event, flag):
            span.set_attribute(f"flow.{flag}", value=True)
    if event.error is not None:
        span.set_status(Status(StatusCode.ERROR, event.error))
    span.end(_ns(event.started_at + event.duration_s))


class CallMetrics:
    """The histograms of the conventions.

    Args:
        meter: makes them.
    """

    def __init__(self, meter: Meter) -> None:
        self._tokens = meter.create_histogram(
            TOKEN_USAGE,
            unit="{token}",
            description="Tokens of a call of a model",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self._duration = meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of a call of a model, its waits and retries included",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        )
        self._first = meter.create_histogram(
            FIRST_CHUNK,
            unit="s",
            description="Time to the first piece of a streamed answer",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        )

    def __call__(self, event: ExecutionEvent | Gap) -> None:
        """Take a call in."""
        if not isinstance(event, LlmCall) or not event.attempts:
            return
        shared = attributes_of(event)
        self._duration.record(event.duration_s, shared)
        if event.first_token_s is not None:
            self._first.record(event.first_token_s, shared)
        for kind, tokens in (("input", event.input_tokens), ("output", event.output_tokens)):
            if tokens:
                self._tokens.record(tokens, {**shared, TOKEN_TYPE: kind})


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
