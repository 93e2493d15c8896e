"""One report: whatever is wrong in a file, its form and its meaning, is told at once, and nothing else.

A valid workflow of random shape gets faults, each in a place of its own; every one of them must be told, and
nothing of the places that were left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.errors import Problem, ValidationFailedError
from flowcore.workflow import Workflow
from flowruntime.compile.validate import validate
from flowruntime.definition.load import load_draft, load_workflow
from flowruntime.definition.yaml import write_yaml
from flowruntime.registry import Registry

REGISTRY = Registry()


def problems_of(text: str) -> list[Problem]:
    """Everything validation tells of a file, warnings included; none for a valid one."""
    try:
        return list(validate(load_draft(text, env={"SET": "x"}), REGISTRY).warnings)
    except ValidationFailedError as refused:
        return list(refused.problems)


# --- valid workflows -----------------------------------------------------------------------------------


class Line(NamedTuple):
    """The nodes from one source to one sink, by what they are."""

    source: str
    keep: str
    wait: str
    nested: str | None
    split: str
    collect: str
    sink: str

    @property
    def nodes(self) -> list[str]:
        """In a row; the branches leave the source, too."""
        return [node for node in self if node is not None]

    def branch(self, name: str) -> str:
        """A node beside the row: `pick`, `high`, `low`, `yes` and `other`."""
        return f"{name}_{self.source}"


def line(number: int, *, nested: bool) -> Line:
    sub = f"sub{number}" if nested else None
    names = (f"{what}{number}" for what in ("origin", "keep", "wait", "pieces", "whole", "target"))
    source, keep, wait, split, collect, sink = names
    return Line(source, keep, wait, sub, split, collect, sink)


def document(lines: list[Line]) -> dict[str, Any]:
    """A workflow as a file has it: sources, filters, waiting nodes, a nested workflow, split and collect."""
    nodes: dict[str, Any] = {}
    connections: list[Any] = []
    params: dict[str, Any] = {}
    for each in lines:
        param = f"least_{each.keep}"
        params[param] = {"kind": "int", "default": 1}
        nodes[each.source] = {"type": "memory.source", "config": {"values": [[1, 2]]}}
        nodes[each.keep] = {
            "type": "transform.filter",
            "config": {"where": f"size(value) > ${{params.{param}}}"},
        }
        nodes[each.wait] = {
            "type": "control.delay",
            "config": {"duration": "1ms"},
            "key": "record",
            "concurrency": {"max": 4, "order": "by_key"},
            "timeout": "2s",
        }
        if each.nested is not None:
            inner = {
                "name": "inner",
                "nodes": {"first": {"type": "debug.tap"}, "second": {"type": "debug.tap"}},
                "connections": ["first -> second"],
            }
            nodes[each.nested] = {"type": "workflow", "config": {"workflow": inner}}
        nodes[each.split] = {"type": "transform.split"}
        nodes[each.collect] = {"type": "control.collect"}
        nodes[each.sink] = {"type": "memory.sink"}
        connections += [f"{a} -> {b}" for a, b in zip(each.nodes, each.nodes[1:], strict=False)]
        pick, high, low, yes, other = (each.branch(name) for name in BRANCHES)
        nodes[pick] = {"type": "control.switch", "config": {"cases": {"high": "size(value) > 8"}}}
        nodes |= {name: {"type": "memory.sink"} for name in (high, low, yes, other)}
        connections += [f"{each.source} -> {pick}", f"{pick}.high -> {high}", f"{pick}.otherwise -> {low}"]
        connections.append({"from": each.source, "to": yes, "when": "size(value) > 3"})
        connections.append({"from": each.source, "to": other, "else": True})
    return {
        "name": "w",
        "params": params,
        "settings": {"max_in_flight": 100},
        "nodes": nodes,
        "connections": connections,
    }


BRANCHES = ("pick", "high", "low", "yes", "other")


def arrow(data: dict[str, Any], node: str) -> int:
    """The number of the connection that leaves a node."""
    return next(index for index, text in enumerate(data["connections"]) if str(text).startswith(f"{node} ->"))


# --- faults --------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """A change of a document, what of it is touched, and how the path of its one problem begins."""

    name: str
    touched: frozenset[str]
    """Nodes and `>node` for the connection that leaves one: no two faults touch the same."""
    change: Callable[[dict[str, Any]], str]


def of_nodes(each: Line) -> list[Fault]:
    """Faults of single nodes."""

    def at(node: str, name: str, change: Callable[[dict[str, Any]], None], path: str = "") -> Fault:
        def changed(data: dict[str, Any]) -> str:
            change(data["nodes"][node])
            return f"nodes.{node}{path}"

        return Fault(f"{node}: {name}", frozenset({node}), changed)

    every = [
        fault
        for node in each.nodes
        for fault in (
            at(node, "unknown field", lambda spec: spec.update(colour="red"), ".colour"),
            at(node, "policy of another kind", lambda spec: spec.update(on_error=["x"]), ".on_error"),
            at(node, "policy that is no word", lambda spec: spec.update(on_error="contnue"), ".on_error"),
            at(node, "description that is no text", lambda spec: spec.update(description=3), ".description"),
            at(node, "type misspelt", lambda spec: spec.update(type=spec["type"][:-1] + "x"), ".type"),
            at(node, "type missing", lambda spec: spec.pop("type"), ".type"),
            at(node, "type under another name", lambda spec: spec.update(typ=spec.pop("type")), ".typ"),
            at(node, "type that is none", lambda spec: spec.update(type="a b"), ".type"),
            at(node, "policy that does not apply", lambda spec: spec.update(batch=3), ".batch"),
        )
        if node != each.nested or fault.name.endswith(("field", "kind", "word", "text", "none"))
    ]
    return [
        *every,
        at(
            each.source, "field misspelt", lambda spec: renamed(spec["config"], "values", "valeus"), ".config"
        ),
        at(
            each.source,
            "variable not set",
            lambda spec: spec["config"].update(values="${NOT_SET}"),
            ".config",
        ),
        at(each.source, "config that is none", lambda spec: spec.update(config=[1]), ".config"),
        at(
            each.source,
            "config beside config",
            lambda spec: spec.update(values=spec.pop("config")["values"]),
            ".values",
        ),
        at(each.keep, "expression", lambda spec: spec["config"].update(where="vlaue > 1"), ".config.where"),
        at(
            each.keep,
            "param",
            lambda spec: spec["config"].update(where="value > ${params.no}"),
            ".config.where",
        ),
        at(each.keep, "required field missing", lambda spec: spec.pop("config"), ".config.where"),
        at(
            each.wait,
            "order that is none",
            lambda spec: spec["concurrency"].update(order="by_kye"),
            ".concurrency",
        ),
        at(
            each.wait,
            "concurrency misspelt",
            lambda spec: renamed(spec, "concurrency", "concurency"),
            ".concurency",
        ),
        at(each.wait, "timeout without a unit", lambda spec: spec.update(timeout=2), ".timeout"),
        at(each.wait, "policy in the config", lambda spec: spec["config"].update(retry={}), ".config.retry"),
        at(each.wait, "key that does not compile", lambda spec: spec.update(key="recrod.id"), ".key"),
        at(
            each.wait,
            "key with a variable that is not set",
            lambda spec: spec.update(key="${NOT_SET}"),
            ".key",
        ),
        at(
            each.wait,
            "duration",
            lambda spec: spec["config"].update(duration="1 fortnight"),
            ".config.duration",
        ),
    ]


def renamed(spec: dict[str, Any], old: str, new: str) -> None:
    spec[new] = spec.pop(old)


def of_inner_nodes(each: Line) -> list[Fault]:
    """Faults inside a nested workflow."""
    if each.nested is None:
        return []

    def at(name: str, change: Callable[[dict[str, Any]], None], path: str) -> Fault:
        def changed(data: dict[str, Any]) -> str:
            change(data["nodes"][each.nested]["config"]["workflow"])
            return f"nodes.{each.nested}.config.workflow.{path}"

        return Fault(f"{each.nested}: {name}", frozenset({str(each.nested)}), changed)

    return [
        at("inner type", lambda inner: inner["nodes"].update(first="debug.tpa"), "nodes.first.type"),
        at("inner field", lambda inner: inner.update(nams={}), "nams"),
        at(
            "inner policy",
            lambda inner: inner["nodes"]["second"].update(timeout="1s"),
            "nodes.second.timeout",
        ),
        at("inner arrow", lambda inner: inner.update(connections=["first => second"]), "connections[0]"),
        at("inner end", lambda inner: inner.update(connections=["first -> secnod"]), "connections[0]"),
        at("inner list", lambda inner: inner.update(connections="first -> second"), "connections"),
    ]


def of_connections(each: Line) -> list[Fault]:
    """Faults of single connections."""

    def at(node: str, name: str, written: Callable[[str, str], Any], touched: set[str]) -> Fault:
        target = each.nodes[each.nodes.index(node) + 1]

        def changed(data: dict[str, Any]) -> str:
            index = arrow(data, node)
            data["connections"][index] = written(node, target)
            return f"connections[{index}]"

        return Fault(f"{node} -> {target}: {name}", frozenset({f">{node}", *touched}), changed)

    found: list[Fault] = []
    for node, target in zip(each.nodes, each.nodes[1:], strict=False):
        found += [
            at(node, "another arrow", lambda a, b: f"{a} => {b}", set()),
            at(node, "no arrow", lambda a, b: f"{a} {b}", set()),
            at(node, "a mapping", lambda a, b: {a: b}, set()),
            at(node, "target misspelt", lambda a, b: f"{a} -> {b[1]}{b[0]}{b[2:]}", {target}),
            at(node, "source misspelt", lambda a, b: f"{a[1]}{a[0]}{a[2:]} -> {b}", {node}),
            at(node, "field of an input", lambda a, b: f"{a} -> {b}.value.x", set()),
            at(node, "kind that is none", lambda a, b: {"from": a, "to": b, "kind": "dta"}, set()),
            at(node, "when that is none", lambda a, b: {"from": a, "to": b, "when": 3}, set()),
            at(
                node,
                "when that does not compile",
                lambda a, b: {"from": a, "to": b, "when": "1 +"},
                {node, target},
            ),
            at(node, "when misspelt", lambda a, b: {"from": a, "to": b, "wen": "true"}, set()),
            at(node, "when and else", lambda a, b: {"from": a, "to": b, "when": "true", "else": True}, set()),
            at(node, "output misspelt", lambda a, b: f"{a}.uot -> {b}", {node, target}),
            at(node, "input misspelt", lambda a, b: f"{a} -> {b}.vlaue", {node, target}),
        ]
    return found


def of_branches(each: Line) -> list[Fault]:
    """Faults where a line forks: what follows from them would be told of the other branch."""
    pick, high, low, yes, other = (each.branch(name) for name in BRANCHES)

    def node(name: str, config: dict[str, Any], path: str) -> Fault:
        def changed(data: dict[str, Any]) -> str:
            data["nodes"][pick]["config"] = config
            return f"nodes.{pick}.config.{path}"

        return Fault(f"{pick}: {name}", frozenset({pick}), changed)

    def joint(name: str, target: str, written: Any, path: str = "", touched: str = "") -> Fault:
        def changed(data: dict[str, Any]) -> str:
            index = next(i for i, given in enumerate(data["connections"]) if ends_at(given, target))
            data["connections"][index] = written
            return f"connections[{index}]{path}"

        return Fault(f"-> {target}: {name}", frozenset({f">{target}", target, touched or target}), changed)

    source = each.source
    return [
        node("case that does not compile", {"cases": {"high": "vlaue > 1"}}, "cases"),
        node("cases misspelt", {"casse": {"high": "true"}}, "casse"),
        node("cases that are none", {"cases": ["high"]}, "cases"),
        node("variable not set", {"cases": "${NOT_SET}"}, "cases"),
        joint("port misspelt", high, f"{pick}.hgih -> {high}", touched=pick),
        joint("no arrow", low, f"{pick}.otherwise {low}"),
        joint("when that is none", yes, {"from": source, "to": yes, "when": 3}, ".when"),
        joint("when that does not compile", yes, {"from": source, "to": yes, "when": "1 +"}, ".when"),
        joint("when misspelt", yes, {"from": source, "to": yes, "whn": "true"}, ".whn"),
        joint("target misspelt", yes, {"from": source, "to": f"ey{yes[2:]}", "when": "true"}),
        joint("source misspelt", yes, {"from": f"{source}x", "to": yes, "when": "true"}, touched=source),
        joint("else that is none", other, {"from": source, "to": other, "else": "yes"}, ".else"),
        joint("else misspelt", other, {"from": source, "to": other, "esle": True}, ".esle"),
        joint("else and kind", other, {"from": source, "to": other, "else": True, "kind": "data"}),
    ]


def ends_at(given: str | dict[str, object], target: str) -> bool:
    return given.endswith(f"-> {target}") if isinstance(given, str) else given.get("to") == target


def of_shape(each: Line) -> list[Fault]:
    """Faults of the whole line: nothing else may be wrong in it."""
    branches = {each.branch(name) for name in BRANCHES}
    everything = frozenset({*each.nodes, *(f">{node}" for node in each.nodes), *branches})

    def cut(data: dict[str, Any]) -> str:
        data["connections"][arrow(data, each.keep)] = f"{each.keep} -> {each.sink}"
        return f"nodes.{each.wait}"

    def cycle(data: dict[str, Any]) -> str:
        data["connections"].append(f"{each.split} -> {each.keep}")
        return f"connections[{len(data['connections']) - 1}]"

    def twice(data: dict[str, Any]) -> str:
        data["connections"].append(data["connections"][arrow(data, each.keep)])
        return f"connections[{len(data['connections']) - 1}]"

    def nothing_to_collect(data: dict[str, Any]) -> str:
        data["nodes"][each.split] = {"type": "debug.tap"}
        return f"nodes.{each.collect}"

    def id_with_a_blank(data: dict[str, Any]) -> str:
        data["nodes"][f"{each.wait} x"] = data["nodes"].pop(each.wait)
        for node in (each.keep, each.wait):
            index = arrow(data, node)
            text = data["connections"][index]
            data["connections"][index] = text.replace(each.wait, f"{each.wait} x")
        return f'nodes["{each.wait} x"]'.replace('"', "'")

    def param_of_no_kind(data: dict[str, Any]) -> str:
        data["params"][f"least_{each.keep}"] = {"kind": "number"}
        return f"params.least_{each.keep}.kind"

    def param_without_a_value(data: dict[str, Any]) -> str:
        data["params"][f"least_{each.keep}"] = {"kind": "int"}
        return f"params.least_{each.keep}"

    changes = (
        cut,
        cycle,
        twice,
        nothing_to_collect,
        id_with_a_blank,
        param_of_no_kind,
        param_without_a_value,
    )
    return [Fault(f"{each.source}: {change.__name__}", everything, change) for change in changes]


def of_settings() -> list[Fault]:
    def at(name: str, value: object) -> Fault:
        def changed(data: dict[str, Any]) -> str:
            data["settings"][name] = value
            return f"settings.{name}"

        return Fault(f"settings.{name}", frozenset({f"settings.{name}"}), changed)

    return [at("max_in_flight", "many"), at("delivrey", "at_most_once"), at("timeout", 3), at("limits", [])]


GROUPS = (of_nodes, of_inner_nodes, of_connections, of_branches, of_shape)


@st.composite
def faulty(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """A workflow with faults, and where each must be told, by what it is."""
    lines = [line(number, nested=draw(st.booleans())) for number in range(draw(st.integers(1, 3)))]
    data = document(lines)
    known = [fault for each in lines for group in GROUPS for fault in group(each)] + of_settings()
    touched: set[str] = set()
    expected: dict[str, str] = {}
    for fault in draw(st.lists(st.sampled_from(known), min_size=1, max_size=8)):
        if touched.isdisjoint(fault.touched):
            touched |= fault.touched
            expected[fault.name] = fault.change(data)
    return data, expected


def unmatched(found: list[Problem], expected: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Problems nobody caused, and faults nobody told; each problem stands for one fault."""
    left = dict(expected)
    false: list[str] = []
    for problem in found:
        name = next((name for name, path in left.items() if problem.path.startswith(path)), None)
        if name is None:
            false.append(str(problem))
        else:
            del left[name]
    return false, list(left)


