"""Lines and server-sent events, however their bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flownodes.llm.wire.lines import Lines, LineTooLongError
from flownodes.llm.wire.sse import Event, Events


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in itertools.pairwise(places)]


def events_of(pieces: list[bytes]) -> list[Event]:
    reader = Events()
    return [*(event for piece in pieces for event in reader.feed(piece)), *reader.end()]


def lines_of(pieces: list[bytes]) -> list[bytes]:
    reader = Lines()
    return [*(line for piece in pieces for line in reader.feed(piece)), reader.end()]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", [("message", b"a")]),
        (
            b"data:a\r\n\r\ndata: b\r\rdata:  c\n\n",
            [("message", b"a"), ("message", b"b"), ("message", b" c")],
        ),
        (b"event: x\ndata: 1\ndata: 2\ndata\n\n", [("x", b"1\n2\n")]),
        (b": comment\n\n: more\ndata: a\nid: 7\nretry: 3\nunknown: y\n\n", [("message", b"a")]),
        (b"event: lost\n\ndata: a\n\n", [("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
        (b"data: a\n", [("message", b"a")]),
        (b"data: a\n\ndata: half", [("message", b"a")]),
        ("data: Grüße 世界\n\n".encode(), [("message", "Grüße 世界".encode())]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(body: bytes, events: list[tuple[str, bytes]]) -> None:
    assert events_of([body]) == events
    assert events_of([body[at : at + 1] for at in range(len(body))]) == events


pieces_of_streams = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data:",
            b"event: x",
            b": c",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"{}",
            b"\xef\xbb\xbf",
            "ä世".encode(),
            b"data",
        ]
    ),
    max_size=30,
).map(b"".join)


@given(body=pieces_of_streams, cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_events_and_lines(body: bytes, cuts: list[int]) -> None:
    assert events_of(split(body, cuts)) == events_of([body])
    assert lines_of(split(body, cuts)) == lines_of([body])


@given(st.lists(st.binary(max_size=20).filter(lambda line: not {10, 13} & set(line)), max_size=8))
def test_lines_are_what_stands_between_their_ends(lines: list[bytes]) -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert lines_of([end.join([*lines, b""])]) == [*lines, b""]


def test_no_line_and_no_event_is_larger_than_the_bound() -> None:
    assert Lines(max_bytes=4).feed(b"1234\n") == [b"1234"]
    for pieces in ([b"12345"], [b"12", b"345"], [b"12345\n"], [b"12", b"345\n6"]):
        reader = Lines(max_bytes=4)
        with pytest.raises(LineTooLongError):
            [reader.feed(piece) for piece in pieces]
    events = Events(max_bytes=10)
    with pytest.raises(LineTooLongError, match="event"):
        [events.feed(b"data: 123\n") for _ in range(4)]
