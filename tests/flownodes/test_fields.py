"""Paths into values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import MissingFieldError, WrongKindError
from flownodes.fields import ABSENT, find, get, parse_path, replaced

VALUE = {"a": {"b": [10, {"c d": 1}]}, "x.y": 2, "n": None}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("first name", ("first name",)),
        ("a.b[1].c d", ("a", "b", 1, "c d")),
        ('["x.y"]', ("x.y",)),
        ("a['b.c'].d", ("a", "b.c", "d")),
        ("[0][1]", (0, 1)),
        ("12", ("12",)),
    ],
)
def test_a_path_is_read_as_written(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[-1]", "a[01]", "a]b", '["a]', "[0]a"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(WrongKindError, match="not a path"):
        parse_path(text)


@given(
    st.lists(
        st.text(st.characters(exclude_characters=".[]\"'", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
def test_plain_names_joined_by_dots_come_apart_again(names: list[str]) -> None:
    assert parse_path(".".join(names)) == tuple(names)


def test_a_path_leads_to_what_stands_there() -> None:
    assert get(VALUE, parse_path("a.b[1].c d")) == 1
    assert get(VALUE, parse_path('["x.y"]')) == 2
    assert get(VALUE, ()) is VALUE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b", "did you mean|known here: a"),
        ("a.c", "field 'c' of a is missing; known here: b"),
        ("a.b[5]", "item 5 of a.b is missing: the list has 2 items"),
        ("n.deep", "n is null and has no 'deep'"),
    ],
)
def test_a_missing_field_says_where_the_path_stops_and_what_is_there(text: str, message: str) -> None:
    assert find(VALUE, parse_path(text)) is ABSENT
    with pytest.raises(MissingFieldError, match=message.replace("[", r"\[")):
        get(VALUE, parse_path(text))


@pytest.mark.parametrize("text", ["x", "a.b.c", "a[0]", "[0]"])
def test_a_name_of_a_list_or_an_index_of_a_dict_is_an_error(text: str) -> None:
    with pytest.raises(WrongKindError, match="must be a"):
        get(VALUE if text != "x" else [1], parse_path(text))


def test_replacing_copies_the_way_and_nothing_else() -> None:
    changed = replaced(VALUE, parse_path("a.b[1].new"), 5)
    assert changed == {"a": {"b": [10, {"c d": 1, "new": 5}]}, "x.y": 2, "n": None}
    assert VALUE["a"] == {"b": [10, {"c d": 1}]}
    with pytest.raises(MissingFieldError):
        replaced(VALUE, parse_path("nowhere.new"), 5)
    with pytest.raises(MissingFieldError):
        replaced([1], (3,), 5)
