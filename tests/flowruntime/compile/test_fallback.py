"""Which fallbacks are refused, where, and with what remedy; and that each row gets a copy of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import pytest

from flowcore import Fallback, Problem, Workflow, node, operator
from flowcore.errors import ValidationFailedError
from flowcore.node import Outputs
from flowcore.values import Json, SecretRef, Stream
from flowruntime.compile.resolved import ResolvedFallback
from flowruntime.compile.validate import validate
from flowruntime.definition.load import dump_workflow, load_text
from flowruntime.registry import Registry
from tests.differential.palette import CaseSink, CaseSource, Either, keep


class Place(msgspec.Struct):
    city: str
    zip: int = 0


@node("fb.place")
def place(value: Any) -> Place:
    del value
    return Place("here")


@node("fb.number")
def number(value: Any) -> int:
    return int(value)


@node("fb.word")
def word(value: Any) -> Literal["a", "b"]:
    del value
    return "a"


@node("fb.live")
def live(value: Any) -> Stream[int]:
    raise NotImplementedError(value)


@node("fb.many")
def many(value: Any) -> Iterator[int]:
    yield int(value)


@node("fb.lists", kind="batch")
def lists(items: list[Any]) -> list[Any]:
    return items


@operator("fb.raw", settles="explicit")
def raw() -> Callable[[Any], Any]:
    return lambda source: source


def problems(kind: Any, fallback: object, **config: Any) -> list[Problem]:
    wf = Workflow("w")
    wf.add(kind, id="n", on_error={"fallback": fallback}, config=config)
    with pytest.raises(ValidationFailedError) as refused:
        validate(wf, Registry(), mode="request")
    return list(refused.value.problems)


def resolved(kind: Any, fallback: object) -> ResolvedFallback:
    wf = Workflow("w")
    wf.add(kind, id="n", on_error={"fallback": fallback})
    found = validate(wf, Registry(), mode="request").nodes["n"].fallback
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        (CaseSource, {}, "a source reads records"),
        (CaseSink, {"tag": "k"}, "nothing leaves a sink"),
        (keep, {"tag": "k"}, "what leaves a filter is the row it was given"),
        (lists, {}, "a node that makes one row of many"),
        (raw, {}, "a raw operator answers for its rows itself"),
    ],
)
def test_a_node_without_an_output_to_replace_has_no_fallback(kind: Any, config: Any, words: str) -> None:
    found = [each for each in problems(kind, 1, **config) if "on_error" in each.path]
    assert [each.path for each in found] == ["nodes.n.on_error"]
    assert words in found[0].message
    assert "say continue" in found[0].remedy


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (number, "3", "gives int, and '3' is none"),
        (number, 3.0, "gives int, and 3.0 is none"),
        (number, None, "gives int, and None is none"),
        (number, [1], "gives int"),
        (place, {"town": "x"}, "gives Place"),
        (place, {"city": 1}, "gives Place"),
        (place, "x", "gives Place"),
        (word, "c", "gives Literal"),
        (many, "3", "gives int"),
        (live, [1], "live and made anew for each row"),
    ],
)
def test_a_value_that_is_not_of_the_ports_type_is_refused(kind: Any, value: object, words: str) -> None:
    found = problems(kind, value)
    assert [each.path for each in found] == ["nodes.n.on_error.fallback"]
    assert words in found[0].message
    assert found[0].remedy


def test_a_mapping_becomes_the_struct_the_port_gives() -> None:
    found = resolved(place, {"city": "nowhere"})
    assert found.make() == Place("nowhere")
    assert found.make() is not found.make()


def test_ports_are_named_and_no_others() -> None:
    assert "must name output ports" in problems(sides, 5)[0].message
    unknown = problems(sides, {"lefft": 5})[0]
    assert unknown.path == "nodes.n.on_error.fallback.lefft"
    assert "left" in unknown.remedy
    assert problems(sides, {"left": "text"})[0].path == "nodes.n.on_error.fallback.left"


class Two(Outputs):
    left: int
    right: str


@node("fb.sides")
def sides(value: Any) -> Two:
    del value
    return Two(left=1, right="")


def test_of_ports_that_exclude_each_other_only_one_has_a_value() -> None:
    found = problems(Either, {"left": 1, "right": 2}, tag="t")
    assert "gives a row to one of its ports" in found[0].message


def test_a_row_cannot_go_on_and_out_of_the_error_port() -> None:
    wf = Workflow("w")
    first = wf.add(number, id="n", on_error=Fallback(1))
    wf.connect(first["error"], wf.add(place, id="p"), kind="error")
    with pytest.raises(ValidationFailedError) as refused:
        validate(wf, Registry(), mode="request")
    (found,) = refused.value.problems
    assert "none is left for the error port" in found.message
    assert found.remedy == "keep one of the two"


def test_a_workflow_has_no_one_output() -> None:
    inner = Workflow("inner")
    inner.add(number)
    wf = Workflow("w")
    wf.add(inner, id="sub", on_error=Fallback(1))
    with pytest.raises(ValidationFailedError) as refused:
        validate(wf, Registry(), mode="request")
    (found,) = refused.value.problems
    assert found.path == "nodes.sub.on_error"
    assert "inner node" in found.remedy


def test_each_row_has_lists_of_its_own_and_json_stays_whole() -> None:
    json = Json(b'{"a": [1]}')
    fallback = ResolvedFallback({"items": [1, {"deep": []}], "json": json}, None, "continue", 0)
    one, two = fallback.make(), fallback.make()
    one["items"][1]["deep"].append(1)
    assert two["items"] == [1, {"deep": []}]
    assert two["json"].parse() == {"a": [1]}


# --- reading --------------------------------------------------------------------------------------------


FILE = """
name: w
params: {other: {default: {label: other}}}
nodes:
  n: {type: transform.map, config: {fields: value}, on_error: {fallback: VALUE}}
"""


@node("fb.untyped")
def untyped(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("{$bytes: AAE=}", b"\x00\x01"),
        ("{$float: nan}", float("nan")),
        ("{$$key: 1}", {"$key": 1}),
        ("'${params.other}'", {"label": "other"}),
        ("[1, 1.0, true]", [1, 1.0, True]),
    ],
)
def test_a_file_says_any_value_and_dumps_it_again(text: str, value: object) -> None:
    workflow = load_text(FILE.replace("VALUE", text))
    for each in (
        workflow,
        load_text(dump_workflow(workflow)),
        load_text(dump_workflow(workflow, format="json")),
    ):
        found = validate(each, Registry(), mode="request").nodes["n"].fallback
        assert found is not None
        assert repr(found.value) == repr(value)


@pytest.mark.parametrize(
    ("on_error", "words"),
    [
        ("fallback", "a fallback needs its value"),
        ({}, "not a mapping of nothing"),
        ({"falback": 1}, "did you mean 'fallback'?"),
        ({"fallback": 1, "then": "continue"}, "not a mapping of fallback, then"),
        ({"fallback": SecretRef("KEY")}, "holds a secret"),
        ({"fallback": {"a": [SecretRef("KEY")]}}, "holds a secret"),
        ({"fallback": object()}, "give plain data"),
        ({"fallback": (1, 2)}, "give plain data"),
    ],
)
def test_wrong_forms_say_what_to_write(on_error: Any, words: str) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        Workflow("w").add(untyped, on_error=on_error)
    (found,) = refused.value.problems
    assert words in f"{found.message}; {found.remedy}"


def test_the_settings_of_a_workflow_have_no_output() -> None:
    with pytest.raises(ValidationFailedError, match="output of one node"):
        Workflow("w", settings={"on_error": {"fallback": 1}})
