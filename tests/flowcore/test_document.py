"""Documents: every problem at once, each with its path, value and remedy."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flowcore.document import from_document
from flowcore.dump import to_document
from flowcore.errors import Problem, ValidationFailedError
from flowcore.ids import NodeId
from flowcore.policies import Concurrency
from flowcore.references import ParamRef, ParamText
from flowcore.schema import SCHEMA_HEADER, workflow_schema
from flowcore.values import SecretRef
from flowcore.workflow import Workflow

TRIAGE: dict[str, Any] = {
    "name": "triage",
    "settings": {"max_in_flight": 2000, "max_bytes": "1MiB"},
    "params": {"host": "localhost", "limit": {"kind": "int", "description": "rows"}},
    "nodes": {
        "tickets": {
            "type": "kafka.source",
            "config": {
                "topics": ["t"],
                "at": "${params.host}:1",
                "raw": {"$bytes": "eA=="},
            },
        },
        "classify": {
            "type": "llm.classify",
            "config": {"api_key": {"$secret": "KEY"}, "$$odd": 1},
            "key": "record.id",
            "concurrency": {"max": 64, "order": "by_key"},
        },
        "alerts": "kafka.sink",
    },
    "connections": [
        "tickets.out.text -> classify.text",
        {"from": "classify.record", "to": "alerts", "when": "value.n > ${params.limit}", "when_error": False},
        {
            "from_node": "classify",
            "from_port": "record",
            "from_path": ["a.b"],
            "to_node": "alerts",
            "else": True,
        },
    ],
}


def _changed(**changes: object) -> dict[str, Any]:
    data = copy.deepcopy(TRIAGE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place: Any = data
        for parent in parents:
            place = place[int(parent) if parent.isdigit() else parent]
        place[int(last) if last.isdigit() else last] = value
    return data


def _problems(data: object, **env: str) -> list[Problem]:
    with pytest.raises(ValidationFailedError) as caught:
        from_document(data, env=env)
    return list(caught.value.problems)


def test_a_document_is_read_as_written() -> None:
    wf = from_document(TRIAGE)
    assert wf.nodes[NodeId("classify")].policies.concurrency == Concurrency(max=64, order="by_key")
    assert wf.nodes[NodeId("classify")].config == {"api_key": SecretRef("KEY"), "$odd": 1}
    assert wf.nodes[NodeId("tickets")].config["at"] == ParamText((ParamRef("host"), ":1"))
    assert wf.nodes[NodeId("tickets")].config["raw"] == b"x"
    assert [c.kind for c in wf.connections] == ["data", "conditional", "conditional"]
    assert wf.connections[2].from_path == ("a.b",)
    assert from_document(to_document(wf)) == wf


def test_all_problems_come_at_once_with_paths_and_remedies() -> None:
    data = _changed(
        settings__on_error="give_up",
        nodes__tickets__concurency=3,
        nodes__classify__timeout=3,
        connections__0="tickets -> clasify",
        params__limit={"kinds": "int"},
        versoin="2",
    )
    found = {problem.path: problem.remedy for problem in _problems(data)}
    assert found == {
        "versoin": "did you mean 'version'?",
        "params.limit.kinds": "did you mean 'kind'?",
        "settings.on_error": "",
        "nodes.tickets.concurency": "did you mean 'concurrency'?",
        "nodes.classify.timeout": "give it a unit: '3s' or '3ms'",
        "connections[0]": "did you mean 'classify'?",
    }


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"name": None}, "name", "is missing"),
        ({"name": 3}, "name", "must be text, not a whole number"),
        ({"nodes": {}}, "nodes", "at least one node"),
        ({"nodes": []}, "nodes", "must be a mapping, not a list"),
        ({"nodes__alerts": {}}, "nodes.alerts.type", "is missing"),
        ({"nodes__alerts": 3}, "nodes.alerts", "must be a mapping"),
        ({"nodes__tickets__config": {"$bytes": "x"}}, "nodes.tickets.config", "mapping of the node type"),
        ({"nodes__tickets__config": {"a": {"$byts": "x"}}}, "nodes.tickets.config.a", "known forms"),
        (
            {"nodes__tickets__config": {"a": "${params.hots}"}},
            "nodes.tickets.config.a",
            "unknown param 'hots'",
        ),
        ({"nodes__classify__key": "${params.x}"}, "nodes.classify.key", "unknown param 'x'"),
        (
            {"nodes__classify__resource": "${params.host}"},
            "nodes.classify.resource",
            "cannot refer to params",
        ),
        ({"nodes__tickets__config": {"a": "${HOME}"}}, "nodes.tickets.config.a", "HOME is not set"),
        ({"nodes__tickets__config": {"a": "${no good}"}}, "nodes.tickets.config.a", "starts no reference"),
        ({"nodes__tickets__dead_letter": {}}, "nodes.tickets.dead_letter", "unknown node field"),
        ({"params__limit": None}, "params.limit", "not null"),
        ({"params__limit": {"kind": "number"}}, "params.limit.kind", "must be one of"),
        ({"params__limit": {"kind": "int", "default": "x"}}, "params.limit.default", "must be of kind int"),
        ({"connections": {}}, "connections", "must be a list"),
        ({"connections__0": 3}, "connections[0]", "must be text or a mapping"),
        ({"connections__0": "a -> b -> c"}, "connections[0]", "one '->'"),
        ({"connections__1__kind": "maybe"}, "connections[1].kind", "must be one of"),
        ({"connections__1__when": True}, "connections[1].when", "must be an expression"),
        ({"connections__1__to": "alerts.value.x"}, "connections[1].to", "field of an input"),
        ({"connections__2__from_path": "a"}, "connections[2].from_path", "list of field names"),
        ({"connections__0": "tickets -> tickets"}, "connections[0]", "no cycles"),
        ({"nodes__alerts": {"type": "workflow"}}, "nodes.alerts.config", "needs its workflow"),
        (
            {"nodes__alerts": {"type": "workflow", "config": {"file": "x"}}},
            "nodes.alerts.config.file",
            "from a file",
        ),
    ],
)
def test_one_fault_gives_one_problem_where_it_stands(
    change: dict[str, object], path: str, message: str
) -> None:
    problems = _problems(_changed(**change))
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


def test_an_inner_workflow_reports_its_problems_under_its_path() -> None:
    inner = {"name": "inner", "nodes": {"a": {"typ": "x.y"}}}
    problems = _problems(_changed(nodes__alerts={"type": "workflow", "config": {"workflow": inner}}))
    assert [problem.path for problem in problems] == ["nodes.alerts.config.workflow.nodes.a.typ"]


def test_environment_references_are_typed_by_the_field_they_fill() -> None:
    data = _changed(settings__max_in_flight="${N:-7}", nodes__alerts={"type": "a.b", "resource": "${N:-7}"})
    data["nodes"]["tickets"]["config"]["n"] = "${N}"
    wf = from_document(data, env={"N": "9"})
    assert wf.settings.max_in_flight == 9
    assert wf.nodes[NodeId("alerts")].policies.resource == "9"
    assert wf.nodes[NodeId("tickets")].config["n"] == "9"


def test_text_from_the_environment_is_never_read_for_references() -> None:
    data = {"name": "w", "nodes": {"a": {"type": "x", "config": {"v": "<${V}>", "e": "$${V}"}}}}
    wf = from_document(data, env={"V": "${params.x} ${HOME}"})
    assert wf.nodes[NodeId("a")].config == {"v": "<${params.x} ${HOME}>", "e": "${V}"}
    assert from_document(to_document(wf)) == wf


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("$${x}", "${x}"),
        ("$$$${x}", "$${x}"),
        ("$$ $x {$} $", "$$ $x {$} $"),
        ("$$${params.host}", ParamText(("$", ParamRef("host")))),
        ("$$${N:-v}", "$v"),
    ],
)
def test_before_a_brace_a_pair_of_dollars_is_one(written: str, read: object) -> None:
    wf = from_document(_changed(nodes__tickets__config={"v": written}))
    assert wf.nodes[NodeId("tickets")].config == {"v": read}
    assert from_document(to_document(wf)) == wf


def test_what_exists_in_code_only_is_not_dumped_in_silence() -> None:
    wf = Workflow("w")
    wf.add("a.b", id="a", config={"f": print})
    wf.local_types["a.b"] = test_what_exists_in_code_only_is_not_dumped_in_silence
    with pytest.raises(ValidationFailedError) as caught:
        to_document(wf)
    assert [problem.path for problem in caught.value.problems] == ["nodes.a.type", "nodes.a.config.f"]


def test_the_schema_accepts_what_is_written_and_refuses_unknown_fields() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = workflow_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    inner = _changed(
        nodes__alerts={"type": "workflow", "config": {"workflow": TRIAGE, "params": {"limit": 1}}}
    )
    for data in (TRIAGE, to_document(from_document(TRIAGE)), inner):
        assert not list(validator.iter_errors(data))
    for wrong in (
        _changed(nam="x"),
        _changed(nodes__tickets__x=1),
        _changed(settings__x=1),
        _changed(nodes={}),
    ):
        assert list(validator.iter_errors(wrong))
    assert SCHEMA_HEADER.startswith("# yaml-language-server: $schema=")


def _told(data: object) -> list[str]:
    return [f"{problem.path}: {problem.message}; {problem.remedy}" for problem in _problems(data)]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (
            {"a": None, "type": "x.y", "config": {}},
            ["nodes.a: is empty, and 'type', 'config' below it stand"],
        ),
        ({"a": "x.y", "config": {"n": 1}}, ["nodes.a: 'config' below it stands among the nodes; indent"]),
        (
            {"a": "x.y", "connections": ["a -> a"]},
            ["nodes.connections: 'connections' stands among the nodes"],
        ),
        (
            {"a": {"type": "x.y", "path": "in"}},
            ["nodes.a.path: unknown node field 'path'; did you mean 'batch'?"],
        ),
        (
            {"a": {"type": "x.y", "url": "in"}},
            ["nodes.a.url: unknown node field 'url'; what belongs to the node's"],
        ),
        ({"a": None}, ["nodes.a: must be a mapping, not null; give it a type: a: {type: text.clean}"]),
        ({"a:x.y": None}, ["nodes['a:x.y']: a blank is missing after ':'; write a: x.y"]),
        ([{"a": "x.y"}], ["nodes: must be a mapping, not a list; write them by id"]),
    ],
)
def test_what_stands_at_the_wrong_indentation_is_one_problem_that_says_where_it_belongs(
    nodes: object, told: list[str]
) -> None:
    found = _told({"name": "w", "nodes": nodes})
    assert len(found) == len(told)
    assert all(each.startswith(start) for each, start in zip(found, told, strict=True)), found


def test_nodes_that_stand_beside_an_empty_mapping_of_nodes_are_one_problem() -> None:
    (told,) = _told({"name": "w", "nodes": None, "a": {"type": "x.y"}, "b": {"type": "x.y"}})
    assert told.startswith("nodes: is empty, and nodes stand beside it: 'a', 'b'; indent them")


@pytest.mark.parametrize(
    ("connection", "told"),
    [
        ("a => b", "has 0; write a -> b"),
        ("a --> b", "write a -> b"),
        ("a -> b -> c", "write one each: a -> b, b -> c"),
        ("a b", "write it like 'a.out -> b.text'"),
        ("a -> b.", "connection 'b.' is not node[.port[.field...]], in 'a -> b.'"),
        ({"a": "b"}, "is a mapping, not a connection; write it as text with an arrow: a -> b"),
        ({"from": "a", "to": ["b", "c"]}, "write one connection for each"),
        ({"from": "a", "to": "b", "if": "true"}, "unknown connection field 'if'; it is called 'when' here"),
        ({"source": "a", "target": "b"}, "it is called 'from' here"),
        ({"from": "a", "to": "b", "kind": "Error"}, "did you mean 'error'?"),
    ],
)
def test_a_connection_written_another_way_comes_with_how_it_is_written_here(
    connection: object, told: str
) -> None:
    nodes = dict.fromkeys(("a", "b", "c"), "x.y")
    found = _told({"name": "w", "nodes": nodes, "connections": [connection]})
    assert told in found[0]
    assert len(found) == (2 if isinstance(connection, dict) and "source" in connection else 1)


@pytest.mark.parametrize(("word", "remedy"), [("no", "write false"), ("ON", "write true"), ("maybe", "")])
def test_what_other_readers_take_for_true_or_false_comes_with_the_word_to_write(
    word: str, remedy: str
) -> None:
    (problem,) = _problems(_changed(settings__capture=word))
    assert problem.remedy == remedy


def test_every_reference_of_one_text_is_told() -> None:
    (first, second, third) = _problems(_changed(nodes__tickets__config={"a": "${A} ${B:-x} ${C} ${no good}"}))
    assert ["A is not set" in first.message, "C is not set" in second.message] == [True, True]
    assert "starts no reference" in third.message
