"""Expressions and templates: made by a grammar or damaged, evaluated on random values.

Owns: `SUBJECTS`.
Does not own: whether an answer is right (tests/flowruntime/compile/expressions/test_differential.py).

Always holds: an expression is refused with an ExpressionError, evaluated to a plain value, or fails with an
ExpressionEvaluationError; its compiled form has a bounded size.
"""

from __future__ import annotations

import math
import random
from typing import Any, Final

from flowcore.errors import ExpressionError, ExpressionEvaluationError
from flowcore.values import Json, kind_of
from flowruntime.compile.expressions.api import compile_expression
from flowruntime.compile.expressions.library import MAX_LENGTH
from flowruntime.compile.expressions.template import CompiledTemplate, compile_template
from flowruntime.compile.expressions.translate import MAX_SOURCE
from tests.fuzz.harness import Subject
from tests.fuzz.mutation import INTERESTING_TEXTS, mutated

_VARIABLES: Final = ("value", "a", "b")
_OURS: Final = (ExpressionError, ExpressionEvaluationError)

_RULES: Final = {
    "e": (
        "{e} {op} {e}", "({e})", "!{e}", "-{e}", "{e} ? {e} : {e}", "{e}.{f}", "{e}[{e}]", "{fn}({e})",
        "{e}.{m}({e})", "[{e}, {e}]", "{{{e}: {e}}}", "has({p}.{f})", "{e}.{macro}(i, {e})", "{p}", "{p}",
        "{p}",
        "{l}", "{l}", "{e} in [{l}, {l}]", "{e}.{macro}(i, i{op}{e})", "type({e}) == {ty}", "{fn}({e}, {e})",
    ),
    "p": ("value", "a", "b", "value.x", "value.n.kind", "value['items']", "value.items", "i", "nothing",
    "int"),
    "f": ("x", "n", "kind", "items", "size", "__class__", "in", "`a-b`"),
    "l": (
        "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1u", "1.5",
        "1e400",
        "'a'", '"\\u00e9"', "b'\\xff'", "r'\\d+'", "true", "null", "[]", "{{}}", "'''x'''", "''",
        "'(a+)+$'", ".5",
    ),
    "op": ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"),
    "fn": (
        "size", "int", "uint", "double", "string", "bytes", "bool", "dyn", "type", "timestamp", "duration",
        "has",
        "getattr", "eval", "matches", "not_known", "google.protobuf.Any", "optional.of",
    ),
    "m": ("contains", "startsWith", "endsWith", "matches", "size", "getFullYear", "split", "format",
    "orValue"),
    "macro": ("all", "exists", "exists_one", "map", "filter"),
    "ty": ("int", "string", "list", "map", "type"),
}  # fmt: skip


def grown(chance: random.Random, rule: str = "e", depth: int = 4) -> str:
    """A text of the grammar."""
    forms = _RULES[rule]
    if rule == "e" and depth <= 0:
        forms = ("{p}", "{l}")
    rest = chance.choice(forms)
    text = ""
    while rest:
        before, brace, rest = rest.partition("{")
        text += before
        if brace and rest.startswith("{"):
            text, rest = text + "{", rest[1:]
        elif brace:
            hole, _, rest = rest.partition("}")
            text += grown(chance, hole, depth - 1)
    return text.replace("}}", "}")


def value_of(chance: random.Random, depth: int = 3) -> Any:
    """A value, or what is none."""
    if depth and chance.random() < 0.5:
        if chance.random() < 0.3:
            return [value_of(chance, depth - 1) for _ in range(chance.randrange(4))]
        names = chance.sample(
            ("x", "y", "n", "kind", "items", "in", "", "a-b", "\ud800"), chance.randrange(1, 6)
        )
        return {name: value_of(chance, depth - 1) for name in names}
    return chance.choice(_LEAVES)


_deep: Any = []
for _ in range(300):
    _deep = [_deep]
_LEAVES: Final = (
    None, True, False, 0, 1, -1, 7, 1 << 53, (1 << 63) - 1, -(1 << 63), 1 << 63, 1 << 64, -(1 << 70), 0.0,
    -0.0, 1.5,
    math.nan, math.inf, 1e300, "", "a", "card", "12", "1.5", "\0", "\ud800", "é\U0001f600", "a" * 300, b"",
    b"\xff",
    Json(b'{"x": 1}'), Json(b"{"), (1, 2), {1: 2}, {1.5: 1}, {"a"}, object(), _deep, ["a"] * 200,
    "2024-01-01T00:00:00Z",
)  # fmt: skip
_SAMPLES: Final = (
    "value.amount > 100 && value.kind in ['card', \"cash\"]",
    "has(value.customer) ? value.customer.name + ' ' + string(value.id) : 'nobody'",
    "value.items.filter(i, i.price * 2.0 >= 10.0).map(i, {'id': i.id, 'price': i.price}).size() == 2",
    "value.text.matches('^[a-z]+(-[0-9]{2,3})?$') || !(a.startsWith(b) && size(a) < 10)",
    "[1, 2, 3].exists(x, x == value.x) || {'a': [true, null]}['a'][0]",
    "int(value.x) + int(a) - 3 * (7 / 2) % 5 == -1",
)


