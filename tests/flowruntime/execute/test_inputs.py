"""The inputs of a request: two forms, one reading, every problem at once."""

from collections.abc import Mapping

import pytest

from flowcore.errors import ValidationFailedError
from flowcore.node import node
from flowcore.workflow import Workflow
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.validate import validate
from flowruntime.execute.inputs import request_inputs
from flowruntime.registry import Registry


@node("test.join")
def join_texts(left: str, right: str = "!") -> str:
    return left + right


@node("test.upper")
def upper(text: str) -> str:
    return text.upper()


def _graph(workflow: Workflow) -> ResolvedGraph:
    return validate(workflow, Registry(), mode="request")


def _two_nodes() -> ResolvedGraph:
    workflow = Workflow("two")
    first = workflow.add(upper, id="first")
    last = workflow.add(join_texts, id="last")
    workflow.connect(first, last["left"])
    return _graph(workflow)


def _with_source() -> ResolvedGraph:
    workflow = Workflow("fed")
    source = workflow.add("memory.source", id="tickets", config={"values": []})
    workflow.connect(source["out"]["text"], workflow.add(join_texts, id="last")["left"])
    return _graph(workflow)


def _problems(graph: ResolvedGraph, given: object) -> str:
    with pytest.raises(ValidationFailedError) as refused:
        request_inputs(graph, given)
    return "\n".join(str(problem) for problem in refused.value.problems)


def test_a_port_of_a_node_whose_inputs_are_connected_comes_with_what_to_give() -> None:
    workflow = Workflow("fed")
    source = workflow.add("memory.source", id="tickets", config={"values": []})
    workflow.connect(source, workflow.add(upper, id="up"))
    said = _problems(_graph(workflow), {"up": {"txet": "a"}})
    assert "'up' has no open input port; give {\"tickets\": ...}" in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"first": {"text": "a"}}, {"first.text": "a"}),
        ({"text": "a"}, {"first.text": "a"}),
        ({"text": "a", "right": "?"}, {"first.text": "a", "last.right": "?"}),
        ({"first": {"text": None}, "last": {"right": "?"}}, {"first.text": None, "last.right": "?"}),
    ],
)
def test_inputs_are_read_by_node_or_flat(given: Mapping[str, object], expected: Mapping[str, object]) -> None:
    assert request_inputs(_two_nodes(), given) == expected


@pytest.mark.parametrize(
    ("given", "record"),
    [
        ({"text": "a"}, {"text": "a"}),
        ({"tickets": {"text": "a"}}, {"text": "a"}),
        ({"tickets": {"out": {"text": "a"}}}, {"text": "a"}),
        ({"text": "a", "right": "?"}, {"text": "a", "right": "?"}),
        ("a", "a"),
        ({"tickets": None}, None),
    ],
)
def test_a_single_source_takes_a_flat_object_as_its_record(given: object, record: object) -> None:
    assert request_inputs(_with_source(), given) == {"tickets.out": record}


def test_two_readings_are_refused_and_both_are_shown() -> None:
    text = _problems(_with_source(), {"right": "?"})
    assert "two readings" in text
    assert "record of source 'tickets'" in text
    assert "'right' for last.right" in text
    assert '{"tickets": {...}}' in text


def test_unknown_names_are_listed_with_the_nearest_known_ones() -> None:
    text = _problems(_two_nodes(), {"first": {"txet": "a"}, "lats": {"right": "b"}})
    assert "did you mean 'text'?" in text
    assert "did you mean 'last'?" in text


def test_every_required_input_left_out_is_listed() -> None:
    workflow = Workflow("two")
    workflow.add(upper, id="one")
    workflow.add(upper, id="other")
    text = _problems(_graph(workflow), {})
    assert "'text' of 'one' is required" in text
    assert "'text' of 'other' is required" in text


def test_a_port_name_several_nodes_share_must_name_its_node() -> None:
    workflow = Workflow("two")
    workflow.add(upper, id="one")
    workflow.add(upper, id="other")
    text = _problems(_graph(workflow), {"text": "a"})
    assert "names 2 open ports: one.text, other.text" in text


def test_a_connected_port_cannot_be_given() -> None:
    assert "comes from another node" in _problems(_two_nodes(), {"last": {"left": "a"}})


def test_nothing_given_to_a_workflow_fed_by_a_source_is_an_error() -> None:
    assert "a request needs a record for source 'tickets'" in _problems(_with_source(), {})


def test_a_value_that_is_no_object_needs_exactly_one_source() -> None:
    assert "is no object" in _problems(_two_nodes(), 5)