@pytest.mark.parametrize("nested", [True, False])
def test_the_workflow_that_gets_faults_is_valid(*, nested: bool) -> None:
    text = write_yaml(document([line(0, nested=nested), line(1, nested=nested)]))
    assert problems_of(text) == []
    assert isinstance(load_workflow(text), Workflow)


def each_fault() -> list[Any]:
    found = [fault for group in GROUPS for fault in group(line(0, nested=True))] + of_settings()
    return [pytest.param(fault, id=fault.name) for fault in found]


@pytest.mark.parametrize("fault", each_fault())
def test_one_fault_is_one_problem(fault: Fault) -> None:
    data = document([line(0, nested=True), line(1, nested=False)])
    path = fault.change(data)
    assert unmatched(problems_of(write_yaml(data)), {fault.name: path}) == ([], [])


@given(faulty())
def test_all_faults_are_told_and_nothing_else(case: tuple[dict[str, Any], dict[str, str]]) -> None:
    check_report(*case)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@settings(max_examples=5_000)
@given(faulty())
def test_all_faults_are_told_and_nothing_else_in_full(case: tuple[dict[str, Any], dict[str, str]]) -> None:
    check_report(*case)


def check_report(data: dict[str, Any], expected: dict[str, str]) -> None:
    found = problems_of(write_yaml(data))
    assert unmatched(found, expected) == ([], []), write_yaml(data)
    assert [problem.line for problem in found] == sorted(problem.line or 0 for problem in found)
    assert len(set(found)) == len(found)


