"""The wire: what comes out of a process is what went in, kinds included; what cannot cross is refused."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ContractError, HttpUnavailableError, LimitExceededError, RunError
from flowcore.policies import RetryPolicy
from flowcore.values import MAX_DEPTH, Json, SecretRef, ValueFormError, same_value
from flowruntime.flowcontrol.wire import RemoteError, error_as_data, from_wire, rebuild_error, to_wire
from flowruntime.resilience.retry import should_retry

_TEXT = st.text(st.characters(codec=None), max_size=6)  # lone surrogates included
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.integers()
    | st.floats()
    | _TEXT
    | st.binary(max_size=8)
    | st.binary(max_size=8).map(Json)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


class Place(msgspec.Struct, frozen=True):
    name: str
    tags: tuple[str, ...] = ()
    note: str | msgspec.UnsetType = msgspec.UNSET


class Counted(msgspec.Struct):
    """Changes what it is given: crossing must not do so a second time."""

    number: int

    def __post_init__(self) -> None:
        self.number += 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = dataclasses.field(default=0, init=False)


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    HIGH = 3


class Plain(Exception):  # noqa: N818 - one of the forms met
    pass


class Picky(Exception):  # noqa: N818 - as above
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def crossed(value: Any) -> Any:
    return from_wire(to_wire(value))


@given(VALUES)
def test_every_value_comes_back_with_its_kinds(value: Any) -> None:
    assert same_value(crossed(value), value)


@pytest.mark.parametrize(
    "value",
    [
        True, 1, 1.0, -0.0, 2**63, 2**64 - 1, 2**64, 2**70, -(2**63), -(2**63) - 1, -(2**200), math.inf,
        math.nan, "", "\ud800", "ä\x00", b"", b"\xff", Json(b"[1]"), [True, 1, 1.0], {"\ud800": 1},
        {"$bytes": "x"}, {"": None},
    ],
    ids=repr,
)  # fmt: skip
def test_kinds_stay_apart(value: Any) -> None:
    assert same_value(crossed(value), value)
    assert same_value(crossed([{"deep": [value]}]), [{"deep": [value]}])


@pytest.mark.parametrize(
    "value",
    [
        (1, (2, "a"), []),
        {1, 2},
        frozenset([(1, 2)]),
        {1: "a", (1, 2): "b", None: "c", b"k": 1},
        timedelta(days=-1, microseconds=7),
        datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - a naive one is one of the forms
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        date(2026, 1, 2),
        time(1, 2, 3),
        Decimal("1.10"),
        UUID(int=7),
        Colour.RED,
        Level.HIGH,
        msgspec.UNSET,
        Place("a", ("b",)),
        [Place("a", note="n")],
        Point(3),
    ],
    ids=repr,
)
def test_what_is_no_value_but_plain_comes_back_as_what_it_was_too(value: Any) -> None:
    """Else a tuple would silently be a list for whoever offloads, and a struct a dict."""
    back = crossed(value)
    assert type(back) is type(value)
    assert back == value


def test_a_struct_comes_back_with_the_fields_it_had_whatever_its_class_makes_of_new_ones() -> None:
    assert crossed(Counted(1)) == crossed(crossed(Counted(1)))
    assert crossed(Counted(1)).number == 2


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.array([]),
        np.array(3),
        np.array(["a", "bc"]),
        np.zeros((2, 0)),
    ],
)
def test_arrays_come_back_with_their_type_and_shape_and_can_be_written_to(array: Any) -> None:
    back = crossed(array)
    assert (type(back), back.dtype, back.shape) == (type(array), array.dtype, array.shape)
    assert np.array_equal(back, array)
    assert back.flags.writeable


@pytest.mark.parametrize("number", [np.float64(1.5), np.int8(3), np.bool_(True), np.datetime64("2026-01-02")])
def test_numbers_of_numpy_stay_numbers_of_numpy(number: Any) -> None:
    back = crossed([number])[0]
    assert type(back) is type(number)
    assert back == number


class Own:
    """No plain data."""


class Text(str):
    """A subclass, which is no value."""

    __slots__ = ()


def _deep() -> Any:
    value: Any = 1
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"a": [1, Own()]}, r"at a\[1\] is a Own"),
        ({"a": Text("x")}, r"at a is a Text.*convert it with str"),
        (SecretRef("KEY"), "is a SecretRef"),
        (_deep(), "nested deeper than 100 levels"),
        (datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), "isoformat"),
        (np.array([Own()], dtype=object), "tolist"),
        (lambda: 1, "is a function"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_cannot_cross_is_refused_with_its_path_and_what_to_use(value: Any, part: str) -> None:
    with pytest.raises(ValueFormError, match=part):
        to_wire(value)


def test_a_class_the_other_side_cannot_find_is_refused() -> None:
    class Local(msgspec.Struct):
        x: int

    with pytest.raises(ValueFormError, match=r"at row\[0\] is of the class .*Local.*top level of a module"):
        to_wire({"row": [Local(1)]})


# --- exceptions -----------------------------------------------------------------------------------------


def back(error: Exception) -> Exception:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    return rebuild_error(from_wire(to_wire(error_as_data(caught.value))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "no such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ConnectionResetError("away"),
        Plain("mine"),
        Picky(code=7),
        RunError("ours", node="n"),
        LimitExceededError("too large", size_bytes=7),
        HttpUnavailableError("later", retry_after_s=3.5, status=503),
    ],
    ids=repr,
)
def test_an_exception_comes_back_as_itself_with_its_arguments_and_facts(error: Exception) -> None:
    found = back(error)
    assert type(found) is type(error)
    assert (str(found), found.args) == (str(error), error.args)
    assert vars(found).items() >= {n: v for n, v in vars(error).items() if n != "__notes__"}.items()
    (note,) = found.__notes__
    assert note.startswith("raised in a worker process:\nTraceback")
    assert "raise error" in note


def test_one_whose_class_is_not_known_here_says_what_it_was_and_is_retried_all_the_same() -> None:
    class LocalError(ConnectionError):
        pass

    found = back(LocalError("away"))
    assert isinstance(found, RemoteError)
    assert str(found).endswith("LocalError: away")
    assert found.kinds[:2] == ("LocalError", "ConnectionError")
    assert should_retry(RetryPolicy(), found)
    assert should_retry(RetryPolicy(retry_on=("LocalError",)), found)
    assert not should_retry(RetryPolicy(retry_on=("ValueError",)), found)

    class OtherError(ValueError):
        pass

    assert not should_retry(RetryPolicy(), back(OtherError("no")))

    class OursError(RunError):
        retriable = True

    assert should_retry(RetryPolicy(), back(OursError("again")))


def test_an_exception_among_values_is_a_value_of_a_batch() -> None:
    results = crossed([1, ValueError("second")])
    assert results[0] == 1
    assert isinstance(results[1], ValueError)


def test_an_exception_that_cannot_say_what_it_is_still_crosses() -> None:
    class Silent(Exception):  # noqa: N818 - one of the forms met
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert "its __str__ raised RuntimeError" in str(back(Silent(Own())))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        to_wire(UUID(int=7))[:-1],
        msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(11, msgspec.msgpack.encode(["UUID", "no uuid"]))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(11, msgspec.msgpack.encode(["NoKind", ""]))),
        msgspec.msgpack.encode(
            msgspec.msgpack.Ext(12, msgspec.msgpack.encode(["no_such_module", "Name", []]))
        ),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(13, msgspec.msgpack.encode(["enum", "Enum", "missing"]))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"\x01")),
    ],
)
def test_a_message_that_is_none_is_an_error_of_ours(message: bytes) -> None:
    with pytest.raises(ContractError):
        from_wire(message)
