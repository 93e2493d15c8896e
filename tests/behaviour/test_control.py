"""Control of runs: pause, resume, drain, stop, cancel; what is left is counted and comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    Workflow,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowPaused,
    WorkflowResumed,
    node,
)
from flowcore.connector import Assigned, Revoked
from flowcore.errors import RuntimeClosedError, SourceError
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, forever, kept, now, running, runtime, same, virtual, wait


async def tick() -> None:
    await asyncio.sleep(1)


async def never() -> None:
    await asyncio.Event().wait()


def line(*nodes: Any, **settings: Any) -> Workflow:
    wf = Workflow("line", settings=settings)
    wf.chain(wf.add(Script, id="s"), *(wf.add(thing, id=f"n{index}") for index, thing in enumerate(nodes)))
    return wf


@virtual
async def test_a_paused_run_reads_nothing_and_a_resumed_one_goes_on_where_it_was() -> None:
    sink = kept()
    source = Script([step for number in range(20) for step in (tick, [number])])
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(sink), sources={"s": source})
            await asyncio.sleep(5.5)
            await run.pause("lunch")
            assert run.state.name == "paused"
            await asyncio.sleep(10)
            held = list(sink.rows)
            assert len(held) <= 6
            await asyncio.sleep(10)
            assert sink.rows == held
            await run.resume()
            result = await run.wait()
    assert result.ok
    assert sink.rows == list(range(20))
    assert seen.one(WorkflowPaused).reason == "lunch"
    assert seen.one(WorkflowResumed).paused_s == pytest.approx(20.0)
    assert isinstance(seen.ended(), WorkflowCompleted)


@pytest.mark.parametrize("paused", [False, True])
@virtual
async def test_a_drain_ends_a_source_that_waits_and_finishes_what_is_in_flight(paused: bool) -> None:
    sink = kept()
    source = Script([[3.0, 4.0], never, [5.0]])
    async with runtime() as rt:
        run = await rt.start(line(wait, sink), sources={"s": source})
        await asyncio.sleep(1)
        if paused:
            await run.pause()
        result = await run.drain()
    assert result.ok
    assert now() == 4.0
    assert sink.rows == [3.0, 4.0]
    assert source.committed["0"][-1] == 2


@virtual
async def test_a_drain_of_a_paused_run_reads_not_one_row_more() -> None:
    """The read under way at the pause has ended since: nothing but the pause holds the pump."""
    source = Script([tick, [1.0], never])
    async with runtime() as rt:
        run = await rt.start(line(wait), sources={"s": source})
        await asyncio.sleep(0.5)
        await run.pause()
        await asyncio.sleep(5)
        result = await run.drain()
    assert result.ok
    assert now() == 5.5


@virtual
async def test_a_stop_abandons_at_its_deadline_what_is_not_finished_and_counts_it() -> None:
    sink = kept()
    source = Script([[1.0, 2.0, 50.0, 60.0, 3.0], never])
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(wait, sink), sources={"s": source})
            await asyncio.sleep(0.5)
            result = await run.stop(timedelta(seconds=5))
    assert now() == pytest.approx(5.5)
    assert result.state.name == "cancelled"
    assert result.abandoned == 3
    assert result.records == 2
    assert sink.rows == [1.0, 2.0]
    assert source.committed["0"][-1] == 2
    assert isinstance(seen.ended(), WorkflowCancelled)
    assert running() == []


@virtual
async def test_a_stop_whose_rows_finish_in_time_completes() -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait), sources={"s": Script([[1.0, 2.0], never])})
        await asyncio.sleep(0.5)
        result = await run.stop(timedelta(seconds=5))
    assert result.ok
    assert result.abandoned == 0
    assert now() == 2.0


@virtual
async def test_a_cancel_reaches_every_node_at_once_and_leaves_nothing_running() -> None:
    cancelled: list[int] = []

    @node("ctl.note")
    async def note(value: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(value)
            raise
        return value

    source = Script([[1, 2, 3], never])
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(note), sources={"s": source})
            await asyncio.sleep(1)
            result = await run.cancel("no longer wanted")
            assert now() == pytest.approx(1.0, abs=0.05)
            assert running() == []
    assert sorted(cancelled) == [1, 2, 3]
    assert result.state.name == "cancelled"
    assert result.abandoned == 3
    assert seen.one(WorkflowCancelled).reason == "no longer wanted"
    assert source.committed["0"] == []
    assert source.closed == ["0"]


@virtual
async def test_a_run_can_be_stopped_and_cancelled_again_and_again_with_one_end() -> None:
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(forever), sources={"s": Script([[1], never])})
            await asyncio.sleep(1)
            results = await asyncio.gather(
                run.stop(timedelta(seconds=1)), run.drain(), run.cancel(), run.cancel(), run.wait()
            )
            assert (await run.cancel()).state.name == "cancelled"
    assert all(result is results[0] for result in results)
    assert isinstance(seen.ended(), WorkflowCancelled)


@virtual
async def test_a_run_that_has_ended_says_so_when_it_is_controlled() -> None:
    async with runtime() as rt:
        run = await rt.start(line(same), sources={"s": Script([[1]])})
        await run.wait()
        with pytest.raises(RuntimeClosedError, match="has ended"):
            await run.pause()
        with pytest.raises(RuntimeClosedError, match="has ended"):
            await run.resume()


@virtual
async def test_closing_the_runtime_ends_its_runs() -> None:
    rt = runtime()
    with recorded(rt.events) as seen:
        run = await rt.start(line(forever), sources={"s": Script([[1], never])})
        await asyncio.sleep(1)
        await rt.aclose()
    assert run.state.name == "cancelled"
    assert isinstance(seen.ended(), WorkflowCancelled)
    assert running() == []


@virtual
async def test_a_waiter_that_is_cancelled_does_not_end_the_run() -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait), sources={"s": Script([[5.0]])})
        waiter = asyncio.create_task(run.wait())
        await asyncio.sleep(1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (await run.wait()).ok


@virtual
async def test_a_limit_ends_the_run_after_that_many_records() -> None:
    sink = kept()
    source = Script([list(range(100)), list(range(100)), never])
    async with runtime() as rt:
        run = await rt.start(line(same, sink), sources={"s": source}, limit=150)
        result = await run.wait()
    assert result.records == len(sink.rows) == source.handed_over == 150


@virtual
async def test_a_source_that_breaks_fails_the_run_after_what_it_had_given() -> None:
    sink = kept()
    source = Script([[1.0, 2.0], OSError("cable")])
    async with runtime() as rt:
        result = await (await rt.start(line(wait, sink), sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert isinstance(result.cause, SourceError)
    assert "cable" in str(result.cause)
    assert sink.rows == [1.0, 2.0]
    assert source.committed["0"][-1] == 2
    assert source.shut_down == 1


class Dynamic(Script, type="test.dynamic"):
    """Partitions that come and go as the test says; the list of them never ends."""

    def __init__(self, **partitions: Any) -> None:
        super().__init__(**partitions)
        self.changes: asyncio.Queue[Assigned | Revoked] = asyncio.Queue()

    async def assignments(self, ctx: Any) -> AsyncIterator[Assigned | Revoked]:
        while True:
            yield await self.changes.get()


def dynamic(**partitions: Any) -> Dynamic:
    source = Dynamic(**partitions)
    for name in partitions:
        source.changes.put_nowait(Assigned(name))
    return source


@virtual
async def test_a_source_whose_partitions_may_still_change_can_be_drained() -> None:
    sink = kept()
    source = dynamic(a=[[1.0], never], b=[[2.0], never])
    async with runtime() as rt:
        run = await rt.start(line(wait, sink), sources={"s": source})
        await asyncio.sleep(0.5)
        result = await run.drain()
    assert result.ok
    assert now() == 2.0
    assert sorted(sink.rows) == [1.0, 2.0]


@virtual
async def test_a_partition_that_breaks_fails_the_run_though_other_changes_may_come() -> None:
    source = dynamic(a=[[1.0], OSError("cable")])
    async with runtime() as rt:
        result = await (await rt.start(line(wait), sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert "cable" in str(result.cause)


@virtual
async def test_a_partition_that_is_revoked_finishes_and_one_that_comes_back_is_counted_on() -> None:
    """SRC-11."""
    sink = kept()
    source = dynamic(a=[[1.0, 2.0], never])
    async with runtime() as rt:
        run = await rt.start(line(wait, sink), sources={"s": source})
        await asyncio.sleep(0.5)
        source.changes.put_nowait(Revoked("a"))
        await asyncio.sleep(5)
        assert source.committed["a"][-1] == 2
        assert source.closed == ["a"]
        source._reads["a"] = [[3.0], never]
        source.changes.put_nowait(Assigned("a"))
        await asyncio.sleep(5)
        result = await run.drain()
    assert result.ok
    assert result.records == 3
    assert result.counts["s"].completed == 3
    assert sink.rows == [1.0, 2.0, 3.0]
