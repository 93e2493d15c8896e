"""GraphBit 0.6.8 calling models: by its engine, one agent a call, and by its client alone.

Its engine puts the answers of a node's parents before the node's prompt by itself, parted by blank lines; the
prompts of all contenders have that form. How many agents it runs at once cannot be set.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from graphbit import Executor, LlmClient, LlmConfig, Node, Workflow

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, measured, pool
from benchmarks.loopback import loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from benchmarks.loopback import Loopback
    from benchmarks.work import AsyncRun, Measured

MOST_PROMPTS = 1_000
"""GraphBit refuses a batch of more."""


def _config(server: Loopback) -> LlmConfig:
    return LlmConfig.bytedance(KEY, MODEL, server.url + "/v1")


def _workflow(parents: Mapping[str, tuple[str, ...]], told: Mapping[str, str]) -> Workflow:
    """An agent a node."""
    workflow = Workflow("scenario")
    ids: dict[str, str] = {}
    for name, before in parents.items():
        ids[name] = workflow.add_node(Node.agent(name, told[name], output_name=name))
        for parent in before:
            workflow.connect(ids[parent], ids[name])
    workflow.validate()
    return workflow


async def _outputs(executor: Executor, workflow: Workflow, names: list[str]) -> dict[str, str]:
    """What the nodes answered.

    Raises:
        RuntimeError: GraphBit says that the run failed.
    """
    result = await executor.run_async(workflow)
    if not result.is_success():
        message = f"GraphBit's run failed: {result.state()}"
        raise RuntimeError(message)
    outputs = result.get_all_node_outputs()
    return {name: outputs[name] for name in names}


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario by the engine: one workflow, or one of a single agent for each separate call."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    parts = [{name: ()} for name in plan.parents] if plan.separate else [plan.parents]
    with loopback(delay_s=delay_s) as server:
        executor = Executor(_config(server))
        workflows = [(_workflow(part, told), list(part)) for part in parts]

        async def once() -> dict[str, str]:
            runs = await asyncio.gather(*(_outputs(executor, *workflow) for workflow in workflows))
            return {name: answer for outputs in runs for name, answer in outputs.items()}

        async def work() -> list[dict[str, str]]:
            return [await once() for _ in range(times)]

        async def run() -> Measured:
            return await measured(server, work, calls=times * len(plan.parents))

        yield run


@asynccontextmanager
async def client_scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario by the client and plain asyncio, without the engine."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    with loopback(delay_s=delay_s) as server:
        client = LlmClient(_config(server))

        async def once() -> dict[str, str]:
            tasks: dict[str, asyncio.Task[str]] = {}

            async def node(name: str) -> str:
                answers = [await tasks[parent] for parent in plan.parents[name]]
                return await client.complete_async(prompts.prompt(answers, told[name]))

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
    """Many calls by the engine: a workflow of one agent for each, `limit` of them run at once."""
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        executor = Executor(_config(server))

        async def ask(prompt: str) -> str:
            return (await _outputs(executor, _workflow({"ask": ()}, {"ask": prompt}), ["ask"]))["ask"]

        async def run() -> Measured:
            return await measured(server, lambda: pool(asked, limit, ask), calls=calls, limit=limit)

        yield run


@asynccontextmanager
async def client_calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls by `complete_async`, `limit` in flight."""
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        client = LlmClient(_config(server))

        async def run() -> Measured:
            return await measured(
                server, lambda: pool(asked, limit, client.complete_async), calls=calls, limit=limit
            )

        yield run


@asynccontextmanager
async def batch_calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls by `complete_batch`, in the largest batches it takes, `limit` in flight; sorted after.

    It gives its answers in an order near that of completion, not in that of the prompts.
    """
    asked = prompts.many(calls)
    batches = [asked[start : start + MOST_PROMPTS] for start in range(0, calls, MOST_PROMPTS)]
    with loopback(delay_s=delay_s) as server:
        client = LlmClient(_config(server))

        async def work() -> list[str]:
            answers: list[str] = []
            for batch in batches:
                answers += await client.complete_batch(batch, max_concurrency=limit)
            return answers

        async def run() -> Measured:
            done = await measured(server, work, calls=calls, limit=limit)
            return replace(done, result=sorted(cast("list[str]", done.result)))

        yield run
