"""LlamaIndex Workflows calling models: steps that ask OpenAI's own client.

LlamaIndex's LLM package wants an older `openai` than PydanticAI does, and the peers share one environment;
the client it wraps is asked directly, which can only be faster.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from openai import AsyncOpenAI
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, TIMEOUT_S, measured, pool
from benchmarks.loopback import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from benchmarks.loopback import Loopback
    from benchmarks.work import AsyncRun, Measured


class Asking(Workflow):
    """A workflow whose steps ask the model."""

    def __init__(self, client: AsyncOpenAI, told: Mapping[str, str], *, at_once: int | None = None) -> None:
        super().__init__(timeout=10 * TIMEOUT_S, num_concurrent_runs=at_once)
        self._client = client
        self._told = told

    async def answer(self, prompt: str) -> str:
        """One call."""
        completion = await self._client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}]
        )
        return completion.choices[0].message.content or ""

    async def node(self, name: str, *answers: str) -> str:
        """The call of a node."""
        return await self.answer(prompts.prompt(answers, self._told[name]))


class Single(Asking):
    """One call; its prompt comes with the request."""

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await self.answer(ev.prompt))


class First(Event):
    first: str


class Second(Event):
    first: str
    second: str


class Third(Event):
    first: str
    second: str
    third: str


class Chain(Asking):
    """Four calls, one after the other."""

    @step
    async def step1(self, ev: StartEvent) -> First:
        return First(first=await self.node("first"))

    @step
    async def step2(self, ev: First) -> Second:
        return Second(first=ev.first, second=await self.node("second", ev.first))

    @step
    async def step3(self, ev: Second) -> Third:
        return Third(first=ev.first, second=ev.second, third=await self.node("third", ev.second))

    @step
    async def step4(self, ev: Third) -> StopEvent:
        fourth = await self.node("fourth", ev.third)
        return StopEvent(result={"first": ev.first, "second": ev.second, "third": ev.third, "fourth": fourth})


class Task(Event):
    name: str


class Done(Event):
    name: str
    answer: str


class Parallel(Asking):
    """Four calls at once: one step with four workers, one event a call."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> Task | None:
        for name in prompts.SCENARIOS["parallel"].parents:
            ctx.send_event(Task(name=name))

    @step(num_workers=4)
    async def ask(self, ev: Task) -> Done:
        return Done(name=ev.name, answer=await self.node(ev.name))

    @step
    async def end(self, ctx: Context, ev: Done) -> StopEvent | None:
        done = ctx.collect_events(ev, [Done] * 4)
        return None if done is None else StopEvent(result={each.name: each.answer for each in done})


class Content(Event):
    content: str


class ToCost(Event):
    content: str
    solution: str


class ToRisk(Event):
    solution: str


class Cost(Event):
    content: str
    solution: str
    answer: str


class Risk(Event):
    answer: str


class Graph(Asking):
    """content -> solution -> {cost, risk} -> recommendation."""

    @step
    async def content(self, ev: StartEvent) -> Content:
        return Content(content=await self.node("content"))

    @step
    async def solution(self, ctx: Context, ev: Content) -> ToCost | ToRisk | None:
        solution = await self.node("solution", ev.content)
        ctx.send_event(ToCost(content=ev.content, solution=solution))
        ctx.send_event(ToRisk(solution=solution))

    @step
    async def cost(self, ev: ToCost) -> Cost:
        answer = await self.node("cost", ev.solution)
        return Cost(content=ev.content, solution=ev.solution, answer=answer)

    @step
    async def risk(self, ev: ToRisk) -> Risk:
        return Risk(answer=await self.node("risk", ev.solution))

    @step
    async def recommendation(self, ctx: Context, ev: Cost | Risk) -> StopEvent | None:
        both = ctx.collect_events(ev, [Cost, Risk])
        if both is None:
            return None
        cost, risk = both
        answer = await self.node("recommendation", cost.answer, risk.answer)
        return StopEvent(
            result={
                "content": cost.content,
                "solution": cost.solution,
                "cost": cost.answer,
                "risk": risk.answer,
                "recommendation": answer,
            }
        )


WORKFLOWS = {"chain": Chain, "parallel": Parallel, "graph": Graph}
"""By scenario; the others are single calls."""


def _client(server: Loopback) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S)


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario: one workflow, or one of a single step for each call that needs no other's answer."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    with loopback(delay_s=delay_s) as server:
        workflow = WORKFLOWS.get(scenario, Single)(_client(server), told)

        async def once() -> dict[str, str]:
            if scenario in WORKFLOWS:
                return await workflow.run()
            answers = await asyncio.gather(*(workflow.run(prompt=told[name]) for name in plan.parents))
            return dict(zip(plan.parents, answers, strict=True))

        async def work() -> list[dict[str, str]]:
            return [await once() for _ in range(times)]

        async def run() -> Measured:
            return await measured(server, work, calls=times * len(plan.parents))

        yield run


@asynccontextmanager
async def calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls: a run of the workflow of one step for each, `limit` of them at once."""
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        workflow = Single(_client(server), {}, at_once=limit)

        async def ask(prompt: str) -> str:
            return await workflow.run(prompt=prompt)

        async def run() -> Measured:
            return await measured(server, lambda: pool(asked, limit, ask), calls=calls, limit=limit)

        yield run
