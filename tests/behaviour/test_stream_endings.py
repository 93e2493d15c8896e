"""Streams that are cut short, and streams that reach an end of the workflow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    NodeCompleted,
    NodeContext,
    NodeFailed,
    Outputs,
    SharedStream,
    Stream,
    Workflow,
    node,
)
from flowcore.errors import (
    ContractError,
    LimitExceededError,
    RequestTimeoutError,
    StreamCancelledError,
)
from flowruntime.testing.recorder import recorded
from flowruntime.testing.running import run_workflow
from tests.behaviour.harness import Script, kept, later, now, running, runtime, same, virtual
from tests.behaviour.streams import (
    Producers,
    chain,
    first,
    read,
    upper,
    values,
)

# --- ending early -------------------------------------------------------------------------------------


@virtual
async def test_a_cancelled_request_is_gone_within_fifty_milliseconds() -> None:
    made = Producers()
    async with runtime() as rt:
        task = asyncio.create_task(rt.execute(chain(made.node(each_s=10), upper, read), {"count": 5}))
        await asyncio.sleep(15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == pytest.approx(15, abs=0.05)
        made.assert_closed()
        await asyncio.sleep(0)
        assert [name for name in running() if "stream" in name and "stage" not in name] == []


@virtual
async def test_a_request_out_of_time_takes_its_streams_along() -> None:
    """While somebody reads, while nobody does yet, and while they are gathered for the result."""

    @node("stream.sleepy")
    async def sleepy(stream: Stream[str]) -> int:
        await asyncio.sleep(1000)
        return 0

    for consumers in ((read,), (sleepy,), ()):
        made = Producers()
        begun = now()
        async with runtime() as rt:
            wf = chain(made.node(each_s=10), *consumers)
            result = await rt.execute(wf, {"count": 5}, timeout=timedelta(seconds=3))
        assert isinstance(result.cause, RequestTimeoutError)
        assert now() - begun == pytest.approx(3, abs=0.05)
        assert result.outcomes[f"n{len(consumers)}"].state == "cancelled"
        assert result.errors == {}
        made.assert_closed()


@virtual
async def test_a_producer_that_swallows_its_cancellation_holds_the_row_for_a_while_only() -> None:
    lines: list[str] = []
    stop = asyncio.Event()

    @node("stream.stubborn")
    async def stubborn(count: int, ctx: NodeContext) -> Stream[Any]:
        async def items() -> AsyncIterator[int]:
            yield 1
            while not stop.is_set():
                try:
                    await stop.wait()
                except asyncio.CancelledError:
                    continue

        return ctx.stream(items())

    async with runtime() as rt:
        rt._services.log = lambda message, level, fields: lines.append(f"{level} {fields['node']} {message}")
        result = await rt.execute(chain(stubborn, first), {"count": 1})
        assert result.outputs["n1"]["out"] == 1
        assert now() == 5.0
        stop.set()
    (line,) = lines
    assert line.startswith("error n0 node 'n0' has a stream that was cancelled 5 s ago and does not end")


@virtual
async def test_an_error_while_closing_is_logged_and_fails_no_row() -> None:
    lines: list[str] = []

    @node("stream.unclean")
    async def unclean(count: int, ctx: NodeContext) -> Stream[Any]:
        async def items() -> AsyncIterator[int]:
            try:
                for number in range(count):
                    await asyncio.sleep(0.01)
                    yield number
            finally:
                raise OSError("cannot close")

        return ctx.stream(items())

    async with runtime() as rt:
        rt._services.log = lambda message, level, fields: lines.append(f"{level} {fields['node']} {message}")
        result = await rt.execute(chain(unclean, first), {"count": 9})
    assert result.ok
    assert lines == ["error n0 node 'n0' has a stream that failed while it was closed: OSError: cannot close"]


@virtual
async def test_an_error_while_closing_at_the_end_is_the_consumers() -> None:
    """Else a stream whose answer was never confirmed would look complete."""

    @node("stream.unclean")
    async def unclean(count: int, ctx: NodeContext) -> Stream[str]:
        async def confirm() -> None:
            raise OSError("not confirmed")

        return ctx.stream(Producers().items(count), on_close=confirm)

    async with runtime() as rt:
        result = await rt.execute(chain(unclean, read), {"count": 2})
    assert [str(error) for error in result.errors["n1"]] == ["not confirmed"]


@virtual
async def test_draining_waits_for_streams_and_pausing_does_not_stop_them() -> None:
    made = Producers()
    source = Script([[3], [3], [3]])
    sink = kept()
    wf = Workflow("drained", settings={"max_frame": 1})
    wf.chain(
        wf.add(Script, id="source"),
        wf.add(made.node(each_s=1.0)),
        wf.add(read, concurrency=1),
        wf.add(sink),
    )
    async with runtime() as rt:
        run = await rt.start(wf, sources={"source": source})
        await asyncio.sleep(0.5)
        await run.pause()
        await asyncio.sleep(3)
        assert len(sink.rows) == 1
        result = await run.drain()
    assert len(sink.rows) == result.records
    assert made.closed == made.begun == result.records
    assert made.released == result.records


@pytest.mark.parametrize("how", ["stop", "cancel", "aclose"])
def test_a_run_cut_short_closes_every_producer_and_commits_nothing_of_them(how: str) -> None:
    @virtual
    async def scenario() -> None:
        made = Producers()
        source = Script([[1000] * 5])
        wf = Workflow("cut")
        wf.chain(wf.add(Script, id="source"), wf.add(made.node(each_s=1.0)), wf.add(upper), wf.add(read))
        async with runtime() as rt:
            run = await rt.start(wf, sources={"source": source})
            await asyncio.sleep(3.5)
            end: dict[str, Callable[[], Awaitable[Any]]] = {
                "stop": lambda: run.stop(timedelta(seconds=1)), "cancel": run.cancel, "aclose": rt.aclose
            }  # fmt: skip
            await end[how]()
            result = await run.wait()
        assert now() == pytest.approx(4.5 if how == "stop" else 3.5, abs=0.05)
        assert result.abandoned == 5
        assert source.committed["0"] == []
        assert made.begun == 5
        made.assert_closed(made=5)

    scenario()


@virtual
async def test_a_failure_that_stops_the_workflow_closes_the_streams_of_other_rows() -> None:
    made = Producers()

    @node("stream.picky")
    async def picky(stream: Stream[str]) -> int:
        got = 0
        async for _ in stream:
            got += 1
            if got == 3:
                raise ValueError("three")
        return got

    source = Script([[2, 1000, 1000]])
    wf = chain(Script, made.node(), picky, settings={"on_error": "stop_workflow"})
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"n0": source})).wait()
    assert result.state.name == "failed"
    assert made.closed == made.begun == made.released == 3


@virtual
async def test_whoever_leaves_the_outcomes_of_a_stream_leaves_no_producer_open() -> None:
    made = Producers()
    async with runtime() as rt:
        outcomes = rt.stream(chain(made.node(each_s=0.1)), [1, 1000, 1000])
        async with aclosing(outcomes):
            async for outcome in outcomes:
                assert outcome.value == ["t0"]
                break
    assert made.closed == made.begun == 3


# --- where streams end --------------------------------------------------------------------------------


class Spoken(Outputs):
    """What an answer consists of."""

    words: Stream[str]
    other: Stream[str]
    model: str


@virtual
async def test_a_stream_at_the_end_of_a_request_is_a_list_in_its_result() -> None:
    """Also inside a value, at one of several ports, and behind nodes that pass it on."""
    made = Producers()

    @node("stream.inside")
    async def inside(count: int, ctx: NodeContext) -> dict[str, Any]:
        one, two = ctx.stream(made.items(count)), ctx.stream(made.items(1))
        return {"words": one, "more": [two, 5], "count": count}

    @node("stream.spoken")
    async def spoken(count: int, ctx: NodeContext) -> Spoken:
        return Spoken(words=ctx.stream(made.items(count)), other=ctx.stream(made.items(1)), model="m")

    async with runtime() as rt:
        plain = await rt.execute(chain(made.node(), later, same), {"count": 2})
        nested = await rt.execute(chain(inside), {"count": 2})
        wf = Workflow("ports")
        ports, reader = wf.add(spoken, id="ports"), wf.add(read, id="read")
        wf.connect(ports["words"], reader)
        several = await rt.execute(wf, {"count": 2})
    assert [plain.outputs[name]["out"] for name in ("n0", "n1", "n2")] == [["t0", "t1"]] * 3
    assert nested.outputs["n0"]["out"] == {"words": ["t0", "t1"], "more": [["t0"], 5], "count": 2}
    assert several.outputs == {
        "ports": {"words": {"stream": "ended", "items": 2}, "other": ["t0"], "model": "m"},
        "read": {"out": ["t0", "t1"]},
    }
    assert made.closed == made.begun


@virtual
async def test_a_stream_at_the_end_of_a_record_is_a_list_in_its_outcome() -> None:
    made = Producers()
    async with runtime() as rt:
        wf = chain(made.node(fails_at=2), upper)
        outcomes = [outcome async for outcome in rt.stream(wf, [1, 5, 0, 2])]
    assert [outcome.value for outcome in outcomes] == [["T0"], None, [], ["T0", "T1"]]
    assert [outcome.ok for outcome in outcomes] == [True, False, True, True]
    assert str(outcomes[1].error) == "no item 2"
    made.assert_closed(made=4)


@virtual
async def test_what_fails_while_it_is_gathered_fails_the_node_at_the_end() -> None:
    made = Producers()
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(chain(made.node(fails_at=1), upper), {"count": 3})
    assert result.state.name == "partial"
    assert result.outcomes["n1"].state == "failed"
    assert result.outcomes["n1"].rows == 0
    assert "n1" not in result.outputs
    assert [str(error) for error in result.errors["n1"]] == ["no item 1"]
    assert [event.node for event in seen.of(NodeFailed)] == ["n1"]
    made.assert_closed()


@pytest.mark.parametrize(
    ("settings", "policies", "said"),
    [
        ({"max_children": 3}, {}, "more than 3 items"),
        ({}, {"max_output_bytes": 47}, "more than 47 bytes"),
    ],
)
def test_a_stream_too_long_to_be_kept_fails_its_row(
    settings: dict[str, Any], policies: dict[str, Any], said: str
) -> None:
    @virtual
    async def scenario() -> None:
        made = Producers()
        wf = chain(made.node(), settings={"on_error": "continue", **settings}, **policies)
        async with runtime() as rt:
            result = await rt.execute(wf, {"count": 1000})
            (outcome,) = [outcome async for outcome in rt.stream(wf, [1000])]
        for error in (result.errors["n0"][0], outcome.error):
            assert isinstance(error, LimitExceededError)
            assert said in str(error)
        assert len(made.given) < 200
        made.assert_closed(made=2)

    scenario()


@virtual
async def test_a_sink_is_never_given_a_stream() -> None:
    """Not by itself, not inside a value, not where it is captured instead of written."""
    made = Producers()

    @node("stream.any")
    async def anything(count: int, ctx: NodeContext) -> Any:
        if count < 0:
            return count
        stream = ctx.stream(made.items(count), on_close=made.release)
        return stream if count < 2 else {"words": [stream]}

    sink = kept()
    source = Script([[1, -7, 2]])
    wf = chain(Script, anything, sink)
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"n0": source})).wait()
        captured = await rt.execute(chain(values(), anything, sink), {"n0": 2})
        outcomes = [outcome async for outcome in rt.stream(chain(Script, anything, sink), [1, -7])]
    assert sink.rows == [-7]
    assert result.state.name == "partial"
    assert result.counts["n2"].failed == 2
    assert [type(error) for error in result.errors["n2"]] == [ContractError, ContractError]
    assert "stream.collect" in str(result.errors["n2"][0])
    assert "a dict that holds" in str(result.errors["n2"][1])
    assert captured.captured == {}
    assert isinstance(captured.errors["n2"][0], ContractError)
    assert [outcome.ok for outcome in outcomes] == [False, True]
    assert made.begun == 0
    made.assert_closed(made=4)


@virtual
async def test_a_workflow_that_ends_in_a_stream_can_be_run_in_a_test() -> None:
    """Where a test looks at an end of the workflow there is no outside system: it gets the list."""
    made = Producers()
    wf = chain(made.node(fails_at=2), upper)
    run = await run_workflow(wf, [1, 5, 0, 2])
    assert sorted(run.received["n1"]) == [[], ["T0"], ["T0", "T1"]]
    assert [str(error) for error in run.result.errors["n1"]] == ["no item 2"]
    assert run.result.counts["n1"].completed == 3
    assert run.result.counts["n1"].failed == 1
    assert run.result.records == 4
    made.assert_closed(made=4)


@virtual
async def test_conditions_logs_and_events_take_no_item() -> None:
    made = Producers()
    wf = Workflow("watched", settings={"capture": True, "on_error": "continue"})
    make, log = wf.add(made.node(), id="make"), wf.add("debug.log", id="log")
    wf.connect(make, log, when="record == null || value != 5")
    wf.connect(log, wf.add(read, id="read"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(wf, {"count": 2})
    assert result.outputs["read"]["out"] == ["t0", "t1"]
    outputs = {event.node: event.outputs for event in seen.of(NodeCompleted)}
    assert outputs["make"] == {"out": {"stream": "waiting", "items": 0}}
    assert outputs["log"] == {"out": {"stream": "waiting", "items": 0}}


@virtual
async def test_a_cancelled_stream_tells_its_reader() -> None:
    made = Producers()

    @node("stream.aborts")
    async def aborts(stream: Stream[str]) -> str:
        try:
            async for _ in stream:
                stream.cancel()
                stream.cancel()
        except StreamCancelledError as error:
            return type(error).__name__
        return "ended"

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), aborts), {"count": 5})
    assert result.outputs["n1"]["out"] == "StreamCancelledError"
    made.assert_closed()


@virtual
async def test_a_shared_stream_reaches_several_ends() -> None:
    made = Producers()

    @node("stream.shared_out")
    def out(stream: Stream[str]) -> SharedStream[str]:
        return stream.share(4)

    wf = Workflow("ends")
    make, one = wf.add(made.node(), id="make"), wf.add(out, id="one")
    wf.connect(make, one)
    for name in ("left", "right"):
        wf.connect(one, wf.add(later, id=name))
    async with runtime() as rt:
        result = await rt.execute(wf, {"count": 9})
    assert result.outputs["left"]["out"] == result.outputs["right"]["out"]
    assert len(result.outputs["left"]["out"]) == 9
    made.assert_closed()
