"""A server on loopback that speaks the wire format of a provider of models, and misbehaves when told to.

Owns: `FakeLlm`: what it was asked, what it answers next. Does not own: wire formats (llm_formats).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal, Protocol

from aiohttp import web

from flowcore.llm.answers import Generation
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.requests import Timeouts
from flowcore.values import Secret
from flowruntime.testing.conformance.provider_subject import Seen

KEY = "sk-test-0123456789abcdef"
Manner = Literal["well", "cut", "stall", "endless", "hang", "torn"]


class Format(Protocol):
    """One wire format."""

    provider: str
    path: str
    """Added to the address of the server."""
    stream_type: str
    options: Mapping[str, Any]

    def whole(self, answer: Generation) -> bytes: ...
    def pieces(self, answer: Generation) -> Sequence[bytes]: ...
    def filler(self) -> bytes:
        """A piece that adds a little text."""
        ...

    def vectors(self, asked: dict[str, Any], vectors: Sequence[Sequence[float]]) -> bytes: ...


class FakeLlm:
    """The server.

    Args:
        format: it speaks.
    """

    def __init__(self, format: Format) -> None:
        self._format = format
        self._answer = Generation()
        self._vectors: Sequence[Sequence[float]] = ()
        self._raw: tuple[int, Mapping[str, str], bytes] | None = None
        self._manner: Manner = "well"
        self.seen: list[Seen] = []
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self._format.path}"

    def endpoint(self, **changes: Any) -> Endpoint:
        """Where it is."""
        fields: dict[str, Any] = {
            "provider": self._format.provider,
            "base_url": self.url,
            "api_key": Secret(KEY),
            "options": self._format.options,
            "timeouts": Timeouts(total=timedelta(seconds=20)),
        }
        return Endpoint(**(fields | changes))

    def answer(self, answer: Generation, vectors: Sequence[Sequence[float]] = ()) -> None:
        self._answer, self._vectors, self._raw, self._manner = answer, vectors, None, "well"

    def behave(self, manner: Manner) -> None:
        self._raw, self._manner = None, manner

    def raw(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._raw, self._manner = (status, headers or {}, body), "well"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        try:
            body = await request.read()
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.seen.append(Seen(request.method, request.path_qs, headers, body))
            return await self._respond(request, body)
        finally:
            self.open -= 1

    async def _respond(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if self._raw is not None:
            status, headers, raw = self._raw
            return web.Response(status=status, headers=headers, body=raw)
        if self._manner == "hang":
            await asyncio.Event().wait()
        if request.method == "GET":
            return web.json_response({"data": []})
        asked = json.loads(body)
        if "embed" in request.path or "feature-extraction" in request.path:
            return self._json(self._format.vectors(asked, self._vectors))
        if not asked.get("stream"):
            return self._json(self._format.whole(self._answer))
        return await self._streamed(request)

    @staticmethod
    def _json(body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def _streamed(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": self._format.stream_type})
        await response.prepare(request)
        pieces = self._format.pieces(self._answer)
        if self._manner != "well":
            pieces = pieces[: len(pieces) // 2]
        for piece in pieces:
            await response.write(piece)
        if self._manner == "stall":
            await asyncio.Event().wait()
        while self._manner == "endless":
            await response.write(self._format.filler() * 100)
        if self._manner == "torn":
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response


@asynccontextmanager
async def serving(format: Format) -> AsyncGenerator[FakeLlm, None]:
    """The server, while the block runs."""
    fake = FakeLlm(format)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    fake.port = listener.getsockname()[1]
    await web.SockSite(runner, listener).start()
    try:
        yield fake
    finally:
        await runner.cleanup()
