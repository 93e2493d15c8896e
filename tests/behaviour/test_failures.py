"""Sinks that raise, subscribers that raise, faults of the engine, killed processes: told, never a hang."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from flowcore import LoopBlocked, Workflow, WorkflowPartial, node
from flowcore.errors import NodeTimeoutError, SinkError
from flowcore.frame import Frame
from flowruntime.flowcontrol.offload import WorkerProcessDiedError
from flowruntime.operators.waiting import WaitingOperator
from flowruntime.testing.recorder import recorded
from tests.behaviour import slow_to_import
from tests.behaviour.harness import Script, kept, later, runtime, same, virtual


def line(sink: Any, **settings: Any) -> Workflow:
    wf = Workflow("line", settings=settings)
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="n"), wf.add(sink, id="k"))
    return wf


def refuse_odd(batch: Any) -> dict[int, Exception]:
    return {index: ValueError(f"odd {v}") for index, v in enumerate(batch.values) if v % 2}


@virtual
async def test_rows_a_sink_refuses_fail_alone() -> None:
    sink = kept(refuse_odd)
    source = Script([[1, 2, 3, 4]])
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(sink, on_error="continue"), sources={"s": source})
            result = await run.wait()
    assert sink.rows == [2, 4]
    assert (result.counts["k"].completed, result.counts["k"].failed) == (2, 2)
    assert [str(error) for error in result.errors["k"]] == ["odd 1", "odd 3"]
    assert seen.one(WorkflowPartial).failed_nodes == ("k",)
    assert source.committed["0"][-1] == 4


@virtual
async def test_a_refused_row_that_stops_the_workflow_is_not_committed() -> None:
    sink = kept(refuse_odd)
    source = Script([[2], [4], [5], [6]])
    async with runtime() as rt:
        result = await (await rt.start(line(sink), sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert max(source.committed["0"], default=0) <= 2


@virtual
async def test_a_sink_that_raises_fails_every_row_of_the_write_and_the_next_write_is_tried() -> None:
    calls = 0

    def break_once(batch: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("disk full")

    sink = kept(break_once)
    source = Script([[1, 2], later_turn, [3, 4]])
    async with runtime() as rt:
        run = await rt.start(line(sink, on_error="continue"), sources={"s": source})
        result = await run.wait()
    assert sink.rows == [3, 4]
    assert result.counts["k"].failed == 2
    assert result.state.name == "partial"


async def later_turn() -> None:
    await asyncio.sleep(1)


@virtual
async def test_a_sink_that_cannot_finish_fails_the_run_and_commits_nothing_when_it_settles_at_the_end() -> (
    None
):
    sink = kept(settles_="at_end")

    async def break_off(self: Any) -> None:
        raise OSError("rename refused")

    sink.finish = break_off
    source = Script([[1, 2]])
    async with runtime() as rt:
        result = await (await rt.start(line(sink), sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert isinstance(result.cause, SinkError)
    assert "rename refused" in str(result.cause)
    assert source.committed["0"] == []


@virtual
async def test_a_sink_that_settles_at_the_end_is_committed_only_after_it_has_finished() -> None:
    sink = kept(settles_="at_end")
    source = Script([[1, 2], later_turn, later_turn, later_turn, [3]])
    committed_at_finish: list[Any] = []
    finish = sink.finish

    async def note(self: Any) -> None:
        committed_at_finish.extend(source.committed["0"])
        await finish(self)

    sink.finish = note
    async with runtime() as rt:
        run = await rt.start(line(sink, commit_interval="500ms"), sources={"s": source})
        result = await run.wait()
    assert result.ok
    assert committed_at_finish == []
    assert source.committed["0"] == [3]


@virtual
async def test_a_sink_that_settles_at_the_end_does_not_finish_when_the_run_is_cut_short() -> None:
    sink = kept(settles_="at_end")
    source = Script([[1, 2], later_turn, later_turn, later_turn, [3]])
    async with runtime() as rt:
        run = await rt.start(line(sink, commit_interval="500ms"), sources={"s": source})
        await asyncio.sleep(2)
        await run.cancel()
    assert sink.log == ["open", "close"]
    assert source.committed["0"] == []


@virtual
async def test_a_subscriber_that_raises_disturbs_neither_the_run_nor_the_others() -> None:
    def raising(event: Any) -> None:
        raise RuntimeError("bad subscriber")

    sink = kept()
    async with runtime() as rt:
        rt.events.listen(raising, name="raising")
        with recorded(rt.events) as seen:
            result = await (await rt.start(line(sink), sources={"s": Script([[1, 2]])})).wait()
    assert result.ok
    assert sink.rows == [1, 2]
    assert seen.ended() is not None


@virtual
async def test_a_fault_of_the_engine_fails_the_requests_of_its_chain_and_the_next_one_gets_a_new_chain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wf = Workflow("fault")
    wf.chain(wf.add(same, id="a"), wf.add(later, id="b"))
    emit = WaitingOperator.emit

    def broken(self: Any, frame: Frame[Any]) -> None:
        raise RuntimeError("engine fault")

    async with runtime() as rt:
        assert (await rt.execute(wf, {"a": {"value": 1}})).ok
        monkeypatch.setattr(WaitingOperator, "emit", broken)
        monkeypatch.setattr(WaitingOperator, "_flush", _crashing(WaitingOperator._flush))
        results = await asyncio.gather(*(rt.execute(wf, {"a": {"value": n}}) for n in range(3)))
        assert [result.state.name for result in results] == ["failed"] * 3
        assert all("engine fault" in str(result.cause) for result in results)
        monkeypatch.undo()
        assert WaitingOperator.emit is emit
        assert (await rt.execute(wf, {"a": {"value": 1}})).ok


def _crashing(flush: Any) -> Any:
    def guarded(self: Any) -> None:
        try:
            flush(self)
        except RuntimeError as error:
            self.kernel.crash(error)

    return guarded


@node("fail.kill", offload="process", concurrency=1)
def kill(value: int) -> int:
    """Kills its own process on 3."""
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value * 2


async def test_a_killed_worker_process_fails_its_row_with_a_clear_error_and_the_pool_is_made_anew() -> None:
    wf = Workflow("processes", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(kill, id="n"))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2, 3, 4])]
    assert [out.value for out in outcomes] == [2, 4, None, 8]
    assert isinstance(outcomes[2].error, WorkerProcessDiedError)
    assert "'n'" in str(outcomes[2].error)


async def test_work_in_threads_runs_side_by_side_and_keeps_the_loop_free() -> None:
    together = threading.Barrier(3, timeout=5)

    @node("fail.thread", offload="thread", concurrency=3)
    def meet(value: int) -> int:
        together.wait()
        return value

    wf = Workflow("threads")
    wf.add(meet, id="n")
    async with runtime() as rt:
        results = await asyncio.gather(*(rt.execute(wf, {"n": {"value": n}}) for n in range(3)))
    assert [result.outputs["n"]["out"] for result in results] == [0, 1, 2]


async def test_an_exception_in_a_process_comes_back_as_itself() -> None:
    wf = Workflow("processes")
    wf.add(refuse, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 2**70}})
        unfit = await rt.execute(wf, {"n": {"value": [object()]}})
    assert isinstance(result.errors["n"][0], ZeroDivisionError)
    assert "cannot cross into a worker process: value at arguments[0][0] is a object" in str(
        unfit.errors["n"][0]
    )


class AwayError(Exception):
    """Of this module: a worker process knows it by its name."""


@node("fail.hang", offload="process", concurrency=2)
def hang(value: int) -> int:
    """Hangs on 3, holding the interpreter's lock; is away on 4 the first time."""
    if value == 3:
        re.fullmatch(r"(a|a)*b", "a" * 60)
    if value == 4 and not Path(os.environ["FAIL_HANG"]).exists():
        Path(os.environ["FAIL_HANG"]).touch()
        raise AwayError(value)
    return value * 2


