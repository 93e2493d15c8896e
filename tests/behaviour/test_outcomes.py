"""`rt.stream`: exactly one outcome per item, in the order asked for, nothing dropped in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec
import pytest

from flowcore import Outputs, Workflow, node
from flowcore.errors import CancelledRowError, RunFailedError, ValidationFailedError
from flowruntime import StreamOutcome
from tests.behaviour.harness import forever, kept, now, running, runtime, same, virtual, wait


@node("out.odd", kind="filter")
def odd(value: int) -> bool:
    return value % 2 == 1


@node("out.fail_on_five")
def fail_on_five(value: int) -> int:
    if value == 5:
        raise ValueError("five")
    return value


def workflow(*nodes: Any, **settings: Any) -> Workflow:
    wf = Workflow("outcomes", settings=settings)
    handles = [wf.add(each, id=f"n{index}") for index, each in enumerate(nodes)]
    if len(handles) > 1:
        wf.chain(*handles)
    return wf


@virtual
async def test_outcomes_come_in_input_order_with_nothing_left_out() -> None:
    wf = workflow(odd, fail_on_five, on_error="continue")
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(10))]
    assert [out.index for out in outcomes] == list(range(10))
    assert [out.value for out in outcomes if out.ok and not out.dropped] == [1, 3, 7, 9]
    assert [out.index for out in outcomes if out.dropped] == [0, 2, 4, 6, 8]
    assert [(out.index, str(out.error)) for out in outcomes if not out.ok] == [(5, "five")]


class Ports(Outputs):
    """The default port, and one beside it."""

    out: str | msgspec.UnsetType = msgspec.UNSET
    answer: str | msgspec.UnsetType = msgspec.UNSET


@node("out.ports")
def ports(value: str) -> Ports:
    return Ports(out=value, answer=value.upper()) if len(value) > 1 else Ports(out=value)


@virtual
async def test_the_outcome_of_an_end_with_several_ports_is_a_mapping_by_port() -> None:
    async with runtime() as rt:
        outcomes = [out.value async for out in rt.stream(workflow(ports), ["ab", "c"])]
    assert outcomes == [{"out": "ab", "answer": "AB"}, "c"]


@virtual
async def test_outcomes_in_completion_order_come_as_soon_as_they_are_there() -> None:
    wf = Workflow("completion")
    wf.add(wait, id="w", concurrency={"max": 8, "order": "unordered"})
    async with runtime() as rt:
        seen = [(out.index, now()) async for out in rt.stream(wf, [3.0, 1.0, 2.0], order="completion")]
    assert seen == [(1, 1.0), (2, 2.0), (0, 3.0)]


@virtual
async def test_input_order_holds_back_what_is_done_until_its_turn() -> None:
    wf = Workflow("input")
    wf.add(wait, id="w", concurrency={"max": 8, "order": "unordered"})
    async with runtime() as rt:
        seen = [(out.index, now()) async for out in rt.stream(wf, [3.0, 1.0, 2.0])]
    assert seen == [(0, 3.0), (1, 3.0), (2, 3.0)]


@virtual
async def test_a_failing_item_stops_the_stream_when_the_policy_says_so_and_the_error_names_it() -> None:
    async with runtime() as rt:
        stream = rt.stream(workflow(fail_on_five), range(100))
        with pytest.raises(RunFailedError, match="five") as raised:
            async for _ in stream:
                pass
    assert isinstance(raised.value.__cause__, ValueError)


@virtual
async def test_items_are_taken_no_faster_than_outcomes_are_consumed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    async with runtime() as rt:
        stream = rt.stream(workflow(same, max_in_flight=10), endless())
        consumed = 0
        async for _ in stream:
            consumed += 1
            assert len(taken) <= consumed + 10
            if consumed == 100:
                break
        await stream.aclose()


@virtual
async def test_a_consumer_that_leaves_ends_the_run_and_everything_in_it() -> None:
    async with runtime() as rt:
        stream: Any = rt.stream(workflow(same, max_in_flight=10), range(1000))
        async for _ in stream:
            break
        await stream.aclose()
        assert rt.statistics()["runs"] == {}
        assert running() == []


@virtual
async def test_items_an_iterable_gave_before_it_raised_have_their_outcomes() -> None:
    def breaking() -> Iterator[float]:
        yield 1.0
        yield 2.0
        raise OSError("the tape tore")

    wf = Workflow("torn")
    wf.add(wait, id="w")
    values: list[Any] = []

    async def consume(outcomes: AsyncIterator[StreamOutcome]) -> None:
        async for out in outcomes:
            values.append(out.value)  # noqa: PERF401 - those before the error must be kept

    async with runtime() as rt:
        with pytest.raises(RunFailedError, match="the tape tore"):
            await consume(rt.stream(wf, breaking()))
    assert values == [1.0, 2.0]


@virtual
async def test_an_async_iterable_is_followed_as_its_items_come() -> None:
    async def ticks() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(1)
            yield number

    async with runtime() as rt:
        seen = [(out.value, now()) async for out in rt.stream(workflow(same), ticks())]
    assert seen == [(0, 1.0), (1, 2.0), (2, 3.0)]


@virtual
async def test_an_empty_iterable_has_no_outcomes_and_ends() -> None:
    async with runtime() as rt:
        assert [out async for out in rt.stream(workflow(same), [])] == []


@virtual
async def test_an_item_that_was_split_has_one_outcome_with_all_its_values_in_order() -> None:
    @node("out.split")
    def split(value: str) -> Iterator[str]:
        yield from value

    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(workflow(split, same), ["abc", "", "de"])]
    assert [out.value for out in outcomes] == [["a", "b", "c"], None, ["d", "e"]]
    assert [out.dropped for out in outcomes] == [False, True, False]


@virtual
async def test_a_row_that_fails_after_a_batch_fails_every_item_the_batch_was_made_of() -> None:
    @node("out.group", kind="batch")
    def group(items: Any) -> Any:
        return list(items)

    @node("out.refuse_two")
    def refuse_two(value: list[int]) -> list[int]:
        if 2 in value:
            raise ValueError("two")
        return value

    wf = Workflow("batched", settings={"on_error": "continue"})
    wf.chain(wf.add(group, id="g", batch=2), wf.add(refuse_two, id="r"))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2, 3, 4])]
    assert [(out.index, out.ok) for out in outcomes] == [(0, False), (1, False), (2, True), (3, True)]


@virtual
async def test_sinks_of_a_stream_are_captured_unless_write_is_said() -> None:
    sink = kept()
    wf = workflow(same, sink)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [1, 2])]
        assert [out.value for out in outcomes] == [1, 2]
        assert sink.rows == []
        assert sink.log == []
        outcomes = [out async for out in rt.stream(wf, [1, 2], write=True)]
        assert [out.ok for out in outcomes] == [True, True]
    assert sink.rows == [1, 2]
    assert sink.log == ["open", "finish", "close"]


@virtual
async def test_cancelling_the_consumer_of_a_stream_leaves_nothing_running() -> None:
    async def consume() -> None:
        async with runtime() as rt:
            async for _ in rt.stream(workflow(forever), [1, 2, 3]):
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(1)
    task.cancel()
    started = now()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() - started <= 0.05
    assert running() == []


async def consumed(
    outcomes: AsyncIterator[StreamOutcome],
) -> tuple[list[StreamOutcome], RunFailedError | None]:
    """The outcomes of a stream, and what it raised behind them."""
    seen: list[StreamOutcome] = []
    try:
        async for out in outcomes:
            seen.append(out)  # noqa: PERF401 - those before the error must be kept
    except RunFailedError as error:
        return seen, error
    return seen, None


@virtual
async def test_a_stream_that_an_item_stops_tells_the_outcome_of_every_item_it_had_taken_first() -> None:
    """Items done and held back for their turn, the one that failed, those under way: nothing is left out."""

    @node("out.slow_or_failing")
    async def slow_or_failing(value: int) -> int:
        await asyncio.sleep({0: 1, 1: 100, 2: 1, 3: 2, 4: 100}[value])
        if value == 3:
            raise ValueError("three")
        return value

    wf = Workflow("stopped")
    wf.add(slow_or_failing, id="n", concurrency={"max": 8, "order": "unordered"})
    async with runtime() as rt:
        seen, error = await consumed(rt.stream(wf, range(5)))
    assert "three; set on_error: continue" in str(error)
    assert [out.index for out in seen] == [0, 1, 2, 3, 4]
    assert [out.value for out in seen if out.ok] == [0, 2]
    assert isinstance(seen[3].error, ValueError)
    assert [type(seen[index].error) for index in (1, 4)] == [CancelledRowError, CancelledRowError]
    assert now() == 2


@virtual
async def test_a_stream_whose_items_fail_in_one_frame_names_the_item() -> None:
    async with runtime() as rt:
        seen, _ = await consumed(rt.stream(workflow(fail_on_five), range(8)))
    assert [out.index for out in seen] == list(range(8))
    assert [out.index for out in seen if isinstance(out.error, ValueError)] == [5]


@virtual
async def test_a_stream_that_is_cut_short_by_closing_the_runtime_does_not_look_finished() -> None:
    wf = Workflow("cut")
    wf.add(wait, id="w")
    async with runtime() as rt:
        task = asyncio.create_task(consumed(rt.stream(wf, [1.0, 100.0])))
        await asyncio.sleep(2)
    seen, error = await task
    assert "was cancelled: the runtime was closed" in str(error)
    assert [(out.index, type(out.error)) for out in seen] == [(0, type(None)), (1, CancelledRowError)]


@virtual
async def test_a_source_that_fails_is_no_item_that_failed() -> None:
    async with runtime() as rt:
        seen, error = await consumed(rt.stream(workflow(same), cast("Any", 5)))
    assert seen == []
    assert "not iterable" in str(error)
    assert "on_error" not in str(error)


@virtual
async def test_an_order_nobody_knows_is_refused() -> None:
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match=r"must be one of input, completion \(got 'inputs'\)"):
            await consumed(rt.stream(workflow(same), [1], order=cast("Any", "inputs")))
