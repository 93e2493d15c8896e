"""The builder: what it accepts, and that a wrong call raises at once and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flowcore.connection import Connection, ConnectionSyntaxError, parse_arrow
from flowcore.errors import FlowError, ValidationFailedError
from flowcore.ids import InvalidIdError, NodeId
from flowcore.policies import Concurrency, RetryPolicy
from flowcore.references import ParamRef, ParamText
from flowcore.settings import ParamSpec
from flowcore.workflow import Workflow, WorkflowError


def clean(text: str) -> str:
    return text.strip()


clean.__flow_node__ = SimpleNamespace(type="text.clean")  # type: ignore[attr-defined] - as @node leaves it


def _two() -> Workflow:
    workflow = Workflow("two")
    workflow.add("http.request", id="fetch")
    workflow.add("text.clean", id="clean")
    return workflow


def test_a_workflow_is_built_as_the_readme_shows() -> None:
    wf = Workflow("triage", settings={"max_in_flight": 10})
    a = wf.add("http.request", id="fetch", config={"url": "x"}, timeout=timedelta(seconds=2), concurrency=4)
    b = wf.add(clean, retry=RetryPolicy(max_attempts=2))
    c, d = wf.add("text.clean"), wf.add("files.sink")
    wf.connect(a["body.user.name"], b["text"], when='value != ""')
    wf.chain(b, c, d)
    assert list(wf.nodes) == ["fetch", "clean", "clean_2", "sink"]
    assert [str(connection) for connection in wf.connections] == [
        "fetch.body.user.name -> clean.text",
        "clean -> clean_2",
        "clean_2 -> sink",
    ]
    assert wf.nodes[NodeId("fetch")].policies.concurrency == Concurrency(max=4)
    assert wf.local_types == {"text.clean": clean}


def test_a_field_by_subscript_is_taken_as_it_is() -> None:
    wf = _two()
    fetch = wf.add("a.b")
    made = wf.connect(fetch["out"]["user.name"]["x y"], "clean")
    assert made.from_path == ("user.name", "x y")
    (node, port, path), _ = parse_arrow(str(made))
    assert (node, port, path) == (made.from_node, made.from_port, made.from_path)


def test_equality_is_by_content_with_kinds_apart() -> None:
    def make(value: object) -> Workflow:
        wf = Workflow("w", params={"p": value})
        wf.add("a.b", config={"x": [value]})
        return wf

    assert make(1) == make(1)
    assert make(1) != make(1.0)
    assert make(1) != make(True)
    assert make(float("nan")) == make(float("nan"))
    assert _two() != make(1)


def test_what_is_changed_outside_does_not_reach_the_workflow() -> None:
    config = {"topics": ["a"]}
    wf = Workflow("w")
    wf.add("kafka.source", id="in", config=config)
    config["topics"].append("b")
    assert wf.nodes[NodeId("in")].config == {"topics": ["a"]}


def test_params_are_found_in_configurations_written_in_code() -> None:
    wf = Workflow("w", params={"host": "localhost"})
    wf.add("a.b", id="a", config={"url": "http://${params.host}/x", "raw": "$${params.host} ${HOME}"})
    config = wf.nodes[NodeId("a")].config
    assert config["url"] == ParamText(("http://", ParamRef("host"), "/x"))
    assert config["raw"] == "${params.host} ${HOME}"


def test_a_workflow_is_a_node_and_nests_eight_deep() -> None:
    inner = _two()
    for _ in range(7):
        outer = Workflow("outer")
        outer.add(inner)
        assert list(outer.nodes) == [inner.name]
        inner = outer
    with pytest.raises(WorkflowError, match="at most 8 deep"):
        Workflow("too deep").add(inner)


@pytest.mark.parametrize(
    ("kind", "port", "expected"),
    [
        (None, "fetch.error", "error"),
        ("error", "fetch", "error"),
        (None, "fetch", "data"),
        ("control", "fetch", "control"),
    ],
)
def test_the_kind_follows_from_what_is_said(kind: str | None, port: str, expected: str) -> None:
    made = _two().connect(port, "clean", kind=kind)  # type: ignore[arg-type] - parametrised
    assert made.kind == expected
    assert made.from_port == ("error" if expected == "error" else "out")


def test_several_branches_of_one_port_are_not_duplicates() -> None:
    wf = _two()
    for when in ("value > 1", "value > 2"):
        wf.connect("fetch", "clean", when=when)
    assert wf.connect("fetch", "clean", otherwise=True).kind == "conditional"
    assert len(wf.connections) == 3


_WRONG_CALLS: list[tuple[Callable[[Any], object], type[FlowError], str]] = [
    (lambda wf: wf.add("a.b", id="1x"), InvalidIdError, "'_1x' would do"),
    (lambda wf: wf.add("a.b", id="fetch"), WorkflowError, "already there"),
    (lambda wf: wf.add("a b"), WorkflowError, "is no node type"),
    (lambda wf: wf.add("workflow"), WorkflowError, "pass the Workflow itself"),
    (lambda wf: wf.add(_two(), config={"params": 3}), WorkflowError, "and nothing else"),
    (lambda wf: wf.add(print), WorkflowError, "decorated with @node"),
    (lambda wf: wf.add("a.b", timout="2s"), ValidationFailedError, "did you mean 'timeout'"),
    (lambda wf: wf.add("a.b", timeout=2), ValidationFailedError, "'2s' or '2ms'"),
    (lambda wf: wf.add("a.b", config=["x"]), WorkflowError, "config must be a mapping"),
    (lambda wf: wf.connect("fetsh", "clean"), WorkflowError, "did you mean 'fetch'"),
    (lambda wf: wf.connect("fetch", "fetch"), WorkflowError, "no cycles"),
    (lambda wf: wf.connect("fetch", "clean.text.x"), WorkflowError, "ends at a port: clean.text"),
    (lambda wf: wf.connect("fetch.", "clean"), ConnectionSyntaxError, "node"),
    (lambda wf: wf.connect("fetch", "clean", when=""), ConnectionSyntaxError, "empty `when`"),
    (lambda wf: wf.connect("fetch", "clean", when="x", otherwise=True), ConnectionSyntaxError, "not both"),
    (lambda wf: wf.connect("fetch", "clean", when="x", kind="data"), ConnectionSyntaxError, "leave kind out"),
    (lambda wf: wf.connect("fetch", "clean", kind="conditional"), ConnectionSyntaxError, "add one"),
    (lambda wf: wf.connect("fetch", "clean", when_error=False), ConnectionSyntaxError, "without a `when`"),
    (lambda wf: wf.connect("fetch.out", "clean", kind="error"), ConnectionSyntaxError, "leaves port 'error'"),
    (lambda wf: wf.connect("fetch.out.x", "clean", kind="control"), ConnectionSyntaxError, "no value"),
    (lambda wf: wf.connect(3, "clean"), WorkflowError, "what add"),
    (lambda wf: wf.connect(Workflow("o").add("a.b"), "clean"), WorkflowError, "belongs to workflow 'o'"),
    (lambda wf: wf.chain("fetch"), WorkflowError, "at least two"),
    (lambda wf: wf.chain("fetch", "clean.text"), WorkflowError, "default ports only"),
]


@pytest.mark.parametrize(("call", "error", "message"), _WRONG_CALLS)
def test_a_wrong_call_raises_at_once_and_changes_nothing(
    call: Callable[[Any], object], error: type[FlowError], message: str
) -> None:
    wf, before = _two(), _two()
    with pytest.raises(error, match=message):
        call(wf)
    assert wf == before


def test_the_same_connection_twice_is_refused() -> None:
    wf = _two()
    wf.connect("fetch", "clean")
    with pytest.raises(WorkflowError, match="already there"):
        wf.chain("fetch", "clean")


def test_two_functions_cannot_claim_one_type() -> None:
    def other(text: str) -> str:
        return text

    other.__flow_node__ = SimpleNamespace(type="text.clean")  # type: ignore[attr-defined] - as @node leaves it
    wf = Workflow("w")
    wf.add(clean)
    with pytest.raises(WorkflowError, match=r"both claim the type 'text\.clean'"):
        wf.add(other)
    assert len(wf.nodes) == 1


@pytest.mark.parametrize(
    "arguments", [{"name": ""}, {"name": "w", "version": 1.0}, {"name": "w", "params": {"a b": 1}}]
)
def test_a_workflow_needs_a_name_and_well_formed_params(arguments: dict[str, object]) -> None:
    with pytest.raises(WorkflowError):
        Workflow(**arguments)  # type: ignore[arg-type] - wrong on purpose


def test_a_param_without_default_is_required() -> None:
    assert ParamSpec(kind="int").required
    assert ParamSpec(default=3).effective_kind == "int"
    assert Connection(from_node=NodeId("a"), to_node=NodeId("b")).kind == "data"


@pytest.mark.parametrize("name", ["name", "id", "version", "description", "params", "settings"])
def test_what_a_workflow_is_made_with_cannot_be_changed_behind_what_is_kept_warm_of_it(name: str) -> None:
    workflow = Workflow("fixed")
    with pytest.raises(WorkflowError, match=rf"{name} of a workflow cannot be changed; .*{name}=\.\.\."):
        setattr(workflow, name, None)
    assert workflow.name == "fixed"
