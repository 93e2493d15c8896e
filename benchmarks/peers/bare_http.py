"""No engine at all: an HTTP client that asks the model. The limit, no competitor; runs in our environment.

Twice: aiohttp as its users use it, and httpx's transport on it, called directly: what our HTTP client ran on
before, and what a bar is set by.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, measured, pool
from benchmarks.loopback import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from benchmarks.work import AsyncRun, Measured

    Ask = Callable[[str], Awaitable[str]]

HEADERS = {"authorization": f"Bearer {KEY}"}


def _body(prompt: str) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


@asynccontextmanager
async def _aiohttp(url: str) -> AsyncGenerator[Ask]:
    """Calls by aiohttp."""
    address = f"{url}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)  # how many are in flight is the pool's business
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def ask(prompt: str) -> str:
            async with session.post(address, json=_body(prompt)) as response:
                answer = await response.json()
            return answer["choices"][0]["message"]["content"]

        yield ask


@asynccontextmanager
async def _transport(url: str) -> AsyncGenerator[Ask]:
    """Calls by `AiohttpTransport` without httpx's client around it."""
    address = httpx.URL(f"{url}/v1/chat/completions")
    headers = {**HEADERS, "content-type": "application/json"}

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async with AiohttpTransport(client=session) as transport:

        async def ask(prompt: str) -> str:
            content = json.dumps(_body(prompt)).encode()
            request = httpx.Request("POST", address, headers=headers, content=content)
            response = await transport.handle_async_request(request)
            try:
                answer = json.loads(await response.aread())
            finally:
                await response.aclose()
            return answer["choices"][0]["message"]["content"]

        yield ask


async def _scenario(plan: prompts.Scenario, told: dict[str, str], ask: Ask) -> dict[str, str]:
    """Every node's answer: a task per node that waits for its parents' tasks."""
    tasks: dict[str, asyncio.Task[str]] = {}

    async def node(name: str) -> str:
        answers = [await tasks[parent] for parent in plan.parents[name]]
        return await ask(prompts.prompt(answers, told[name]))

    for name in plan.parents:
        tasks[name] = asyncio.create_task(node(name))
    return {name: await task for name, task in tasks.items()}


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario by aiohttp and plain asyncio, `times` times."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    with loopback(delay_s=delay_s) as server:
        async with _aiohttp(server.url) as ask:

            async def work() -> list[dict[str, str]]:
                return [await _scenario(plan, told, ask) for _ in range(times)]

            async def run() -> Measured:
                return await measured(server, work, calls=times * len(plan.parents))

            yield run


@asynccontextmanager
async def _calls(
    calls: int, limit: int, delay_s: float, client: Callable[[str], AbstractAsyncContextManager[Ask]]
) -> AsyncGenerator[AsyncRun]:
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        async with client(server.url) as ask:

            async def run() -> Measured:
                return await measured(server, lambda: pool(asked, limit, ask), calls=calls, limit=limit)

            yield run


def calls_by_aiohttp(calls: int, limit: int, delay_s: float) -> object:
    """Many calls, `limit` in flight, by aiohttp."""
    return _calls(calls, limit, delay_s, _aiohttp)


def calls_by_transport(calls: int, limit: int, delay_s: float) -> object:
    """Many calls, `limit` in flight, by the transport."""
    return _calls(calls, limit, delay_s, _transport)
