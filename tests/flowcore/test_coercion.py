"""Coercions: exact or an error that says why, for every value and kind."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.coercion import coerce
from flowcore.errors import CoercionError
from flowcore.values import Json, Kind, kind_of, same_value

_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.integers().map(str)
    | st.floats().map(repr)
    | st.binary(max_size=5)
    | st.binary(max_size=5).map(Json)
    | st.integers().map(Json.of)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.none(), max_size=2)
    | st.tuples()
)
_KINDS = st.sampled_from(get_args(Kind))


@given(_VALUES, _KINDS)
def test_coercion_is_total(value: object, kind: Kind) -> None:
    fault = None
    try:
        assert kind_of(coerce(value, kind)) == kind
    except CoercionError as raised:
        fault = raised.facts()
    assert fault is None or (fault["target"] == kind and fault["reason"])


@given(
    st.integers() | st.floats() | st.booleans() | st.binary(max_size=6),
    st.sampled_from(["int", "float", "str"]),
)
def test_what_was_coerced_comes_back_unchanged(value: object, kind: Kind) -> None:
    try:
        there = coerce(value, kind)
    except CoercionError:
        return
    back = kind_of(value)
    assert back is not None
    assert same_value(coerce(there, back), value)


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        ("42", "int", 42),
        ("-7", "int", -7),
        (3.0, "int", 3),
        (2**53, "float", float(2**53)),
        ("1.5", "float", 1.5),
        ("nan", "float", math.nan),
        ("true", "bool", True),
        (False, "str", "false"),
        (1.5, "str", "1.5"),
        (b"\xc3\xa9", "str", "é"),
        (Json(b"[1, 2]"), "list", [1, 2]),
        (Json(b"3"), "float", 3.0),
        ({"a": 1}, "json", Json(b'{"a":1}')),
        (b"{}", "json", Json(b"{}")),
    ],
)
def test_conversions_that_lose_nothing(value: object, kind: Kind, result: object) -> None:
    assert same_value(coerce(value, kind), result)


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("1.5", "int", "not the digits"),
        (" 1", "int", "not the digits"),
        (1.5, "int", "not a whole number"),
        (math.inf, "int", "not a whole number"),
        (2**53 + 1, "float", "nearest float"),
        (str(2**53 + 1), "float", "nearest float"),
        (10**400, "float", "too large"),
        ("1e999", "float", "too large"),
        ("yes", "bool", "neither"),
        (1, "bool", "no bool form"),
        (True, "int", "no int form"),
        (b"\xff", "str", "not UTF-8 at byte 0"),
        ("\ud800", "bytes", "lone surrogate"),
        (None, "str", "no str form"),
        ([1], "str", "no str form"),
        (b"{", "json", "not valid JSON"),
        (Json(b'"1"'), "int", "holds a str"),
        ((1,), "list", "tuple is no value"),
    ],
)
def test_conversions_that_would_change_something_are_refused(value: object, kind: Kind, reason: str) -> None:
    with pytest.raises(CoercionError, match=reason) as caught:
        coerce(value, kind, path=("rows", 3))
    assert caught.value.facts()["path"] == "rows[3]"
