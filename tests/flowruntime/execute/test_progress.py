"""Progress events carry what each stage took, measured only while someone asks for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from flowcore import Batch, StageProgress, Workflow, node
from flowcore.events import WorkflowCompleted
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, runtime, virtual, wait


@node("progress.double")
def double(value: Any) -> Any:
    return value


def unix() -> float:
    return 1_000.0 + now()


def measured() -> Workflow:
    wf = Workflow("measured")
    source = wf.add("memory.source", id="source", config={"values": [0.1, 0.2, 0.3]})
    slow = wf.add(wait, id="slow", concurrency={"max": 3, "order": "unordered"})
    wf.chain(source, slow, wf.add(double, id="double"), wf.add("memory.sink", id="sink"))
    return wf


@virtual
async def test_a_row_of_a_waiting_stage_is_measured_from_its_start_to_its_end() -> None:
    async with runtime(clock=unix) as rt:
        with recorded(rt.events) as seen:
            await (await rt.start(measured())).wait()
    last = {event.stage: event for event in seen.of(StageProgress)}
    assert last["slow"].p50_s == pytest.approx(0.2)
    assert last["slow"].p99_s == pytest.approx(0.3)
    assert last["double"].p99_s == pytest.approx(0.0)  # a fused stage takes no virtual time, and is measured
    assert last["sink"].p99_s == pytest.approx(0.0)
    assert last["source"].p50_s is None


@node("progress.together", batch=Batch(max_items=2), concurrency=1)
async def together(values: Sequence[float]) -> Sequence[float]:
    await asyncio.sleep(1)
    return values


@virtual
async def test_rows_of_batches_that_wait_their_turn_are_queued() -> None:
    """Six rows, two a call, one call at once: after the first reports four wait, then two, then none."""
    wf = Workflow("queued")
    source = wf.add("memory.source", id="source", config={"values": [1, 2, 3, 4, 5, 6]})
    wf.chain(source, wf.add(together, id="together"), wf.add("memory.sink", id="sink"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            await (await rt.start(wf)).wait()
    reports = [(e.in_flight, e.queued) for e in seen.of(StageProgress) if e.stage == "together"]
    assert [figures for figures, _ in itertools.groupby(reports)] == [(2, 4), (2, 2), (2, 0), (0, 0)]


@virtual
async def test_nothing_is_measured_while_nobody_asks_for_progress() -> None:
    async with runtime(clock=unix) as rt:
        listener = rt.events.listen(lambda _: None, {WorkflowCompleted})
        run = await rt.start(measured())
        await run.wait()
        assert run.worker.telemetry.meters == {}
        listener.close()
