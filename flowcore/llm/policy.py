"""Under which rules calls of models are made: limits, retries, hedging, caches, budgets, priorities.

Owns: the declarations. Does not own: carrying them out (flowruntime.resilience).

Always holds: a policy that exists is valid. Limits belong to the endpoint and model, whoever declares them:
where several calls declare different ones, the strictest holds for all.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from flowcore.errors import ConfigError
from flowcore.policies import Breaker, RetryPolicy

Lane: TypeAlias = Literal["interactive", "normal", "background"]
Balance: TypeAlias = Literal["fallback", "round_robin", "least_busy"]
Reaction: TypeAlias = Literal["fail", "stop", "cheaper", "defer", "dead_letter"]
Scope: TypeAlias = Literal["workflow", "key", "all"]

_POSITIVE = Meta(ge=1)


class ModelLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may be asked of an endpoint and model by this worker."""

    concurrency: Annotated[int | None, Meta(ge=1, description="calls in flight; left out: adaptive")] = None
    most: Annotated[int, Meta(ge=1, description="bound of the adaptive limit")] = 1_000
    requests_per_minute: Annotated[int | None, _POSITIVE] = None
    tokens_per_minute: Annotated[int | None, _POSITIVE] = None


class Hedge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a slow call a second time and take the answer that comes first; the other one is cancelled."""

    after: timedelta | None = None
    """None: the 95th percentile of this resource's latency, once 20 calls were seen."""
    budget: Annotated[float, Meta(gt=0, le=1, description="hedged calls per call, at most")] = 0.05


class CachePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answer equal requests from what was answered before."""

    store: Literal["memory", "sqlite"] = "memory"
    ttl: timedelta | None = timedelta(hours=24)
    entries: Annotated[int, Meta(ge=1, description="kept in memory at most")] = 10_000
    also_random: bool = False
    """Also requests whose temperature is not 0: each answer is then given again and again."""


class BudgetPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much calls may cost, and what becomes of those beyond it."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] = "budget"
    usd: Annotated[float | None, Meta(gt=0)] = None
    tokens: Annotated[int | None, _POSITIVE] = None
    window: timedelta | None = None
    """None: for the life of the run, or of the request; else per window, which begins with its first call."""
    scope: Scope = "workflow"
    """Whose calls count together: of the workflow, of each key (tenant), or all of this worker."""
    reaction: Reaction = "fail"
    """`fail`: the call; `stop`: the run, drained; `cheaper`: call `cheaper_model`; `defer`: wait for the next
    window; `dead_letter`: the row."""
    cheaper_model: str | None = None

    def __post_init__(self) -> None:
        if self.usd is None and self.tokens is None:
            raise ConfigError("a budget needs usd or tokens", field="usd")
        if (self.reaction == "cheaper") != (self.cheaper_model is not None):
            raise ConfigError(
                "cheaper_model belongs to reaction: cheaper, and it needs one", field="cheaper_model"
            )
        if self.reaction == "defer" and self.window is None:
            raise ConfigError("reaction: defer waits for the next window; set window", field="window")


class CallPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is declared for the calls of one node or client."""

    retry: RetryPolicy = RetryPolicy(max_attempts=4)
    """Of one call, below the node's own `retry`."""
    breaker: Breaker | None = Breaker()
    limits: ModelLimits = ModelLimits()
    hedge: Hedge | None = None
    cache: CachePolicy | None = None
    single_flight: bool = False
    """Equal requests under way at once are one call; always so where the cache answers them."""
    journal: bool = False
    """Keep each answer until its record is settled, so that a record that comes again is not paid again."""
    budgets: tuple[BudgetPolicy, ...] = ()
    lane: Lane = "normal"
    balance: Balance = "fallback"