@given(faulty())
def test_a_file_whose_form_is_wrong_is_never_a_workflow(case: tuple[dict[str, Any], dict[str, str]]) -> None:
    """`load_workflow` refuses exactly what the draft calls a problem of the form."""
    text = write_yaml(case[0])
    told = load_draft(text, env={"SET": "x"}).problems
    if not told:
        assert type(load_workflow(text, env={"SET": "x"})) is Workflow
        return
    with pytest.raises(ValidationFailedError) as caught:
        load_workflow(text, env={"SET": "x"})
    assert caught.value.problems == told


@pytest.mark.parametrize("wrong", ["form", "meaning", "ends", "nothing"])
def test_a_thousand_nodes_are_checked_without_quadratic_work(wrong: str) -> None:
    """A bound against it, no claim of speed: on a quiet machine it is well under a second."""
    node = {
        "form": "{type: text.clean, timeout: 3}",
        "meaning": "{type: text.claen, config: {lower: 1}}",
    }.get(wrong, "{type: text.clean}")
    start = "nod" if wrong == "ends" else "node"
    text = "\n".join(
        [
            "name: w",
            "nodes:",
            "  start: {type: memory.source, config: {values: [a]}}",
            *(f"  node{index}: {node}" for index in range(1_000)),
            "connections:",
            "- start -> node0",
            *(f"- {start}{index} -> node{index + 1}" for index in range(999)),
        ]
    )
    began = time.monotonic()
    found = problems_of(text)
    assert time.monotonic() - began < 10
    assert len(found) == {"form": 1_000, "meaning": 1_000, "ends": 999, "nothing": 0}[wrong]


def test_a_name_that_is_wrong_inside_a_nested_workflow_explains_nothing_outside_it() -> None:
    """`wait` is cut off for a reason of its own, and both faults are told."""
    found = problems_of(
        "name: w\nnodes:\n"
        "  in: {type: memory.source, config: {values: [1]}}\n"
        "  sub: {type: workflow, config: {workflow: {name: inner,"
        " nodes: {first: debug.tap, second: debug.tap}, connections: [first -> secnod]}}}\n"
        "  wait: {type: debug.tap}\n"
        "  out: {type: memory.sink}\n"
        "connections: [in -> sub, sub -> out, wait -> out]\n"
    )
    assert [problem.path for problem in found] == [
        "nodes.sub.config.workflow.connections[0]",
        "nodes.wait",
    ]
