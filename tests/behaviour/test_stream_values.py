"""Stream values: a row settles when its stream is over, and every producer is closed, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    NodeContext,
    RetryPolicy,
    Stream,
    Workflow,
    node,
)
from flowcore.errors import (
    ContractError,
    NodeTimeoutError,
    StreamCancelledError,
)
from tests.behaviour.harness import Script, later, now, runtime, same, virtual
from tests.behaviour.streams import (
    Producers,
    breaks,
    breaks_later,
    chain,
    first,
    never,
    read,
    read_anything,
    upper,
    values,
)

# --- consumers ----------------------------------------------------------------------------------------


@virtual
async def test_a_node_reads_what_another_one_yields() -> None:
    made = Producers()
    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), read), {"count": 3})
    assert result.outputs["n1"]["out"] == ["t0", "t1", "t2"]
    assert result.outputs["n0"]["out"] == {"stream": "ended", "items": 3}
    assert result.ok
    made.assert_closed()


@virtual
async def test_a_plain_function_makes_a_stream_of_a_stream() -> None:
    made = Producers()
    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), upper, upper, read), {"count": 2})
    assert result.outputs["n3"]["out"] == ["T0", "T1"]
    made.assert_closed()


@virtual
async def test_the_producer_waits_for_its_consumer() -> None:
    made = Producers()
    ahead: list[int] = []

    @node("stream.slow")
    async def slow(stream: Stream[str]) -> int:
        taken = 0
        async for _ in stream:
            taken += 1
            await asyncio.sleep(1)
            ahead.append(len(made.given) - taken)
        return taken

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(capacity=3), slow), {"count": 20})
    assert result.outputs["n1"]["out"] == 20
    assert max(ahead) == 3


@virtual
async def test_nothing_is_produced_before_somebody_reads() -> None:
    made = Producers()

    @node("stream.late")
    async def late(stream: Stream[str]) -> int:
        await asyncio.sleep(5)
        begun = made.begun
        async for _ in stream:
            pass
        return begun

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), late), {"count": 2})
    assert result.outputs["n1"]["out"] == 0
    made.assert_closed()


@virtual
async def test_a_row_waits_for_the_clean_up_of_its_producer() -> None:
    """The consumer has all it wants after 10 ms; the producer takes 3 s to close."""
    made = Producers()
    source = Script([[5]])
    wf = Workflow("settles", settings={"commit_interval": "10ms"})
    wf.chain(wf.add(Script, id="source"), wf.add(made.node(closing_s=3.0)), wf.add(first))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"source": source})
        await asyncio.sleep(1)
        assert run.statistics()["budget"]["in_flight"] == 1
        assert source.committed["0"] == []
        task = next(iter(run.tasks.values())).statistics()
        assert task["streams"]["rows_held"] == 1
        result = await run.wait()
    assert now() == pytest.approx(3.01)
    assert result.records == 1
    assert source.committed["0"] == [1]
    made.assert_closed()


@virtual
async def test_a_consumer_that_stops_early_closes_the_producer_at_once() -> None:
    """Not when the row is done: another branch of it takes its time."""
    made = Producers()

    @node("stream.count")
    async def count(value: Any) -> int:
        return 1000

    wf = Workflow("early")
    start, make = wf.add(count, id="start"), wf.add(made.node(), id="make")
    wf.chain(start, make, wf.add(first, id="first"))
    closed_at: list[int] = []

    @node("stream.slowly")
    async def slowly(value: Any) -> None:
        await asyncio.sleep(1)
        closed_at.append(made.closed)

    wf.connect(start, wf.add(slowly, id="slowly"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"start": {"value": 0}})
    assert result.outputs["first"]["out"] == "t0"
    assert closed_at == [1]
    made.assert_closed()


@virtual
async def test_the_first_item_may_be_looked_at_and_the_rest_handed_on() -> None:
    """The reader outlives the call it was begun in, because another stream goes on with it."""
    made = Producers()

    @node("stream.peek")
    async def peek(stream: Stream[str], ctx: NodeContext) -> Stream[str]:
        reader = aiter(stream)
        head = await anext(reader)

        async def rest() -> AsyncIterator[str]:
            yield f"({head})"
            async for item in reader:
                yield item

        return ctx.stream(rest())

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), peek, read), {"count": 3})
    assert result.outputs["n2"]["out"] == ["(t0)", "t1", "t2"]
    made.assert_closed()


@virtual
async def test_each_item_may_have_a_timeout_of_its_own() -> None:
    made = Producers()

    @node("stream.patient")
    async def patient(stream: Stream[str]) -> int:
        reader, missed = aiter(stream), 0
        while True:
            try:
                if await asyncio.wait_for(anext(reader, None), 0.03) is None:
                    return missed
            except TimeoutError:
                missed += 1

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(each_s=0.1), patient), {"count": 3})
    assert result.outputs["n1"]["out"] == 9  # three for each item, and no item lost
    assert made.given == [0, 1, 2]


@virtual
async def test_the_producer_has_the_state_of_its_execution() -> None:
    @node("stream.stateful")
    async def stateful(count: int, ctx: NodeContext) -> Stream[int]:
        async def items() -> AsyncIterator[int]:
            for _ in range(count):
                await ctx.sleep(timedelta(seconds=1))
                ctx.state.data["n"] = int(ctx.state.data.get("n", 0)) + 1
                yield ctx.state.data["n"]

        return ctx.stream(items())

    @node("stream.check")
    async def check(stream: Stream[int], ctx: NodeContext) -> list[int]:
        return [item * 100 + int(ctx.state.data["n"]) async for item in stream]

    async with runtime() as rt:
        first_, second = await asyncio.gather(
            *(rt.execute(chain(stateful, check), {"count": 2}) for _ in range(2))
        )
    assert first_.outputs["n1"]["out"] == second.outputs["n1"]["out"] == [101, 202]


# --- rows nobody reads --------------------------------------------------------------------------------


@pytest.mark.parametrize("consumer", [never, breaks, breaks_later, same, later])
def test_a_stream_nobody_reads_to_its_end_is_cancelled_and_its_row_settles(consumer: Any) -> None:
    """Dropped, failed before and after the first item, passed on to nobody."""

    @virtual
    async def scenario() -> None:
        made = Producers()
        async with runtime() as rt:
            run = await rt.start(chain(values(1000, 1000), made.node(), consumer))
            result = await run.wait()
        assert result.records == 2
        assert now() < 0.1
        made.assert_closed(made=2)

    scenario()


@virtual
async def test_a_branch_not_taken_does_not_keep_the_row() -> None:
    made = Producers()
    wf = Workflow("branch")
    make, reader = wf.add(made.node(), id="make"), wf.add(read, id="read")
    wf.connect(make, reader, when="record == 1")
    async with runtime() as rt:
        result = await rt.execute(wf, {"count": 1000})
    assert result.ok
    assert result.outputs["make"]["out"] == {"stream": "cancelled", "items": 0}
    made.assert_closed()


@virtual
async def test_what_was_opened_before_the_first_item_is_closed_though_nobody_asked_for_one() -> None:
    """The body of an async generator that was never begun has no `finally` to run; `on_close` has."""
    made = Producers()
    async with runtime() as rt:
        assert (await (await rt.start(chain(values(3), made.node()))).wait()).ok
    assert made.begun == 0
    made.assert_closed()


@virtual
async def test_an_attempt_that_failed_leaves_no_stream_behind() -> None:
    """Nor keeps what it had opened until the row is done."""
    made, tries = Producers(), list[tuple[int, int]]()
    once_a_second = RetryPolicy(max_attempts=3, initial=timedelta(seconds=1), retry_on=("ValueError",))

    @node("stream.tries", retry=once_a_second)
    async def tries_again(count: int, ctx: NodeContext) -> Stream[str]:
        tries.append((ctx.attempt, made.released))
        stream = ctx.stream(made.items(count), on_close=made.release)
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return stream

    async with runtime() as rt:
        result = await rt.execute(chain(tries_again, read), {"count": 2})
    assert result.outputs["n1"]["out"] == ["t0", "t1"]
    assert tries == [(1, 0), (2, 1), (3, 2)]
    made.assert_closed(made=3)


@virtual
async def test_whoever_reads_on_after_its_call_is_cut_off_with_its_row() -> None:
    """NOD-15: the row does not wait for a task its node has left behind."""
    made = Producers()
    left: list[asyncio.Task[list[str]]] = []

    @node("stream.leaves")
    async def leaves(stream: Stream[str]) -> int:
        async def on() -> list[str]:
            return [item async for item in stream]

        left.append(asyncio.ensure_future(on()))
        await asyncio.sleep(0.015)
        return 1

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), leaves), {"count": 1000})
    assert result.outputs["n1"]["out"] == 1
    assert now() < 0.1
    with pytest.raises(StreamCancelledError):
        await left[0]
    made.assert_closed()


# --- failures -----------------------------------------------------------------------------------------


@virtual
async def test_an_error_of_the_producer_fails_the_node_that_reads() -> None:
    made = Producers()
    got: list[str] = []

    @node("stream.note")
    async def note(stream: Stream[str]) -> int:
        async for item in stream:
            got.insert(len(got), item)
        return len(got)

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(fails_at=2), note, later), {"count": 5})
    assert not result.ok
    assert got == ["t0", "t1"]
    assert {name: outcome.state for name, outcome in result.outcomes.items()} == {
        "n0": "completed", "n1": "failed", "n2": "skipped"
    }  # fmt: skip
    error = result.errors["n1"][0]
    assert isinstance(error, ValueError)
    assert str(error) == "no item 2"
    assert error.__notes__ == ["raised by the stream of node 'n0'"]
    assert result.outputs["n0"]["out"] == {"stream": "failed", "items": 2}
    made.assert_closed()


@virtual
async def test_a_consumer_may_live_with_the_error() -> None:
    made = Producers()

    @node("stream.tolerant")
    async def tolerant(stream: Stream[str]) -> list[str]:
        found: list[str] = []
        try:
            async for item in stream:
                found += [item]
        except ValueError as error:
            found.append(repr(error))
        return found

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(fails_at=1), tolerant), {"count": 5})
    assert result.ok
    assert result.outputs["n1"]["out"] == ["t0", "ValueError('no item 1')"]


@virtual
async def test_a_second_consumer_of_one_stream_fails_its_row() -> None:
    made = Producers()
    wf = Workflow("two", settings={"on_error": "continue"})
    make, here = wf.add(made.node(), id="make"), wf.add(later, id="here")
    wf.connect(make, here)
    for name in ("one", "two"):
        wf.connect(here, wf.add(read_anything, id=name))
    async with runtime() as rt:
        result = await rt.execute(wf, {"count": 3})
    states = sorted((result.outcomes[name].state, name) for name in ("one", "two"))
    assert [state for state, _ in states] == ["completed", "failed"]
    (error,) = result.errors[states[1][1]]
    assert isinstance(error, ContractError)
    assert "one consumer" in str(error)
    assert "stream.share" in str(error)
    assert "'make'" in str(error)
    assert result.outputs[states[0][1]]["out"] == ["t0", "t1", "t2"]
    made.assert_closed()


@virtual
async def test_a_retry_cannot_read_a_stream_again() -> None:
    made = Producers()

    @node("stream.retried", retry=RetryPolicy(max_attempts=3, initial=timedelta(0), retry_on=("ValueError",)))
    async def retried(stream: Stream[str]) -> int:
        async for _ in stream:
            raise ValueError("later perhaps")
        return 0

    async with runtime() as rt:
        result = await rt.execute(chain(made.node(), retried), {"count": 3})
    (error,) = result.errors["n1"]
    assert isinstance(error, ContractError)
    assert result.outcomes["n1"].attempts == 2
    made.assert_closed()


@virtual
async def test_a_timeout_of_the_consumer_closes_the_producer() -> None:
    made = Producers()
    wf = chain(made.node(each_s=1.0), read, timeout="2500ms")
    async with runtime() as rt:
        result = await rt.execute(wf, {"count": 1000})
    assert isinstance(result.errors["n1"][0], NodeTimeoutError)
    assert now() == 2.5
    assert made.given == [0, 1]
    made.assert_closed()


@virtual
async def test_the_timeout_of_the_node_that_makes_a_stream_ends_with_its_call() -> None:
    made = Producers()
    wf = chain((made.node(each_s=1.0), {"timeout": "1s"}), read)
    async with runtime() as rt:
        assert (await rt.execute(wf, {"count": 5})).ok
    assert now() == 5.0


@virtual
async def test_an_item_that_is_not_asynchronous_is_a_clear_failure() -> None:
    @node("stream.wrong")
    async def wrong(kind: str, ctx: NodeContext) -> Stream[Any]:
        async def coroutine() -> list[int]:
            return [1]

        given: dict[str, Any] = {"list": [1], "coroutine": coroutine, "none": None}
        thing = given[kind]
        return ctx.stream(thing() if kind == "coroutine" else thing)

    @node("stream.small")
    async def small(capacity: Any, ctx: NodeContext) -> Stream[Any]:
        return ctx.stream(Producers().items(1), capacity=capacity)

    async with runtime() as rt:
        for kind, said in (("list", "not list"), ("coroutine", "it is a coroutine"), ("none", "NoneType")):
            (error,) = (await rt.execute(chain(wrong, read), {"kind": kind})).errors["n0"]
            assert isinstance(error, ContractError)
            assert said in str(error)
        for capacity in (0, -1, True, 1.5, None):
            (error,) = (await rt.execute(chain(small, read), {"capacity": capacity})).errors["n0"]
            assert isinstance(error, ContractError)
            assert repr(capacity) in str(error)
