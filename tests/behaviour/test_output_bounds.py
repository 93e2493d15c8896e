"""`max_output_bytes`: an output beyond it fails its own row there, for every stage kind and every value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
import reactivex
from reactivex import operators as ops

from flowcore import Batch, NodeContext, Outputs, Workflow, node
from flowcore.errors import LimitExceededError
from flowcore.frame import Record
from flowcore.node import Node
from flowcore.operator import operator
from flowcore.values import Json
from flowruntime.compile.bounds import output_bound_of
from flowruntime.compile.description import describe
from flowruntime.compile.explain import explain
from flowruntime.compile.fuse import fuse
from flowruntime.compile.lower import lower
from flowruntime.execute.run import Run
from tests.behaviour.harness import Script, kept, runtime, same, virtual

MOST = 100
SHAPES: dict[str, Callable[[int], Any]] = {
    "text": lambda size: "x" * size,
    "text that is not ASCII": lambda size: "é" * (size // 2),
    "bytes": lambda size: b"x" * size,
    "json": lambda size: Json(b"1" * size),
    "list": lambda size: [0.5] * (size // 8),
    "nested list": lambda size: [[["x" * (size - 24)]]],
    "dict": lambda size: {"key": "x" * (size - 19)},
    "struct": lambda size: Pair(left="x" * (size - 16)),
    "whole number": lambda size: 1 << (8 * size - 1),
}


class Pair(msgspec.Struct):
    left: Any
    right: Any = None


class Ports(Outputs):
    left: str | msgspec.UnsetType = msgspec.UNSET
    right: str | msgspec.UnsetType = msgspec.UNSET


@node("bound.make")
def make(value: Any) -> Any:
    return SHAPES[value[0]](value[1])


@node("bound.make_later")
async def make_later(value: Any) -> Any:
    return SHAPES[value[0]](value[1])


@node("bound.make_aside", offload="thread")
def make_aside(value: Any) -> Any:
    return SHAPES[value[0]](value[1])


@node("bound.make_each", batch=Batch(max_items=4))
async def make_each(values: Sequence[Any]) -> Sequence[Any]:
    return [SHAPES[shape](size) for shape, size in values]


@node("bound.make_one")
def make_one(value: Any) -> Iterator[Any]:
    yield SHAPES[value[0]](value[1])


@node("bound.drip_one")
async def drip_one(value: Any) -> AsyncIterator[Any]:
    yield SHAPES[value[0]](value[1])


class Make(Node[None, Pair, Any], type="bound.make_class"):
    def execute(self, inputs: Pair, ctx: NodeContext) -> Any:
        return SHAPES[inputs.left[0]](inputs.left[1])


@operator("bound.make_raw", settles="explicit")
def make_raw() -> Callable[[reactivex.Observable[Record[Any]]], reactivex.Observable[Record[Any]]]:
    return lambda source: source.pipe(
        ops.map(lambda record: record.with_value(SHAPES[record.value[0]](record.value[1])))
    )


KINDS = [make, make_later, make_aside, make_each, make_one, drip_one, Make, make_raw]


def workflow_with(kind: Any, **settings: Any) -> tuple[Workflow, Any]:
    sink = kept()
    wf = Workflow("bounds", settings={"on_error": "continue", **settings})
    wf.add(Script, id="s")
    wf.add(kind, id="n", max_output_bytes=MOST)
    wf.add(sink, id="k")
    wf.connect("s", "n.left" if kind is Make else "n")
    wf.connect("n", "k")
    return wf, sink


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__flow_node__.type)
@virtual
async def test_the_largest_allowed_passes_and_the_next_larger_fails_its_own_row(
    kind: Any, shape: str
) -> None:
    """NOD-17: what it gives is data, and has a size."""
    step = {"text that is not ASCII": 2, "list": 8}.get(shape, 1)
    most = MOST - MOST % step
    wf, sink = workflow_with(kind)
    async with runtime() as rt:
        rows = [(shape, most), (shape, most + step), (shape, most)]
        run = await rt.start(wf, sources={"s": Script([rows])})
        result = await run.wait()
    assert sink.rows == [SHAPES[shape](most)] * 2
    assert result.counts["n"].failed == 1
    (error,) = result.errors["n"]
    assert isinstance(error, LimitExceededError)
    facts = error.facts()
    assert (facts["node"], facts["max_output_bytes"]) == ("n", MOST)
    assert facts["size_bytes"] > MOST  # pyright: ignore[reportOperatorIssue] - a number
    assert "raise it" in str(error)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not make_raw], ids=lambda k: k.__flow_node__.type)
@virtual
async def test_a_request_fails_at_that_node_too_and_what_follows_is_skipped(kind: Any) -> None:
    wf = Workflow("bounds")
    wf.add(kind, id="n", max_output_bytes=MOST)
    wf.add(same, id="after")
    wf.connect("n", "after")
    port = {Make: "left", make_each: "values"}.get(kind, "value")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {port: ("dict", MOST + 1)}})
        good = await rt.execute(wf, {"n": {port: ("dict", MOST)}})
    assert good.ok
    assert result.outcomes["n"].state == "failed"
    assert result.outcomes["after"].state == "skipped"
    assert result.outcomes["after"].cause == "n"
    assert isinstance(result.errors["n"][0], LimitExceededError)


@virtual
async def test_the_ports_of_one_row_count_together() -> None:
    @node("bound.split")
    def split(value: int) -> Ports:
        return Ports(left="x" * value, right="x" * value)

    sink = kept()
    wf = Workflow("ports", settings={"on_error": "continue"})
    wf.add(Script, id="s")
    wf.add(split, id="n", max_output_bytes=MOST)
    wf.add(sink, id="k")
    wf.connect("s", "n")
    wf.connect("n.left", "k")
    wf.connect("n.right", "k")
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[42, 43]])})).wait()
    assert sorted(sink.rows) == ["x" * 42] * 2
    assert result.counts["n"].failed == 1


@node("bound.long", kind="filter")
def long(value: str) -> bool:
    return len(value) > 1


@node("bound.long_later", kind="filter")
async def long_later(value: str) -> bool:
    return len(value) > 1


@pytest.mark.parametrize("kind", [long, long_later])
@pytest.mark.parametrize("branches", [False, True])
@virtual
async def test_what_a_filter_lets_through_is_its_output(kind: Any, branches: bool) -> None:
    """What it drops is not: it goes nowhere."""
    sink = kept()
    wf = Workflow("filter", settings={"on_error": "continue"})
    wf.add(Script, id="s")
    wf.add(kind, id="n", max_output_bytes=3)
    wf.add(sink, id="k")
    wf.connect("s", "n")
    wf.connect("n", "k")
    if branches:
        wf.connect("s", wf.add(kept(name="test.other"), id="other"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([["a", "abc", "abcd"]])})).wait()
    assert sink.rows == ["abc"]
    assert (result.counts["n"].dropped, result.counts["n"].failed) == (1, 1)


@virtual
async def test_an_expression_compiled_into_its_neighbours_is_bounded_like_a_function() -> None:
    wf = Workflow("compiled", settings={"on_error": "continue"})
    sink = kept()
    wf.chain(
        wf.add(Script, id="s"),
        wf.add("transform.map", id="n", config={"fields": {"text": "value"}}, max_output_bytes=24),
        wf.add(sink, id="k"),
    )
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([["abcd", "abcde"]])})).wait()
    assert sink.rows == [{"text": "abcd"}]
    assert isinstance(result.errors["n"][0], LimitExceededError)


@node("bound.letters")
def letters(value: str) -> Iterator[str]:
    yield from value


@node("bound.list", kind="collect")
def listed(items: list[str]) -> list[str]:
    return items


@node("bound.joined", kind="collect")
def joined(items: list[str]) -> str:
    return "".join(items) * 20


@pytest.mark.parametrize("kind", [listed, joined])
@virtual
async def test_the_list_a_collect_gathers_and_what_it_makes_of_it_are_bounded(kind: Any) -> None:
    """Four letters are a list of 36 bytes, and 80 bytes of text; five are 45 and 100."""
    sink = kept()
    wf = Workflow("collect", settings={"on_error": "continue"})
    most = 36 if kind is listed else 90
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(letters, id="e"),
        wf.add(kind, id="n", max_output_bytes=most),
        wf.add(sink, id="k"),
    )
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([["abcd", "abcde", "ab"]])})
        result = await run.wait()
        assert run.statistics()["budget"]["in_flight_bytes"] == 0
    assert sink.rows == ([list("abcd"), list("ab")] if kind is listed else ["abcd" * 20, "ab" * 20])
    assert [type(error) for error in result.errors["n"]] == [LimitExceededError]


@virtual
async def test_a_collect_lets_go_of_a_list_that_is_too_large_while_it_still_grows() -> None:
    held: list[int] = []
    runs: list[Run] = []

    @node("bound.watched")
    def watched(value: int) -> Iterator[str]:
        for _ in range(value):
            yield "x"
            held.append(runs[0].statistics()["tasks"]["s/0"]["stages"]["n"]["in_flight"])

    wf = Workflow("collect", settings={"on_error": "continue"})
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(watched, id="e"),
        wf.add(listed, id="n", max_output_bytes=4_000),
        wf.add(kept(), id="k"),
    )
    async with runtime() as rt:
        runs.append(await rt.start(wf, sources={"s": Script([[10_000]])}))
        result = await runs[0].wait()
    assert result.counts["n"].failed == 1
    assert len(held) == 10_000
    assert 256 <= max(held) <= 4_000 // 9


@node("bound.pack", kind="batch", batch=Batch(max_items=10))
def pack(items: list[str]) -> list[str]:
    return items


@virtual
async def test_a_batch_is_closed_before_its_list_is_too_large_and_one_too_large_row_fails_alone() -> None:
    sink = kept()
    wf = Workflow("batch", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(pack, id="n", max_output_bytes=30), wf.add(sink, id="k"))
    async with runtime() as rt:
        rows = ["aa", "bb", "cc", "dd", "x" * 23, "ee", "x" * 22, "ff"]
        result = await (await rt.start(wf, sources={"s": Script([rows])})).wait()
    assert sink.rows == [["aa", "bb", "cc"], ["dd"], ["ee"], ["x" * 22], ["ff"]]
    assert result.counts["n"].failed == 1
    assert isinstance(result.errors["n"][0], LimitExceededError)


@node("bound.longer")
def longer(value: int) -> Iterator[str]:
    for size in range(1, value):
        yield "x" * size


@node("bound.longer_later")
async def longer_later(value: int) -> AsyncIterator[str]:
    for size in range(1, value):
        yield "x" * size


@pytest.mark.parametrize("kind", [longer, longer_later])
@virtual
async def test_children_before_one_that_is_too_large_go_on(kind: Any) -> None:
    sink = kept()
    wf = Workflow("children", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="n", max_output_bytes=3), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[5]])})).wait()
    assert sink.rows == ["x", "xx", "xxx"]
    assert [type(error) for error in result.errors["n"]] == [LimitExceededError]


@operator("bound.twice", settles="explicit")
def twice() -> Callable[[reactivex.Observable[Record[Any]]], reactivex.Observable[Record[Any]]]:
    def both(record: Record[Any]) -> reactivex.Observable[Record[Any]]:
        return reactivex.of(record.with_value("ok"), record.with_value("x" * 1_000))

    return lambda source: source.pipe(ops.flat_map(both))


@virtual
async def test_a_raw_operators_row_settles_only_when_what_it_emitted_before_has() -> None:
    """Else its position could be committed before the sink has its first record."""
    go = asyncio.Event()

    async def write(batch: Any) -> None:
        del batch
        await go.wait()

    sink = kept(write)
    wf = Workflow("raw", settings={"on_error": "continue", "commit_interval": "10ms"})
    wf.chain(wf.add(Script, id="s"), wf.add(twice, id="n", max_output_bytes=MOST), wf.add(sink, id="k"))
    source = Script([["a"]])
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(1)
        assert source.committed == {"0": []}
        go.set()
        result = await run.wait()
    assert sink.rows == ["ok"]
    assert result.counts["n"].failed == 1
    assert source.committed["0"] == [1]


# --- which bound holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [make_later, make_aside, make_each, make_one, drip_one, make_raw])
@virtual
async def test_nodes_with_a_stage_of_their_own_have_16_mib_unless_somebody_says_otherwise(kind: Any) -> None:
    wf = Workflow("default", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(kind, id="n"), wf.add(kept(), id="k"))
    async with runtime() as rt:
        rows = [("bytes", 16 << 20), ("bytes", (16 << 20) + 1)]
        result = await (await rt.start(wf, sources={"s": Script([rows])})).wait()
        graph = rt.validate(wf)
    assert result.counts["n"].failed == 1
    assert result.counts["k"].completed == 1
    assert output_bound_of(graph.nodes["n"]) == 16 << 20
    assert output_bound_of(graph.nodes["s"]) is None


@virtual
async def test_the_settings_bound_holds_for_plain_functions_too_and_a_node_may_say_another() -> None:
    sink = kept()
    wf = Workflow("settings", settings={"on_error": "continue", "max_output_bytes": 3})
    wf.add(Script, id="s")
    wf.add(same, id="small")
    wf.add(same, id="large", max_output_bytes=5)
    wf.add(sink, id="k")
    for name in ("small", "large"):
        wf.connect("s", name)
        wf.connect(name, "k")
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([["abc", "abcde", "abcdef"]])})).wait()
    assert sorted(sink.rows) == ["abc", "abc", "abcde"]
    assert (result.counts["small"].failed, result.counts["large"].failed) == (2, 1)


async def test_a_fused_stage_without_the_policy_has_exactly_the_code_it_had_before() -> None:
    """No cost for who does not ask: one call per value is written for the node that has a bound."""

    def code(**policies: Any) -> tuple[str, str]:
        wf = Workflow("code")
        wf.chain(
            wf.add(Script, id="s"),
            wf.add(same, id="a", **policies),
            wf.add(long, id="b"),
            wf.add(same, id="c"),
        )
        (stage,) = lower(rt.validate(wf), mode="stream").fused
        written = fuse(stage)
        return written.lean, written.recording

    async with runtime() as rt:
        lean, recording = code()
        bounded_lean, bounded_recording = code(max_output_bytes=10)
    assert "fits" not in lean + recording
    assert bounded_lean.replace("fits_a_0(node_a_(v))", "node_a_(v)") == lean
    assert bounded_recording.replace("fits_a_0(node_a(v))", "node_a(v)") == recording
    assert bounded_lean.count("fits") == bounded_recording.count("fits") == 1


async def test_the_plan_says_which_bound_holds() -> None:
    wf = Workflow("plan")
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(same, id="plain"),
        wf.add(same, id="bounded", max_output_bytes="1KiB"),
        wf.add(make_later, id="own"),
    )
    async with runtime() as rt:
        text = explain(describe(lower(rt.validate(wf), mode="stream")))
    assert "plain: on_error stop_workflow (default)\n" in text
    assert "bounded: on_error stop_workflow (default); output up to 1 KiB (the node)\n" in text
    assert "       on_error stop_workflow (default); output up to 16 MiB (default)\n" in text
    (line,) = [line for line in text.splitlines() if "one output of a node" in line]
    assert "16 MiB  the default; a larger one fails its row" in line
