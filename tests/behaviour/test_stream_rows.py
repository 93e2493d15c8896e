"""Streams across rows: split, collected, batched, broadcast, merged, and shared by several consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from reactivex import Observable
from reactivex import operators as ops

from flowcore import (
    Batch,
    BatchContext,
    Gather,
    NodeContext,
    Record,
    Stream,
    Workflow,
    node,
    operator,
)
from flowcore.errors import (
    ContractError,
    StreamCancelledError,
)
from tests.behaviour.harness import Script, kept, later, runtime, same, virtual
from tests.behaviour.streams import (
    Producers,
    breaks_later,
    chain,
    first,
    read,
    read_anything,
    values,
)

# --- one row, many rows -------------------------------------------------------------------------------


@virtual
async def test_split_makes_a_row_of_each_item_as_fast_as_rows_are_taken() -> None:
    made = Producers()
    most: list[int] = []

    @node("stream.number", concurrency=1)
    async def number(value: str) -> int:
        await asyncio.sleep(1)
        most.append(len(made.given))
        return int(value[1:])

    wf = chain(made.node(capacity=2), "stream.split", number, "control.collect")
    async with runtime() as rt:
        result = await rt.execute(wf, {"count": 4})
    assert result.outputs["n3"]["out"] == [0, 1, 2, 3]
    made.assert_closed()


@virtual
async def test_an_error_behind_some_rows_fails_the_record_and_keeps_those_rows() -> None:
    made = Producers()
    sink = kept()
    wf = Workflow("split", settings={"on_error": "continue"})
    source = Script([[5]])
    wf.chain(
        wf.add(Script, id="source"),
        wf.add(made.node(fails_at=3), id="make"),
        wf.add("stream.split", id="split"),
        wf.add(sink),
    )
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"source": source})).wait()
    assert sink.rows == ["t0", "t1", "t2"]
    assert result.state.name == "partial"
    assert result.counts["split"].failed == 1
    assert result.records == 1
    made.assert_closed()


@virtual
async def test_a_child_with_a_stream_settles_when_that_is_over() -> None:
    """OPR-15: what an expanding node has made for its row belongs to the child that carries it."""
    made = Producers()

    @node("stream.children")
    def children(counts: list[int], ctx: NodeContext) -> Iterator[Stream[str]]:
        for count in counts:
            yield ctx.stream(made.items(count), on_close=made.release)

    @node("stream.some")
    async def some(stream: Stream[str]) -> list[str]:
        found: list[str] = []
        async for item in stream:
            found.append(item)
            if len(found) == 2:
                break
        return found

    async with runtime() as rt:
        result = await rt.execute(chain(children, some, "control.collect"), {"counts": [1, 0, 1000]})
    assert result.outputs["n2"]["out"] == [["t0"], [], ["t0", "t1"]]
    made.assert_closed(made=3)


@virtual
async def test_streams_collected_from_children_live_on_in_their_parent() -> None:
    """OPR-15."""
    made = Producers()

    @node("stream.all")
    async def read_all(streams: list[Stream[str]]) -> list[int]:
        await asyncio.sleep(1)
        return [len([item async for item in stream]) for stream in streams]

    wf = chain("transform.split", made.node(), "control.collect", read_all)
    async with runtime() as rt:
        result = await rt.execute(wf, {"value": [3, 0, 2]})
    assert result.outputs["n3"]["out"] == [3, 0, 2]
    made.assert_closed(made=3)


@virtual
async def test_a_batched_node_gives_each_row_a_stream() -> None:
    made = Producers()

    @node("stream.batched", batch=Batch(max_items=3))
    async def batched(counts: Sequence[int], ctx: BatchContext) -> Sequence[Stream[str] | Exception]:
        return [
            ValueError("none") if count < 0 else ctx.stream(made.items(count), row=row, on_close=made.release)
            for row, count in enumerate(counts)
        ]

    async with runtime() as rt:
        wf = chain(batched, read, settings={"on_error": "continue"})
        outcomes = [outcome async for outcome in rt.stream(wf, [2, -1, 1, 0])]
    assert [outcome.value if outcome.ok else repr(outcome.error) for outcome in outcomes] == [
        ["t0", "t1"], "ValueError('none')", ["t0"], []
    ]  # fmt: skip
    made.assert_closed(made=3)


@virtual
async def test_a_batched_node_that_names_no_row_of_its_call_is_told() -> None:
    @node("stream.batched", batch=Batch(max_items=3))
    async def batched(counts: Sequence[int], ctx: BatchContext) -> Sequence[Stream[str]]:
        return [ctx.stream(Producers().items(count), row=1) for count in counts]

    async with runtime() as rt:
        result = await rt.execute(chain(batched, read), {"counts": 2})
    (error,) = result.errors["n0"]
    assert isinstance(error, ContractError)
    assert "row=1" in str(error)


@virtual
async def test_a_batch_of_streams_keeps_the_rows_it_was_made_of() -> None:
    made = Producers()

    @node("stream.batch", kind="batch", batch=Batch(max_items=2))
    def pairs(items: Sequence[Stream[str]]) -> list[Stream[str]]:
        return list(items)

    @node("stream.lengths")
    async def lengths(streams: list[Stream[str]]) -> list[int]:
        await asyncio.sleep(1)
        return [len([item async for item in stream]) for stream in streams]

    sink = kept()
    source = Script([[1, 2, 3]])
    wf = Workflow("pairs")
    wf.chain(wf.add(Script, id="source"), wf.add(made.node()), wf.add(pairs), wf.add(lengths), wf.add(sink))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"source": source})).wait()
        assert sink.rows == [[1, 2], [3]]
        assert result.records == 3
        made.assert_closed(made=3)
        answer = await rt.execute(chain(made.node(), pairs), {"count": 2})
    assert answer.outputs["n1"]["out"] == [[["t0", "t1"]]]  # one batch, of one stream


@virtual
async def test_a_function_in_a_thread_makes_a_stream_the_loop_reads() -> None:
    made = Producers()

    @node("stream.thread", offload="thread")
    def threaded(count: int, ctx: NodeContext) -> Stream[str]:
        return ctx.stream(made.items(count), on_close=made.release)

    async with runtime() as rt:
        result = await rt.execute(chain(threaded, read), {"count": 2})
        assert (await (await rt.start(chain(values(2), threaded))).wait()).records == 1
    assert result.outputs["n1"]["out"] == ["t0", "t1"]
    made.assert_closed(made=2)


@operator("stream.forwards", settles="explicit")
def forwards() -> Callable[[Observable[Record[Any]]], Observable[Record[Any]]]:
    """Every record, later."""
    return lambda source: source.pipe(ops.delay(1.0), ops.map(lambda record: record.with_value(record.value)))


@operator("stream.enters", settles="on_entry")
def enters() -> Callable[[Observable[Record[Any]]], Observable[Record[Any]]]:
    """The same, but its rows are settled when they enter."""
    return lambda source: source.pipe(ops.delay(1.0))


@virtual
async def test_an_operator_that_answers_for_its_rows_passes_their_streams_on() -> None:
    made = Producers()
    async with runtime() as rt:
        wf = chain(made.node(), forwards, read)
        outcomes = [outcome async for outcome in rt.stream(wf, [2, 0])]
    assert [outcome.value for outcome in outcomes] == [[["t0", "t1"]], [[]]]
    made.assert_closed(made=2)


@virtual
async def test_one_that_settles_rows_on_entry_loses_their_streams_and_says_so() -> None:
    """Declared as a Stream it is refused by validation; hidden behind `Any` the reader is told."""
    made = Producers()
    settings = {"on_error": "continue", "delivery": "at_most_once"}
    source = Script([[2], lambda: asyncio.sleep(5)])
    wf = chain(Script, made.node(), later, enters, read_anything, settings=settings)
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"n0": source})).wait()
    assert [type(error) for error in result.errors["n4"]] == [StreamCancelledError]
    made.assert_closed()


@virtual
async def test_the_stream_of_a_record_is_read_by_the_rows_it_was_split_into_if_it_is_shared() -> None:
    """They are more than one, so an unshared stream is for the first of them."""

    @node("stream.two")
    def two(value: Any) -> Iterator[int]:
        yield 1
        yield 2

    @node("stream.both")
    async def both(number: int, stream: Stream[str]) -> list[str]:
        return [f"{number}{item}" async for item in stream]

    for share in (True, False):
        made = Producers()
        wf = Workflow("broadcast", settings={"on_error": "continue"})
        start = wf.add(same, id="start")
        make, parts, joined = wf.add(made.node(), id="make"), wf.add(two, id="two"), wf.add(both, id="both")
        wf.connect(start, make)
        wf.connect(start, parts)
        wf.connect(parts, joined["number"])
        if share:
            shared_one = wf.add("stream.share")
            wf.connect(make, shared_one)
            wf.connect(shared_one, joined["stream"])
        else:
            wf.connect(make, joined["stream"])
        async with runtime() as rt:
            result = await rt.execute(wf, {"value": 2})
        got = [["1t0", "1t1"], ["2t0", "2t1"]]
        assert result.outputs["both"]["out"] == (got if share else got[:1])
        assert [type(error) for error in result.errors.get("both", [])] == ([] if share else [ContractError])
        made.assert_closed()


@virtual
async def test_streams_of_several_connections_meet_in_one_port() -> None:
    made = Producers()
    wf, make = Workflow("merged", settings={"on_error": "continue"}), made.node()
    start, merge = wf.add(same, id="start"), wf.add("control.merge", id="merge")
    for name in ("left", "right"):
        maker = wf.add(make, id=name)
        wf.connect(start, maker)
        wf.connect(maker, merge)
    wf.chain(merge, wf.add(read_anything, id="read"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"value": 2})
    assert result.outputs["read"]["out"] == [["t0", "t1"], ["t0", "t1"]]
    made.assert_closed(made=2)


@virtual
async def test_streams_gathered_in_one_port_are_read_side_by_side() -> None:
    made = Producers()

    @node("stream.zipped")
    async def zipped(streams: Gather[Stream[str]]) -> list[tuple[str, ...]]:
        readers = [aiter(stream) for stream in streams]
        return [tuple([await anext(reader) for reader in readers]) for _ in range(2)]

    wf, make = Workflow("gathered"), made.node()
    start, end = wf.add(same, id="start"), wf.add(zipped, id="end")
    for name in ("left", "right"):
        maker = wf.add(make, id=name)
        wf.connect(start, maker)
        wf.connect(maker, end)
    async with runtime() as rt:
        result = await rt.execute(wf, {"value": 9})
    assert result.outputs["end"]["out"] == [("t0", "t0"), ("t1", "t1")]
    made.assert_closed(made=2)


# --- sharing ------------------------------------------------------------------------------------------


def shared(made: Producers, *consumers: Any, capacity: int = 64, **settings: Any) -> Workflow:
    """A stream for several consumers `c0`, `c1`, ..."""
    wf = Workflow("shared", settings={"on_error": "continue", **settings})
    make = wf.add(made.node(), id="make")
    both = wf.add("stream.share", id="share", config={"capacity": capacity})
    wf.connect(make, both)
    for index, consumer in enumerate(consumers):
        wf.connect(both, wf.add(consumer, id=f"c{index}"))
    return wf


@virtual
async def test_every_consumer_of_a_shared_stream_gets_every_item() -> None:
    made = Producers()
    async with runtime() as rt:
        result = await rt.execute(shared(made, read, read, first), {"count": 4})
    assert result.ok
    assert result.outputs["c0"]["out"] == result.outputs["c1"]["out"] == ["t0", "t1", "t2", "t3"]
    assert result.outputs["c2"]["out"] == "t0"
    made.assert_closed()


@virtual
async def test_the_slowest_consumer_of_a_shared_stream_lags_by_its_capacity_at_most() -> None:
    made = Producers()
    lags: list[int] = []
    places = {"fast": 0, "slow": 0}

    def reader(name: str, pause_s: float) -> Any:
        @node(f"stream.{name}")
        async def reads(stream: Stream[str]) -> int:
            async for _ in stream:
                places[name] += 1
                lags.append(places["fast"] - places["slow"])
                await asyncio.sleep(pause_s)
            return places[name]

        return reads

    async with runtime() as rt:
        wf = shared(made, reader("fast", 0.0), reader("slow", 1.0), capacity=3)
        result = await rt.execute(wf, {"count": 12})
    assert result.outputs["c0"]["out"] == result.outputs["c1"]["out"] == 12
    assert max(lags) == 3


@virtual
async def test_a_consumer_that_comes_too_late_fails_instead_of_missing_items() -> None:
    made = Producers()

    @node("stream.late")
    async def late(stream: Stream[str]) -> list[str]:
        await asyncio.sleep(10)
        return [item async for item in stream]

    async with runtime() as rt:
        short = await rt.execute(shared(made, read, late, capacity=4), {"count": 4})
        long = await rt.execute(shared(made, read, late, capacity=4), {"count": 5})
    assert short.outputs["c1"]["out"] == ["t0", "t1", "t2", "t3"]
    assert long.outputs["c0"]["out"] == ["t0", "t1", "t2", "t3", "t4"]
    (error,) = long.errors["c1"]
    assert isinstance(error, ContractError)
    assert "first items" in str(error)
    assert "capacity" in str(error)


@virtual
async def test_a_consumer_that_fails_does_not_hold_up_the_others() -> None:
    """Its traceback keeps its iterator, but nobody waits for a call that is over."""
    made = Producers()
    async with runtime() as rt:
        result = await rt.execute(shared(made, breaks_later, read, capacity=1), {"count": 50})
    assert result.outcomes["c0"].state == "failed"
    assert len(result.outputs["c1"]["out"]) == 50
    made.assert_closed()


@virtual
async def test_a_shared_stream_runs_to_its_end_one_consumer_after_the_other_under_one_permit() -> None:
    """With all permits taken the second one cannot begin; nothing waits for it."""
    made = Producers()
    wf = shared(made, read, read, capacity=8, max_parallel=1)
    async with runtime() as rt:
        short = await rt.execute(wf, {"count": 8})
        long = await rt.execute(wf, {"count": 9})
    assert short.ok
    assert [outcome.state for name, outcome in long.outcomes.items() if name[0] == "c"] == [
        "completed", "failed"
    ]  # fmt: skip
