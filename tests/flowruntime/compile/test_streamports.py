"""Streams at compile time: what could never work is refused with a remedy, what may work is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from msgspec import UNSET, Struct, UnsetType
from reactivex import Observable

from flowcore import (
    Batch,
    BatchContext,
    Gather,
    Node,
    NodeContext,
    Outputs,
    Record,
    SharedStream,
    Stream,
    Workflow,
    node,
    operator,
)
from flowcore.connector import Rows, Sink
from flowcore.errors import DefinitionError, Problem, ValidationFailedError
from flowruntime.compile.validate import validate
from flowruntime.registry import Registry


class Out(Sink[None, Any], type="ports.out"):
    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        return {}


@node("ports.make")
async def make(prompt: str, ctx: NodeContext) -> Stream[str]:
    async def items() -> AsyncIterator[str]:
        yield prompt

    return ctx.stream(items())


@node("ports.shared")
async def shared(prompt: str, ctx: NodeContext) -> SharedStream[str]:
    async def items() -> AsyncIterator[str]:
        yield prompt

    return ctx.stream(items()).share(4)


@node("ports.read")
async def read(stream: Stream[str]) -> int:
    return len([item async for item in stream])


@node("ports.numbers")
async def numbers(stream: Stream[int]) -> int:
    return len([item async for item in stream])


@node("ports.text")
def text(value: str) -> str:
    return value


@node("ports.anything")
def anything(value: Any) -> Any:
    return value


@node("ports.gathering")
def gathering(values: Gather[Stream[str]]) -> int:
    return len(values)


@operator("ports.entry", settles="on_entry")
def entry() -> Callable[[Observable[Record[Any]]], Observable[Record[Any]]]:
    return lambda source: source


@operator("ports.explicit", settles="explicit")
def explicit() -> Callable[[Observable[Record[Any]]], Observable[Record[Any]]]:
    return lambda source: source


class Said(Outputs):
    """At one of two ports."""

    words: Stream[str] | UnsetType = UNSET
    refusal: str | UnsetType = UNSET


class Asked(Struct):
    """What is asked."""

    prompt: str


class Ask(Node[None, Asked, Said], type="ports.ask", exclusive_outputs=True):
    """Words, or a refusal."""

    async def execute(self, inputs: Asked, ctx: NodeContext) -> Said:
        return Said(refusal=inputs.prompt)


def problems(wf: Workflow) -> list[Problem]:
    try:
        validate(wf, Registry(), mode="request")
    except ValidationFailedError as error:
        return list(error.problems)
    return []


def problem(*chain: Any) -> Problem:
    wf = Workflow("w", settings={"delivery": "at_most_once"})
    wf.chain(*[wf.add(thing, id=f"n{index}") for index, thing in enumerate(chain)])
    (found,) = problems(wf)
    return found


def test_a_stream_does_not_fit_a_port_of_its_items() -> None:
    found = problem(make, text)
    assert found.message == "input 'value' of 'n1' takes str, but n0.out gives Stream[str]"
    assert found.remedy == (
        "put stream.collect in between for the whole of it, or stream.split for one row per item"
    )


def test_items_do_not_fit_a_port_of_a_stream() -> None:
    found = problem(text, read)
    assert found.message == "input 'stream' of 'n1' takes Stream[str], but n0.out gives str"
    assert "ctx.stream" in found.remedy


def test_the_items_of_streams_are_compared() -> None:
    found = problem(make, numbers)
    assert "Stream[str] is not Stream[int]: str is not int" in found.message
    assert "converts its items" in found.remedy


@pytest.mark.parametrize("sink", [Out, "memory.sink"])
def test_a_stream_never_goes_to_a_sink(sink: Any) -> None:
    found = problem(make, sink)
    assert found.message == "n0.out gives Stream[str] to 'n1', but a Stream never enters an outside system"
    assert "stream.collect" in found.remedy


def test_a_stream_never_goes_to_an_operator_that_settles_on_entry() -> None:
    assert "settles rows when they enter" in problem(make, entry).message
    wf = Workflow("w")
    wf.chain(wf.add(make), wf.add(explicit), wf.add(read))
    assert problems(wf) == []


def test_a_field_of_a_stream_is_not_there() -> None:
    wf = Workflow("w")
    wf.add(make, id="a")
    wf.add(anything, id="b")
    wf.connect("a.out.text", "b.value")
    (found,) = problems(wf)
    assert "Stream[str] has no field 'text'" in found.message


def fan_out(
    maker: Any, *, port: str = "out", whens: Sequence[str | None] = (None, None), to: Any = read
) -> Any:
    wf = Workflow("w")
    start = wf.add(maker, id="start")
    for index, when in enumerate(whens):
        options: dict[str, Any] = {"otherwise": True} if when == "else" else {"when": when}
        wf.connect(start[port], wf.add(to, id=f"r{index}"), **options)
    return problems(wf)


def test_a_stream_for_one_consumer_cannot_go_two_ways() -> None:
    (found,) = fan_out(make)
    assert found.message == "start.out gives Stream[str], which has one consumer, but goes to 'r0', 'r1'"
    assert found.remedy == "put stream.share between 'start' and them, or let only one of them have it"
    (found,) = fan_out(make, to=anything)
    assert "one consumer" in found.message
    (found,) = fan_out(make, whens=[None, "record == 1"])
    assert "one consumer" in found.message


def test_branches_that_exclude_each_other_may_both_be_there() -> None:
    assert fan_out(make, whens=["record == 1", "else"]) == []
    assert fan_out(Ask, port="words", whens=[None]) == []
    wf = Workflow("w")
    ask = wf.add(Ask, id="ask")
    wf.connect(ask["words"], wf.add(read))
    wf.connect(ask["refusal"], wf.add(text))
    wf.connect(ask["refusal"], wf.add(anything))
    assert problems(wf) == []


def test_a_shared_stream_may_go_anywhere() -> None:
    assert fan_out(shared, whens=[None, None, None]) == []
    wf = Workflow("w")
    start, share = wf.add(make, id="start"), wf.add("stream.share", id="share")
    wf.connect(start, share)
    wf.connect(share, wf.add(read, id="a"))
    wf.connect(share, wf.add(read, id="b"))
    assert problems(wf) == []


def test_control_and_error_connections_carry_no_stream() -> None:
    wf = Workflow("w")
    start = wf.add(make, id="start")
    wf.connect(start, wf.add(read, id="read"))
    wf.connect(start, wf.add(text, id="text"), kind="control")
    wf.connect(start, wf.add(anything, id="anything"), kind="error")
    assert problems(wf) == []


def test_a_cycle_is_reported_whatever_else_is_wrong() -> None:
    wf = Workflow("w")
    first, second = wf.add(make, id="a"), wf.add(anything, id="b")
    wf.connect(first, second)
    wf.connect(first, wf.add(read, id="c"))
    wf.connect(second, first)
    assert any("cycle" in found.message for found in problems(wf))


def test_streams_fit_where_they_may_be_of_use() -> None:
    for things in (
        (make, read),
        (make, anything, read),
        (shared, read),
        (make, "stream.split"),
        (make, "stream.collect", "memory.sink"),
        (make, "debug.log", "stream.collect"),
    ):
        wf = Workflow("w")
        wf.chain(*[wf.add(thing, id=f"n{index}") for index, thing in enumerate(things)])
        assert problems(wf) == []
    wf = Workflow("w")
    one, two, both = wf.add(make, id="one"), wf.add(make, id="two"), wf.add(gathering)
    wf.connect(one, both)
    wf.connect(two, both)
    assert problems(wf) == []


# --- definitions ----------------------------------------------------------------------------------------


def test_a_process_can_neither_take_nor_give_a_stream_and_a_thread_cannot_read_one() -> None:
    with pytest.raises(DefinitionError, match="runs in a process and takes a Stream at 'stream'"):

        @node("ports.in_process", offload="process")
        def _taking(stream: Stream[str]) -> int:
            return id(stream)

    with pytest.raises(DefinitionError, match="returns a Stream, which cannot cross"):

        @node("ports.out_process", offload="process")
        def _giving(value: str) -> Stream[str]:
            raise NotImplementedError

    with pytest.raises(DefinitionError, match="runs in a thread and takes a Stream"):

        @node("ports.in_thread", offload="thread")
        def _reading(stream: Stream[str]) -> int:
            return id(stream)


def test_batched_nodes_may_take_and_give_streams() -> None:
    @node("ports.batched", batch=Batch(max_items=2))
    async def batched(streams: Sequence[Stream[str]], ctx: BatchContext) -> Sequence[Stream[str]]:
        return [ctx.stream(stream, row=row) for row, stream in enumerate(streams)]

    wf = Workflow("w")
    wf.chain(wf.add(make), wf.add(batched), wf.add(read))
    assert problems(wf) == []
