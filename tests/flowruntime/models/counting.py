"""A provider of the tests' own: it answers as a script says, and keeps count of what it was asked.

Owns: `Counting`, and short ways to make requests and targets of it.
Does not own: expectations; those stand in the tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from flowcore.llm.answers import Delta, Embeddings, Generation, RateLimits, Usage
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import (
    AuthenticationError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRefusedError,
)
from flowcore.llm.messages import user
from flowcore.llm.policy import CallPolicy
from flowcore.llm.provider import ProviderContext
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Secret
from flowcore.vectors import vector_of
from flowruntime.models.pricing import Price
from flowruntime.runtime import FlowRuntime
from tests.behaviour.harness import now, runtime

Step = float | BaseException | Callable[["Counting", GenerateRequest], Any]
"""Of a script: seconds an answer takes, an error to raise, or what decides."""

FACTS: dict[str, Any] = {"provider": "counting", "model": "m", "request_id": None}


def unavailable(retry_after_s: float | None = None) -> ProviderUnavailableError:
    return ProviderUnavailableError("down", **FACTS, status=503, retry_after_s=retry_after_s)


def too_many(retry_after_s: float | None = None) -> RateLimitedError:
    return RateLimitedError("slow down", **FACTS, status=429, retry_after_s=retry_after_s)


def no_key() -> AuthenticationError:
    return AuthenticationError("no such key", **FACTS, status=401)


def refused(code: str = "invalid") -> RequestRefusedError:
    return RequestRefusedError("no", **FACTS, status=400, code=code)


class Counting:
    """See the module."""

    def __init__(
        self,
        *script: Step,
        then: Step = 0.1,
        usage: Usage | None = None,
        limits: RateLimits | None = None,
        max_texts: int = 100,
        bad_texts: Callable[[str], bool] = lambda _: False,
        prompt_tokens: int = 10,
    ) -> None:
        self.script: Any = list(script)
        self.then = then
        self.usage = usage or Usage(input_tokens=10, output_tokens=5)
        self.limits = limits
        self.bad_texts = bad_texts
        self.prompt_tokens = prompt_tokens
        self._max_texts = max_texts
        self.times: list[float] = []
        """When each request came."""
        self.models: list[str] = []
        self.texts: list[tuple[str, ...]] = []
        self.in_flight = 0
        self.peak = 0
        self.finished = 0

    def __call__(self, endpoint: Endpoint, ctx: ProviderContext) -> Counting:
        """It is its own factory: every endpoint shares its counters."""
        del endpoint, ctx
        return self

    @property
    def calls(self) -> int:
        return len(self.times)

    @property
    def name(self) -> str:
        return "counting"

    @property
    def max_embed_texts(self) -> int:
        return self._max_texts

    async def _pass(self, request: GenerateRequest | EmbedRequest) -> Any:
        """Do the next step of the script."""
        self.times.append(now())
        self.models.append(request.model)
        step = self.script.pop(0) if self.script else self.then
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if isinstance(step, BaseException):
                await asyncio.sleep(0.001)
                raise step
            if isinstance(step, float | int):
                await asyncio.sleep(step)
                return None
            assert isinstance(request, GenerateRequest)
            return await step(self, request)
        finally:
            self.in_flight -= 1
            self.finished += 1

    async def generate(self, request: GenerateRequest, ctx: ProviderContext) -> Generation:
        del ctx
        given = await self._pass(request)
        if isinstance(given, Generation):
            return given
        return Generation(
            text=f"re: {request.messages[-1].text}", usage=self.usage, model=request.model, limits=self.limits
        )

    async def stream(self, request: GenerateRequest, ctx: ProviderContext) -> AsyncGenerator[Delta, None]:
        del ctx
        await self._pass(request)
        for word in ("re:", " ", request.messages[-1].text):
            await asyncio.sleep(0.01)
            yield Delta(text=word)
        yield Delta(finish="stop", usage=self.usage, model=request.model)

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        del ctx
        self.texts.append(request.texts)
        await self._pass(request)
        if any(map(self.bad_texts, request.texts)):
            raise refused()
        vectors = tuple(vector_of([float(len(text))]) for text in request.texts)
        return Embeddings(vectors=vectors, usage=Usage(input_tokens=10 * len(vectors)), model=request.model)

    def count_tokens(self, request: GenerateRequest | EmbedRequest) -> int:
        if isinstance(request, EmbedRequest):
            return self.prompt_tokens * len(request.texts)
        return self.prompt_tokens


def models_of(**providers: Counting) -> FlowRuntime:
    """A runtime that knows these providers; `async with` it."""
    return runtime(llm_providers=providers, prices={"m": Price(input=1.0, output=2.0)})


def ask(text: str = "hello", **fields: Any) -> GenerateRequest:
    return GenerateRequest(
        model="m", messages=(user(text),), max_tokens=fields.pop("max_tokens", 5), **fields
    )


def at(*providers: str, **policy: Any) -> Target:
    """Endpoints of these providers, under that policy."""
    names = providers or ("counting",)
    endpoints = tuple(Endpoint(provider=name, api_key=Secret("sk-1234567890", name="K")) for name in names)
    return Target(endpoints=endpoints, policy=CallPolicy(**policy))


def idle(rt: FlowRuntime) -> bool:
    """Nothing of the gateway is in use: no permit, place, reservation, flight."""
    gateway = rt.models.gateway
    return (
        all(
            resource.in_flight == 0 and resource.busy == 0 and resource.rates.reserved == 0
            for resource in gateway.resources.values()
        )
        and gateway.budgets.held == 0
        and len(gateway.flights) == 0
    )
