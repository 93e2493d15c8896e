"""How a node calls a model: `ctx.models`.

Owns: the protocol, and what a call says beside its request.
Does not own: how it is carried out: limits, retries, caches, journal and budgets are the runtime's
(flowruntime.resilience), shared by everything on this worker that calls the same endpoint and model.

Always holds: a call waits where it must, so its row holds its credit and the source slows down with the
provider; a cancelled call leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from flowcore.llm.answers import Delta, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.policy import CallPolicy
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.vectors import Vector


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked: one endpoint, or several of which one answers (`CallPolicy.balance`)."""

    endpoints: tuple[Endpoint, ...]
    """At least one; the order counts for `fallback`."""
    models: tuple[str | None, ...] = ()
    """For each endpoint the model asked for there; None, or left out: the request's own."""
    policy: CallPolicy = CallPolicy()


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """Which template a request was made from, for events and spans."""

    name: str = ""
    version: str = ""
    """As the user says it, or the first 12 hex digits of the template's SHA-256."""


class Models(Protocol):
    """Calls of models, on behalf of one row (or batch) of one node."""

    async def generate(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> Generation:
        """The whole answer.

        Raises:
            ProviderError: after what the policy allows of retries and fallbacks.
            BudgetExceededError: a budget is spent and says fail.
            CircuitOpenError: the endpoint has failed too often and is left alone.
        """
        ...

    def stream(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece; retried and hedged only until the first piece has left."""
        ...

    async def embed(self, request: EmbedRequest, target: Target) -> tuple[Vector | Exception, ...]:
        """A vector or an error per text, in order.

        Split into calls of at most what the provider takes; a call that is refused is halved until the
        texts that cannot be embedded stand alone. Raises only what concerns all texts (key, model, outage).
        """
        ...

    def count_tokens(self, request: GenerateRequest | EmbedRequest, target: Target) -> int:
        """Tokens the prompt will count, estimated."""
        ...
