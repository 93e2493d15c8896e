"""Filling params: values by kind, in configurations, expressions and nested workflows."""

from __future__ import annotations

import pytest

from flowcore.binding import bind_params
from flowcore.errors import ValidationFailedError
from flowcore.ids import NodeId
from flowcore.settings import ParamSpec
from flowcore.values import same_value
from flowcore.workflow import Workflow


def _workflow() -> Workflow:
    wf = Workflow("w", params={"host": "localhost", "limit": ParamSpec(kind="int"), "tags": ["a"]})
    wf.add("a.b", id="a", config={"url": "http://${params.host}:${params.limit}/", "n": ["${params.limit}"]})
    wf.add("c.d", id="b", key="record.x + ${params.host}", config={"tags": "${params.tags}"})
    wf.connect("a", "b", when="value.n > ${params.limit} && value.h in ${params.tags}")
    return wf


def test_a_lone_reference_keeps_its_kind_and_text_is_written_around_others() -> None:
    bound = bind_params(_workflow(), {"limit": "8"})
    assert bound.nodes[NodeId("a")].config == {"url": "http://localhost:8/", "n": [8]}
    assert same_value(bound.nodes[NodeId("b")].config, {"tags": ["a"]})
    assert not bound.params


def test_expressions_get_literals() -> None:
    bound = bind_params(_workflow(), {"limit": 8, "host": 'a"b'})
    assert bound.nodes[NodeId("b")].policies.key == 'record.x + "a\\"b"'
    assert bound.connections[0].when == 'value.n > 8 && value.h in ["a"]'


def test_the_workflow_given_is_not_changed() -> None:
    workflow = _workflow()
    bind_params(workflow, {"limit": 8})
    assert workflow == _workflow()


def test_a_workflow_without_params_is_bound_to_its_equal() -> None:
    workflow = Workflow("w")
    workflow.add("a.b", config={"x": "${HOME} literal"})
    assert bind_params(workflow) == workflow


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({}, "params.limit", "no default"),
        ({"limit": "x"}, "params.limit", "must be of kind int"),
        ({"limit": 1, "hots": ""}, "params.hots", "unknown param 'hots'"),
        ({"limit": 1, "host": 3}, None, None),
        ({"limit": 1, "tags": {"a": 1}}, "params.tags", "must be of kind list"),
    ],
)
def test_values_are_coerced_or_refused_by_name(
    values: dict[str, object], path: str | None, message: str | None
) -> None:
    if path is None or message is None:
        assert bind_params(_workflow(), values).nodes[NodeId("a")].config["url"] == "http://3:1/"
        return
    with pytest.raises(ValidationFailedError, match=message) as caught:
        bind_params(_workflow(), values)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_reference_to_no_param_is_refused_where_it_stands() -> None:
    wf = Workflow("w", params={"host": "x"})
    wf.add("a.b", id="a", config={"deep": [{"url": "${params.hots}"}]})
    with pytest.raises(ValidationFailedError, match="did you mean 'host'") as caught:
        bind_params(wf)
    assert caught.value.problems[0].path == "nodes.a.config.deep[0].url"


def test_a_list_cannot_be_written_into_text() -> None:
    wf = Workflow("w", params={"tags": ["a"]})
    wf.add("a.b", id="a", config={"url": "x${params.tags}"})
    with pytest.raises(ValidationFailedError, match="let the param stand alone"):
        bind_params(wf)


def test_inner_workflows_get_their_params_from_the_outer_ones() -> None:
    inner = Workflow("inner", params={"q": 1, "r": "s"})
    inner.add("a.b", id="leaf", config={"q": "${params.q}", "r": "${params.r}"})
    outer = Workflow("outer", params={"n": 5})
    outer.add(inner, id="sub", config={"params": {"q": "${params.n}"}})
    bound = bind_params(outer).nodes[NodeId("sub")]
    assert bound.workflow is not None
    assert bound.workflow.nodes[NodeId("leaf")].config == {"q": 5, "r": "s"}
    assert not bound.config
    outer.add(inner, id="wrong", config={"params": {"x": 1}})
    with pytest.raises(ValidationFailedError, match=r"nodes.wrong.config.params.x: unknown param"):
        bind_params(outer)
