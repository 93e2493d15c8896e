"""Rows that wait, and what goes wrong: records read again, runs cut short, rows given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowcore import (
    Middleware,
    NodeContext,
    RowHeld,
    StageProgress,
    WaitRequest,
    Workflow,
    WorkflowCancelled,
    WorkflowStarted,
    node,
)
from flowcore.middleware import NodeCall
from flowcore.store_errors import (
    ExecutionBusyError,
    ExecutionEndedError,
    NotStoredError,
    StoreFailedError,
)
from flowruntime.durable.held import READY
from flowruntime.state.store.entries import WaitFilter
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.recorder import recorded
from flowruntime.testing.scripted import delay
from tests.behaviour.harness import Script, kept, runtime, same, virtual
from tests.behaviour.holding import CALLS, Project, ask, boom, until

# --- failures and records that come again ---------------------------------------------------------------


@virtual
async def test_a_record_read_again_is_known_and_not_asked_twice() -> None:
    project = Project(1, 2, delay(100))
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(project.open)
        project.source.committed.clear()
        await run.cancel()
        project.source.committed.clear()  # as if the process had died before its first commit
        before = await project.open()
        with recorded(rt.events) as told:
            result = await project.run(rt)
    assert project.source.rows_read == 4
    assert await project.open() == before
    assert (result.held, result.counts["ask"].held) == (2, 0)
    assert told.of(RowHeld) == []


@virtual
async def test_a_record_read_again_is_not_delivered_twice_when_it_was_answered() -> None:
    project = Project(1, delay(100))
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(project.open)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await until(lambda: project.written)
        await asyncio.sleep(2)  # it is marked done
        await run.cancel()
        project.source.committed.clear()
        result = await project.run(rt)
    assert project.written == [[1, "yes"]]
    assert (result.held, await project.open()) == (0, [])


@virtual
async def test_who_begins_anew_is_asked_anew() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        await project.run(rt)
        project.source.committed.clear()
        result = await project.run(rt, fresh=True)
    assert result.held == 2


@virtual
async def test_a_source_without_positions_asks_for_each_record_it_gives() -> None:
    sink, store = kept(), MemoryStore()
    wf = Workflow("anew")
    rows = wf.add("test.script", id="rows")
    wf.chain(rows, wf.add(ask, id="ask"), wf.add("test.kept", id="out"))
    async with runtime(nodes=[Script, sink], store=store) as rt:
        for _ in range(2):
            await (await rt.start(wf, sources={"rows": Script([[1, 1]])})).wait()
    assert len((await store.waits.list()).items) == 4


@virtual
async def test_a_row_cut_short_on_its_way_back_comes_back_again() -> None:
    project = Project(1, delay(100))
    later = project.add("control.delay", id="d", config={"duration": "10s"})
    project.chain(project.add(ask, id="ask"), later)
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(project.open)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await until(lambda: CALLS["ask"] == 2)
        cut = await run.cancel()
        assert (cut.held, cut.returned, project.written) == (1, 0, [])
        assert (await project.store.executions.get(wait.execution_id)).owner == READY
        result = await project.run(rt)
    assert project.written == [[1, "yes"]]
    assert (result.held, result.returned) == (0, 1)


@virtual
async def test_a_failure_behind_a_row_that_came_back_stops_the_run_and_the_row_stays() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="ask"), project.add(boom, id="boom"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        result = await project.run(rt)
    assert result.state.name == "failed"
    assert (result.held, result.returned) == (1, 0)


@virtual
async def test_a_row_that_came_back_goes_through_its_part_of_the_workflow_again() -> None:
    @node("hd.shaky")
    def shaky(value: Any) -> Any:
        CALLS["shaky"] += 1
        if CALLS["shaky"] == 1:
            raise ConnectionError("not yet")
        return value

    project = Project(1, settings={"on_error": "retry_workflow"})
    project.chain(project.add(ask, id="ask"), project.add(shaky, id="shaky"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        result = await project.run(rt)
    assert project.written == [[1, "yes"]]
    assert (result.state.name, result.returned, CALLS["ask"]) == ("completed", 1, 3)


@virtual
async def test_what_cannot_be_stored_fails_its_row_alone() -> None:
    @node("hd.odd")
    def odd(value: int) -> Any:
        return object() if value == 2 else value

    project = Project(1, 2, 3, settings={"on_error": "continue"})
    project.chain(project.add(odd, id="odd"), project.add(ask, id="ask"))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert (result.state.name, result.held) == ("partial", 2)
    assert "StoreInputError" in repr(result.errors["ask"])


@virtual
async def test_a_row_is_not_settled_when_the_store_fails() -> None:
    class Broken(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.executions.hold = self._hold

        async def _hold(self, held: Any) -> frozenset[str]:
            raise StoreFailedError("the disk is gone", url="memory:")

    project = Project(1)
    project.store = Broken()
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert result.state.name == "failed"
    assert isinstance(result.cause, StoreFailedError)
    assert project.source.committed == {}


@virtual
async def test_a_node_that_swallows_the_end_of_its_call_is_told() -> None:
    @node("hd.greedy", waits=True)
    async def greedy(value: Any, ctx: NodeContext) -> Any:
        try:
            return await ctx.wait(WaitRequest(kind="form"))
        except BaseException:  # noqa: BLE001 - what the test is about
            return value

    project = Project(1)
    project.chain(project.add(greedy, id="greedy"))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert result.state.name == "failed"
    assert "catch Exception there, not BaseException" in str(result.cause)


# --- giving up ------------------------------------------------------------------------------------------


@virtual
async def test_a_row_can_be_given_up_once_and_for_all() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        with recorded(rt.events) as told:
            for _ in range(2):
                result = await rt.cancel_execution(wait.execution_id)
                assert (result.state.name, result.held, result.waits) == ("cancelled", 0, [])
        assert told.one(WorkflowCancelled).reason == "given up"
        with pytest.raises(ExecutionEndedError):
            await rt.resume(wait.execution_id, "late")
        with pytest.raises(NotStoredError):
            await rt.cancel_execution("row-nobody")
        assert (await project.run(rt)).held == 0
    assert await project.open() == []


@virtual
async def test_a_paused_request_can_be_given_up_and_one_at_work_cannot() -> None:
    CALLS.clear()
    wf = Workflow("request")
    wf.chain(wf.add(ask, id="ask"), wf.add("control.delay", id="d", config={"duration": "10s"}))
    store = MemoryStore()
    async with runtime(store=store) as rt:
        paused = await rt.execute(wf, {"ask": {"value": 1}})
        busy = await rt.execute(wf, {"ask": {"value": 2}})
        going = asyncio.create_task(rt.resume(busy.execution_id, "yes"))
        await until(lambda: CALLS["ask"] == 3)
        with pytest.raises(ExecutionBusyError):
            await rt.cancel_execution(busy.execution_id)
        assert (await going).ok
        with pytest.raises(ExecutionEndedError):
            await rt.cancel_execution(busy.execution_id)
        with recorded(rt.events) as told:
            given_up = await rt.cancel_execution(paused.execution_id, reason="no budget")
        assert given_up.state.name == "cancelled"
        assert told.one(WorkflowCancelled).reason == "no budget"
        assert (await store.waits.list(WaitFilter(states=frozenset({"open"})))).items == ()


@virtual
async def test_whoever_notes_that_time_is_up_lets_the_row_go_on_in_the_next_run() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="ask", config={"timeout": "30s", "on_timeout": "answer"}))
    async with project.runtime() as rt:
        await project.run(rt)
        await asyncio.sleep(31)
        (due,) = await rt.expire_waits()
        assert not isinstance(due, Exception)
        assert (due.state.name, due.waits) == ("paused", [])
        assert await rt.expire_waits() == []
        result = await project.run(rt)
    assert (project.written, result.returned) == ([[1, "nobody"]], 1)


@virtual
async def test_what_watches_a_run_does_not_see_where_rows_come_back() -> None:
    calls: list[str] = []

    class Watch(Middleware):
        def before_node(self, call: NodeCall) -> None:
            calls.append(call.node.id)

    project = Project(1, delay(100))
    project.chain(project.add(ask, id="ask"), project.add(same, id="same"))
    async with project.runtime(middleware=[Watch()]) as rt:
        with recorded(rt.events) as told:
            run = await project.start(rt)
            await until(project.open)
            (wait,) = await project.open()
            await rt.resume(wait.execution_id, "yes")
            await until(lambda: project.written)
            report = await rt.health_check()
            live = run.live_counts()
            result = await run.wait()
        text = rt.metrics.snapshot()
    assert calls == ["ask", "ask", "same"]
    assert not [check for check in report.checks if "returned" in check.name]
    assert set(live) == set(result.counts) == {"rows", "ask", "same", "out"}
    assert told.one(WorkflowStarted).nodes == 4
    assert "ask.returned" not in {event.subject for event in told.of(StageProgress)}
    assert "returned" not in repr(text)
