"""A server on loopback for the tests of the guarded client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server on a free loopback port; remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.handlers: dict[str, Handler] = {}
        self.left = asyncio.Event()
        self.open = 0
        """Requests being answered now."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.open += 1
        try:
            self.seen.append((request.method, request.path_qs, headers, await request.read()))
            handler = self.handlers.get(request.path)
            return web.json_response({"ok": True}) if handler is None else await handler(request)
        finally:
            self.open -= 1
            self.left.set()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    await web.SockSite(runner, listener).start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[GuardedHttpClient]:
    async with GuardedHttpClient(HttpSettings(allow_private=True)) as client:
        yield client
