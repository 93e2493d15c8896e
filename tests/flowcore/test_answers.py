"""Answers checked against their schema: what fits, what does not, and schemas that would not be checked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.answers import answer_problems, schema_faults
from flowcore.errors import ContractError
from flowcore.waits import WaitRequest, check_request, is_approved

LEAVE: dict[str, Any] = {
    "title": "Leave",
    "type": "object",
    "required": ["days", "kind"],
    "properties": {
        "days": {"type": "integer", "minimum": 1, "maximum": 30},
        "kind": {"enum": ["paid", "unpaid"]},
        "note": {"type": ["string", "null"], "maxLength": 5, "pattern": "^[a-z]*$"},
        "dates": {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 1, "maxItems": 2},
    },
    "additionalProperties": False,
}


def problems(answer: object, schema: Any = LEAVE) -> list[str]:
    return [f"{problem.path} {problem.message}" for problem in answer_problems(answer, schema)]


def test_every_problem_is_told_by_its_path() -> None:
    assert problems({"days": 3, "kind": "paid", "note": None, "dates": ["mo"]}) == []
    found = problems({"days": 0.5, "note": "TOO LONG", "dates": ["m", 1, "we"], "day": 1})
    assert found == [
        "answer.kind is required and was not given",
        "answer.days must be of type integer, not 0.5",
        "answer.days must be at least 1, and is 0.5",
        "answer.note must have at most as many characters as 5, and is 'TOO LONG'",
        "answer.note must match '^[a-z]*$', and is 'TOO LONG'",
        "answer.dates[0] must have at least as many characters as 2, and is 'm'",
        "answer.dates[1] must be of type string, not 1",
        "answer.dates must have at most as many items as 2, and is ['m', 1, 'we']",
        "answer.day is not asked for; did you mean 'days'?",
    ]


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"typ": "string"}, "schema has 'typ', which is not checked here; did you mean 'type'?"),
        ({"properties": {"a": {"$ref": "#/x"}}}, "schema.properties.a has '$ref', which is not checked here"),
        ({"type": "text"}, "schema.type must be one or several of"),
        ({"pattern": "("}, "schema.pattern must be a regular expression, not '('"),
        ({"minLength": -1}, "schema.minLength must be a whole number of at least 0, not -1"),
        ({"items": [1]}, "schema.items must be a mapping, not [1]"),
        ({"anyOf": []}, "schema.anyOf must be a list of schemas, not []"),
        ([], "schema must be a mapping, not []"),
    ],
)
def test_what_would_not_be_checked_is_refused_when_the_schema_is_given(schema: Any, fault: str) -> None:
    (found,) = schema_faults(schema)
    assert found.startswith(fault)


_LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5, "", "ab", "abcd"])
_ANSWERS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
_PLAIN_SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"]),
        "enum": st.lists(_ANSWERS, min_size=1, max_size=3),
        "const": _ANSWERS,
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "minLength": st.integers(0, 3),
        "maxItems": st.integers(0, 2),
        "required": st.lists(st.sampled_from("ab"), unique=True),
        "pattern": st.sampled_from(["^a", "b$"]),
    },
)
_SCHEMAS = st.recursive(
    _PLAIN_SCHEMAS | st.booleans(),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=3),
            "not": inner,
        },
    ),
    max_leaves=5,
)


@given(schema=_SCHEMAS, answer=_ANSWERS)
def test_it_agrees_with_the_reference_library(schema: Any, answer: Any) -> None:
    assert schema_faults(schema) == []
    reference = jsonschema.Draft202012Validator(schema)
    assert (not answer_problems(answer, schema)) == reference.is_valid(answer)  # pyright: ignore[reportUnknownMemberType] - untyped library


def test_a_request_that_makes_no_sense_is_refused_with_every_reason() -> None:
    unknown: Any = "vote"
    with pytest.raises(ContractError) as caught:
        check_request(
            WaitRequest(kind=unknown, timeout=timedelta(0), schema={"typ": 1}),
            "n",
        )
    assert "kind must be one of approval, form, signal, not 'vote'" in str(caught.value)
    assert "timeout must be longer than nothing" in str(caught.value)
    assert "schema has 'typ'" in str(caught.value)
    with pytest.raises(ContractError, match="there is no timeout"):
        check_request(WaitRequest(kind="form", on_timeout="answer"), "n")
    with pytest.raises(ContractError, match="default: answer fits none"):
        check_request(WaitRequest(kind="approval", on_timeout="answer", timeout=timedelta(1)), "n")


def test_an_approval_is_true_or_says_so() -> None:
    assert is_approved(True)
    assert is_approved({"approved": True})
    assert not is_approved(False)
    assert not is_approved({"approved": False})
    assert not is_approved({"approved": 1})