async def test_a_row_that_hangs_in_a_process_is_ended_at_its_timeout_and_keeps_nothing_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `retry_on` asks for the class the function raised, though it was raised elsewhere."""
    monkeypatch.setenv("FAIL_HANG", str(tmp_path / "was here"))
    wf = Workflow("processes", settings={"on_error": "continue"})
    retry = {"max_attempts": 2, "initial": "1ms", "retry_on": ["AwayError"]}
    wf.chain(wf.add(Script, id="s"), wf.add(hang, id="n", timeout="3s", retry=retry))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 3, 4, 3, 5])]
    assert [out.value for out in outcomes] == [2, None, 8, None, 10]
    assert {type(out.error) for out in outcomes if not out.ok} == {NodeTimeoutError}


async def test_what_a_process_takes_to_start_is_no_rows_time() -> None:
    """Else each row would expire while its fresh process imports, and be given another fresh one."""
    wf = Workflow("slow start", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(slow_to_import.double, id="n", timeout="500ms"))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2])]
    assert [out.value for out in outcomes] == [2, 4]


@node("fail.refuse", offload="process", concurrency=1)
def refuse(value: int) -> float:
    """Fails."""
    return value / 0


async def test_the_watchdog_names_the_node_that_blocks_the_loop_in_the_log_and_as_an_event() -> None:
    """NOD-2."""

    @node("fail.blocking")
    def blocking(value: int) -> int:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        return value

    wf = Workflow("blocked")
    wf.chain(wf.add(same, id="a"), wf.add(blocking, id="culprit"), wf.add(same, id="b"))
    async with runtime(watchdog=timedelta(milliseconds=20)) as rt:
        told = asyncio.Event()
        rt.events.listen(lambda _: told.set(), kinds={LoopBlocked})
        with recorded(rt.events) as seen, structlog.testing.capture_logs() as logs:
            assert (await rt.execute(wf, {"a": {"value": 1}})).ok
            async with asyncio.timeout(5):
                await told.wait()
    assert seen.one(LoopBlocked).node == "culprit"
    assert seen.one(LoopBlocked).blocked_s >= 0.02
    assert any("'culprit'" in line["event"] for line in logs)


async def test_a_loop_with_very_much_to_do_at_once_is_not_blocked_by_the_node_that_did_it() -> None:
    """400 rows that wait for one moment, and then compute for two milliseconds each."""
    together = asyncio.Event()

    @node("fail.brief")
    async def brief(value: int) -> int:
        await together.wait()
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        return value

    wf = Workflow("busy")
    wf.add(brief, id="brief", concurrency=400)
    async with runtime(watchdog=timedelta(milliseconds=300)) as rt:
        with recorded(rt.events) as seen, structlog.testing.capture_logs() as logs:
            calls = [asyncio.ensure_future(rt.execute(wf, {"brief": {"value": n}})) for n in range(400)]
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, together.set)
            began = time.monotonic()
            assert all(result.ok for result in await asyncio.gather(*calls))
            assert time.monotonic() - began > 0.6, "it was not busy"
    assert not seen.of(LoopBlocked)
    assert not [line for line in logs if "blocked" in line["event"]]
