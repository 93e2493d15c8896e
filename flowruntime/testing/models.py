"""Models for tests of single nodes: the provider is called straight, once, without limits and retries.

Owns: `DirectModels`. Does not own: the gateway of a real run (flowruntime.models), providers.

Always holds: what the node asked for is in `calls`; time is that of the context, so nothing waits for real.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import NamedTuple, Protocol

import msgspec

from flowcore.context import HttpClient
from flowcore.errors import ContractError
from flowcore.llm.answers import Delta, Generation
from flowcore.llm.calls import Prompt, Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import Provider, ProviderFactory
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Secret
from flowcore.vectors import Vector


class Asked(NamedTuple):
    """One call of `ctx.models`."""

    request: GenerateRequest | EmbedRequest
    target: Target
    prompt: Prompt | None


class TestingContext(Protocol):
    """What a context of a test lends the providers."""

    http: HttpClient

    def monotonic(self) -> float: ...
    async def sleep(self, delay: timedelta) -> None: ...
    def secret(self, name: str) -> Secret: ...


class _Surroundings:
    def __init__(self, context: TestingContext, now_s: Callable[[], float]) -> None:
        self._context = context
        self._now_s = now_s

    @property
    def http(self) -> HttpClient:
        return self._context.http

    def now_s(self) -> float:
        return self._now_s()

    def monotonic(self) -> float:
        return self._context.monotonic()

    async def sleep_s(self, seconds: float) -> None:
        await self._context.sleep(timedelta(seconds=seconds))

    def secret(self, name: str) -> Secret:
        return self._context.secret(name)


class DirectModels:
    """The `Models` of a context in a test: the target's first endpoint is asked.

    Args:
        providers: by name.
        context: of the test.
        now_s: its wall clock, Unix seconds.
    """

    def __init__(
        self, providers: Mapping[str, ProviderFactory], context: TestingContext, now_s: Callable[[], float]
    ) -> None:
        self._factories = dict(providers)
        self._surroundings = _Surroundings(context, now_s)
        self._opened: dict[str, Provider] = {}
        self.calls: list[Asked] = []
        """What was asked, in order."""

    def _provider(self, endpoint: Endpoint) -> Provider:
        name = endpoint.provider
        if name not in self._opened:
            if name not in self._factories:
                known = ", ".join(map(repr, self._factories)) or "none"
                raise ContractError(
                    f"the node calls provider {name!r} and the test gave {known}; pass providers={{...}}",
                    provider=name,
                )
            self._opened[name] = self._factories[name](endpoint, self._surroundings)
        return self._opened[name]

    def _model(self, request: GenerateRequest, target: Target) -> GenerateRequest:
        model = target.models[0] if target.models else None
        return request if model is None else msgspec.structs.replace(request, model=model)

    async def generate(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> Generation:
        """What the provider gives."""
        self.calls.append(Asked(request, target, prompt))
        provider = self._provider(target.endpoints[0])
        return await provider.generate(self._model(request, target), self._surroundings)

    async def stream(
        self, request: GenerateRequest, target: Target, *, prompt: Prompt | None = None
    ) -> AsyncGenerator[Delta, None]:
        """What the provider streams."""
        self.calls.append(Asked(request, target, prompt))
        provider = self._provider(target.endpoints[0])
        async with aclosing(provider.stream(self._model(request, target), self._surroundings)) as pieces:
            async for piece in pieces:
                yield piece

    async def embed(self, request: EmbedRequest, target: Target) -> tuple[Vector | Exception, ...]:
        """What the provider gives for as many texts at once as it takes."""
        self.calls.append(Asked(request, target, None))
        provider = self._provider(target.endpoints[0])
        found: list[Vector | Exception] = []
        for start in range(0, len(request.texts), provider.max_embed_texts):
            texts = request.texts[start : start + provider.max_embed_texts]
            part = msgspec.structs.replace(request, texts=texts)
            found.extend((await provider.embed(part, self._surroundings)).vectors)
        return tuple(found)

    def count_tokens(self, request: GenerateRequest | EmbedRequest, target: Target) -> int:
        """As the provider estimates it."""
        return self._provider(target.endpoints[0]).count_tokens(request)
