"""Rows of continuous runs that are delayed for long, and what all rows that wait take of memory."""

from __future__ import annotations

import asyncio

import pytest

from flowcore.errors import ValidationFailedError
from flowruntime.testing.scripted import delay
from tests.behaviour.harness import kept, now, virtual
from tests.behaviour.holding import Project, ask, until

# --- delays ---------------------------------------------------------------------------------------------


@virtual
async def test_a_long_delay_holds_no_row_in_memory_and_a_finite_run_waits_for_its_rows() -> None:
    project = Project(*range(50), settings={"max_in_flight": 4})
    project.chain(project.add("control.delay", id="later", config={"duration": "5m"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(lambda: project.source.rows_read == 50)
        assert now() < 60
        result = await run.wait()
    assert 300 <= now() <= 302
    assert project.written == sorted(range(50), key=repr)
    assert (result.state.name, result.held, result.returned, result.records) == ("completed", 0, 50, 50)
    assert result.counts["later"].held == 50
    assert result.counts["later"].completed == 50


@virtual
async def test_a_delay_up_to_max_hold_stays_in_memory_and_needs_no_store() -> None:
    project = Project(1)
    project.chain(project.add("control.delay", id="later", config={"duration": "60s"}))
    async with project.runtime(store=None) as rt:
        result = await project.run(rt)
        assert rt._store is None
    assert (project.written, result.returned, result.counts["later"].held) == ([1], 0, 0)


@virtual
async def test_max_hold_decides_what_is_long() -> None:
    project = Project(1, settings={"max_hold": "1s"})
    project.chain(project.add("control.delay", id="later", config={"duration": "2s"}))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert (project.written, result.returned, result.counts["later"].held) == ([1], 1, 1)
    assert 2 <= now() <= 3.1


@virtual
async def test_a_stop_leaves_delayed_rows_stored_for_the_next_run() -> None:
    project = Project(1, 2)
    project.chain(project.add("control.delay", id="later", config={"duration": "5m"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(project.open)
        stopped = await run.stop()
    assert (stopped.state.name, stopped.held, stopped.abandoned) == ("completed", 2, 0)
    assert now() < 60
    await asyncio.sleep(1_000)
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert project.written == [1, 2]
    assert (result.held, result.returned) == (0, 2)
    assert now() < 1_100, "their time had come while nothing ran"


@virtual
async def test_nobody_answers_a_delay() -> None:
    project = Project(1, delay(1_000))
    project.chain(project.add("control.delay", id="later", config={"duration": "5m"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(project.open)
        (wait,) = await project.open()
        assert (wait.kind, wait.node) == ("delay", "later")
        with pytest.raises(ValidationFailedError, match="asks nobody"):
            await rt.resume(wait.execution_id, "now")
        await run.cancel()


@virtual
async def test_a_clock_set_back_by_an_hour_delays_nothing_in_a_running_run() -> None:
    back = [0.0]
    loop = asyncio.get_running_loop()
    project = Project(1)
    project.chain(project.add("control.delay", id="later", config={"duration": "5m"}))
    async with project.runtime(clock=lambda: 10_000 + loop.time() - back[0]) as rt:
        run = await project.start(rt)
        await until(project.open)
        back[0] = 3_600.0
        result = await run.wait()
    assert (project.written, result.returned) == ([1], 1)
    assert 300 <= now() <= 302


@virtual
async def test_after_a_clock_set_back_between_runs_a_row_comes_late_and_is_not_lost() -> None:
    loop = asyncio.get_running_loop()
    project = Project(1)
    project.chain(project.add("control.delay", id="later", config={"duration": "5m"}))
    async with project.runtime(clock=lambda: 10_000 + loop.time()) as rt:
        run = await project.start(rt)
        await until(project.open)
        await run.stop()
    async with project.runtime(clock=lambda: 6_400 + loop.time()) as rt:
        result = await project.run(rt)
    assert (project.written, result.returned) == ([1], 1)
    assert 3_900 <= now() <= 3_902


# --- bounds ---------------------------------------------------------------------------------------------


@virtual
async def test_ten_thousand_rows_that_wait_leave_the_credit_free() -> None:
    project = Project(*range(10_000), delay(10), "last", settings={"max_in_flight": 64})
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(lambda: project.source.rows_read == 10_000)
        await until(lambda: run.worker.budget.rows_in_flight == 0)
        statistics = run.statistics()
        assert statistics["budget"]["peak"] <= 64
        assert statistics["holds"] == {"ready": 0, "storing": 0, "known": 0, "taken": 0, "returned": 0}
        result = await run.wait()
    assert result.held == 10_001
    assert result.records == 10_001


@virtual
async def test_few_rows_that_may_go_on_are_in_memory_at_once() -> None:
    project = Project(*range(3_000), settings={"max_in_flight": 16, "max_hold": "1s"})
    peaks = {"ready": 0, "taken": 0}

    def look(_: object) -> None:
        figures = run.statistics()["holds"]
        peaks.update({name: max(peak, figures[name]) for name, peak in peaks.items()})

    project.sink = kept(look)
    project.chain(project.add("control.delay", id="later", config={"duration": "100s"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        result = await run.wait()
    assert (result.returned, len(project.written)) == (3_000, 3_000)
    assert 0 < peaks["ready"] <= 256
    assert 0 < peaks["taken"] <= 1_024, "they are marked done before there are too many"


@virtual
async def test_a_limit_counts_records_and_not_rows_that_come_back() -> None:
    project = Project(*range(10), settings={"max_hold": "1s"})
    project.chain(project.add("control.delay", id="later", config={"duration": "10s"}))
    async with project.runtime() as rt:
        result = await project.run(rt, limit=3)
    assert (result.records, result.returned, project.written) == (3, 3, [0, 1, 2])


@virtual
async def test_rows_of_a_sink_that_is_durable_at_the_end_are_done_after_it() -> None:
    project = Project(1, 2, delay(100), settings={"max_hold": "1s"})
    project.sink = kept(settles_="at_end")
    project.chain(project.add("control.delay", id="later", config={"duration": "10s"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(lambda: project.written)
        cut = await run.cancel()
        assert (cut.held, cut.returned) == (2, 0)
        result = await project.run(rt)
    assert (result.held, result.returned) == (0, 2)
    assert project.sink.log[-2:] == ["finish", "close"]
