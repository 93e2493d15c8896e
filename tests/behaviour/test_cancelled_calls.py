"""Ten thousand calls cancelled at random moments: no connection, task, descriptor, permit or thread is left.

Real sockets and real time: what leaks are things of the operating system. The seed is printed with the
figures.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web

from flowcore import Workflow, node
from flowruntime import FlowRuntime

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CALLS = 10_000
AT_ONCE = 32
LONGEST_S = 0.12
"""A call is cancelled within that; many take less, so some go through."""
ANSWER_S = 0.01


@node("calls.before")
async def before(value: str) -> str:
    await asyncio.sleep(0)
    return value


@node("calls.after", offload="thread")
def after(value: str) -> int:
    return len(value)


class Server:
    """Answers after a while, and counts who is connected."""

    def __init__(self, chance: random.Random) -> None:
        self.at_work = 0
        self.url = ""
        self._chance = chance

    async def answer(self, request: web.Request) -> web.Response:
        del request
        self.at_work += 1
        try:
            await asyncio.sleep(self._chance.random() * ANSWER_S)
            return web.Response(text="x" * self._chance.randrange(1, 100_000))
        finally:
            self.at_work -= 1


@asynccontextmanager
async def serving(chance: random.Random) -> AsyncGenerator[Server]:
    server = Server(chance)
    app = web.Application()
    app.router.add_post("/", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    await web.SockSite(runner, listener).start()
    try:
        yield server
    finally:
        await runner.cleanup()


def flow(url: str) -> Workflow:
    wf = Workflow("calls", settings={"limits": {"resources": {"server": 16}}})
    wf.add(before, id="before")
    wf.add("http.request", id="call", config={"url": url, "method": "POST"}, resource="server")
    wf.connect("before", "call.body")
    wf.add(after, id="after")
    wf.connect("call.body", "after.value")
    return wf


async def cancelled_at_random(rt: FlowRuntime, wf: Workflow, chance: random.Random) -> str:
    task = asyncio.create_task(rt.execute(wf, {"before": {"value": "x"}}))
    await asyncio.sleep(chance.random() * LONGEST_S)
    task.cancel()
    try:
        return (await task).state.name
    except asyncio.CancelledError:
        return "cancelled"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough


async def quiet(server: Server) -> None:
    """Until nothing of ours is on its way: cancelled threads and closed sockets end a little later."""
    for _ in range(200):
        if server.at_work == 0:
            return
        await asyncio.sleep(0.01)


async def test_ten_thousand_cancelled_calls_leave_nothing_behind() -> None:
    seed = int(os.environ.get("FLOW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    chance = random.Random(seed)
    ends: Counter[str] = Counter()
    async with serving(chance) as server:
        tasks_before = len(asyncio.all_tasks())
        async with FlowRuntime(allow_private_networks=True, watchdog=None, state_dir=None) as rt:
            wf = flow(server.url)
            assert (await rt.execute(wf, {"before": {"value": "x"}})).ok
            await quiet(server)
            warm = descriptors(), threading.active_count()

            async def some() -> None:
                while ends["cancelled"] < CALLS:
                    ends[await cancelled_at_random(rt, wf, chance)] += 1

            await asyncio.gather(*(some() for _ in range(AT_ONCE)))
            await quiet(server)
            figures = rt.statistics()
            # Kept-alive connections and idle threads may be as many as calls were at work at once, no more.
            left = descriptors() - warm[0], threading.active_count() - warm[1]
            print(f"seed={seed} ends={dict(ends)} descriptors={left[0]} threads={left[1]}")  # noqa: T201 - what a long test was run for
            assert server.at_work == 0
            assert _in_use(figures) == 0
            assert left[0] <= 2 * AT_ONCE, "a connection for both ends of each call at work"
            assert left[1] <= AT_ONCE + 4
            done = await asyncio.wait_for(rt.execute(wf, {"before": {"value": "x"}}), 10)
            assert done.ok
            assert ends["completed"] > 0
            assert set(ends) == {"cancelled", "completed"}
        for _ in range(200):
            if len(asyncio.all_tasks()) == tasks_before:
                break
            await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) <= tasks_before, sorted(map(repr, asyncio.all_tasks()))


def _in_use(figures: Any) -> int:
    """Permits taken and jobs at work anywhere in a runtime's statistics."""
    if isinstance(figures, dict):
        items = cast("dict[str, Any]", figures)
        taken = [items.get(name) for name in ("in_use", "in_flight", "queued")]
        counted = sum(value for value in taken if isinstance(value, int))
        return counted + sum(_in_use(value) for value in items.values())
    if isinstance(figures, list):
        return sum(_in_use(each) for each in cast("list[Any]", figures))
    return 0
