"""transform.split and transform.flatten."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConflictError, WrongKindError
from flownodes.transform.flatten import flatten
from flownodes.transform.split import split


def test_split_makes_a_row_of_each_item() -> None:
    rows = split([1, None, [2]])
    assert isinstance(rows, Iterator)
    assert list(rows) == [1, None, [2]]
    assert list(split([])) == []


def test_split_cuts_text_at_the_separator() -> None:
    assert list(split("a\n\n b \nc")) == ["a", "b", "c"]
    assert list(split("a|| b ", separator="|", strip=False, keep_empty=True)) == ["a", "", " b "]
    assert list(split("")) == []


@given(st.text(alphabet="ab,;"), st.sampled_from([",", ";", ",;"]))
def test_pieces_joined_by_the_separator_are_the_text(text: str, separator: str) -> None:
    assert separator.join(split(text, separator=separator, strip=False, keep_empty=True)) == text


@pytest.mark.parametrize("value", [{"a": 1}, 5, None, b"a"])
def test_split_refuses_what_has_no_items(value: object) -> None:
    with pytest.raises(WrongKindError, match="a list or text"):
        split(value)  # pyright: ignore[reportArgumentType] - on purpose


def test_flatten_names_nested_fields_by_their_path() -> None:
    row: dict[str, object] = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": [{"g": 1}, []]}
    assert flatten(row) == {"a.b.c": 1, "a.d": [], "e": {}, "f": [{"g": 1}, []]}
    assert flatten(row, lists="index", separator="_") == {
        "a_b_c": 1,
        "a_d": [],
        "e": {},
        "f_0_g": 1,
        "f_1": [],
    }
    assert flatten(row, depth=1) == {"a.b": {"c": 1}, "a.d": [], "e": {}, "f": [{"g": 1}, []]}


def test_flatten_takes_levels_of_lists_away() -> None:
    assert flatten([1, [2, [3, []]], [], {"a": [4]}]) == [1, 2, 3, {"a": [4]}]
    assert flatten([1, [2, [3]]], depth=1) == [1, 2, [3]]


def test_flatten_never_loses_a_field() -> None:
    with pytest.raises(ConflictError, match=r"'a\.b'"):
        flatten({"a": {"b": 1}, "a.b": 2})


def test_a_very_deep_value_is_no_danger() -> None:
    deep_list: list[object] = []
    deep_dict: dict[str, object] = {"end": 1}
    for _ in range(5_000):
        deep_list, deep_dict = [deep_list], {"a": deep_dict}
    assert len(flatten(deep_list)) == 1
    assert list(flatten(deep_dict)) == [".".join(["a"] * 201)]


@pytest.mark.parametrize("value", ["text", 5, None])
def test_flatten_refuses_what_has_no_levels(value: object) -> None:
    with pytest.raises(WrongKindError):
        flatten(value)  # pyright: ignore[reportArgumentType] - on purpose
