"""LangGraph calling models: state graphs whose nodes ask langchain-openai's `ChatOpenAI`, as its users do."""

from __future__ import annotations

import asyncio
import operator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, TIMEOUT_S, measured
from benchmarks.loopback import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from benchmarks.loopback import Loopback
    from benchmarks.work import AsyncRun, Measured


class Answers(TypedDict, total=False):
    """State of a scenario: what each node answered, by its name."""

    answers: Annotated[dict[str, str], operator.or_]


def _model(server: Loopback) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S)


def _graph(parents: Mapping[str, tuple[str, ...]], told: Mapping[str, str], model: ChatOpenAI) -> Any:
    """A node a call, compiled."""

    def node(name: str) -> Callable[[Answers], Awaitable[Answers]]:
        async def call(state: Answers) -> Answers:
            answers = [state["answers"][parent] for parent in parents[name]]
            message = await model.ainvoke(prompts.prompt(answers, told[name]))
            return {"answers": {name: message.content}}

        return call

    graph = StateGraph(Answers)
    for name, before in parents.items():
        graph.add_node(name, node(name))
        graph.add_edge(list(before) if before else START, name)
    for last in set(parents) - {parent for before in parents.values() for parent in before}:
        graph.add_edge(last, END)
    return graph.compile()


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario: one graph, or one of a single node for each separate call."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    parts = [{name: ()} for name in plan.parents] if plan.separate else [plan.parents]
    with loopback(delay_s=delay_s) as server:
        graphs = [_graph(part, told, _model(server)) for part in parts]

        async def once() -> dict[str, str]:
            states = await asyncio.gather(*(graph.ainvoke({"answers": {}}) for graph in graphs))
            return {name: answer for state in states for name, answer in state["answers"].items()}

        async def work() -> list[dict[str, str]]:
            return [await once() for _ in range(times)]

        async def run() -> Measured:
            return await measured(server, work, calls=times * len(plan.parents))

        yield run


class Question(TypedDict, total=False):
    """State of the graph that asks one question."""

    prompt: str
    answer: str


@asynccontextmanager
async def calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls: `abatch` of a graph of one node, `limit` at a time."""
    inputs: list[Any] = [{"prompt": prompt} for prompt in prompts.many(calls)]
    with loopback(delay_s=delay_s) as server:
        model = _model(server)

        async def ask(state: Question) -> Question:
            return {"answer": (await model.ainvoke(state["prompt"])).content}

        graph = StateGraph(Question)
        graph.add_node("ask", ask)
        graph.add_edge(START, "ask")
        graph.add_edge("ask", END)
        compiled = graph.compile()

        async def work() -> list[str]:
            states = await compiled.abatch(inputs, config={"max_concurrency": limit})
            return [state["answer"] for state in states]

        async def run() -> Measured:
            return await measured(server, work, calls=calls, limit=limit)

        yield run
