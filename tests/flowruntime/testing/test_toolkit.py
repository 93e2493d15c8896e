"""Scripted sources, collected sinks, whole runs and marbles: what a user tests with keeps its word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops

from connectors.memory.sink import MemorySink
from connectors.memory.source import MemorySource
from flowcore.errors import ContractError, DefinitionError
from flowcore.events import NodeCompleted, WorkflowCompleted
from flowcore.frame import Record
from flowcore.node import node
from flowcore.operator import operator
from flowcore.workflow import Workflow
from flowruntime.runtime import FlowRuntime
from flowruntime.testing import (
    CRASH,
    END,
    ScriptedSource,
    assert_marbles,
    collected,
    delay,
    error,
    run_virtual,
    run_workflow,
    scripted,
)

Records = reactivex.Observable[Record[Any]]


@node("toolkit.upper")
def upper(text: str) -> str:
    return text.upper()


@node("toolkit.long", kind="filter")
def long(text: str) -> bool:
    return len(text) > 1


@node("toolkit.slow")
async def slow(text: str) -> str:
    await asyncio.sleep(2)
    return text


@node("toolkit.twice")
def twice(text: str) -> Iterator[str]:
    yield text
    yield text


@node("toolkit.fails")
def fails(text: str) -> str:
    raise ValueError(f"no {text}")


@operator("toolkit.forward", settles="explicit")
def forward() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.map(lambda record: record.with_value(record.value.upper())))


@operator("toolkit.distinct", settles="on_entry")
def distinct() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.distinct(lambda record: record.value))


def chained(*types: object, **settings: Any) -> Workflow:
    workflow = Workflow("toolkit", settings=settings)
    handles = [workflow.add(type) for type in types]
    if len(handles) > 1:
        workflow.chain(*handles)
    return workflow


# --- scripted ---------------------------------------------------------------------------------------------


def run(workflow: Workflow, source: Any, **options: Any) -> Any:
    return run_virtual(run_workflow(workflow, source, **options))


def test_a_crash_repeats_what_was_not_committed_and_nothing_else() -> None:
    source = scripted("a", delay(3), "b", CRASH, "c")
    first = run(chained(upper), source)
    assert first.result.state.name == "failed"
    assert first.written == ["A", "B"]
    assert source.committed == {"0": 1}
    second = run(chained(upper), source)
    assert second.result.ok
    assert second.written == ["B", "C"]
    assert source.committed == {"0": 3}
    assert source.lost_commits > 0
    assert source.runs == 2
    assert source.rows_read == 4
    assert not source.is_open


def test_an_end_in_the_script_ends_one_run_and_the_next_goes_on_behind_it() -> None:
    source = scripted("a", END, "b", END, "c")
    assert [run(chained(upper), source).written for _ in range(4)] == [["A"], ["B"], ["C"], []]


def test_undecodable_rows_fail_at_the_source_and_the_others_go_on() -> None:
    source = scripted("a", error(b"\xff"), "c")
    ran = run(chained(upper, on_error="continue"), source)
    assert ran.written == ["A", "C"]
    assert ran.result.state.name == "partial"
    assert source.committed == {"0": 3}


def test_partitions_are_read_each_and_keys_come_along() -> None:
    source = scripted(partitions={"x": ["a", "b"], "y": ["c"]}, key=lambda value: f"key {value}")
    ran = run(chained(upper), source)
    assert sorted(ran.written) == ["A", "B", "C"]
    assert source.committed == {"x": 2, "y": 1}
    assert {(row.value, row.key) for row in ran.sinks["upper"].rows} == {
        ("A", "key a"),
        ("B", "key b"),
        ("C", "key c"),
    }


def test_elements_and_partitions_together_are_refused() -> None:
    with pytest.raises(ContractError, match="not both"):
        scripted("a", partitions={"0": ["a"]})


async def test_a_scripted_source_stands_in_for_a_declared_one_in_start() -> None:
    workflow = Workflow("declared")
    source = workflow.add(MemorySource, id="rows")
    workflow.chain(source, workflow.add(upper), workflow.add(MemorySink, id="out"))
    stand_in = scripted("a", "b")
    async with FlowRuntime(state_dir=None) as runtime:
        result = await (await runtime.start(workflow, sources={"rows": stand_in})).wait()
    assert result.ok
    assert result.records == 2
    assert stand_in.committed == {"0": 2}


# --- run_workflow -----------------------------------------------------------------------------------------


def test_declared_sources_and_sinks_are_replaced_and_named() -> None:
    workflow = Workflow("both")
    rows = workflow.add(MemorySource, id="rows", config={"values": ["never read"]})
    up, out, rest = workflow.add(upper), workflow.add(MemorySink, id="out"), workflow.add(long)
    workflow.chain(rows, up, out)
    workflow.connect(up, rest)
    ran = run(workflow, ["a", "bb"])
    assert ran.received == {"out": ["A", "BB"], "long": ["BB"]}
    assert ran.sinks["out"].finished
    assert ran.sinks["out"].closed
    assert ran.events.one(WorkflowCompleted).counts.received == 2
    with pytest.raises(AssertionError, match="2 sinks: out, long"):
        _ = ran.written


def test_rows_fill_the_open_ports_of_a_workflow_without_a_source() -> None:
    assert run(chained(upper, long), ["a", "bb"]).written == ["BB"]


def test_a_node_is_replaced_by_name_with_a_function_or_a_value() -> None:
    workflow = chained(upper, slow)
    assert run(workflow, ["ab"], replace={"slow": str.title}).written == ["Ab"]
    assert run(workflow, ["a"], replace={"slow": "always"}).written == ["always"]


def test_a_sink_that_refuses_a_row_fails_it() -> None:
    workflow = Workflow("refused", settings={"on_error": "continue"})
    rows = workflow.add(MemorySource, id="rows")
    workflow.chain(rows, workflow.add(MemorySink, id="out"))
    sink = collected(refuse=lambda value: ValueError("odd") if value % 2 else None)
    ran = run(workflow, [1, 2, 3], sinks={"out": sink})
    assert ran.received == {"out": [2]}
    assert sink.refused == [1, 3]
    assert ran.result.counts["out"].failed == 2


@pytest.mark.parametrize(
    "wrong", [{"source": {"raws": [1]}}, {"source": {}}, {"source": [1], "sinks": {"uot": collected()}}]
)
def test_names_the_workflow_does_not_have_are_refused(wrong: dict[str, Any]) -> None:
    workflow = Workflow("names")
    workflow.chain(workflow.add(MemorySource, id="rows"), workflow.add(MemorySink, id="out"))
    with pytest.raises(DefinitionError, match=r"rows|out"):
        run(workflow, wrong.pop("source"), **wrong)


def test_events_of_the_run_are_recorded() -> None:
    ran = run(chained(upper, slow), ["a"])
    assert ran.events.nodes(NodeCompleted)[:2] == ["upper", "slow"]
    assert ran.result.duration == timedelta(seconds=2)


def test_the_same_seed_gives_the_same_run() -> None:
    def order(seed: int) -> list[Any]:
        workflow = Workflow("seeds")
        workflow.add(slow, concurrency={"max": 8, "order": "unordered"})
        return run_virtual(run_workflow(workflow, scripted(*"abcdefgh", max_rows=1)), seed=seed).written

    assert all(order(seed) == order(seed) for seed in range(5))


# --- marbles ----------------------------------------------------------------------------------------------


def test_marbles_of_nodes() -> None:
    assert_marbles(upper, source="a-b|", result="A-B|")
    assert_marbles(twice, source="a-b|", result="aa-bb|")
    assert_marbles(slow, source="a-b|", result="--a-b|")
    assert_marbles(chained(upper, slow), source="ab---c|", result="--AB---C|")


def test_marbles_of_raw_operators() -> None:
    assert_marbles(forward, source="ab-c|", result="AB-C|")
    assert_marbles(distinct, source="a-a-b|", result="a--b|")


def test_marbles_know_values_and_failures() -> None:
    assert_marbles(long, source="a-b|", result="-b|", elements={"a": "1", "b": "22"})
    assert_marbles(fails, source="-a-b|", result="-#")
    assert_marbles(upper, source="a-#", result="A-#")


def test_marbles_of_several_ends() -> None:
    workflow = Workflow("ends")
    up = workflow.add(upper)
    workflow.connect(up, workflow.add(slow))
    workflow.connect(up, workflow.add(long))
    assert_marbles(workflow, source="a|", result={"slow": "--A|", "long": "--|"})


def test_a_difference_is_drawn_and_strange_values_are_explained() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_marbles(
            upper,
            source="a-b|",
            result="A--X|",
            elements={"X": "BB", "b": "b"},
            replace={"subject": str.title},
        )
    assert str(raised.value).splitlines() == [
        "marbles differ",
        "  source    a-b|",
        "  'subject'",
        "  expected  A--X|",
        "  got       A-B|",
        "              ^",
        "  where X is 'BB'",
    ]
    with pytest.raises(AssertionError, match=r"where . is {'a': 1}"):
        assert_marbles(upper, source="a|", result="A|", replace={"subject": {"a": 1}})


@pytest.mark.parametrize("text", ["a-b", "", "a|b|", "a|-b"])
def test_texts_that_are_no_diagrams_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="marble diagram"):
        assert_marbles(upper, source=text, result="|")


def test_a_script_says_what_it_is() -> None:
    assert repr(CRASH) == "CRASH"
    assert isinstance(scripted(), ScriptedSource)
