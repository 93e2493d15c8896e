"""Which provider, which model, with which key and under which rules a client works.

Owns: `LlmConfig`, `EmbeddingConfig`: made as `LlmConfig.openai(key, model="gpt-4o-mini")`, for every
installed provider by its name.
Does not own: providers (entry points of group `flowrx.llm_providers`).

Always holds: a key given as text becomes a Secret at once; no repr shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Final, Self, TypeVar

from flowcore.errors import ConfigError
from flowcore.findings import did_you_mean, shown
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.policy import CallPolicy
from flowcore.llm.requests import Timeouts
from flowcore.values import Secret

PROVIDERS: Final = "flowrx.llm_providers"

C = TypeVar("C", bound="ModelChoice")


class _ByProvider(type):
    """Gives a configuration class a maker for every installed provider."""

    def __getattr__(cls: type[C], name: str) -> Callable[..., C]:  # pyright: ignore[reportGeneralTypeIssues] - the metaclass of these alone
        if name.startswith("_"):
            raise AttributeError(name)
        known = {point.name for point in entry_points(group=PROVIDERS)}
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(sorted(known))}"
            raise AttributeError(f"no provider {shown(name)} is installed; {hint}")

        def make(api_key: str | Secret | None = None, *, model: str = "", **options: Any) -> C:
            return cls.of(name, api_key, model=model, **options)

        return make

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *(point.name for point in entry_points(group=PROVIDERS))]


@dataclass(frozen=True, kw_only=True)
class ModelChoice(metaclass=_ByProvider):
    """A provider, a model of it, and how it is called."""

    provider: str
    model: str
    api_key: Secret | None = None
    base_url: str | None = None
    headers: Mapping[str, str | Secret] = field(default_factory=dict[str, "str | Secret"])
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 - frozen
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    policy: CallPolicy = CallPolicy()  # noqa: RUF009 - frozen
    fallback: tuple[ModelChoice, ...] = ()
    """Asked in turn when the first one cannot answer."""

    @classmethod
    def of(cls, provider: str, api_key: str | Secret | None = None, /, *, model: str, **options: Any) -> Self:
        """A configuration for a provider by its name.

        Args:
            provider: as installed.
            api_key: left out: the provider's usual environment variable.
            model: as the provider names it.
            options: further fields.

        Raises:
            ConfigError: there is no model, or no such field.
        """
        if not model:
            raise ConfigError(f"{provider} needs a model: {cls.__name__}.{provider}(key, model='...')")
        unknown = sorted(set(options) - set(cls.__dataclass_fields__))
        if unknown:
            hint = did_you_mean(unknown[0], cls.__dataclass_fields__)
            raise ConfigError(f"{cls.__name__} has no field {shown(unknown[0])}; {hint}", value=unknown[0])
        key = Secret(api_key, name="api_key") if isinstance(api_key, str) else api_key
        return cls(provider=provider, model=model, api_key=key, **options)

    def endpoint(self) -> Endpoint:
        """Where calls go."""
        return Endpoint(
            provider=self.provider,
            base_url=self.base_url,
            api_key=self.api_key,
            headers=self.headers,
            timeouts=self.timeouts,
            options=self.options,
        )

    def target(self) -> Target:
        """Who is asked, and under which rules."""
        return Target(
            endpoints=(self.endpoint(), *(each.endpoint() for each in self.fallback)),
            models=(None, *(each.model for each in self.fallback)),
            policy=self.policy,
        )


@dataclass(frozen=True, kw_only=True)
class LlmConfig(ModelChoice):
    """For `LlmClient`; the fields below hold where a call does not say otherwise."""

    max_tokens: int | None = None
    temperature: float | None = None
    system: str | None = None
    """Said before each prompt."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(ModelChoice):
    """For `EmbeddingClient`."""

    dimensions: int | None = None
    """None: the model's own."""
