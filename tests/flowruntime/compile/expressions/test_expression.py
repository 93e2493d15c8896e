"""Compiled expressions: results, errors, source, and what they say about themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
import pytest

from flowcore.errors import BuildError, ExpressionError, ExpressionEvaluationError, RunError
from flowcore.values import Json
from flowruntime.compile.expressions.api import CompiledExpression, compile_expression
from flowruntime.compile.expressions.library import MAX_LENGTH

VARIABLES = ("value", "key", "headers", "record")


def compiled(text: str, *, boolean: bool = False) -> CompiledExpression:
    return compile_expression(text, variables=VARIABLES, result="bool" if boolean else "any")


# --- results -------------------------------------------------------------------------------------------


class Place(msgspec.Struct):
    city: str
    size: int | msgspec.UnsetType = msgspec.UNSET
    street: str = msgspec.field(default="", name="Strasse")


@dataclass
class Order:
    amount: int
    tags: list[str] = field(default_factory=list[str])


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("text", "value", "answer"),
    [
        ('value.amount > 10 && value.kind == "card"', {"amount": 11, "kind": "card"}, True),
        ('value.amount > 10 && value.kind == "card"', {"amount": 10}, False),
        ("value.a + value.b", {"a": 1, "b": 2}, 3),
        ("value.a + value.b", {"a": "x", "b": "é"}, "xé"),
        ("-7 / 2", None, -3),
        ("value.a / 2", {"a": -7}, -3),
        ("value.a % 3", {"a": -7}, -1),
        ("value.a / 0.0", {"a": 1.0}, math.inf),
        ("value == 1", True, False),
        ("value == 1", 1.0, True),
        ("value < 2.5", 2, True),
        ('value.text.matches("^card")', {"text": "card lost"}, True),
        ('value.text.matches("c.*t")', {"text": "card lost"}, True),
        ("size(value)", "\U0001f600é", 2),
        ('value in ["a", "é"]', "é", True),
        ('"x" in value', {"x": None}, True),
        ("has(value.x) ? value.x : 0", {}, 0),
        ("value.items.filter(i, i > 1)", {"items": [1, 2, 3]}, [2, 3]),
        ("value.`content-type`", {"content-type": "json"}, "json"),
        ('{"n": value.a, "list": [value.a, 1.5]}', {"a": 1}, {"n": 1, "list": [1, 1.5]}),
        ("bytes(value)", "é", "é".encode()),
        ("value.a == 1 || true", {}, True),
        ("value.a == 1 && false", {}, False),
        ("false && value.a == 1", {}, False),
        ('value.city == "Bern" && !has(value.size)', Place("Bern"), True),
        ('value.street == "Weg"', Place("Bern", street="Weg"), True),
        ("value == {'city': 'Bern', 'street': ''}", Place("Bern"), True),
        ('value.amount > 1 && "a" in value.tags', Order(2, ["a"]), True),
        ("value.exists(i, i.amount > 1)", [Order(1), Order(2)], True),
        ("value.a.b == 1", Json(b'{"a": {"b": 1}}'), True),
        ("value.a.exists(i, i.b == 1)", {"a": Json(b'[{"b": 1}]')}, True),
        ('value == "red"', Color.RED, True),
        ("value[1] == 2", (1, 2), True),
        ("value.a == 18446744073709551615u", {"a": (1 << 64) - 1}, True),
    ],
)
def test_an_expression_answers(text: str, value: object, answer: object) -> None:
    result = compiled(text)(value=value)
    assert result == answer
    assert type(result) is type(answer)


def test_a_value_that_is_only_carried_comes_out_as_the_very_object_it_is() -> None:
    place, huge = Place("Bern"), 1 << 70
    row = {"place": place, "huge": huge, "lone": "\ud800", "n": 1}
    assert compiled("value.place")(value=row) is place
    assert compiled("value.n == 1 ? value.huge : 0")(value=row) is huge
    assert compiled("[value.lone]")(value=row) == ["\ud800"]


def test_a_value_nobody_reads_fails_nothing_compiled_or_interpreted() -> None:
    row = {"n": 1, "text": "card", "huge": 1 << 70, "lone": "\ud800", "thing": object()}
    assert compiled("value.n == 1", boolean=True)(value=row)
    assert compiled('value.text.matches("c.r")', boolean=True)(value=row)
    assert compiled('has(value.thing) && value.text.matches("c.r")', boolean=True)(value=row)


# --- errors while it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("value.a > 1", {}, 'Key not found in map : "a"; test optional fields with has\\(\\)'),
        ("value.a > 1", {"a": "x"}, "No matching overloads"),
        ("value.a > 1", {"a": True}, "No matching overloads"),
        ("value.a > 1", {"a": None}, "No matching overloads"),
        ("value.a > 1", {"a": 1 << 70}, "value.a is outside the 64 bits"),
        ("value.a == 1", {"a": -(1 << 63) - 1}, "value.a is outside the 64 bits"),
        ('value.a == "x"', {"a": "\ud800"}, "value.a is not valid Unicode"),
        ('value.a.matches("x.")', {"a": "\ud800"}, "value.a is not valid Unicode"),
        ("value.a == [1]", {"a": [1, object()]}, r"value.a\[1\] is a object, which expressions cannot read"),
        ("value.a == {}", {"a": {1.5: 1}}, "a key of value.a is a float, not text"),
        ("value.a == 1", {"a": Json(b"{")}, "value.a is not valid JSON"),
        ("value.a + 1", {"a": (1 << 63) - 1}, "integer overflow"),
        ("value.a * value.a", {"a": 1 << 40}, "integer overflow"),
        ("-value.a", {"a": -(1 << 63)}, "integer overflow"),
        ("value.a / 0", {"a": 1}, "divide by zero"),
        ("value.a % 0", {"a": 1}, "modulus by zero"),
        ("value.a + 1", {"a": 1.0}, "No matching overloads"),
        ("value.a[3]", {"a": [1]}, "Index error"),
        ("value.a[-1]", {"a": [1]}, "Index error"),
        ("value ? 1 : 2", 1, "No matching overloads"),
        ("!value", 1, "No matching overloads"),
        ("value.a", 3, "Applying SELECT"),
        ("value.map(i, value.map(j, i + j)).size()", list(range(200)), "Iteration budget exceeded"),
        ("type(value.a) == int ? timestamp('2020-01-01T00:00:00Z') : value.a", {"a": 1}, "which is no value"),
    ],
)
def test_an_error_raises_and_is_never_true_or_false(text: str, value: object, reason: str) -> None:
    with pytest.raises(ExpressionEvaluationError, match=reason) as caught:
        compiled(text)(value=value)
    assert caught.value.text == text
    assert isinstance(caught.value, RunError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [1, "true", None, {"a": 1}, 1.0, b""])
def test_a_condition_that_is_no_bool_is_an_error(value: object) -> None:
    for text in ("value.a", "value.a ? value.a : true", "dyn(value.a)"):
        with pytest.raises(ExpressionEvaluationError):
            compiled(text, boolean=True)(value={"a": value})


def test_a_nest_too_deep_to_read_is_an_error() -> None:
    nest: Any = 1
    for _ in range(10_000):
        nest = [nest]
    with pytest.raises(ExpressionEvaluationError, match="nested deeper than 64"):
        compiled("value == [1]")(value=nest)


def test_a_variable_that_is_not_given_is_named() -> None:
    with pytest.raises(ExpressionEvaluationError, match="variable 'key' was not given"):
        compiled("value == key")(value=1)


# --- errors before it runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("valu.amount > 1", "no variable 'valu' is known here at column .*; did you mean 'value'"),
        ("value.a &&\n  foo", "no variable 'foo' is known here at line 2, column 3; known here: headers"),
        ("sizee(value)", "no function 'sizee' is known here.*did you mean 'size'"),
        (
            "value.amount >",
            "Syntax error: mismatched input '<EOF>' at column 15; it ends before it is complete",
        ),
        ("value.a = 3", "Syntax error.*; compare with =="),
        ("value.a == 1 and true", "Syntax error.*; write && for and"),
        ("not value.a", "Syntax error.*; write && for and"),
        ("value.a == 'b", "Syntax error.*; close the quotes"),
        ("1 + 1.0", "no matching overload.*; convert one side"),
        ('value.a + 1 == "x"', "no matching overload"),
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("(" * 50 + "1" + ")" * 50, "recursion limit.*split it|recursion limit.*node of its own"),
        ("value" + ".a" * 40, "recursion depth.*split it"),
        (" " * MAX_LENGTH + "1", f"at most {MAX_LENGTH} are allowed"),
        ('"\ud800"', "not valid Unicode"),
        ("timestamp(value)", "its result is a timestamp, which is no value; wrap it in string"),
        ("package", "reserved identifier"),
    ],
)
def test_what_does_not_compile_says_what_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=f"(?s){message}") as caught:
        compiled(text)
    assert caught.value.text == text
    assert isinstance(caught.value, BuildError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.facts()["reason"] == caught.value.reason


def test_a_condition_that_can_never_be_a_bool_does_not_compile() -> None:
    with pytest.raises(ExpressionError, match="a condition must be true or false, and this is int"):
        compiled("size(value)", boolean=True)


def test_names_that_are_no_identifiers_are_left_out_not_refused() -> None:
    assert compile_expression("a == 1", variables=("a", "b-c", "in", "", "ü"))(a=1)


# --- what it says about itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 + 1", set[str]()),
        ("value.a == key", {"value", "key"}),
        ("value.map(key, key + 1)", {"value"}),
        ("value.map(key, key + .key)", {"value", "key"}),
        ("has(headers.trace)", {"headers"}),
    ],
)
def test_it_names_the_variables_it_reads(text: str, names: set[str]) -> None:
    assert compiled(text).names == names


def test_it_says_why_it_is_interpreted() -> None:
    whole = compiled("value.items.all(i, i > 1)")
    assert whole.python is None
    assert whole.interpreted_because == "a macro over elements (all, exists, exists_one, map, filter)"
    part = compiled('value.n > 1 && value.text.matches("c.r")')
    assert part.python is not None
    assert part.interpreted_because == "in part: matches() with a pattern"
    assert part(value={"n": 1}) is False
    assert part(value={"n": 2, "text": "car"}) is True
    assert compiled("value.n > 1").interpreted_because is None


def test_a_text_compiled_twice_is_the_same_object() -> None:
    assert compiled("value.n > 1") is compiled("value.n > 1")


# --- source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['value.n > 1 && key == "k"', "value.items.exists(i, i == key)", "'\xab\xbb' + key"]
)
def test_the_source_gives_the_same_answer_inlined_in_a_function(text: str) -> None:
    expression = compiled(text)
    source = expression.source({"value": "row[0]", "key": "row[1]"})
    namespace: dict[str, Any] = dict(expression.bindings)
    exec(f"def run(rows):\n    return [{source} for row in rows]", namespace)  # noqa: S102 - the generated code is the subject
    rows: list[tuple[Any, str]] = [({"n": 2, "items": ["k"]}, "k"), ({"n": 1, "items": []}, "j")]
    assert namespace["run"](rows) == [expression(value=value, key=key) for value, key in rows]


def test_sources_of_several_expressions_share_one_function() -> None:
    texts = ["value.n in [1, 2]", "value.n in [3, 4]", "value.n * 2", 'value.kind in ["a"]']
    namespace: dict[str, Any] = {}
    for text in texts:
        namespace |= compiled(text).bindings
    sources = ", ".join(compiled(text).source({"value": "v"}) for text in texts)
    exec(f"def run(v):\n    return [{sources}]", namespace)  # noqa: S102 - as above
    assert namespace["run"]({"n": 3, "kind": "a"}) == [False, True, 6, True]


def test_python_shows_the_variables_under_their_own_names() -> None:
    python = compiled("value.n > 1").python
    assert python is not None
    assert "value.get('n'" in python


def test_variables_may_be_named_like_python_keywords() -> None:
    expression = compile_expression("lambda + from + class", variables=("lambda", "from", "class"))
    assert expression(**{"lambda": 1, "from": 2, "class": 3}) == 6


def test_a_variable_named_like_a_type_is_refused_where_it_is_used_and_only_there() -> None:
    """CEL would read the type in its place, and compare that with whatever the user meant."""
    assert (
        compile_expression("int(type(value) == type(value) ? a : 0)", variables=("type", "value", "a"))(
            value=1, a=2
        )
        == 2
    )
    with pytest.raises(ExpressionError, match="'type' is a type of CEL, which hides the variable"):
        compile_expression("dyn(type) == value", variables=("type", "value"))


def test_text_of_the_user_never_becomes_code() -> None:
    text = '"\u00abvalue\u00bb\'\\"){__import__}" + value'
    assert compiled(text)(value="!") == "\u00abvalue\u00bb'\"){__import__}!"


def test_a_long_chain_compiles() -> None:
    text = " && ".join(f"value.n != {number}" for number in range(200))
    expression = compiled(text, boolean=True)
    assert expression.python is not None
    assert expression(value={"n": -1}) is True
    assert expression(value={"n": 199}) is False


def test_text_with_a_nul_is_kept_or_refused_but_never_cut_off() -> None:
    """The library ends text at a NUL: an a, a NUL and a b would equal an a."""
    kept = compile_expression("value.k", variables=["value"])
    assert kept(value={"k": "a\0b"}) == "a\0b"
    compiled = compile_expression('value.k == "a"', variables=["value"])
    assert compiled(value={"k": "a\0b"}) is False
    interpreted = compile_expression('value.all(x, x == "a")', variables=["value"])
    with pytest.raises(ExpressionEvaluationError, match="NUL"):
        interpreted(value=["a\0b"])


@pytest.mark.parametrize("text", ["{[value]: 1}", "[{[1]: 2}]", "{1.5: 2}", "{null: 1}"])
def test_a_key_that_no_map_can_have_is_told_when_it_is_compiled(text: str) -> None:
    """The library passes it and fails when it is asked for the type of the result."""
    with pytest.raises(ExpressionError, match="Unsupported map key type"):
        compile_expression(text, variables=["value"])
