"""Our requests: `rt.execute` of warm workflows, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks import data
from benchmarks.work import AsyncRun, Measured
from flowcore import Gather, NodeCompleted, Workflow, node
from flowruntime import FlowRuntime

LAST = f"n{max(data.DAG_PARENTS)}"


# --- ten nodes ---------------------------------------------------------------------------------------------


@node("benchmark.enter")
def enter(value: int) -> int:
    """The first node."""
    return data.dag_value(0, [value])


@node("benchmark.add")
def add(inputs: Gather[int], *, number: int) -> int:
    """Every other node: all its parents' answers and its own number."""
    return data.dag_value(number, inputs)


@node("benchmark.enter_async")
async def enter_async(value: int) -> int:
    """`enter` as a coroutine."""
    return data.dag_value(0, [value])


@node("benchmark.add_async")
async def add_async(inputs: Gather[int], *, number: int) -> int:
    """`add` as a coroutine."""
    return data.dag_value(number, inputs)


def _dag(first: Callable[..., Any], others: Callable[..., Any]) -> Workflow:
    workflow = Workflow("dag")
    handles = {0: workflow.add(first, id="n0")}
    for number, parents in data.DAG_PARENTS.items():
        if not parents:
            continue
        handles[number] = workflow.add(others, id=f"n{number}", config={"number": number})
        for parent in parents:
            workflow.connect(handles[parent], handles[number])
    return workflow


@asynccontextmanager
async def _watched(workflow: Workflow, requests: int, *, stuck: int = 0) -> AsyncGenerator[AsyncRun]:
    """Requests with a subscriber that reads every event and must see each node complete.

    `stuck` more subscribe to all events and never read one.
    """
    async with FlowRuntime() as runtime, AsyncExitStack() as stack:
        for _ in range(stuck):
            await stack.enter_async_context(runtime.events.subscribe(buffer=1024))

        async def count_completed(wanted: int) -> None:
            """Ends when all nodes were seen; a gap makes the run time out, which fails the contender."""
            seen = 0
            async with runtime.events.subscribe(buffer=65_536) as events:
                ready.set()
                async for event in events:
                    seen += isinstance(event, NodeCompleted)
                    if seen == wanted:
                        return

        ready = asyncio.Event()

        async def run() -> list[object]:
            ready.clear()
            reader = asyncio.create_task(count_completed(requests * len(data.DAG_PARENTS)))
            await ready.wait()
            answers: list[object] = []
            for value in range(requests):
                result = await runtime.execute(workflow, {"n0": {"value": value}})
                answers.append(result.outputs[LAST]["out"] if result.ok else repr(result.errors))
            async with asyncio.timeout(10):
                await reader
            return answers

        yield run


def dag_of_functions(requests: int, stuck: int = 0) -> Any:
    """Plain functions, which the compiler may fuse."""
    return _watched(_dag(enter, add), requests, stuck=stuck)


def dag_of_coroutines(requests: int) -> Any:
    """Coroutine functions: every node is an async stage."""
    return _watched(_dag(enter_async, add_async), requests)


# --- fan-out, independent nodes, siblings ------------------------------------------------------------------


@node("benchmark.start")
async def start(value: int) -> int:
    """Passes on."""
    return value


@node("benchmark.plus")
async def plus(value: int, *, number: int) -> int:
    """Adds its number."""
    return value + number


@node("benchmark.total")
async def total(values: Gather[int]) -> int:
    """Adds up."""
    return sum(values)


@asynccontextmanager
async def fan_out(width: int) -> AsyncGenerator[AsyncRun]:
    """One coroutine, `width` coroutines after it, one after them all."""
    workflow = Workflow("fan-out")
    first, last = workflow.add(start, id="start"), workflow.add(total, id="total")
    for number, name in enumerate(data.names("x", width)):
        branch = workflow.add(plus, id=name, config={"number": number})
        workflow.chain(first, branch, last)
    async with FlowRuntime() as runtime:

        async def run() -> object:
            result = await runtime.execute(workflow, {"start": {"value": 1}})
            result.raise_for_state()
            return result.outputs["total"]["out"]

        yield run


@asynccontextmanager
async def independent(width: int, delay_s: float, limit: int) -> AsyncGenerator[AsyncRun]:
    """`width` coroutines with no edge between them, at most `limit` at work in the whole workflow."""
    at_work = 0
    peak = 0

    @node("benchmark.wait")
    async def wait(value: int) -> int:
        nonlocal at_work, peak
        at_work += 1
        peak = max(peak, at_work)
        await asyncio.sleep(delay_s)
        at_work -= 1
        return value

    workflow = Workflow("independent", settings={"max_parallel": limit})
    names = data.names("x", width)
    for name in names:
        workflow.add(wait, id=name)
    inputs = {name: {"value": number} for number, name in enumerate(names)}
    async with FlowRuntime() as runtime:

        async def run() -> Measured:
            nonlocal peak
            peak = 0
            result = await runtime.execute(workflow, inputs)
            result.raise_for_state()
            return Measured([result.outputs[name]["out"] for name in names], facts={"peak": peak})

        yield run


@asynccontextmanager
async def sibling(fast_s: float, slow_s: float) -> AsyncGenerator[AsyncRun]:
    """A fast and a slow coroutine and a child of the fast one; timed until the child starts."""
    child_started = 0.0

    @node("benchmark.slow")
    async def slow(value: int) -> int:
        await asyncio.sleep(slow_s)
        return value

    @node("benchmark.fast")
    async def fast(value: int) -> int:
        await asyncio.sleep(fast_s)
        return value

    @node("benchmark.child")
    async def child(value: int) -> int:
        nonlocal child_started
        child_started = time.perf_counter()
        return value + 1

    workflow = Workflow("sibling")
    workflow.add(slow, id="slow")
    workflow.chain(workflow.add(fast, id="fast"), workflow.add(child, id="child"))
    async with FlowRuntime() as runtime:

        async def run() -> Measured:
            started = time.perf_counter()
            result = await runtime.execute(workflow, {"slow": {"value": 1}, "fast": {"value": 2}})
            result.raise_for_state()
            outputs = {name: result.outputs[name]["out"] for name in ("slow", "fast", "child")}
            return Measured(outputs, seconds=child_started - started)

        yield run
