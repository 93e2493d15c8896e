"""Our calls of models: `llm.generate` by `rt.execute` and `rt.stream`, and the client without a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import prompts
from benchmarks.calls import KEY, MODEL, measured
from benchmarks.loopback import Loopback, loopback
from benchmarks.work import AsyncRun, Measured
from flowcore import Gather, Secret, Workflow, node
from flowcore.llm.policy import CallPolicy, ModelLimits
from flowruntime import FlowRuntime
from flowruntime.clients.config import LlmConfig
from flowruntime.clients.llm import LlmClient

PROVIDER = "openai_compatible"


def endpoint(server: Loopback) -> dict[str, Any]:
    """The part of a node's configuration that says who is asked."""
    return {"provider": PROVIDER, "model": MODEL, "base_url": f"{server.url}/v1", "api_key": Secret(KEY)}


@node("benchmark.joined")
def joined(answers: Gather[str]) -> str:
    """The answers of several parents as one text: the port of a prompt takes one value."""
    return prompts.PARTING.join(answers)


def _workflow(parents: Mapping[str, tuple[str, ...]], told: Mapping[str, str], server: Loopback) -> Workflow:
    """A node a call; the first ones are given their prompts, the others have theirs as a template."""
    workflow = Workflow("scenario")
    for name, before in parents.items():
        asking = {"prompt": prompts.prompt(["{{ value }}"], told[name])} if before else {}
        workflow.add("llm.generate", id=name, config={**endpoint(server), **asking})
        sender = name
        if len(before) > 1:
            sender = f"{name}_inputs"
            workflow.add(joined, id=sender)
            workflow.connect(sender, name)
        for parent in before:
            workflow.connect(parent, sender)
    return workflow


@asynccontextmanager
async def scenario(scenario: str, times: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """A scenario by `rt.execute`: one workflow, or one of a single node for each separate call."""
    plan, told = prompts.SCENARIOS[scenario], prompts.instructions(scenario)
    first = [name for name, before in plan.parents.items() if not before]
    with loopback(delay_s=delay_s) as server:
        whole = _workflow(plan.parents, told, server)
        single = _workflow({"ask": ()}, told, server)
        async with FlowRuntime(allow_private_networks=True) as runtime:

            async def separate(name: str) -> str:
                result = await runtime.execute(single, {"ask": {"value": told[name]}})
                result.raise_for_state()
                return str(result.outputs["ask"]["out"])

            async def once() -> dict[str, str]:
                if plan.separate:
                    answers = await asyncio.gather(*(separate(name) for name in plan.parents))
                    return dict(zip(plan.parents, answers, strict=True))
                result = await runtime.execute(whole, {name: {"value": told[name]} for name in first})
                result.raise_for_state()
                return {name: str(result.outputs[name]["out"]) for name in plan.parents}

            async def work() -> list[dict[str, str]]:
                return [await once() for _ in range(times)]

            async def run() -> Measured:
                return await measured(server, work, calls=times * len(plan.parents))

            yield run


@asynccontextmanager
async def calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls by `rt.stream` through one `llm.generate`, `limit` in flight by the policy `concurrency`.

    The model's own limit is the same number: left out it would be found by trying, from a few calls upwards.
    """
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        workflow = Workflow("calls")
        policy = CallPolicy(limits=ModelLimits(concurrency=limit))
        workflow.add(
            "llm.generate", id="ask", config={**endpoint(server), "calls": policy}, concurrency=limit
        )
        async with FlowRuntime(allow_private_networks=True) as runtime:

            async def work() -> list[str]:
                outcomes = runtime.stream(workflow, asked, order="input")
                return [
                    outcome.value["out"] if outcome.ok else repr(outcome.error) async for outcome in outcomes
                ]

            async def run() -> Measured:
                return await measured(server, work, calls=calls, limit=limit)

            yield run


@asynccontextmanager
async def client_calls(calls: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """Many calls by `LlmClient.complete_batch`, `limit` in flight."""
    asked = prompts.many(calls)
    with loopback(delay_s=delay_s) as server:
        policy = CallPolicy(limits=ModelLimits(concurrency=limit))
        config = LlmConfig.of(PROVIDER, KEY, model=MODEL, base_url=f"{server.url}/v1", policy=policy)
        async with FlowRuntime(allow_private_networks=True) as runtime:
            client = LlmClient(config, runtime=runtime)

            async def work() -> list[str]:
                answers = await client.complete_batch(asked, max_concurrency=limit)
                return [answer if isinstance(answer, str) else repr(answer) for answer in answers]

            async def run() -> Measured:
                return await measured(server, work, calls=calls, limit=limit)

            yield run
