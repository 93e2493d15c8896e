"""Large shapes: long chains, wide fans, one record into ten thousand; correct and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from flowcore import Gather, NodeContext, Workflow, node
from tests.behaviour.harness import Script, kept, now, runtime, virtual


@node("large.inc")
def inc(value: int) -> int:
    return value + 1


@node("large.inc_later")
async def inc_later(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


@node("large.split")
def split(value: int) -> Iterator[int]:
    yield from range(value)


@node("large.split_later")
async def split_later(value: int) -> AsyncIterator[int]:
    for number in range(value):
        yield number


@node("large.sum", kind="collect")
def total(items: Any) -> int:
    return sum(items)


@node("large.slow", concurrency=100)
async def slow(value: int) -> int:
    await asyncio.sleep(1)
    return value


def chain(kinds: list[Any], length: int) -> Workflow:
    wf = Workflow("long")
    wf.chain(*(wf.add(kinds[index % len(kinds)], id=f"n{index}") for index in range(length)))
    return wf


@pytest.mark.parametrize("kinds", [[inc], [inc_later], [inc, inc_later]], ids=["sync", "async", "mixed"])
@virtual
async def test_a_chain_of_a_thousand_nodes_runs_as_a_request_and_as_a_stream(kinds: list[Any]) -> None:
    wf = chain(kinds, 1_000)
    async with runtime() as rt:
        result = await rt.execute(wf, {"n0": {"value": 0}})
        assert result.ok
        assert result.outputs["n999"]["out"] == 1_000
        assert len(result.outcomes) == 1_000
        outcomes = [out async for out in rt.stream(wf, range(5))]
    assert [out.value for out in outcomes] == [value + 1_000 for value in range(5)]


@virtual
async def test_a_failure_at_the_head_of_a_thousand_nodes_skips_all_of_them_with_that_cause() -> None:
    @node("large.fail")
    async def fail(value: int) -> int:
        raise ValueError(value)

    wf = Workflow("long", settings={"on_error": "continue"})
    wf.chain(wf.add(fail, id="head"), *(wf.add([inc, inc_later][n % 2], id=f"n{n}") for n in range(999)))
    async with runtime() as rt:
        result = await rt.execute(wf, {"head": {"value": 0}})
    assert {outcome.cause for name, outcome in result.outcomes.items() if name != "head"} == {"head"}
    assert sum(outcome.state == "skipped" for outcome in result.outcomes.values()) == 999


@pytest.mark.parametrize("expand", [split, split_later], ids=["sync", "async"])
@pytest.mark.parametrize("child", [inc, inc_later], ids=["child sync", "child async"])
@virtual
async def test_one_record_expands_to_ten_thousand_and_is_collected_again(expand: Any, child: Any) -> None:
    wf = Workflow("expand")
    wf.chain(wf.add(expand, id="x"), wf.add(child, id="c"), wf.add(total, id="t"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"x": {"value": 10_000}})
    assert result.ok
    assert result.outputs["t"]["out"] == sum(range(1, 10_001))
    assert result.outcomes["c"].rows == 10_000


@pytest.mark.parametrize("expand", [split, split_later], ids=["sync", "async"])
@virtual
async def test_children_are_pulled_no_faster_than_a_slow_node_takes_them(expand: Any) -> None:
    sink = kept()
    wf = Workflow("bounded", settings={"max_in_flight": 300})
    wf.chain(wf.add(Script, id="s"), wf.add(expand, id="x"), wf.add(slow, id="w"), wf.add(sink, id="k"))
    source = Script([[10_000]])
    peak = 0
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        for _ in range(20):
            await asyncio.sleep(3)
            stages = next(iter(run.statistics()["tasks"].values()))["stages"]
            peak = max(peak, stages["x"]["in_flight"])
        result = await run.wait()
    assert result.ok
    assert len(sink.rows) == 10_000
    assert 0 < peak <= 300
    assert now() == pytest.approx(100.0, abs=3.0)
    assert source.committed["0"][-1] == 1


@virtual
async def test_an_endless_generator_is_cut_by_a_cancel() -> None:
    @node("large.endless")
    def endless(value: int) -> Iterator[int]:
        while True:
            yield value

    wf = Workflow("endless")
    wf.chain(wf.add(Script, id="s"), wf.add(endless, id="x"), wf.add(slow, id="w"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1]])})
        await asyncio.sleep(5)
        result = await run.cancel()
    assert result.state.name == "cancelled"
    assert result.abandoned == 1


@pytest.mark.parametrize("kind", [inc, inc_later], ids=["sync", "async"])
@virtual
async def test_one_node_with_a_thousand_children_gathered_again(kind: Any) -> None:
    @node("large.gather")
    def gathered(values: Gather[int]) -> int:
        return sum(values)

    wf = Workflow("wide")
    head, tail = wf.add(inc, id="head"), wf.add(gathered, id="tail")
    for index in range(1_000):
        child = wf.add(kind, id=f"c{index}")
        wf.connect(head, child)
        wf.connect(child, tail["values"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"head": {"value": 0}})
        outcomes = [out async for out in rt.stream(wf, range(5))]
    assert result.outputs["tail"]["out"] == 2_000
    assert [out.value for out in outcomes] == [(value + 2) * 1_000 for value in range(5)]


@virtual
async def test_an_output_larger_than_allowed_fails_its_row_with_both_sizes() -> None:
    @node("large.text")
    async def text(value: int, ctx: NodeContext) -> str:
        return "x" * value

    wf = Workflow("output", settings={"on_error": "continue"})
    wf.add(text, id="n", max_output_bytes=1_000)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, [10, 1_001])]
    assert outcomes[0].ok
    assert isinstance(outcomes[1].error, MemoryError)
    assert "1001" in str(outcomes[1].error)
    assert "1000" in str(outcomes[1].error)


@virtual
async def test_fifty_thousand_records_pass_with_no_more_in_flight_than_the_budget() -> None:
    wf = Workflow("many", settings={"max_in_flight": 5_000})
    sink = kept()
    wf.chain(wf.add(Script, id="s"), wf.add(inc, id="a"), wf.add(inc_later, id="b"), wf.add(sink, id="k"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([list(range(50_000))])})
        result = await run.wait()
        assert run.statistics()["budget"]["peak"] <= 5_000
    assert result.records == 50_000
    assert sink.rows == list(range(2, 50_002))
