"""What all nodes that call a model are configured with: who is asked, how, and under which rules.

Owns: `EndpointConfig`, `ModelConfig`, `GenerateConfig`, and the request and target they make; `Asks`.
Does not own: prompts (prompt), what becomes of an answer (each node), carrying calls out (the runtime).

Always holds: a key is a Secret; it is in no message and no repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from msgspec import Meta, Struct

from flowcore.errors import ConfigError
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.messages import Message, OutputSchema, Tool
from flowcore.llm.policy import CallPolicy
from flowcore.llm.requests import GenerateRequest, Timeouts
from flowcore.values import Secret

Name = Annotated[str, Meta(min_length=1, max_length=256)]
_ADDRESS = Meta(pattern=r"^https?://", description="where the provider is; left out: its usual address")


class EndpointConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider, its address and key, and the model asked for there."""

    provider: Annotated[str, Meta(min_length=1, description="openai, anthropic, ollama, scripted, ...")]
    model: Annotated[str, Meta(min_length=1, description="as the provider names it")]
    base_url: Annotated[str | None, _ADDRESS] = None
    api_key: Annotated[
        Secret | None, Meta(description="left out: from the provider's usual environment variable")
    ] = None
    headers: Annotated[dict[str, str | Secret], Meta(description="added to each request")] = {}
    timeouts: Timeouts = Timeouts()
    options: Annotated[dict[str, Any], Meta(description="what only this provider knows")] = {}

    def endpoint(self) -> Endpoint:
        """Where calls go; secrets are resolved by now."""
        return Endpoint(
            provider=self.provider,
            base_url=self.base_url,
            api_key=self.api_key,
            headers=self.headers,
            timeouts=self.timeouts,
            options=self.options,
        )


class ModelConfig(EndpointConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked, who else where that fails, and under which rules calls are made."""

    fallback: Annotated[
        tuple[EndpointConfig, ...], Meta(description="asked in turn when the first one cannot answer")
    ] = ()
    calls: Annotated[
        CallPolicy, Meta(description="limits, retry, breaker, hedge, cache, journal, budgets, lane, balance")
    ] = CallPolicy()

    def target(self) -> Target:
        """Who is asked; the same object may serve every call of a node."""
        others = self.fallback
        return Target(
            endpoints=(self.endpoint(), *(each.endpoint() for each in others)),
            models=(None, *(each.model for each in others)),
            policy=self.calls,
        )


class Asks:
    """Of a node that asks a model: whom, made once."""

    config: Any

    @cached_property
    def target(self) -> Target:
        """Who is asked, with the node's secrets."""
        target: Target = self.config.target()
        return target


class GenerateConfig(ModelConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is to answer."""

    max_tokens: Annotated[int | None, Meta(ge=1, description="of the answer")] = None
    temperature: Annotated[float | None, Meta(ge=0, le=2)] = None
    top_p: Annotated[float | None, Meta(gt=0, le=1)] = None
    stop: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()
    seed: int | None = None
    cache_prompt: Annotated[bool, Meta(description="let the provider keep the beginning of the prompt")] = (
        False
    )
    extra: Annotated[dict[str, Any], Meta(description="fields added to the request as they are")] = {}
    prompt_version: Annotated[
        str | None, Meta(max_length=64, description="for events and spans; left out: a hash of the template")
    ] = None

    def __post_init__(self) -> None:
        reserved = sorted({"model", "messages", "stream", "tools"} & set(self.extra))
        if reserved:
            raise ConfigError(
                f"extra: {', '.join(reserved)} cannot be set there; use the fields of the configuration",
                field="extra",
            )

    def request(
        self,
        messages: tuple[Message, ...],
        *,
        output: OutputSchema | None = None,
        tools: tuple[Tool, ...] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> GenerateRequest:
        """What the model is asked."""
        return GenerateRequest(
            model=self.model,
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
            tools=tools,
            output=output,
            cache_prompt=self.cache_prompt,
            extra=self.extra if extra is None else {**self.extra, **extra},
        )
