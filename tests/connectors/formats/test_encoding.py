"""What the encoders write is read back as the same value, or was refused with a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.csv_decoding import CsvDecoder, CsvDialect
from connectors.formats.decoding import JsonLinesDecoder
from connectors.formats.encoding import CsvEncoder, JsonLinesEncoder, encode_all
from flowcore.errors import FlowError
from flowcore.values import Json, same_value

texts = st.text() | st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
leaves = (
    st.none() | st.booleans() | st.integers() | st.integers(2**63, 2**80) | st.floats() | texts | st.binary()
)
keys = st.text() | st.sampled_from(["$bytes", "$x", "$$"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


def read_back(line: bytes, *, lossless: bool) -> object:
    assert line.count(b"\n") == 1
    decoder = JsonLinesDecoder(where="f", max_line_bytes=1 << 20, lossless=lossless)
    block = decoder.feed(line)
    assert not block.errors
    return block.values[0]


@given(values)
def test_lossless_lines_give_back_every_value(value: object) -> None:
    assert same_value(read_back(JsonLinesEncoder(lossless=True).encode(value), lossless=True), value)


@given(values)
def test_plain_lines_give_back_the_value_or_refuse_it(value: object) -> None:
    lines, errors = encode_all(JsonLinesEncoder(), [value])
    if errors:
        assert isinstance(errors[0], FlowError)
    else:
        assert same_value(read_back(lines[0], lossless=False), value)


cells = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n \t\0\ufeff'), max_size=6)


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5), delimiter=st.sampled_from(",;\t|"))
def test_csv_gives_back_every_text_carriage_returns_and_all(
    rows: list[tuple[str, str]], delimiter: str
) -> None:
    encoder = CsvEncoder(delimiter=delimiter, columns=("a", "b"))
    written = [dict(zip("ab", row, strict=True)) for row in rows]
    lines, errors = encode_all(encoder, written)
    assert not errors
    decoder = CsvDecoder(where="f", max_line_bytes=1 << 20, dialect=CsvDialect(delimiter=delimiter))
    blocks = [decoder.feed(encoder.header() + b"".join(lines)), decoder.end()]
    assert [value for block in blocks for value in block.values] == written


@given(names=st.lists(cells.filter(lambda name: not name.startswith("\ufeff")), min_size=1, max_size=4))
def test_the_names_of_a_header_are_found_again(names: list[str]) -> None:
    header = CsvEncoder(columns=names).header()
    for beginning in (header, b"\xef\xbb\xbf" + header + b"1,2\n"):
        assert CsvEncoder().names_in(beginning) == tuple(names)


@pytest.mark.parametrize("beginning", [b'"never closed', b"a,\xff\n", b'"a"b,c\n'])
def test_a_header_that_cannot_be_read_names_nothing(beginning: bytes) -> None:
    assert CsvEncoder().names_in(beginning) is None


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": {"b": -math.inf}}])
def test_numbers_that_are_not_finite_are_never_null(value: object) -> None:
    _, errors = encode_all(JsonLinesEncoder(), [value])
    assert "not finite" in str(errors[0])


def test_numbers_beyond_64_bits_are_exact() -> None:
    assert JsonLinesEncoder().encode({"n": 2**70}) == b'{"n":1180591620717411303424}\n'


class Point(msgspec.Struct):
    """A struct as a node may return it."""

    x: float
    when: datetime


@dataclass
class Pair:
    """A dataclass as a node may return it."""

    left: object


def test_structs_dataclasses_and_json_are_written_as_json() -> None:
    point = Point(1.5, datetime(2024, 1, 2, tzinfo=UTC))
    assert JsonLinesEncoder().encode(point) == b'{"x":1.5,"when":"2024-01-02T00:00:00Z"}\n'
    assert JsonLinesEncoder().encode([Pair(left=None), Json(b'{\n"a": 1}')]) == b'[{"left":null},{"a":1}]\n'
    _, errors = encode_all(JsonLinesEncoder(), [Point(math.nan, point.when), Pair(left=b"raw"), Json(b"{")])
    assert set(errors) == {0, 1, 2}


def test_csv_cells_keep_what_they_can_and_refuse_the_rest() -> None:
    encoder = CsvEncoder(columns=("a", "b"))
    row = {"a": None, "b": ["x", 1]}
    lines, errors = encode_all(encoder, [row, {"a": True}, {"a": b"raw"}, {"c": 1}, ["x"]])
    assert lines == [b',"[""x"",1]"\n', b"true,\n"]
    assert set(errors) == {2, 3, 4}
    assert "['c'] are none of the columns (a, b)" in str(errors[3])
