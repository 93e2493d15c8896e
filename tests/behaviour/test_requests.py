"""Requests: warm, independent of each other, bounded by request credit, always with an end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    NodeContext,
    Workflow,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowStarted,
    node,
)
from flowcore.errors import (
    DefinitionError,
    RequestTimeoutError,
    RuntimeClosedError,
    SinkError,
    ValidationFailedError,
)
from flowcore.events import TERMINAL_KINDS
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, forever, kept, later, now, running, runtime, same, virtual, wait


def one(thing: Any, **options: Any) -> Workflow:
    wf = Workflow("one", settings=options.pop("settings", None))
    wf.add(thing, id="n", **options)
    return wf


@virtual
async def test_one_slow_request_does_not_hold_another() -> None:
    wf = one(wait)
    ends: dict[float, float] = {}

    async def ask(seconds: float) -> None:
        await rt.execute(wf, {"n": {"seconds": seconds}})
        ends[seconds] = now()

    async with runtime() as rt:
        await asyncio.gather(*(ask(seconds) for seconds in (5.0, 1.0, 3.0)))
    assert ends == {5.0: 5.0, 1.0: 1.0, 3.0: 3.0}


@virtual
async def test_requests_beyond_the_credit_wait_their_turn_first_come_first_served() -> None:
    started: list[int] = []

    @node("req.note")
    async def note(value: int) -> int:
        started.append(value)
        await asyncio.sleep(1)
        return value

    wf = one(note, settings={"max_in_flight": 2})
    async with runtime() as rt:
        results = await asyncio.gather(*(rt.execute(wf, {"n": {"value": index}}) for index in range(6)))
    assert started == [0, 1, 2, 3, 4, 5]
    assert now() == 3.0
    assert all(result.ok for result in results)


@virtual
async def test_the_deadline_of_a_request_counts_the_wait_for_its_turn() -> None:
    wf = one(wait, settings={"max_in_flight": 1})
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            first = asyncio.create_task(rt.execute(wf, {"n": {"seconds": 10.0}}))
            await asyncio.sleep(0)
            second = await rt.execute(wf, {"n": {"seconds": 0.0}}, timeout=timedelta(seconds=2))
            assert now() == 2.0
            assert (await first).ok
    assert second.state.name == "failed"
    assert isinstance(second.cause, RequestTimeoutError)
    assert len(seen.of(WorkflowStarted)) == 2
    assert sum(isinstance(event, TERMINAL_KINDS) for event in seen.events) == 2


@virtual
async def test_a_request_that_takes_too_long_ends_at_its_deadline_with_a_clear_error() -> None:
    wf = Workflow("slow", settings={"timeout": "1.5s"})
    wf.chain(wf.add(same, id="a"), wf.add(forever, id="b"), wf.add(same, id="c"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(wf, {"a": {"value": 1}})
    assert now() == 1.5
    assert result.state.name == "failed"
    assert isinstance(result.cause, RequestTimeoutError)
    assert "1.5 s" in str(result.cause)
    assert {name: outcome.state for name, outcome in result.outcomes.items()} == {
        "a": "completed",
        "b": "cancelled",
        "c": "cancelled",
    }
    assert isinstance(seen.ended(), WorkflowFailed)
    assert running() == []


@virtual
async def test_cancelling_the_caller_cancels_the_nodes_and_says_so_once() -> None:
    wf = one(forever)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            task = asyncio.create_task(rt.execute(wf, {"n": {"value": 1}}))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert now() == pytest.approx(1.0, abs=0.05)
            assert rt.statistics()["warm_chains"] == 1
    assert isinstance(seen.ended(), WorkflowCancelled)


@virtual
async def test_a_caller_cancelled_twice_still_leaves_one_terminal_event() -> None:
    @node("req.slow_to_end")
    async def slow_to_end(value: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)

    async with runtime() as rt:
        with recorded(rt.events) as seen:
            task = asyncio.create_task(rt.execute(one(slow_to_end), {"n": {"value": 1}}))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert isinstance(seen.ended(), WorkflowCancelled)


@virtual
async def test_a_chain_is_compiled_once_and_the_nodes_state_is_new_for_each_request() -> None:
    @node("req.count")
    async def count(value: Any, ctx: NodeContext) -> int:
        ctx.state.data["n"] = int(ctx.state.data.get("n", 0)) + 1
        return ctx.state.data["n"]

    wf = Workflow("warm")
    wf.chain(wf.add(count, id="a"), wf.add(count, id="b"))
    async with runtime() as rt:
        for _ in range(3):
            result = await rt.execute(wf, {"a": {"value": None}})
            assert (result.outputs["a"]["out"], result.outputs["b"]["out"]) == (1, 2)
        assert rt.statistics()["warm_chains"] == 1


@virtual
async def test_replace_puts_a_function_or_a_value_in_the_place_of_a_node_for_that_request_only() -> None:
    async def double(value: int) -> int:
        return value * 2

    wf = Workflow("replaced")
    wf.chain(wf.add(same, id="a"), wf.add(later, id="b"), wf.add(same, id="c"))
    async with runtime() as rt:
        assert (await rt.execute(wf, {"a": {"value": 3}}, replace={"b": double})).outputs["c"]["out"] == 6
        assert (await rt.execute(wf, {"a": {"value": 3}}, replace={"b": 42})).outputs["c"]["out"] == 42
        assert (await rt.execute(wf, {"a": {"value": 3}})).outputs["c"]["out"] == 3
        with pytest.raises(DefinitionError, match="'x'"):
            await rt.execute(wf, {"a": {"value": 3}}, replace={"x": double})


@virtual
async def test_sinks_are_captured_when_the_source_is_given_and_write_with_write() -> None:
    sink = kept()
    wf = Workflow("sinks")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"), wf.add(sink, id="k"))
    async with runtime() as rt:
        captured = await rt.execute(wf, {"s": 7})
        assert captured.ok
        assert captured.captured == {"k": [7]}
        assert sink.rows == []
        written = await rt.execute(wf, {"s": 8}, write=True)
        assert written.ok
        assert written.captured == {}
        assert sink.rows == [8]
    assert sink.log == ["open", "finish", "close"]


@virtual
async def test_a_sink_that_fails_in_a_request_fails_it() -> None:
    def refuse(_: Any) -> Any:
        raise OSError("full")

    sink = kept(refuse)
    wf = Workflow("sinks")
    wf.chain(wf.add(Script, id="s"), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"s": 8}, write=True)
    assert not result.ok
    assert result.outcomes["k"].state == "failed"


@virtual
async def test_a_sink_that_hangs_does_not_hold_a_request_beyond_its_deadline() -> None:
    async def hang(_: Any) -> Any:
        await asyncio.Event().wait()

    sink = kept(hang)
    wf = Workflow("sinks", settings={"drain_timeout": "1s"})
    wf.chain(wf.add(Script, id="s"), wf.add(sink, id="k"))
    rt = runtime()
    result = await rt.execute(wf, {"s": 8}, write=True, timeout=timedelta(seconds=2))
    assert now() == pytest.approx(2.0, abs=0.05)
    assert isinstance(result.cause, RequestTimeoutError)
    with pytest.raises(SinkError, match="'k' has not answered for 1"):
        await rt.aclose()
    assert now() == pytest.approx(3.0, abs=0.05)
    assert sink.log[-1] == "close"


@virtual
async def test_closing_the_runtime_cancels_requests_under_way_and_refuses_new_ones() -> None:
    wf = one(forever)
    rt = runtime()
    with recorded(rt.events) as seen:
        task = asyncio.create_task(rt.execute(wf, {"n": {"value": 1}}))
        await asyncio.sleep(1)
        await rt.aclose()
        result = await task
    assert result.state.name == "cancelled"
    assert isinstance(seen.ended(), WorkflowCancelled)
    assert running() == []
    with pytest.raises(RuntimeClosedError, match="closed"):
        await rt.execute(wf, {"n": {"value": 1}})


@virtual
async def test_wrong_inputs_are_refused_with_every_problem_and_nothing_runs() -> None:
    wf = one(wait)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            with pytest.raises(ValidationFailedError, match="secnds"):
                await rt.execute(wf, {"n": {"secnds": 1}})
            with pytest.raises(ValidationFailedError, match="required"):
                await rt.execute(wf, {})
    assert seen.events == []


@virtual
async def test_ten_thousand_requests_at_once_all_end_and_leave_nothing() -> None:
    wf = Workflow("many")
    wf.chain(wf.add(same, id="a"), wf.add(later, id="b"))
    async with runtime() as rt:
        results = await asyncio.gather(*(rt.execute(wf, {"a": {"value": n}}) for n in range(10_000)))
    assert [result.outputs["b"]["out"] for result in results] == list(range(10_000))
    assert running() == []
