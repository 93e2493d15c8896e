"""Prompts: what is put in, what cannot be, and how much work a template may be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError, LimitExceededError, MissingFieldError, WrongKindError
from flowcore.values import Json
from flownodes.llm.prompt import MAX_CHARACTERS, check_prompt, prompt_of, rendered, version_of

ROW: dict[str, Any] = {
    "name": "Ann",
    "n": 2**70,
    "far": 2**200,
    "tags": ["a", {"b": [1, None]}],
    "none": None,
    "b": b"hi",
    "raw": Json(b'{"x": [1, 2]}'),
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Dear {{ name }}, {{ value.name }}", "Dear Ann, Ann"),
        ("{{ n }} {{ far }}", f"{2**70} {2**200}"),
        ("{{ tags }}", '["a",{"b":[1,null]}]'),
        ("{{ tags[1].b[0] }}{{ tags|length }}{{ tags[:1] }}", '12["a"]'),
        ("{% for k, v in tags[1]|items %}{{ k }}={{ v }}{% endfor %}", "b=[1,null]"),
        ("{% if 'name' in value %}yes{% endif %}", "yes"),
        ("{{ raw.x|join('+') }} {{ value|tojson|length > 10 }}", "1+2 true"),
        ("{{ b }}", "aGk="),
        ("{{ phone | default('none') }}", "none"),
        ("no template { } here", "no template { } here"),
    ],
)
def test_fields_are_put_in_as_data(text: str, result: str) -> None:
    assert rendered(text, ROW, {}) == result


def test_a_value_that_is_no_object_is_put_in_by_its_name() -> None:
    assert rendered("{{ value }}!", "hello", {}) == "hello!"
    assert rendered("{{ value }}{{ extra }}", Json(b"[1]"), {"extra": 2}) == "[1]2"


@pytest.mark.parametrize(
    ("text", "fault", "message"),
    [
        ("a\n{{ nam }}", MissingFieldError, "line 2 .*did you mean 'name'"),
        ("{{ value.phone }}", MissingFieldError, "`value.phone` is undefined"),
        ("{{ tags.0.deep }}", MissingFieldError, "undefined"),
        ("{{ 1 + 'a' }}", WrongKindError, "line 1"),
        ("{{ name|nofilter }}", WrongKindError, "filter nofilter is unknown"),
        ("{% include 'secret.txt' %}", WrongKindError, "non-existing template"),
        ("{{ value.clear() }}", WrongKindError, "calls what is not there"),
        ("{{ tags.append(1) }}", WrongKindError, "calls what is not there"),
        ("{{ name.ljust(10 ** 9) }}", WrongKindError, "no method named ljust"),
        ("{{ value.__class__ }}", MissingFieldError, "undefined"),
        ("{{ tags.__mul__(10) }}", WrongKindError, "insecure"),
        ("{% for i in range(9999) %}{% for j in range(99) %}x{% endfor %}{% endfor %}",
         LimitExceededError, "fuel"),
        ("{{ 'a' * 1000000000 }}", LimitExceededError, "fuel"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_in_is_an_error_with_its_line(
    text: str, fault: type[Exception], message: str
) -> None:
    before = copy.deepcopy({name: each for name, each in ROW.items() if name != "raw"})
    with pytest.raises(fault, match=message):
        rendered(text, ROW, {})
    assert {name: each for name, each in ROW.items() if name != "raw"} == before


def test_a_prompt_of_more_than_the_bound_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="put in less"):
        rendered("{{ value }}", "x" * (MAX_CHARACTERS + 1), {})


@pytest.mark.parametrize("text", ["{{ a", "{% for %}", "{% if a %}", "{{ 'x' | }}", "{% endif %}"])
def test_a_template_that_is_none_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(ConfigError, match="system: line 1 of the template"):
        check_prompt(text, "system")


def test_another_text_is_another_version_and_a_name_given_wins() -> None:
    assert version_of("a") != version_of("b")
    assert len(version_of("a")) == 12
    assert prompt_of("ask", "a", None).version == version_of("a")
    assert prompt_of("ask", "a", "2026-11").version == "2026-11"


@given(st.text(st.characters(codec="utf-8")))
def test_text_put_in_is_not_read_again(text: str) -> None:
    assert rendered("{{ a }}{{ b }}", {"a": text, "b": "{{ a }}"}, {}) == text + "{{ a }}"
