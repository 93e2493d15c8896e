"""PydanticAI calling models: an agent with an OpenAI-compatible model, plain asyncio between its runs.

That is how PydanticAI has agents follow each other ("programmatic agent hand-off"): it schedules nothing
itself between them.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, TIMEOUT_S, measured, pool
from benchmarks.loopback import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.loopback import Loopback
    from benchmarks.work import AsyncRun, Measured


def _agent(server: Loopback) -> Agent[None, str]:
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S)
    return Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario: a run of the agent a node, each waiting for those of its parents."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    with loopback(delay_s=delay_s) as server:
        agent = _agent(server)

        async def once() -> dict[str, str]:
            tasks: dict[str, asyncio.Task[str]] = {}

            async def node(name: str) -> str:
                answers = [await tasks[parent] for parent in plan.parents[name]]
                return (await agent.run(prompts.prompt(answers, told[name]))).output

            for name in plan.parents:
                tasks[name] = asyncio.create_task(node(name))
            return {name: await task for name, task in tasks.items()}

        async def work() -> list[dict[str, str]]:
            return [await once() for _ in range(times)]

        async def run() -> Measured:
            return await measured(server, work, calls=times * len(plan.parents))

        yield run


@asynccontextmanager
async def calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls: a run of the agent for each, `limit` of them at once."""
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        agent = _agent(server)

        async def ask(prompt: str) -> str:
            return (await agent.run(prompt)).output

        async def run() -> Measured:
            return await measured(server, lambda: pool(asked, limit, ask), calls=calls, limit=limit)

        yield run
