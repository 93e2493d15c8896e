"""LangGraph: state graphs compiled once, run by `ainvoke`, `astream` and `abatch`."""

from __future__ import annotations

import asyncio
import operator
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks import data
from benchmarks.work import Measured

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from benchmarks.work import AsyncRun


class Number(TypedDict, total=False):
    """State of the one-node graph."""

    number: int
    result: int


@asynccontextmanager
async def async_stage(records: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """`abatch` over all numbers of a graph with one node, `limit` at a time."""

    async def double(state: Number) -> Number:
        await asyncio.sleep(delay_s)
        return {"result": 2 * state["number"]}

    graph = StateGraph(Number)
    graph.add_node("double", double)
    graph.add_edge(START, "double")
    graph.add_edge("double", END)
    compiled = graph.compile()
    inputs: list[Any] = [{"number": number} for number in range(records)]

    async def run() -> list[int]:
        outputs = await compiled.abatch(inputs, config={"max_concurrency": limit})
        return [output["result"] for output in outputs]

    yield run


class Outputs(TypedDict, total=False):
    """State of the other graphs: what each node answered, by its name."""

    outputs: Annotated[dict[str, int], operator.or_]


def _dag() -> Any:
    graph = StateGraph(Outputs)

    def node(number: int) -> Callable[[Outputs], Awaitable[Outputs]]:
        parents = [f"n{parent}" for parent in data.DAG_PARENTS[number]] or ["input"]

        async def call(state: Outputs) -> Outputs:
            inputs = [state["outputs"][parent] for parent in parents]
            return {"outputs": {f"n{number}": data.dag_value(number, inputs)}}

        return call

    for number, parents in data.DAG_PARENTS.items():
        graph.add_node(f"n{number}", node(number))
        graph.add_edge([f"n{parent}" for parent in parents] if parents else START, f"n{number}")
    graph.add_edge(f"n{max(data.DAG_PARENTS)}", END)
    return graph.compile()


@asynccontextmanager
async def dag(requests: int, *, events: bool) -> AsyncGenerator[AsyncRun]:
    """The ten-node DAG, one request after the other; with events each task's start and end is read."""
    compiled = _dag()
    last = f"n{max(data.DAG_PARENTS)}"

    async def silent(value: int) -> int:
        state = await compiled.ainvoke({"outputs": {"input": value}})
        return state["outputs"][last]

    async def watched(value: int) -> int:
        answer = -1
        stream = compiled.astream({"outputs": {"input": value}}, stream_mode=["tasks", "values"])
        async for mode, chunk in stream:
            if mode == "values":
                answer = chunk["outputs"].get(last, -1)
        return answer

    async def run() -> list[int]:
        request = watched if events else silent
        return [await request(value) for value in range(requests)]

    yield run


@asynccontextmanager
async def fan_out(width: int) -> AsyncGenerator[AsyncRun]:
    """One node, `width` nodes after it, one node after them all."""
    graph = StateGraph(Outputs)
    names = data.names("x", width)

    def branch(number: int) -> Callable[[Outputs], Awaitable[Outputs]]:
        async def call(state: Outputs) -> Outputs:
            return {"outputs": {f"x{number}": state["outputs"]["start"] + number}}

        return call

    async def start(_: Outputs) -> Outputs:
        return {"outputs": {"start": 1}}

    async def total(state: Outputs) -> Outputs:
        return {"outputs": {"total": sum(state["outputs"][name] for name in names)}}

    graph.add_node("start", start)
    graph.add_edge(START, "start")
    for number, name in enumerate(names):
        graph.add_node(name, branch(number))
        graph.add_edge("start", name)
    graph.add_node("total", total)
    graph.add_edge(names, "total")
    graph.add_edge("total", END)
    compiled = graph.compile()

    async def run() -> int:
        state = await compiled.ainvoke({"outputs": {}})
        return state["outputs"]["total"]

    yield run


@asynccontextmanager
async def independent(width: int, delay_s: float, limit: int) -> AsyncGenerator[AsyncRun]:
    """`width` nodes with no edge between them; `max_concurrency` is LangGraph's limit."""
    graph = StateGraph(Outputs)
    at_work = [0]
    peak = [0]

    def node(number: int) -> Callable[[Outputs], Awaitable[Outputs]]:
        async def call(_: Outputs) -> Outputs:
            at_work[0] += 1
            peak[0] = max(peak[0], at_work[0])
            await asyncio.sleep(delay_s)
            at_work[0] -= 1
            return {"outputs": {f"x{number}": number}}

        return call

    for number, name in enumerate(data.names("x", width)):
        graph.add_node(name, node(number))
        graph.add_edge(START, name)
    compiled = graph.compile()

    async def run() -> Measured:
        peak[0] = 0
        state = await compiled.ainvoke({"outputs": {}}, config={"max_concurrency": limit})
        outputs = [state["outputs"][name] for name in data.names("x", width)]
        return Measured(outputs, facts={"peak": peak[0]})

    yield run


@asynccontextmanager
async def sibling(fast_s: float, slow_s: float) -> AsyncGenerator[AsyncRun]:
    """A fast and a slow node after START and a child of the fast one; timed until the child starts."""
    graph = StateGraph(Outputs)
    child_started = [0.0]

    async def slow(_: Outputs) -> Outputs:
        await asyncio.sleep(slow_s)
        return {"outputs": {"slow": 1}}

    async def fast(_: Outputs) -> Outputs:
        await asyncio.sleep(fast_s)
        return {"outputs": {"fast": 2}}

    async def child(state: Outputs) -> Outputs:
        child_started[0] = time.perf_counter()
        return {"outputs": {"child": state["outputs"]["fast"] + 1}}

    graph.add_node("slow", slow)
    graph.add_node("fast", fast)
    graph.add_node("child", child)
    graph.add_edge(START, "slow")
    graph.add_edge(START, "fast")
    graph.add_edge("fast", "child")
    compiled = graph.compile()

    async def run() -> Measured:
        started = time.perf_counter()
        state = await compiled.ainvoke({"outputs": {}})
        return Measured(state["outputs"], seconds=child_started[0] - started)

    yield run
