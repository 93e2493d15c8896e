"""Sizes: one measure for every bound in bytes: exact up to it, total, and done as soon as it can be."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import sys
import threading
import types
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.node import Outputs
from flowcore.sizes import ENTRY, size_up_to
from flowcore.values import Json, SharedStream, Stream
from tests.flowcore.test_values import VALUES

NO_BOUND = sys.maxsize


def size_of(value: object) -> int:
    return size_up_to(value, NO_BOUND)


class Point(msgspec.Struct):
    x: int
    name: str


@dataclasses.dataclass
class Record:
    body: str


@dataclasses.dataclass(slots=True)
class Slotted:
    body: str


class Pair(NamedTuple):
    left: str
    right: str


class Private:
    __slots__ = ("__body", "unfilled")

    def __init__(self, body: str) -> None:
        self.__body = body


class Ports(Outputs):
    left: str | msgspec.UnsetType = msgspec.UNSET
    right: str | msgspec.UnsetType = msgspec.UNSET


class Colour(enum.StrEnum):
    RED = "red"


class Live(Stream[int], engine=True):
    __slots__ = ("buffer",)

    def __init__(self) -> None:
        super().__init__()
        self.buffer = b"x" * 1_000

    async def _consume(self) -> AsyncIterator[int]:
        yield 1

    def share(self, capacity: int = 64) -> SharedStream[int]:
        raise NotImplementedError

    def cancel(self) -> None:
        pass


CASES: list[tuple[object, int]] = [
    (None, 0),
    (True, 0),
    (1.5, 0),
    (-(2**63), 0),
    (2**70, 9),
    ("", 0),
    ("abc", 3),
    ("ä€😀", 2 + 3 + 4),
    ("\ud800", 3),
    ("ä" * 100_000, 200_000),
    (b"abc", 3),
    (Json(b'{"a": 1}'), 8),
    ([], 0),
    ([1, 2.0, None, True], 4 * ENTRY),
    ([1] * 100, 100 * ENTRY),
    ([2**70] * 100, 100 * (ENTRY + 9)),
    (["ab"] * 100, 100 * (ENTRY + 2)),
    (["ä"] * 100, 100 * (ENTRY + 2)),
    ([0.5] * 100 + ["ab"], 101 * ENTRY + 2),
    ({"ab": 1}, 2 * ENTRY + 2),
    ({"ab": [b"cd"]}, 3 * ENTRY + 4),
    ({(1, "a"): "b"}, 4 * ENTRY + 2),
    (("a", "b"), 2 * ENTRY + 2),
    ({"a"}, ENTRY + 1),
    (frozenset(["a"]), ENTRY + 1),
    (collections.deque(["a"]), ENTRY + 1),
    (collections.OrderedDict([("ab", 1)]), 2 * ENTRY + 2),
    (Pair("a", "b"), 2 * ENTRY + 2),
    (bytearray(b"abc"), 3),
    (memoryview(b"abc"), 3),
    (array.array("d", [1.0, 2.0]), 16),
    (np.zeros((3, 4)), 96),
    (np.float64(1.0), 0),
    (np.int64(1), 8),
    (Point(1, "abc"), 2 * ENTRY + 3),
    (Record("abc"), ENTRY + 3),
    (Slotted("abc"), ENTRY + 3),
    (Private("abc"), ENTRY + 3),
    (types.SimpleNamespace(a="abc"), ENTRY + 3),
    (Ports(left="abc"), 2 * ENTRY + 3),
    (Colour.RED, 3),
    (Live(), 0),
    (Live, 0),
    (size_of, 0),
    (sys, 0),
    (object(), 0),
]


@pytest.mark.parametrize(
    ("value", "size"), CASES, ids=[f"{type(value).__name__} {n}" for n, (value, _) in enumerate(CASES)]
)
def test_what_is_counted_for_each_kind(value: object, size: int) -> None:
    assert size_of(value) == size
    assert size_of([value]) == ENTRY + size


@given(st.lists(VALUES, max_size=40))
def test_a_list_is_8_per_entry_and_what_the_entries_are(values: list[Any]) -> None:
    assert size_of(values) == sum(ENTRY + size_of(value) for value in values)
    assert size_of({str(index): value for index, value in enumerate(values)}) == sum(
        2 * ENTRY + len(str(index)) + size_of(value) for index, value in enumerate(values)
    )


@given(VALUES, st.integers(0, 400))
def test_the_answer_is_exact_up_to_the_bound_and_above_it_beyond(value: object, most: int) -> None:
    whole = size_of(value)
    counted = size_up_to(value, most)
    if whole <= most:
        assert counted == whole
    else:
        assert most < counted <= whole


NESTED: st.SearchStrategy[Any] = st.recursive(
    st.text(max_size=8) | st.binary(max_size=8) | st.floats() | st.integers(), st.lists
)


@given(NESTED)
def test_a_value_counts_at_least_what_its_texts_and_bytes_hold(value: Any) -> None:
    def held(part: Any) -> int:
        if isinstance(part, str):
            return len(part.encode("utf-8", "surrogatepass"))
        if isinstance(part, bytes):
            return len(part)
        return sum(held(each) for each in part) if isinstance(part, list) else 0  # pyright: ignore[reportUnknownVariableType] - of any value

    assert size_of(value) >= held(value)


def test_a_value_that_contains_itself_has_a_size() -> None:
    ring: list[Any] = ["abc"]
    ring.append(ring)
    mapping: dict[str, Any] = {"ring": ring}
    mapping["self"] = mapping
    assert size_of(ring) == 2 * ENTRY + 3
    assert size_of(mapping) == 4 * ENTRY + 8 + size_of(ring)
    tree = types.SimpleNamespace(text="abc", children=[])
    tree.children.append(types.SimpleNamespace(text="de", parent=tree))
    assert size_of(tree) == 2 * ENTRY + 3 + ENTRY + 2 * ENTRY + 2


def test_a_list_met_often_counts_once_so_that_no_value_takes_exponential_time() -> None:
    value: list[Any] = ["laugh"]
    for _ in range(60):
        value = [value, value]
    assert size_of(value) == 60 * 2 * ENTRY + ENTRY + 5


def test_any_depth_is_measured() -> None:
    value: Any = "end"
    for _ in range(100_000):
        value = [value]
    assert size_of(value) == 100_000 * ENTRY + 3


class Untouchable(list[Any]):
    """Fails whoever looks at its entries."""

    def __iter__(self) -> Any:
        raise AssertionError("looked at")

    def __len__(self) -> int:
        raise AssertionError("looked at")

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("looked at")


def test_counting_stops_as_soon_as_the_bound_is_passed() -> None:
    """Parts behind the bound are neither copied nor looked at."""

    class Counted:
        looked_at = 0

        def __getattr__(self, name: str) -> Any:
            Counted.looked_at += 1
            raise AttributeError(name)

    assert size_up_to([Counted() for _ in range(10_000)], 80_000 - 1) == 80_000
    assert Counted.looked_at == 0
    assert size_up_to("ä" * 10_000_000, 1_000) == 10_000_000
    assert 1_000 < size_up_to(["ä" * 900] * 10_000, 100_000) < 100_000 * 2


def test_what_a_subclass_makes_of_being_read_is_not_asked() -> None:
    assert size_of(Untouchable(["ab", "c"])) == 2 * ENTRY + 3

    class Odd(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("looked at")

        keys = values = items = __len__ = __iter__

    assert size_of(Odd(ab=1)) == 2 * ENTRY + 2

    class Loud(str):
        __slots__ = ()
        __len__ = __getitem__ = encode = isascii = Odd.__iter__  # type: ignore[assignment]

    assert size_of(Loud("ä")) == 2


def test_a_field_that_raises_counts_nothing_and_breaks_nothing() -> None:
    class Broken:
        @property
        def __dict__(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] - as users may
            raise RuntimeError("no fields")

        @property
        def nbytes(self) -> Any:
            raise RuntimeError("no size")

    class Lying:
        nbytes = -5
        __slots__ = ()

    assert size_of(["ab", Broken(), Lying()]) == 3 * ENTRY + 2


def test_a_value_another_thread_still_changes_is_measured_all_the_same() -> None:
    value: dict[int, str] = {}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            value[number % 500] = "x" * 10
            value.pop((number * 7) % 500, None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        assert all(0 <= size_of(value) <= 500 * (2 * ENTRY + 10) for _ in range(500))
    finally:
        stop.set()
        thread.join()


def test_measuring_leaves_the_value_as_it_was() -> None:
    value = {"a": [1, {"b": b"x"}], "c": Point(1, "n")}
    before = repr(value)
    assert size_of(value) == size_of(value)
    assert repr(value) == before
