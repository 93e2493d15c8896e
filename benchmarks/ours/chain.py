"""Our stateless chain: four functions that the compiler fuses, between a source and a sink in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from benchmarks import data
from benchmarks.ours.memory import Box, given, kept
from benchmarks.work import AsyncRun
from flowcore import Workflow, node
from flowruntime import FlowRuntime

with_total = node("benchmark.with_total")(data.with_total)
is_large = node("benchmark.is_large", kind="filter")(data.is_large)
with_fee = node("benchmark.with_fee")(data.with_fee)
with_class = node("benchmark.with_class")(data.with_class)


@asynccontextmanager
async def stream(records: int) -> AsyncGenerator[AsyncRun]:
    """A continuous run from the first row to the last, as `flow run` does it."""
    results = Box()
    workflow = Workflow("chain")
    workflow.chain(
        workflow.add(given(data.rows(records)), id="given"),
        workflow.add(with_total),
        workflow.add(is_large),
        workflow.add(with_fee),
        workflow.add(with_class),
        workflow.add(kept(results), id="kept"),
    )
    async with FlowRuntime() as runtime:

        async def run() -> list[data.Row]:
            started = await runtime.start(workflow)
            result = await started.wait()
            result.raise_for_state()
            return results.taken()

        yield run


@asynccontextmanager
async def outcomes(records: int) -> AsyncGenerator[AsyncRun]:
    """`rt.stream` over a list: an outcome object for every row, also for the filtered ones."""
    rows = data.rows(records)
    workflow = Workflow("chain")
    workflow.chain(
        workflow.add(with_total), workflow.add(is_large), workflow.add(with_fee), workflow.add(with_class)
    )
    async with FlowRuntime() as runtime:

        async def run() -> list[object]:
            stream = runtime.stream(workflow, rows, order="input")
            return [outcome.value async for outcome in stream if not outcome.dropped]

        yield run
