"""A batched node is given a BatchContext: one deadline and key per row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from flowcore import Batch, BatchContext, Workflow, node
from flowruntime import FlowRuntime
from flowruntime.testing import run_virtual


@node("batch_context.told", batch=Batch(max_items=4), timeout=timedelta(seconds=2))
async def told(xs: Sequence[int], ctx: BatchContext) -> Sequence[tuple[int, int, int, str]]:
    assert all(deadline is not None for deadline in ctx.deadlines)
    return [(x, len(ctx.deadlines), len(ctx.keys), ctx.node_id) for x in xs]


def test_a_batched_node_learns_of_each_row_of_its_batch() -> None:
    workflow = Workflow("batches")
    workflow.add(told, id="told")

    async def run() -> list[object]:
        async with FlowRuntime(state_dir=None) as runtime:
            return [out.value async for out in runtime.stream(workflow, range(4))]

    assert run_virtual(run()) == [(x, 4, 4, "told") for x in range(4)]
