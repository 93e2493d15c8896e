"""Nested workflows: inner nodes get ids of their own, open ends stand for ports of the node around them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore.connector import Position, Reader, Source
from flowcore.context import SourceContext
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark
from flowcore.ids import NodeId
from flowcore.node import node
from flowcore.workflow import Workflow
from flowruntime.compile.inline import MAX_DEPTH
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.validate import validate
from flowruntime.discovery import Namespaces
from flowruntime.registry import Registry


class Lines(Source[None, str], type="demo.lines"):
    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[str]:
        raise NotImplementedError


@node("demo.clean")
def clean(text: str, *, most: int = 10) -> str:
    return text[:most]


@node("demo.ask")
async def ask(question: str, hint: str = "") -> str:
    return question + hint


@node("demo.both")
def both(left: str, right: str) -> str:
    return left + right


REGISTRY = Registry([Lines, clean, ask, both], namespaces=Namespaces(()))


def inner_workflow() -> Workflow:
    """Clean -> ask; open: clean.text, ask.hint."""
    inner = Workflow("answer", params={"most": 5})
    inner.add("demo.clean", id="clean", config={"most": "${params.most}"})
    inner.add("demo.ask", id="ask")
    inner.connect("clean", "ask.question")
    return inner


def nested(inner: Workflow, **options: Any) -> Workflow:
    """Lines -> sub -> last."""
    workflow = Workflow("outer", settings=options.pop("settings", {}))
    workflow.add("demo.lines", id="lines")
    workflow.add(inner, id="sub", **options)
    workflow.add("demo.clean", id="last")
    return workflow


def graph(workflow: Workflow, mode: Any = "stream") -> ResolvedGraph:
    return validate(workflow, REGISTRY, mode=mode)


def only(workflow: Workflow) -> Problem:
    with pytest.raises(ValidationFailedError) as caught:
        validate(workflow, REGISTRY)
    errors = [problem for problem in caught.value.problems if problem.severity == "error"]
    assert len(errors) == 1, caught.value
    return errors[0]


def edges(found: ResolvedGraph) -> list[tuple[str, str]]:
    return [
        (f"{each.from_node}.{each.from_port}", f"{each.to_node}.{each.to_port}") for each in found.connections
    ]


def test_inner_nodes_join_the_graph_under_their_outer_name() -> None:
    workflow = nested(inner_workflow(), config={"params": {"most": 3}})
    workflow.connect("lines", "sub")
    workflow.connect("sub", "last")
    found = graph(workflow)
    assert list(found.nodes) == ["lines", "sub/clean", "sub/ask", "last"]
    assert found.nodes["sub/clean"].config.most == 3
    assert edges(found) == [
        ("sub/clean.out", "sub/ask.question"),
        ("lines.out", "sub/clean.text"),
        ("sub/ask.out", "last.text"),
    ]
    assert found.open_ports == {"sub/ask": ("hint",)}


def test_ports_are_named_by_port_or_by_inner_node() -> None:
    workflow = nested(inner_workflow())
    workflow.connect("lines", "sub.text")
    workflow.connect("lines", "sub.ask")
    workflow.connect("sub.clean.out", "last")
    assert ("lines.out", "sub/ask.hint") in edges(graph(workflow))
    assert ("sub/clean.out", "last.text") in edges(graph(workflow))


def test_nests_eight_deep_are_inlined() -> None:
    workflow = inner_workflow()
    for depth in range(7):
        around = Workflow(f"w{depth}")
        around.add(workflow, id="in")
        workflow = around
    deep = "/".join(["in"] * 7)
    assert list(graph(workflow, "request").nodes) == [f"{deep}/clean", f"{deep}/ask"]


def test_the_same_workflow_may_be_used_twice() -> None:
    inner = inner_workflow()
    workflow = nested(inner)
    workflow.add(inner, id="again")
    workflow.connect("lines", "sub")
    workflow.connect("sub", "again")
    workflow.connect("again", "last")
    assert set(graph(workflow).nodes) == {
        "lines", "sub/clean", "sub/ask", "again/clean", "again/ask", "last",
    }  # fmt: skip


def test_an_ambiguous_port_is_refused_with_those_there_are() -> None:
    inner = Workflow("two")
    inner.add("demo.clean", id="a")
    inner.add("demo.clean", id="b")
    workflow = nested(inner)
    workflow.connect("lines", "last")
    workflow.connect("lines", "sub.text")
    problem = only(workflow)
    assert problem.message == "workflow node 'sub' has 2 open input ports 'text'; name one"
    assert problem.remedy == "its open input ports: a.text, b.text"


@pytest.mark.parametrize(
    ("source", "target", "part", "remedy"),
    [
        ("lines", "sub.txt", "no open input port 'txt'", "clean.text, ask.hint"),
        ("sub.clena", "last", "no inner node 'clena'", "did you mean 'clean'"),
    ],
)
def test_a_port_that_is_not_there_is_refused(source: str, target: str, part: str, remedy: str) -> None:
    workflow = nested(inner_workflow())
    if not target.startswith("sub"):
        workflow.connect("lines", "sub.text")
    if target != "last":
        workflow.connect("lines", "last")
    workflow.connect(source, target)
    problem = only(workflow)
    assert problem.path.startswith("connections[")
    assert part in problem.message
    assert remedy in problem.remedy


def test_out_needs_one_last_node() -> None:
    inner = Workflow("two")
    inner.add("demo.clean", id="a")
    inner.add("demo.ask", id="b")
    workflow = nested(inner)
    workflow.connect("lines", "sub.text")
    workflow.connect("lines", "sub.question")
    workflow.connect("sub", "last")
    problem = only(workflow)
    assert "has 2 last nodes, so 'out' names none" in problem.message
    assert "last are: a, b" in problem.remedy


def test_errors_leave_from_every_inner_node_and_control_enters_the_first() -> None:
    workflow = nested(inner_workflow())
    workflow.add("demo.ask", id="report")
    workflow.connect("lines", "sub")
    workflow.connect("lines", "last")
    workflow.connect("lines", "sub", kind="control")
    workflow.connect("sub.error", "report.question")
    found = edges(graph(workflow))
    assert [edge for edge in found if edge[1] == "report.question"] == [
        ("sub/clean.error", "report.question"),
        ("sub/ask.error", "report.question"),
    ]
    assert ("lines.out", "sub/clean.None") in found


def test_policies_of_the_outer_node_are_defaults_inside_where_they_apply() -> None:
    inner = inner_workflow()
    inner.add("demo.ask", id="own", timeout="1s")
    inner.connect("ask", "own.question")
    workflow = nested(inner, timeout="5s", on_error="continue")
    workflow.connect("lines", "sub.text")
    workflow.connect("sub", "last")
    policies = {node_id: each.policies for node_id, each in graph(workflow).nodes.items()}
    assert policies["sub/ask"].timeout == timedelta(seconds=5)
    assert policies["sub/own"].timeout == timedelta(seconds=1)
    assert policies["sub/clean"].timeout is None
    assert {policies[name].on_error for name in ("sub/ask", "sub/own", "sub/clean")} == {"continue"}
    assert policies["last"].on_error == "stop_workflow"


def test_settings_of_an_inner_workflow_count_as_policies_or_are_reported() -> None:
    inner = Workflow("answer", settings={"on_error": "continue", "max_in_flight": 5})
    inner.add("demo.clean", id="clean")
    workflow = nested(inner)
    workflow.connect("lines", "sub")
    workflow.connect("sub", "last")
    found = graph(workflow)
    assert found.nodes["sub/clean"].policies.on_error == "continue"
    (warning,) = found.warnings
    assert warning.path == "nodes.sub.config.workflow.settings.max_in_flight"
    assert "no effect" in warning.message


def test_a_problem_inside_has_its_whole_path_and_its_own_file() -> None:
    inner = Workflow("answer")
    inner.add("demo.clean", id="clean", config={"mots": 3})
    inner.marks = {("nodes", "clean"): Mark("answer.yaml", 4)}
    workflow = nested(inner)
    workflow.connect("lines", "sub")
    workflow.connect("sub", "last")
    problem = only(workflow)
    assert problem.path == "nodes.sub.config.workflow.nodes.clean.config.mots"
    assert (problem.file, problem.line) == ("answer.yaml", 4)


def test_an_unknown_type_inside_is_reported_once() -> None:
    inner = Workflow("answer")
    inner.add("demo.nothing", id="x")
    workflow = nested(inner)
    workflow.connect("lines", "sub.x")
    workflow.connect("sub.x", "last")
    assert "unknown node type" in only(workflow).message


def test_a_workflow_that_contains_itself_is_refused_with_the_cycle() -> None:
    inner = inner_workflow()
    workflow = nested(inner)
    inner.add_node(workflow.nodes[NodeId("sub")])  # itself, by way of a finished spec
    problem = only(workflow)
    assert problem.message == "workflow 'answer' contains itself: 'answer' -> 'answer'"
    assert problem.path == "nodes.sub.config.workflow.nodes.sub.config.workflow"


def test_a_nest_too_deep_is_refused() -> None:
    """Built from the outside in, so that the builder's own limit does not see it."""
    outermost = current = Workflow("w")
    for _ in range(MAX_DEPTH):
        inner = Workflow("w")
        current.add(inner, id="in")
        current = inner
    current.add("demo.clean", id="clean")
    assert only(outermost).message == f"workflows nest at most {MAX_DEPTH} deep"
