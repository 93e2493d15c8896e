"""What the tests of rows that wait share: nodes that ask, and a project of one source and one sink.

Owns: `Project`, `until`, the nodes. Does not own: expectations; those stand in the tests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec

from flowcore import (
    NodeContext,
    WaitRequest,
    Workflow,
    node,
)
from flowcore.waits import Wait
from flowruntime.runtime import FlowRuntime
from flowruntime.state.store.entries import WaitFilter
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.scripted import ScriptedSource, scripted
from tests.behaviour.harness import kept, runtime

CALLS: Counter[str] = Counter()


class Order(msgspec.Struct):
    """A value of a node's own type."""

    id: int


@node("hd.ask", waits=True)
async def ask(
    value: Any, ctx: NodeContext, *, timeout: timedelta | None = None, on_timeout: str = "fail"
) -> Any:
    CALLS["ask"] += 1
    request = WaitRequest(
        kind="form",
        title=str(value),
        timeout=timeout,
        on_timeout=on_timeout,  # pyright: ignore[reportArgumentType] - of the test
        default="nobody",
    )
    return [value, await ctx.wait(request)]


@node("hd.twice", waits=True)
async def twice(value: Any, ctx: NodeContext) -> Any:
    first = await ctx.wait(WaitRequest(kind="form", title="first"))
    return [value, first, await ctx.wait(WaitRequest(kind="form", title="second"))]


@node("hd.together", waits=True)
async def together(value: Any, ctx: NodeContext) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.wait(WaitRequest(kind="form", title=title))) for title in "ab"]
    return [value, *(task.result() for task in tasks)]


@node("hd.parts")
def parts(value: int) -> Iterator[int]:
    yield from range(value)


@node("hd.both")
def both(left: Any, right: Any) -> list[Any]:
    return [left, right]


@node("hd.total", kind="collect")
def total(items: list[Any]) -> list[Any]:
    return items


@node("hd.boom")
def boom(value: Any) -> Any:
    raise ValueError(f"no {value}")


@node("hd.order")
def order(value: int) -> Order:
    return Order(value)


@node("hd.typed", waits=True)
async def typed(value: Order, ctx: NodeContext) -> list[Any]:
    assert isinstance(value, Order)
    return [value.id, await ctx.wait(WaitRequest(kind="form"))]


@node("hd.seen")
async def seen(value: Any, ctx: NodeContext) -> dict[str, Any]:
    return {"value": value, "key": ctx.key, "record": ctx.record, "mode": ctx.mode}


class Project:
    """A workflow of one scripted source and one sink, and the store of its rows."""

    def __init__(self, *script: Any, settings: Any = None) -> None:
        CALLS.clear()
        self.source: ScriptedSource = scripted(*script, key=str)
        self.sink = kept()
        self.store = MemoryStore()
        self.workflow = Workflow("held", settings=settings or {})
        self.rows = self.workflow.add("flow.scripted", id="rows")
        self.out: Any = None

    def chain(self, *nodes: Any) -> Project:
        """The source, nodes, the sink."""
        self.workflow.chain(self.rows, *nodes, self.workflow.add("test.kept", id="out"))
        return self

    def add(self, thing: Any, **options: Any) -> Any:
        return self.workflow.add(thing, **options)

    def runtime(self, *nodes: Any, **options: Any) -> FlowRuntime:
        return runtime(nodes=[ScriptedSource, self.sink, *nodes], **{"store": self.store} | options)

    async def run(self, rt: FlowRuntime, **options: Any) -> Any:
        return await (await rt.start(self.workflow, sources={"rows": self.source}, **options)).wait()

    async def start(self, rt: FlowRuntime, **options: Any) -> Any:
        return await rt.start(self.workflow, sources={"rows": self.source}, **options)

    async def open(self) -> list[Wait]:
        """What rows wait for."""
        return list((await self.store.waits.list(WaitFilter(states=frozenset({"open"})), limit=1_000)).items)

    @property
    def written(self) -> list[Any]:
        return sorted(self.sink.rows, key=repr)


async def until(what: Callable[[], Any]) -> None:
    """Let virtual time pass until it is so."""
    for _ in range(1_000):
        found = what()
        if await found if isinstance(found, Awaitable) else found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to be")
