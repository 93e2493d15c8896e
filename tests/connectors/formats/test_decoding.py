"""Rules of decoding that hold for every input: splits do not matter, positions are exact, no row is lost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.csv_decoding import CsvDecoder, CsvDialect
from connectors.formats.decoding import JsonLinesDecoder, LinesDecoder
from connectors.formats.framing import Block, Decoder
from flowcore.errors import SourceError

LIMIT = 64
Make = Callable[..., Decoder]
Row = tuple[object, int, int, str | None]

pieces = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b'"', b",", b"a", b"{}", b"1,2", b'"x\ny"', b"\xff", b"\xc3\xa4", b"z" * 70]
    ),
    max_size=30,
).map(b"".join)
splits = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def lines(offset: int = 0, line: int = 0) -> LinesDecoder:
    return LinesDecoder(where="f", max_line_bytes=LIMIT, offset=offset, line=line)


def jsonl(offset: int = 0, line: int = 0) -> JsonLinesDecoder:
    return JsonLinesDecoder(where="f", max_line_bytes=LIMIT, offset=offset, line=line)


def cells(offset: int = 0, line: int = 0) -> CsvDecoder:
    return CsvDecoder(
        where="f", max_line_bytes=LIMIT, dialect=CsvDialect(header=False), offset=offset, line=line
    )


def decode(decoder: Decoder, data: bytes, sizes: list[int]) -> list[Row]:
    blocks: list[Block] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        blocks.append(decoder.feed(data[at : at + size]))
        at, turn = at + size, turn + 1
        while decoder.has_more:
            blocks.append(decoder.feed(b""))
    while (block := decoder.end()).values:
        blocks.append(block)
    return [
        (value, block.ends[i], block.lines[i], str(block.errors[i]) if i in block.errors else None)
        for block in blocks
        for i, value in enumerate(block.values)
    ]


@given(data=pieces, sizes=splits, make=st.sampled_from([lines, jsonl, cells]))
def test_any_split_into_chunks_gives_the_same_rows_positions_and_errors(
    data: bytes, sizes: list[int], make: Make
) -> None:
    assert decode(make(), data, sizes) == decode(make(), data, [len(data) + 1])


@given(data=pieces, sizes=splits, make=st.sampled_from([lines, jsonl, cells]))
def test_decoding_from_any_position_gives_the_rest(data: bytes, sizes: list[int], make: Make) -> None:
    rows = decode(make(), data, [len(data) + 1])
    for index, (_, offset, line, _) in enumerate(rows):
        assert decode(make(offset=offset, line=line), data[offset:], sizes) == rows[index + 1 :]


@given(data=pieces)
def test_every_line_of_text_is_a_row_or_an_error(data: bytes) -> None:
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    rows = decode(lines(), data, [7])
    assert len(rows) == len(expected)
    for (value, _, _, error), raw in zip(rows, expected, strict=True):
        assert error is not None or value == raw.removesuffix(b"\r").decode()


@given(
    table=st.lists(
        st.lists(st.text(st.sampled_from('ab",\n ä'), max_size=5), min_size=2, max_size=2), max_size=12
    ),
    sizes=splits,
)
def test_csv_is_read_as_the_csv_module_wrote_it(table: list[list[str]], sizes: list[int]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    decoder = CsvDecoder(
        where="f", max_line_bytes=1 << 16, dialect=CsvDialect(columns=("a", "b"), header=False)
    )
    rows = decode(decoder, text.getvalue().encode(), sizes)
    assert [row[0] for row in rows] == [dict(zip("ab", row, strict=True)) for row in table]
    assert all(row[3] is None for row in rows)


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    data = b'a,b\n"open,2\n' + b"".join(b"%d,x\n" % number for number in range(50))
    decoder = CsvDecoder(where="f.csv", max_line_bytes=LIMIT, dialect=CsvDialect())
    rows = decode(decoder, data, [16])
    assert rows[0][0] == b'"open,2'
    assert rows[0][3] is not None
    assert rows[0][3].startswith(
        "f.csv:2: the record cannot be read: a quote that opens here is never closed"
    )
    assert [row[0] for row in rows[1:]] == [{"a": str(number), "b": "x"} for number in range(50)]


def test_ragged_records_are_errors_unless_missing_cells_may_be_filled() -> None:
    def read(dialect: CsvDialect) -> list[Row]:
        decoder = CsvDecoder(where="f", max_line_bytes=LIMIT, dialect=dialect)
        return decode(decoder, b"a,b\n1\n1,2,3\n1,2\n", [5])

    short, long, good = read(CsvDialect())
    assert "1 cells, the columns are 2 (a, b)" in str(short[3])
    assert "3 cells" in str(long[3])
    assert good[0] == {"a": "1", "b": "2"}
    filled, still_long, _ = read(CsvDialect(fill=True))
    assert filled[0] == {"a": "1", "b": None}
    assert still_long[3] is not None


def test_a_header_that_repeats_a_name_is_refused_with_the_name() -> None:
    decoder = CsvDecoder(where="f.csv", max_line_bytes=LIMIT, dialect=CsvDialect())
    try:
        decoder.feed(b"a,b,a\n1,2,3\n")
    except SourceError as error:
        assert "f.csv:1: the header names 'a' more than once" in str(error)  # noqa: PT017 - the message is the point
    else:
        raise AssertionError("columns would have been lost")


def test_a_line_that_is_too_long_is_one_failed_row_and_is_not_held() -> None:
    decoder = LinesDecoder(where="f", max_line_bytes=2000)
    for _ in range(1000):
        assert decoder.feed(b"x" * 1000).values == []
    assert sum(map(len, decoder._framer._held)) <= 1024
    block = decoder.feed(b"\nnext\n")
    assert block.values == [b"x" * 1024, "next"]
    assert "1000000 bytes, more than max_line_bytes=2000" in str(block.errors[0])
    assert list(block.ends) == [1_000_001, 1_000_006]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_json_values_are_exact_whatever_the_size_of_their_numbers(value: object) -> None:
    decoder = JsonLinesDecoder(where="f", max_line_bytes=1 << 20)
    assert decode(decoder, json.dumps(value).encode() + b"\n", [11])[0][0] == value


def test_what_is_not_json_says_where_and_why() -> None:
    decoder = JsonLinesDecoder(where="f.jsonl", max_line_bytes=1 << 20)
    block = decoder.feed(b'{"a": 1}\nNaN\n[1e999]\n\xff\n' + b"[" * 5000 + b"\n{}\n")
    assert block.values[0] == {"a": 1}
    assert block.values[-1] == {}
    assert set(block.errors) == {1, 2, 3, 4}
    assert all(str(block.errors[i]).startswith(f"f.jsonl:{i + 1}: ") for i in block.errors)


def test_a_header_of_very_many_columns_is_read_without_comparing_each_with_all() -> None:
    names = ",".join(f"c{number}" for number in range(120_000))
    decoder = CsvDecoder(where="f.csv", max_line_bytes=1 << 20, dialect=CsvDialect())
    assert decoder.feed(names.encode() + b"\n").values == []
    assert decoder.columns is not None
    assert len(decoder.columns) == 120_000


def test_a_quoted_record_at_the_end_of_a_file_without_newline_ends_where_the_file_does() -> None:
    """One byte further, and a restart would take the file for one that was cut."""
    for data in (b'a\n"x\ny"', b'a\n"x\ny', b'"x\ny"', b'1\n"2'):
        for size in range(1, len(data) + 1):
            rows = decode(cells(), data, [size])
            assert rows[-1][1] == len(data), (data, size)
