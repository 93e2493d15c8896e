"""Calls that are cancelled at any point leave nothing: no socket, no task, no work at the server.

None of n calls leaks, so with 95 % confidence fewer than 3/n do: 0.3 % here, 0.03 % in the long form.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import pytest
from aiohttp import web

from flowcore.context import HttpRequest
from flowruntime.http.client import GuardedHttpClient

AT_ONCE = 50


class Server(Protocol):
    handlers: dict[str, Callable[[web.Request], object]]
    open: int

    @property
    def url(self) -> str: ...


async def test_a_thousand_calls_cancelled_at_random_points_leave_nothing(
    server: Server, client: GuardedHttpClient
) -> None:
    await _cancel_at_random(server, client, calls=1_000, seed=7)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_ten_thousand_calls_cancelled_at_random_points_leave_nothing(
    server: Server, client: GuardedHttpClient
) -> None:
    await _cancel_at_random(server, client, calls=10_000, seed=11)


async def _cancel_at_random(server: Server, client: GuardedHttpClient, *, calls: int, seed: int) -> None:
    """Whole answers and endless streams, with small bodies and such that take several writes."""
    server.handlers["/endless"] = _endless
    rng = random.Random(seed)
    sockets, tasks = _sockets(), len(asyncio.all_tasks())
    cancelled = 0

    async def call() -> None:
        is_stream = rng.random() < 0.5
        path = "/endless" if is_stream else "/"
        body = b"x" * rng.choice([1, 100_000])
        request = HttpRequest(url=f"{server.url}{path}", method="POST", body=body)
        if not is_stream:
            await client.send(request)
            return
        async with client.stream(request) as stream:
            async for _ in stream.chunks():
                pass

    for _ in range(calls // AT_ONCE):
        running = [asyncio.ensure_future(call()) for _ in range(AT_ONCE)]
        for task in running:
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.004)
            cancelled += task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task
    await _until(lambda: server.open == 0)
    assert cancelled > calls // 4  # the others had ended by then
    assert (await client.send(HttpRequest(url=server.url))).status == 200  # in working order
    await client.close()
    await _until(lambda: _sockets() <= sockets and len(asyncio.all_tasks()) <= tasks)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 100)
        await asyncio.sleep(0.001)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what the kernel has open tells nobody
            await asyncio.sleep(0.01)


def _sockets() -> int:
    """Sockets this process has open; both ends of each connection are here."""
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, and they may go meanwhile
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")  # noqa: PTH115 - as above
    return count
