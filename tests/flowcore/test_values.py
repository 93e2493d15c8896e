"""Values: kinds kept apart, and the plain form that loses nothing."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ContractError, DefinitionError
from flowcore.plain import from_plain, to_plain
from flowcore.values import (
    MAX_DEPTH,
    Json,
    Secret,
    SecretRef,
    SharedStream,
    Stream,
    ValueFormError,
    kind_of,
    same_value,
    streams_in,
)
from flowruntime.definition.json import parse_json, write_json
from flowruntime.definition.yaml import parse_yaml, write_yaml

_SURROGATES = st.text(st.characters(codec=None, categories=["Cs", "Lu"]), max_size=4)
_TEXT = st.text(max_size=12) | st.sampled_from(
    ["no", "012", "1:30", "~", "1e3", "<<", "2001-01-01", "0x1", " a ", "a\n\nb"]
)
_KEYS = _TEXT | _TEXT.map(lambda text: f"${text}")
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | _TEXT
    | _SURROGATES
    | st.binary(max_size=8)
    | st.binary(max_size=8).map(Json)
    | st.integers().map(Json.of)
    | _TEXT.filter(bool).map(SecretRef)
)
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_comes_back_through_every_codec_with_its_kinds(value: object) -> None:
    """JSON, YAML and msgpack carry the plain form without loss."""
    plain = to_plain(value)
    for carried in (
        plain,
        json.loads(json.dumps(plain)),
        parse_json(write_json(plain))[0],
        parse_yaml(write_yaml(plain))[0],
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain)),
        msgspec.json.decode(msgspec.json.encode(plain)),
    ):
        assert same_value(from_plain(carried), value)


@given(VALUES)
def test_a_value_is_the_same_as_its_copy(value: object) -> None:
    assert same_value(value, copy.deepcopy(value))


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 1.0), (1, True), (0.0, -0.0), ([1], [1.0]), ({"a": 1}, {"a": True}), ("1", b"1"), ([1], (1,))],
)
def test_values_of_different_kinds_are_not_the_same(left: object, right: object) -> None:
    assert not same_value(left, right)


def test_nan_is_the_same_as_nan() -> None:
    assert same_value([math.nan], [float("nan")])


@pytest.mark.parametrize("digits", [19, 4_000, 6_000])
def test_a_whole_number_of_any_size_is_exact(digits: int) -> None:
    number = 10**digits + 7
    assert from_plain(json.loads(json.dumps(to_plain([number, -number])))) == [number, -number]


class _Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [(1, 2)]}, r"value at a\[0\] is a tuple.*use a list"),
        ({"when": datetime(2024, 1, 1, tzinfo=UTC)}, r"value at when is a datetime.*isoformat"),
        (Decimal("1.5"), r"value is a Decimal"),
        (_Colour.RED, r"is a _Colour.*int\(\.\.\.\)"),
        ({1: 2}, r"the key 1 of type int; keys must be text"),
        ({"\ud800": 2}, r"lone surrogate"),
        (object(), r"has no plain form; use None, bool"),
    ],
)
def test_what_has_no_plain_form_is_an_error_with_path_and_remedy(value: object, message: str) -> None:
    with pytest.raises(ValueFormError, match=message):
        to_plain(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"$bytes": "%%%"}, r"\$bytes"),
        ({"$bytes": 1}, r"\$bytes"),
        ({"$int": "1_0"}, r"\$int"),
        ({"$float": "1.5"}, r"\$float"),
        ({"$secret": ""}, r"\$secret"),
        ({"a": {"$json": {"$byte": "x"}}}, r"at a\.\$json"),
        ({"$bytess": "eA=="}, r"known forms.*\$\$bytess"),
        ({"$bytes": "eA==", "b": 1}, r"stand alone"),
        ({1: 2}, r"is not text"),
    ],
)
def test_a_malformed_form_is_an_error_and_never_a_mapping(data: object, message: str) -> None:
    with pytest.raises(ValueFormError, match=message):
        from_plain(data)


def test_nesting_has_an_end() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueFormError, match="nested deeper"):
        to_plain(value)
    with pytest.raises(ValueFormError, match="nested deeper"):
        from_plain(value)


def test_json_is_parsed_when_asked_and_once() -> None:
    encoded = Json(b'{"a": 36893488147419103232}')
    assert encoded.parse() == {"a": 2**65}
    assert encoded.parse() is encoded.parse()
    assert encoded == Json(b'{"a": 36893488147419103232}')
    assert encoded != Json(b'{"a":36893488147419103232}')


@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_json_are_an_error_when_parsed(raw: bytes) -> None:
    with pytest.raises(ValueFormError, match="not valid JSON"):
        Json(raw).parse()


@pytest.mark.parametrize("value", [b"x", math.nan, "\ud800", {"a": (1,)}, {"\ud800": 1}])
def test_json_of_what_json_cannot_write_is_an_error(value: object) -> None:
    with pytest.raises(ValueFormError):
        Json.of(value)


def test_a_secret_shows_nothing() -> None:
    secret = Secret("hunter2", name="DB")
    shown = f"{secret} {secret!r} {secret!s} {[secret]} {secret:>10}"
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    with pytest.raises(TypeError, match="SecretRef"):
        pickle.dumps(secret)
    with pytest.raises(ValueFormError, match="SecretRef") as caught:
        to_plain({"key": secret})
    assert "hunter2" not in str(caught.value)


async def _numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


class _Numbers(Stream[int], engine=True):
    def _consume(self) -> AsyncIterator[int]:
        return _numbers()

    def share(self, capacity: int = 64) -> SharedStream[int]:
        return _SharedNumbers()

    def cancel(self) -> None:
        pass


class _SharedNumbers(SharedStream[int], engine=True):
    def _consume(self) -> AsyncIterator[int]:
        return _numbers()

    def share(self, capacity: int = 64) -> SharedStream[int]:
        return self

    def cancel(self) -> None:
        pass


async def test_a_stream_has_one_consumer_unless_shared() -> None:
    stream = _Numbers()
    assert [number async for number in stream] == [0, 1, 2]
    with pytest.raises(ContractError, match=r"share\(\)"):
        aiter(stream)
    shared = stream.share()
    assert shared.shared
    assert [number async for number in shared] == [number async for number in shared]


def test_a_stream_is_a_value_with_no_plain_form() -> None:
    assert kind_of(_Numbers()) == "stream"
    with pytest.raises(ValueFormError, match="live and never stored"):
        to_plain([_Numbers()])
    with pytest.raises(ValueFormError, match="live and never stored"):
        Json.of({"words": _Numbers()})


def test_a_stream_of_a_users_own_class_is_refused_where_the_class_is_defined() -> None:
    """The engine could not tell when it has ended, and its row would settle too early."""
    with pytest.raises(DefinitionError, match=r"ctx\.stream\(\.\.\.\)"):
        type("Own", (Stream,), {})


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_never_copied(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="live and never copied"):
        copied(_Numbers())


def test_streams_are_found_at_any_depth_each_once() -> None:
    one, two, three = _Numbers(), _Numbers(), _SharedNumbers()
    held = msgspec.defstruct("Held", [("words", Stream[int]), ("count", int)])(words=three, count=1)
    value: list[object] = [one, {"a": (two, one), "b": [held]}, "text", 5, None]
    value.append(value)  # which holds itself
    assert {id(stream) for stream in streams_in(value)} == {id(one), id(two), id(three)}
    assert len(streams_in(value)) == 3
    assert streams_in(one) == [one]
    assert streams_in({"a": [1, "b", b"c", Json(b"[]")]}) == []


@pytest.mark.parametrize("value", [_Colour.RED, (1,), object(), bytearray(b"x"), datetime])
def test_what_is_no_value_has_no_kind(value: object) -> None:
    assert kind_of(value) is None
