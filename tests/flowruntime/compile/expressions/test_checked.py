"""The reader of serialised checked expressions."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cel_expr_python import cel
from hypothesis import given
from hypothesis import strategies as st

from flowruntime.compile.expressions.checked import (
    Call,
    Comprehension,
    Constant,
    Expr,
    Identifier,
    ListOf,
    MapOf,
    Select,
    Unsigned,
    Unsupported,
    read_checked,
)

CEL: Any = cel
ENVIRONMENT = CEL.NewEnv(variables={"value": CEL.Type.DYN, "a": CEL.Type.DYN})
A, VALUE = Identifier("a"), Identifier("value")


def read(text: str) -> Expr:
    return read_checked(ENVIRONMENT.compile(text).serialize())


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("null", Constant(None)),
        ("true", Constant(True)),
        ("-9223372036854775808", Constant(-(1 << 63))),
        ("9223372036854775807", Constant((1 << 63) - 1)),
        ("18446744073709551615u", Unsigned((1 << 64) - 1)),
        ("-2.5", Constant(-2.5)),
        ('"é\\U0001f600"', Constant("é\U0001f600")),
        ('b"\\xff"', Constant(b"\xff")),
        ("value.a", Select(VALUE, "a", test=False)),
        ("has(value.a)", Select(VALUE, "a", test=True)),
        ("value.`b-c`", Select(VALUE, "b-c", test=False)),
        ("a + 1", Call("_+_", None, (A, Constant(1)))),
        ('a.contains("x")', Call("contains", A, (Constant("x"),))),
        ("[a, 1]", ListOf((A, Constant(1)))),
        ('{"x": a}', MapOf(((Constant("x"), A),))),
        ("google.protobuf.Struct{}", Unsupported("a message or an optional entry", ())),
    ],
)
def test_each_form_is_read(text: str, tree: Expr) -> None:
    assert read(text) == tree


def test_a_macro_binds_its_variable_in_the_body_only() -> None:
    tree = read("value.exists(i, i == a)")
    assert isinstance(tree, Comprehension)
    assert tree.range_ == VALUE
    assert "i" in tree.bound


def test_a_hidden_variable_keeps_its_dot() -> None:
    assert Identifier(".a") in _all(read("[1].map(a, .a)"))


def _all(expr: Any) -> list[Any]:
    inner: list[Any] = [getattr(expr, slot) for slot in getattr(expr, "__slots__", ())]
    inner += expr if isinstance(expr, tuple) else ()
    return [expr, *(found for part in inner for found in _all(part))]


@pytest.mark.parametrize("length", range(40))
def test_a_cut_message_is_an_error_not_a_guess(length: int) -> None:
    whole = ENVIRONMENT.compile('value.a > 10 && value.b == "x"').serialize()
    with pytest.raises(ValueError, match="malformed checked expression"):
        read_checked(whole[: len(whole) * length // 40])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_checked(data)
