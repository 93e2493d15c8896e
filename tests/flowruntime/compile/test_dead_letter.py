"""The place of dead letters is checked with the workflow: it can hold them, and the plan says it."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import Workflow, node
from flowcore.errors import Problem, ValidationFailedError
from flowruntime.compile.dead_letter import place_for
from flowruntime.compile.description import describe
from flowruntime.compile.explain import explain
from flowruntime.compile.lower import lower
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.validate import validate
from flowruntime.definition.load import load_draft
from flowruntime.registry import Registry

FILE = {"type": "files.sink", "config": {"path": "dead.jsonl"}}


@node("place.parse")
def parse(text: Any) -> int:
    """The number in the text."""
    return int(text)


@node("place.buried", on_error="dead_letter")
def buried(text: str) -> int:
    """Its type says where its failed rows go."""
    return int(text)


def resolved(*, on_error: str | None = None, which: Any = parse, **settings: Any) -> ResolvedGraph:
    """One node behind a source."""
    said: dict[str, Any] = {} if on_error is None else {"on_error": on_error}
    wf = Workflow("place", settings=settings)
    source = wf.add("memory.source", id="s", config={"values": ["1"]})
    wf.chain(source, wf.add(which, id="n", **said), wf.add("memory.sink", id="k"))
    return validate(wf, Registry())


def problems(**options: Any) -> list[Problem]:
    with pytest.raises(ValidationFailedError) as caught:
        resolved(**options)
    return list(caught.value.problems)


# --- a place is needed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"on_error": "dead_letter"}, "nodes.n.on_error"),
        ({"which": buried}, "nodes.n.type"),
    ],
)
def test_a_node_whose_rows_become_letters_needs_a_place(options: dict[str, Any], path: str) -> None:
    (problem,) = problems(**options)
    assert problem.path == path
    assert "names no place" in problem.message
    assert problem.remedy == "add settings: {dead_letter: {type: files.sink, config: {path: dead.jsonl}}}"


def test_settings_that_say_it_for_all_nodes_are_told_once() -> None:
    wf = Workflow("place", settings={"on_error": "dead_letter"})
    for number in range(3):
        wf.add(parse, id=f"n{number}")
    with pytest.raises(ValidationFailedError) as caught:
        validate(wf, Registry(), mode="request")
    (problem,) = caught.value.problems
    assert problem.path == "settings.on_error"
    assert problem.remedy.startswith("add settings")


def test_a_nested_workflow_uses_the_place_of_the_outermost_one() -> None:
    inner = Workflow("inner", settings={"on_error": "dead_letter"})
    inner.add(parse, id="n")
    outer = Workflow("outer", settings={"dead_letter": FILE})
    outer.add(inner, id="w")
    graph = validate(outer, Registry(), mode="request")
    assert graph.nodes["w/n"].policies.on_error == "dead_letter"
    assert graph.dead_letter is not None
    placeless = Workflow("outer")
    placeless.add(inner, id="w")
    with pytest.raises(ValidationFailedError, match="names no place"):
        validate(placeless, Registry(), mode="request")


def test_a_place_inside_a_nested_workflow_has_no_effect_and_is_told() -> None:
    inner = Workflow("inner", settings={"dead_letter": FILE})
    inner.add(parse, id="n")
    outer = Workflow("outer")
    outer.add(inner, id="w")
    (warning,) = validate(outer, Registry(), mode="request").warnings
    assert warning.path.endswith("settings.dead_letter")
    assert "has no effect" in warning.message


# --- a place must be able to hold letters -----------------------------------------------------------------


@pytest.mark.parametrize("type_name", ["memory.sink", "stdio.sink", "files.source", "transform.map"])
def test_what_cannot_give_letters_back_is_refused_with_what_can(type_name: str) -> None:
    (problem,) = problems(dead_letter={"type": type_name})
    assert problem.path == "settings.dead_letter.type"
    assert "cannot hold dead letters" in problem.message
    assert "sqlite.dead_letters" in problem.remedy


@pytest.mark.parametrize(
    ("place", "path", "said"),
    [
        ({"type": "files.snk"}, "settings.dead_letter.type", "unknown node type 'files.snk'"),
        ({"type": "files.sink"}, "settings.dead_letter.config.path", "required and missing"),
        ({"type": "files.sink", "config": {"path": 3}}, "settings.dead_letter.config.path", "must be text"),
        (
            {"type": "files.sink", "config": {"path": "a.jsonl", "x": 1}},
            "settings.dead_letter.config.x",
            "unknown",
        ),
        ({"type": "files.sink", "config": {"path": "a.csv"}}, "settings.dead_letter.config", "JSON lines"),
        ({"type": "files.sink", "config": {"path": "a"}}, "settings.dead_letter.config", "names no format"),
        (
            {"type": "files.sink", "config": {"path": "a.jsonl.gz"}},
            "settings.dead_letter.config",
            "compressed",
        ),
        (
            {"type": "files.sink", "config": {"path": "a.jsonl", "mode": "atomic"}},
            "settings.dead_letter.config",
            "mode: append",
        ),
        (
            {"type": "sqlite.dead_letters", "config": {"path": ""}},
            "settings.dead_letter.config.path",
            "at least 1",
        ),
    ],
)
def test_a_wrong_place_is_a_problem_at_its_path(place: dict[str, Any], path: str, said: str) -> None:
    (problem,) = problems(dead_letter=place)
    assert problem.path == path
    assert said in str(problem)


def test_a_place_is_found_without_a_workflow_too() -> None:
    assert str(place_for(_place(FILE), Registry())) == "files.sink {path: dead.jsonl}"
    with pytest.raises(ValidationFailedError, match="cannot hold dead letters"):
        place_for(_place({"type": "memory.sink"}), Registry())
    with pytest.raises(ValidationFailedError, match="names no place"):
        place_for(None, Registry())


def _place(plain: dict[str, Any]) -> Any:
    return Workflow("w", settings={"dead_letter": plain}).settings.dead_letter


# --- the plan ---------------------------------------------------------------------------------------------


def test_the_plan_says_where_letters_go_and_whose_rows_become_one() -> None:
    wf = Workflow("plan", settings={"on_error": "dead_letter", "dead_letter": FILE})
    source = wf.add("memory.source", id="s", config={"values": ["1"]})
    ported = wf.add(parse, id="ported")
    wf.chain(source, ported, wf.add(parse, id="counted", on_error="continue"), wf.add("memory.sink", id="k"))
    wf.connect(ported["error"], wf.add("memory.sink", id="wrong"))
    description = describe(lower(validate(wf, Registry()), mode="stream"))
    assert description.dead_letters is not None
    assert description.dead_letters.nodes == ("s", "k", "wrong")
    text = explain(description)
    assert "kept in files.sink {path: dead.jsonl}; `flow dlq` lists" in text
    assert "of rows that fail for good at: s, k, wrong" in text
    assert "is settled when that is kept" in text
    assert "on_error dead_letter" in text


def test_a_plan_without_letters_says_nothing_of_them() -> None:
    text = explain(describe(lower(resolved(), mode="stream")))
    assert "ead letter" not in text
    unused = explain(describe(lower(resolved(dead_letter=FILE), mode="stream")))
    assert "of rows that fail for good at: none; say on_error: dead_letter" in unused


def test_a_place_that_refers_to_a_param_is_one_problem_and_no_crash() -> None:
    text = (
        "name: x\nparams: {out: a}\n"
        "settings: {dead_letter: {type: files.sink, config: {path: '${params.out}/x.jsonl'}}}\n"
        "nodes: {clean: {type: text.clean}}\n"
    )
    draft = load_draft(text)
    assert ["cannot refer to params" in problem.message for problem in draft.problems] == [True]
    with pytest.raises(ValidationFailedError) as caught:
        validate(draft, Registry())
    assert len(caught.value.problems) == 1
