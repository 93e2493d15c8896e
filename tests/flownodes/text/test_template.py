"""text.template."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import CoercionError, ConfigError, MissingFieldError, WrongKindError
from flowcore.node import definition_of
from flownodes.text.template import template
from flowruntime.factories import DefinitionFactory

ROW = {
    "id": 7,
    "customer": {"name": "Ann"},
    "tags": ["a", True],
    "none": None,
    "x.y": 1.5,
    "b": b"hi",
    "raw": b"\xff",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Dear {customer.name}: {id}", "Dear Ann: 7"),
        ("{tags} {tags[1]} {['x.y']} {b}", '["a",true] true 1.5 hi'),
        ("{{id}} }}{{", "{id} }{"),
        ("{ id }", "7"),
        ("no fields", "no fields"),
    ],
)
def test_fields_are_put_in(text: str, result: str) -> None:
    assert template(ROW, template=text) == result


def test_the_value_itself_can_be_put_in() -> None:
    assert template("hello", template="{value}!") == "hello!"
    assert template({"value": 1}, template="{value}") == "1"
    assert template([1, 2], template="{[0]}{value}") == "1[1,2]"


def test_a_missing_field_fails_or_is_left_empty() -> None:
    with pytest.raises(MissingFieldError, match="field 'phone' of customer is missing"):
        template(ROW, template="{customer.phone}")
    with pytest.raises(WrongKindError, match="'none'"):
        template(ROW, template="{none}")
    assert template(ROW, template="[{customer.phone}{none.deep}{none}]", missing="empty") == "[]"


def test_what_is_no_text_is_an_error_with_its_path() -> None:
    with pytest.raises(CoercionError, match="raw"):
        template(ROW, template="{raw}")


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{}", "{{}", "{a{b}}", ""])
def test_a_brace_without_its_pair_is_refused_before_anything_runs(text: str) -> None:
    definition = definition_of(template)
    assert definition is not None
    with pytest.raises(ConfigError):
        DefinitionFactory(definition).create({"template": text})


@pytest.mark.parametrize(
    "text", ["{__class__}", "{customer.__class__.__mro__}", "{id.real}", "{tags.append}"]
)
def test_no_attribute_is_ever_read(text: str) -> None:
    with pytest.raises((MissingFieldError, WrongKindError)):
        template(ROW, template=text)


@given(st.text())
def test_text_put_in_is_not_read_again(text: str) -> None:
    assert template({"a": text, "b": "{a}"}, template="{a}{b}") == text + "{a}"


@given(st.text(st.characters(exclude_characters="{}"), min_size=1))
def test_text_without_braces_is_itself(text: str) -> None:
    assert template({}, template=text) == text
