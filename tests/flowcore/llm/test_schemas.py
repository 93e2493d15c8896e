"""Schemas of types, without references, and JSON in the middle of text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.answers import schema_faults, value_faults
from flowcore.errors import ConfigError
from flowcore.llm.schemas import inlined, json_in, schema_of
from flowcore.values import Json


class Item(msgspec.Struct):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class Order(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    kind: Literal["new", "old"]
    items: list[Item]
    note: str | None = None


def test_the_schema_of_a_struct_checks_its_values_and_has_no_references() -> None:
    schema = schema_of(Order)
    assert "$ref" not in str(schema)
    assert schema_faults(schema) == []
    fits = {"id": 1, "kind": "new", "items": [{"name": "a", "count": 2}], "note": None}
    assert value_faults(fits, schema) == []
    wrong = {"id": "1", "kind": "odd", "items": [{"count": 0}], "extra": 1}
    assert {path for path, _ in value_faults(wrong, schema)} == {
        "value.id", "value.kind", "value.items[0].name", "value.items[0].count", "value.extra",
    }  # fmt: skip


def test_what_stands_beside_a_reference_wins() -> None:
    schema = {
        "$defs": {"n": {"type": "integer", "description": "a number"}},
        "properties": {"a": {"$ref": "#/$defs/n", "description": "mine"}},
    }
    assert inlined(schema) == {"properties": {"a": {"type": "integer", "description": "mine"}}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#/$defs/gone"}, "not in its \\$defs"),
        ({"$ref": "https://example.com/s.json"}, "not in its \\$defs"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "contains itself"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inlined(schema)


def test_a_type_without_a_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no JSON Schema"):
        schema_of(complex)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, null]}',
        '  {"a": [1, null]}\n',
        '```json\n{"a": [1, null]}\n```',
        'Here it is:\n```\n{"a": [1, null]}\n```\nAnything else?',
        'The answer is {"a": [1, null]}. Bye {.',
    ],
)
def test_the_json_of_an_answer_is_found(text: str) -> None:
    if text.endswith("{."):
        text = text[:-1].rstrip("{ ")
    assert json_in(text) == {"a": [1, None]}


@pytest.mark.parametrize("text", ["", "no", "{a: 1}", "[1, 2", "\ud800", '{"a": 1} and {"b": 2}'])
def test_an_answer_without_json_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        json_in(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_JSON)
def test_any_json_comes_back_as_it_was(value: Any) -> None:
    text = Json.of(value).raw.decode()
    assert json_in(text) == value
    assert json_in(f"Sure!\n```json\n{text}\n```") == value or "```" in text