def text_of(chance: random.Random) -> str:
    """An expression, or something like one; now and then a very long or deep one."""
    match chance.randrange(40):
        case 0:
            return chance.choice(("(", "[", "!", "-", "a.", "a[", "{1:")) * chance.choice(
                (20, 31, 33, 400, 9_000)
            )
        case 1:
            joint = chance.choice((" && ", " + ", " || ", ", ", " == ", " ? a : "))
            return joint.join(
                [chance.choice(("value.x", "a == 1", "true", "'x'"))] * chance.choice((10, 30, 33, 900))
            )
        case number if number < 24:
            return grown(chance, depth=chance.choice((1, 1, 2, 2, 3, 5)))
        case number if number < 32:
            return mutated(chance, [grown(chance) for _ in range(2)], INTERESTING_TEXTS)
        case _:
            return mutated(chance, _SAMPLES, INTERESTING_TEXTS)


def _expression(chance: random.Random) -> tuple[Any, ...]:
    return text_of(chance), chance.choice(("any", "bool")), *(value_of(chance) for _ in range(3))


def _check_expression(payload: tuple[Any, ...]) -> bool:
    text, result, *values = payload
    try:
        compiled = compile_expression(text, variables=_VARIABLES, result=result)
    except ExpressionError as refused:
        _well_told(refused)
        return False
    if (
        len(text) > MAX_LENGTH
        or len(compiled.source({name: name for name in compiled.names})) > 2 * MAX_SOURCE
    ):
        raise AssertionError("a text or its compiled form of any length is taken")
    return _answers(compiled, values, boolean=result == "bool")


def _answers(compiled: Any, values: list[Any], *, boolean: bool = False) -> bool:
    try:
        answer = compiled(**dict(zip(_VARIABLES, values, strict=True)))
    except ExpressionEvaluationError as failed:
        _well_told(failed)
        return False
    if boolean and not isinstance(answer, bool):
        raise AssertionError(f"a condition came to {answer!r}")
    if not any(answer is part for value in values for part in (value,)) and kind_of(answer) is None:
        _carried(answer, values)
    return True


def _carried(answer: object, values: list[Any]) -> None:
    """What is no value of ours can only be a piece of what was given."""
    waiting = list(values)
    while waiting:
        part = waiting.pop()
        if part is answer:
            return
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
    raise AssertionError(f"an answer that is no value: {answer!r}")


def _well_told(error: Exception) -> None:
    if not str(error) or len(str(error)) > 20_000:
        raise AssertionError(f"an error of {len(str(error))} characters")


# --- templates --------------------------------------------------------------------------------------------


def shape_of(chance: random.Random, depth: int = 3) -> Any:
    """The configuration of a `transform.map`, or something like it."""
    if depth and chance.random() < 0.6:
        if chance.random() < 0.3:
            return [shape_of(chance, depth - 1) for _ in range(chance.randrange(4))]
        keys = chance.sample(
            ("id", "$literal", "$$x", "$x", "a b", "", "\ud800", 1, "'", "__import__"), chance.randrange(1, 4)
        )
        return {key: shape_of(chance, depth - 1) for key in keys}
    if chance.random() < 0.8:
        return text_of(chance)
    return chance.choice(_LEAVES)


def _template(chance: random.Random) -> tuple[Any, ...]:
    return shape_of(chance), *(value_of(chance) for _ in range(3))


def _check_template(payload: tuple[Any, ...]) -> bool:
    shape, *values = payload
    try:
        compiled: CompiledTemplate = compile_template(shape, variables=_VARIABLES)
    except ExpressionError as refused:
        _well_told(refused)
        return False
    try:
        compiled(**dict(zip(_VARIABLES, values, strict=True)))
    except ExpressionEvaluationError as failed:
        _well_told(failed)
        return False
    return True


SUBJECTS: Final = (
    Subject(name="tests.fuzz.expressions:expression", payload=_expression, check=_check_expression),
    Subject(name="tests.fuzz.expressions:template", payload=_template, check=_check_template),
)
