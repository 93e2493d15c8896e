"""Our async stage: a coroutine node, bounded in flight, results in input order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks.work import AsyncRun
from flowcore import Workflow, node
from flowruntime import FlowRuntime


@asynccontextmanager
async def async_stage(records: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """All numbers through `rt.stream` and one coroutine node, `limit` in flight."""

    @node("benchmark.double", concurrency=limit)
    async def double(number: int) -> int:
        await asyncio.sleep(delay_s)
        return 2 * number

    workflow = Workflow("async stage")
    workflow.add(double, id="double")

    async with FlowRuntime() as runtime:

        async def run() -> list[object]:
            outcomes = runtime.stream(workflow, range(records), order="input")
            return [outcome.value if outcome.ok else repr(outcome.error) async for outcome in outcomes]

        yield run
