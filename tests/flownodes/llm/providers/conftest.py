"""A provider opened at a server of its wire format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, cast

import pytest

from flowcore.llm.answers import Assembly, Delta, Generation
from flowcore.llm.messages import Tool, user
from flowcore.llm.provider import Provider, ProviderFactory
from flowcore.llm.requests import GenerateRequest
from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings
from flowruntime.testing.conformance.provider_subject import StandaloneProviderContext
from tests.servers.llm import FakeLlm, Format, serving

TOOL = Tool(name="look_up", description="finds", parameters={"type": "object", "properties": {}})


class Bench:
    """A provider, its server, and what the server was asked."""

    def __init__(self, provider: Provider, server: FakeLlm, context: StandaloneProviderContext) -> None:
        self.provider = provider
        self.server = server
        self.context = context

    @property
    def asked(self) -> dict[str, Any]:
        """The body of the last request."""
        return cast("dict[str, Any]", json.loads(self.server.seen[-1].body))

    async def generate(self, request: GenerateRequest) -> Generation:
        return await self.provider.generate(request, self.context)

    async def pieces(self, request: GenerateRequest) -> list[Delta]:
        async with aclosing(self.provider.stream(request, self.context)) as deltas:
            return [delta async for delta in deltas]

    async def streamed(self, request: GenerateRequest) -> Generation:
        whole = Assembly()
        for piece in await self.pieces(request):
            whole.add(piece)
        return whole.whole()

    def says(self, value: Any) -> None:
        """What the server answers, as JSON."""
        self.server.raw(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def streams(self, *events: Any) -> None:
        """What the server streams, as server-sent events."""
        body = b"".join(
            b"data: " + (event.encode() if isinstance(event, str) else json.dumps(event).encode()) + b"\n\n"
            for event in events
        )
        self.server.raw(200, body, {"content-type": "text/event-stream"})


Opening = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def opened() -> AsyncIterator[Opening]:
    """What opens one: factory, format, `secrets` by name, and fields of the endpoint to change."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(GuardedHttpClient(HttpSettings(allow_private=True)))

        async def opening(
            factory: ProviderFactory,
            format: Format,
            *,
            secrets: Mapping[str, str] | None = None,
            **changes: Any,
        ) -> Bench:
            server = await stack.enter_async_context(serving(format))
            server.answer(Generation(text="Hello.", model="m", id="a"), [[1.0, 0.0]])
            context = StandaloneProviderContext(http, secrets)
            return Bench(factory(server.endpoint(**changes), context), server, context)

        yield opening


@pytest.fixture
def tool() -> Tool:
    return TOOL


@pytest.fixture
def hello() -> GenerateRequest:
    return GenerateRequest(model="m", messages=(user("Hello?"),))
