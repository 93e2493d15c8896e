"""What a provider of models must offer, as a protocol.

Owns: `Provider` and `ProviderContext`.
Does not own: any provider (entry points of group `flowrx.llm_providers`, each naming a class or a function
that takes an `Endpoint`); retries, limits, caches, budgets: the runtime applies those around each call.

Always holds: a provider makes one attempt and tells the truth about it, as an answer or as one of
flowcore.llm.errors; it holds no queue, no retry and no clock of its own; it is used by any number of calls at
once, on one loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from flowcore.context import HttpClient
from flowcore.llm.answers import Delta, Embeddings, Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Secret


class ProviderContext(Protocol):
    """What a provider is given to work with."""

    @property
    def http(self) -> HttpClient: ...

    def now_s(self) -> float:
        """Wall-clock time, Unix seconds: to read dates in headers against."""
        ...

    def monotonic(self) -> float: ...

    async def sleep_s(self, seconds: float) -> None:
        """For providers that make time pass themselves (scripted ones)."""
        ...

    def secret(self, name: str) -> Secret:
        """The secret of that name, from the environment or a file.

        Raises:
            SecretNotFoundError: no such secret is set.
        """
        ...


@runtime_checkable
class Provider(Protocol):
    """One provider at one endpoint; what it cannot do is a `RequestRefusedError` of code `unsupported`.

    A provider whose `generate` and `embed` are one HTTP exchange each, under `timeouts.total`, may say so by
    an attribute `keeps_time = True`: nobody times it a second time then.
    """

    @property
    def name(self) -> str:
        """The name users write as `provider:`."""
        ...

    @property
    def max_embed_texts(self) -> int:
        """Texts one `embed` call may have."""
        ...

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        """The whole answer.

        Raises:
            ProviderError: see flowcore.llm.errors.
        """
        ...

    def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece; the last piece has `finish`, and `usage` where the provider tells it.

        Closing the generator ends the exchange at once. A stream that ends without `finish` raises
        `BrokenStreamError`.

        Raises:
            ProviderError: while it is read.
        """
        ...

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        """One vector per text, in order; raises for the whole call or not at all."""
        ...

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        """Tokens the prompt will count, estimated; at least 1. Cost: some microseconds per KB, no call."""
        ...


class ProviderFactory(Protocol):
    """What an entry point names: a class, or a function, that opens an endpoint without any exchange.

    Raises:
        ConfigError: the endpoint lacks something, or has options the provider does not know.
    """

    def __call__(self, endpoint: Endpoint, ctx: ProviderContext) -> Provider: ...
