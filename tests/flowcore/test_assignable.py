"""The type rule between the ends of a connection: refuse what cannot work, accept whatever may."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import numpy as np
import pytest

from flowcore.assignable import Unknown, element, follow, is_stream, mismatch, type_text
from flowcore.definition import Gather
from flowcore.values import Json, SharedStream, Stream

T = TypeVar("T")
UserId = NewType("UserId", int)


class Place(msgspec.Struct):
    city: str
    position: tuple[float, float] = (0.0, 0.0)
    notes: list[str] | None = None


class Village(Place):
    people: int = 0


class Ticket(TypedDict, total=False):
    text: str
    score: float


@dataclass
class Point:
    x: int

    @property
    def double(self) -> int:
        return 2 * self.x


class Pair(NamedTuple):
    left: int
    right: str


class Sized(Protocol):
    def size(self) -> int: ...


FITS: list[tuple[Any, Any]] = [
    (str, str), (Any, int), (int, Any), (str, object), (int, float), (bool, int), (UserId, int), (int,
    UserId), (Village, Place), (Place, Village), (Annotated[int, msgspec.Meta(ge=1)], int), (T, int),
    ("Missing", int), (str | None, str), (int, str | int), (str | int, int), (str | None, None), (int,
    float | None), (list[int], list[float]), (list[int], Sequence[int]), (list, list[int]), (tuple[int,
    ...], Sequence[int]), (tuple[int, str], tuple[int, str]), (tuple[int, str], Sequence[str]),
    (dict[str, int], Mapping[str, float]), (dict[str, Any], dict[str, int]), (Ticket, dict), (dict[str,
    Any], Ticket), (Ticket, Mapping[str, Any]), (Literal["a", "b"], str), (str, Literal["a"]),
    (Literal["a", "b"], Literal["b", "c"]), (Literal[1], float), (np.ndarray, Sequence[float]),
    (np.float32, float), (np.ndarray, list[float]), (Place, Sized), (Sized, Place), (int |
    msgspec.UnsetType, int), (str, Iterable[str]), (Gather[int], list[int]), (None, None), (bytes, bytes
    | str), (Stream[str], Stream[Any]), (Stream, Stream[str]), (SharedStream[str], Stream[str]), (Stream[str],
    SharedStream[str]), (Stream[str], AsyncIterable[str]), (Stream[bool], Stream[int]), (Stream[str] | str,
    str), (list[Stream[str]], list[Stream[str]]), (Stream[Any], Stream[int]),
]  # fmt: skip

REFUSED: list[tuple[Any, Any]] = [
    (Stream[str], str), (str, Stream[str]), (Stream[str], list[str]), (list[str], Stream[str]), (Stream[str],
    Stream[int]), (SharedStream[str], Stream[bytes]), (Stream[str], dict), (Stream[str], Sequence[str]),
    (list[Stream[str]], list[str]), (Stream[str], bytes), (Stream[str], int),
    (str, int), (int, str), (float, int), (int, bool), (str, bytes), (bytes, str), (bytes, Place),
    (Place, Point), (dict[str, Any], Place), (Place, dict), (list[str], list[int]), (list[int], str),
    (int, Sequence[int]), (int, list), (dict[str, str], Mapping[str, int]), (dict[int, str],
    Mapping[str, str]), (tuple[int, str], tuple[int]), (str | None, int), (int | float, str),
    (Literal["a"], Literal["b"]), (Literal["a"], int), (int, Literal["a"]), (list[list[str]],
    list[list[int]]), (None, str), (str, None), (Json, dict), (Path, str), (list[int], dict),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), FITS, ids=type_text)
def test_what_may_work_is_accepted(source: Any, target: Any) -> None:
    assert mismatch(source, target) is None


@pytest.mark.parametrize(("source", "target"), REFUSED, ids=type_text)
def test_what_cannot_work_is_refused_with_both_types_named(source: Any, target: Any) -> None:
    reason = mismatch(source, target)
    assert reason is not None
    assert f"{type_text(source)} is not {type_text(target)}" in reason


def test_the_reason_names_the_part_that_does_not_fit() -> None:
    assert mismatch(dict[str, list[str]], dict[str, list[int]]) == (
        "dict[str, list[str]] is not dict[str, list[int]]: list[str] is not list[int]: str is not int"
    )


@pytest.mark.parametrize(
    ("annotation", "path", "expected"),
    [
        (Place, ("city",), str),
        (Place, ("position", "0"), float | float),
        (Place | None, ("city",), str),
        (Ticket, ("score",), float),
        (Pair, ("right",), str),
        (Point, ("double",), Any),
        (dict[str, int], ("whatever",), int),
        (dict[str, Place], ("home", "city"), str),
        (list[Place], ("0", "city"), str),
        (Any, ("a", "b"), Any),
        (dict, ("a",), Any),
        (Json, ("a",), Any),
    ],
)
def test_a_field_has_the_type_its_holder_declares(
    annotation: Any, path: tuple[str, ...], expected: Any
) -> None:
    assert follow(annotation, path) == expected


@pytest.mark.parametrize(
    ("annotation", "path", "name"),
    [
        (Place, ("town",), "town"),
        (Place, ("city", "first"), "first"),
        (Ticket, ("txt",), "txt"),
        (Point, ("y",), "y"),
        (int, ("real_part",), "real_part"),
        (list[int], ("first",), "first"),
        (Place | Point, ("z",), "z"),
    ],
)
def test_a_field_that_cannot_be_there_is_named(annotation: Any, path: tuple[str, ...], name: str) -> None:
    found = follow(annotation, path)
    assert isinstance(found, Unknown)
    assert found.name == name


def test_an_unknown_field_comes_with_the_known_ones() -> None:
    found = follow(Place, ("town",))
    assert found == Unknown("town", "Place", ("city", "position", "notes"))


def test_the_element_of_a_batch_is_what_one_row_must_be() -> None:
    assert element(Sequence[str]) is str
    assert element(Gather[int]) is int
    assert element(str) is Any
    assert element(list) is Any


def test_types_read_as_people_write_them() -> None:
    """UNSET says that a port may stay silent; it is no value anybody receives."""
    assert type_text(dict[str, Any] | msgspec.UnsetType) == "dict[str, Any]"
    assert type_text(str | None) == "str | None"
    assert type_text(Annotated[int, msgspec.Meta(ge=1)]) == "int"
    assert type_text(tuple[int, ...]) == "tuple[int, ...]"


@pytest.mark.parametrize(
    ("annotation", "unshared", "shared"),
    [
        (Stream, True, False),
        (Stream[str], True, False),
        (Stream[str] | None, True, False),
        (Annotated[Stream[str], 1], True, False),
        (SharedStream[str], False, True),
        (SharedStream[str] | Stream[str], True, False),
        (Stream[str] | str, False, False),
        (list[Stream[str]], False, False),
        (Any, False, False),
        (None, False, False),
        ("Stream[str]", False, False),
        (T, False, False),
    ],
)
def test_a_stream_is_told_by_its_annotation_only_when_it_is_one_for_sure(
    annotation: Any, unshared: bool, shared: bool
) -> None:
    assert is_stream(annotation, shared=False) is unshared
    assert is_stream(annotation, shared=True) is shared
    assert is_stream(annotation) is (unshared or shared)
