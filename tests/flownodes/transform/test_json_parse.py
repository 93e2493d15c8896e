"""transform.json_parse."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ParseError, WrongKindError
from flowcore.values import Json, same_value
from flownodes.transform.json_parse import json_parse
from flownodes.transform.json_stringify import json_stringify

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_stringify_wrote_is_read_back_the_same(value: object) -> None:
    text = json_stringify(value)
    assert same_value(json_parse(text), value)
    assert same_value(json_parse(text.encode()), value)


@given(st.text(alphabet='{}[]:,"0123456789.eE+-truefalsn \n\\'))
def test_it_takes_what_the_standard_parser_takes_and_fails_only_typed(text: str) -> None:
    try:
        mine = json_parse(text, duplicate_keys="last")
    except ParseError:
        with pytest.raises((ValueError, AssertionError)):
            assert all(map(math.isfinite, _floats(json.loads(text))))
    else:
        assert same_value(mine, json.loads(text))


def _floats(value: object) -> list[float]:
    if isinstance(value, float):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()  # pyright: ignore[reportUnknownVariableType]
    return [number for item in items for number in _floats(item)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a": 1,\n "b" 2}', 2, 6),
        ("[1, NaN]", 1, 5),
        ('["NaN",\n\n -Infinity]', 3, 2),
        ("[1e999]", 1, 2),
        ("", 1, 1),
        ("1 2", 1, 3),
        (b'{\n"a": "\xff"}', 2, 7),
    ],
)
def test_an_error_names_line_and_column(text: str | bytes, line: int, column: int) -> None:
    with pytest.raises(ParseError) as caught:
        json_parse(text)
    facts = caught.value.facts()
    assert (facts["line"], facts["column"]) == (line, column)


def test_kinds_are_kept_and_whole_numbers_are_exact() -> None:
    assert same_value(json_parse("[1, 1.0, -0.0, true, 1180591620717411303424]"), [1, 1.0, -0.0, True, 2**70])


def test_a_key_given_twice_fails_unless_the_last_is_wanted() -> None:
    with pytest.raises(ParseError, match="'a' stands twice"):
        json_parse('{"b": {"a": 1, "a": 2}}')
    assert json_parse('{"a": 1, "a": 2}', duplicate_keys="last") == {"a": 2}


def test_sizes_and_depths_have_caps() -> None:
    assert json_parse("[[1]]", max_depth=2) == [[1]]
    with pytest.raises(ParseError, match="max_depth=2"):
        json_parse("[[[1]]]", max_depth=2)
    with pytest.raises(ParseError, match="max_depth=100"):
        json_parse("[" * 100_000 + "]" * 100_000)
    assert json_parse('"[[[["', max_depth=2) == "[[[["
    assert json_parse('"äää"', max_bytes=8) == "äää"
    with pytest.raises(ParseError, match="max_bytes=7"):
        json_parse('"äää"', max_bytes=7)
    with pytest.raises(ParseError, match="4300"):
        json_parse("9" * 5_000)


def test_a_byte_order_mark_is_skipped() -> None:
    assert json_parse(b"\xef\xbb\xbf1") == 1
    assert json_parse("\N{ZERO WIDTH NO-BREAK SPACE}1") == 1
    assert json_parse(Json(b"[1]")) == [1]


def test_other_kinds_are_refused() -> None:
    with pytest.raises(WrongKindError, match="needs text or bytes, got a mapping"):
        json_parse({"a": 1})  # pyright: ignore[reportArgumentType] - what a connection may bring


def test_a_key_given_twice_among_many_is_found_without_comparing_each_with_all() -> None:
    keys = ",".join(f'"k{number}":0' for number in range(200_000))
    with pytest.raises(ParseError, match="key 'k199999' stands twice"):
        json_parse(f'{{{keys},"k199999":1}}')
