"""Values that break naive engines: NaN, integers beyond 64 bits, lone surrogates, bytes, deep nesting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from connectors.files.sink import FilesSink
from connectors.files.source import FilesSource
from flowcore import Workflow, node
from flowcore.definition import Gather
from flowcore.events import NodeEvent
from flowcore.node import NodeContext
from flowcore.values import same_value
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, kept, later, runtime, same, virtual


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


ODD: list[Any] = [
    math.nan,
    math.inf,
    -0.0,
    2**70,
    -(2**70),
    2**53 + 1,
    "\ud800 lone",
    "a\x00b",
    b"\xff\x00",
    None,
    True,
    "",
    [],
    {},
    {"": {"$bytes": "not bytes"}},
    {1: "a", (2, 3): "b"},
    deep(500),
]


@node("odd.gather")
def gathered(values: Gather[Any]) -> list[Any]:
    return list(values)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
@virtual
async def test_an_odd_value_passes_a_request_unchanged(value: Any) -> None:
    wf = Workflow("odd")
    a, b, c, d = wf.add(same, id="a"), wf.add(later, id="b"), wf.add(same, id="c"), wf.add(gathered, id="d")
    wf.chain(a, b, c)
    wf.connect(a, d["values"])
    wf.connect(c, d["values"])
    async with runtime() as rt:
        with recorded(rt.events):
            result = await rt.execute(wf, {"a": {"value": value}})
    assert result.ok
    assert result.outputs["d"]["out"][0] is value
    assert result.outputs["d"]["out"][1] is value
    result.to_data()


@virtual
async def test_odd_values_pass_a_stream_by_key_and_to_a_sink_unchanged() -> None:
    hashable = [value for value in ODD if not isinstance(value, list | dict)]
    sink = kept()
    wf = Workflow("odd")
    options: Any = {"key": "value", "concurrency": {"max": 4, "order": "by_key"}}
    wf.chain(wf.add(Script, id="s"), wf.add(later, id="n", **options), wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([hashable])})).wait()
    failed = [str(error) for error in result.errors.get("n", [])]
    assert result.ok, failed
    assert len(sink.rows) == len(hashable)
    assert all(any(same_value(value, row) for row in sink.rows) for value in hashable)


@pytest.mark.parametrize(
    ("when", "value", "taken"),
    [
        ("value > 1.0", math.nan, False),
        ("value > 1.0", math.inf, True),
        ("value == 'a'", "\ud800", False),
        ("size(value) > 1", "\ud800\ud801", True),
        ("value == b'\\xff'", b"\xff", True),
    ],
)
@virtual
async def test_conditions_on_odd_values_are_answered_or_fail_clearly(
    when: str, value: Any, taken: bool
) -> None:
    wf = Workflow("odd", settings={"on_error": "continue"})
    a, b = wf.add(same, id="a"), wf.add(same, id="b")
    wf.connect(a, b, when=when)
    async with runtime() as rt:
        result = await rt.execute(wf, {"a": {"value": value}})
    state = result.outcomes["b"].state
    if state == "failed":
        assert "expression" in str(result.errors["b"][0])
        assert not result.ok
    else:
        assert state == ("completed" if taken else "skipped")


async def test_a_value_too_deep_for_a_file_is_refused_with_where(tmp_path: Path) -> None:
    wf = Workflow("deep", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(FilesSink, id="k", config={"path": str(tmp_path / "out.jsonl")}))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[deep(500), 1]])})).wait()
    assert (result.counts["k"].completed, result.counts["k"].failed) == (1, 1)
    assert "nested deeper than" in str(result.errors["k"][0])


@virtual
async def test_an_integer_beyond_64_bits_never_gives_a_wrong_answer_in_a_condition() -> None:
    wf = Workflow("odd", settings={"on_error": "continue"})
    a, b = wf.add(same, id="a"), wf.add(same, id="b")
    wf.connect(a, b, when="value > 5")
    async with runtime() as rt:
        result = await rt.execute(wf, {"a": {"value": 2**70}})
    outcome = result.outcomes["b"].state
    assert outcome in ("completed", "failed")
    assert outcome == "completed" or not result.ok


@virtual
async def test_odd_values_said_by_a_node_or_inside_an_error_do_not_break_events() -> None:
    @node("odd.says")
    async def says(value: Any, ctx: NodeContext) -> Any:
        ctx.emit("data", value)
        raise ValueError(value)

    for value in ODD:
        wf = Workflow("odd")
        wf.add(says, id="n")
        async with runtime() as rt:
            with recorded(rt.events) as seen:
                result = await rt.execute(wf, {"n": {"value": value}})
        assert result.state.name == "failed"
        assert result.outcomes["n"].state == "failed"
        assert isinstance(result.errors["n"][0], ValueError | TypeError), repr(value)[:50]
        assert len(seen.of(NodeEvent)) <= 1
        assert seen.ended() is not None


async def test_what_json_has_a_form_for_survives_a_file_and_the_rest_is_refused_by_row(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.jsonl"
    wf = Workflow("files", settings={"on_error": "continue"})
    sink = wf.add(FilesSink, id="k", config={"path": str(path), "values": "json"})
    wf.chain(wf.add(Script, id="s"), sink)
    rows = [{"v": value} for value in ODD]
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([rows])})).wait()
    written = path.read_bytes().splitlines()
    assert len(written) == result.counts["k"].completed
    assert result.counts["k"].completed + result.counts["k"].failed == len(ODD)
    assert result.counts["k"].failed >= 2
    assert result.state.name == "partial"


async def test_a_lossless_file_gives_back_every_value_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    values: list[Any] = [{"v": value} for value in ODD if not (isinstance(value, dict) and 1 in value)]
    values[-1] = {"v": deep(50)}
    wf = Workflow("write", settings={"on_error": "continue"})
    wf.chain(
        wf.add(Script, id="s"), wf.add(FilesSink, id="k", config={"path": str(path), "values": "lossless"})
    )
    sink = kept()
    back = Workflow("read", settings={"on_error": "continue"})
    back.chain(
        back.add(FilesSource, id="s", config={"path": str(path), "values": "lossless"}),
        back.add(sink, id="k"),
    )
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([values])})).wait()
        written = result.counts["k"].completed
        assert [str(error)[:200] for error in result.errors.get("k", [])] == []
        read = await (await rt.start(back)).wait()
    assert read.ok, read.errors
    assert len(sink.rows) == written == len(values)
    pairs = zip(sink.rows, values, strict=True)
    assert [pair for pair in pairs if not same_value(*pair)] == []
