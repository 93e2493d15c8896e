"""Templates of expressions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flowcore.errors import ExpressionError, ExpressionEvaluationError
from flowruntime.compile.expressions.template import CompiledTemplate, TemplateError, compile_template


def compiled(value: object) -> CompiledTemplate:
    return compile_template(value, variables=("value", "key"))


ROW = {"customer": {"name": "Ada"}, "a": 1, "b": 2, "tags": ["x"]}


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ({"name": "value.customer.name", "total": "value.a + value.b"}, {"name": "Ada", "total": 3}),
        ("value.a", 1),
        (["value.a", 5, None, True, 1.5, b"b"], [1, 5, None, True, 1.5, b"b"]),
        ({"deep": {"list": [{"n": "value.b"}]}}, {"deep": {"list": [{"n": 2}]}}),
        ({"text": {"$literal": "value.a"}}, {"text": "value.a"}),
        (
            {"whole": {"$literal": {"a": ["value.a", {"$literal": 1}]}}},
            {"whole": {"a": ["value.a", {"$literal": 1}]}},
        ),
        ({"$$price": "value.a"}, {"$price": 1}),
        ({"k": "key"}, {"k": "k1"}),
        ({}, {}),
        ({"big": 1 << 70}, {"big": 1 << 70}),
        ({"odd": "value.tags.exists(t, t == 'x')"}, {"odd": True}),
        ({'"quoted\n': "1"}, {'"quoted\n': 1}),
    ],
)
def test_a_template_gives_the_same_shape_with_values(template: object, result: object) -> None:
    template_ = compiled(template)
    assert template_(value=ROW, key="k1") == result
    namespace: dict[str, Any] = dict(template_.bindings)
    exec(f"def run(v, k):\n    return {template_.source({'value': 'v', 'key': 'k'})}", namespace)  # noqa: S102 - the generated code is the subject
    assert namespace["run"](ROW, "k1") == result


def test_literals_are_new_objects_for_every_row() -> None:
    template = compiled({"list": {"$literal": [1]}, "nan": math.inf})
    first = template()
    first["list"].append(2)
    assert template() == {"list": [1], "nan": math.inf}


def test_a_leaf_without_a_value_fails_the_whole() -> None:
    with pytest.raises(ExpressionEvaluationError, match=r"'value\.missing' failed"):
        compiled({"a": "value.a", "b": "value.missing"})(value=ROW)
    with pytest.raises(
        ExpressionEvaluationError, match="expression 'key' failed: variable 'key' was not given"
    ):
        compiled({"a": "value.a", "b": "key"})(value=ROW)


@pytest.mark.parametrize(
    ("template", "path", "message"),
    [
        (
            {"a": {"b": ["valu.x"]}},
            "a.b\\[0\\]",
            "no variable 'valu'.*did you mean 'value'.*literal: 'valu.x'",
        ),
        ({"a": "1 +"}, "a", "Syntax error"),
        ({"a": {"$other": 1}}, "a", "write '\\$\\$other'"),
        ({"a": {"$literal": 1, "b": 2}}, "a", "stands alone"),
        ({1: "value"}, "", "a key of a template is text, not int"),
        ({"a": {1, 2}}, "a", "a set is no part of a template"),
        ({"a": ["1"] * 3000}, "a\\[.*", "at most 2000 leaves"),
        ({"a": ""}, "a", "it is empty"),
    ],
)
def test_what_is_no_template_says_where_and_what_to_do(template: object, path: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=f"(?s)^expression .*{path}.*{message}"):
        compiled(template)


def test_a_template_nested_too_deep_is_refused() -> None:
    nest: Any = "1"
    for _ in range(100):
        nest = [nest]
    with pytest.raises(ExpressionError, match="32 levels"):
        compiled(nest)


def test_it_says_which_leaves_are_interpreted() -> None:
    template = compiled({"a": "value.a", "tags": ["value.tags.map(t, t)"]})
    assert template.names == {"value"}
    assert (
        template.interpreted_because
        == "tags[0]: a macro over elements (all, exists, exists_one, map, filter)"
    )
    assert set(template.leaves) == {"a", "tags[0]"}


def test_every_leaf_that_does_not_compile_is_told_with_its_path() -> None:
    with pytest.raises(TemplateError, match=r"a\.b: .*no variable 'valeu'") as caught:
        compiled({"a": {"b": "valeu"}, "c": ["value.x", "1 +"]})
    assert [(place, fault.text) for place, fault in caught.value.faults] == [
        (("a", "b"), "valeu"),
        (("c", 1), "1 +"),
    ]
