"""Contexts for tests: virtual time, recorded logs and events, given secrets and responses."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from flowcore.context import HttpRequest, HttpResponse, HttpStream, NodeContext, SinkContext, SourceContext
from flowcore.errors import ContractError, PathRefusedError, SecretNotFoundError
from flowruntime.testing.contexts import (
    EPOCH,
    StandaloneNodeContext,
    StandaloneSinkContext,
    StandaloneSourceContext,
    VirtualTime,
)


class Echo:
    """Answers with the address it was asked for."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=200, headers={}, body=request.url.encode(), url=request.url, elapsed_s=0.0)

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        raise AssertionError(f"nothing here streams a response: {request.url}")


async def greet(name: str, ctx: NodeContext) -> str:
    """A node as a user writes one."""
    ctx.log("greeting", name=name)
    ctx.emit("progress", 1)
    await ctx.sleep(timedelta(hours=1))
    answer = await ctx.http.send(HttpRequest(url=f"https://x/{ctx.secret('TOKEN').reveal()}"))
    ctx.state.data["seen"] = name
    return answer.body.decode()


async def test_a_node_is_called_with_everything_it_may_ask_for() -> None:
    ctx = StandaloneNodeContext(secrets={"TOKEN": "t"}, http=Echo(), timeout=timedelta(hours=2))
    assert await greet("ann", ctx) == "https://x/t"
    assert ctx.logs == [("info", "greeting", {"name": "ann"})]
    assert ctx.events == [("progress", 1)]
    assert ctx.now() == EPOCH + timedelta(hours=1)
    assert ctx.deadline == 7200
    assert ctx.state.data == {"seen": "ann"}


async def test_what_the_test_did_not_give_is_an_error_that_says_so() -> None:
    ctx = StandaloneNodeContext()
    with pytest.raises(SecretNotFoundError, match="pass secrets="):
        ctx.secret("TOKEN")
    with pytest.raises(ContractError, match="pass http="):
        await ctx.http.send(HttpRequest(url="https://x/"))


async def test_sleepers_wake_in_order_of_their_time_whatever_order_they_began_in() -> None:
    time = VirtualTime()
    woken: list[float] = []

    async def sleeper(delay_s: float) -> None:
        await time.sleep(timedelta(seconds=delay_s))
        woken.append(time.monotonic())

    await asyncio.gather(*(sleeper(delay) for delay in (3, 1, 2, 1)))
    assert woken == [1, 1, 2, 3]


async def test_paths_stay_inside_the_roots_links_included(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    source: SourceContext = StandaloneSourceContext(roots=[str(root)])
    sink: SinkContext = StandaloneSinkContext(roots=[str(root)])
    for ctx in (source, sink):
        assert ctx.allowed_path(f"{root}/a") == f"{root}/a"
        for outside in (f"{root}/../b", f"{root}/link/b", f"{tmp_path}/root2", "/etc/passwd"):
            with pytest.raises(PathRefusedError, match="outside the allowed roots"):
                ctx.allowed_path(outside)
