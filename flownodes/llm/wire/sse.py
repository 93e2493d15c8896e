"""Server-sent events of a body that comes in pieces.

Owns: `Event`, `Events`. Does not own: what an event means (each provider).

Pure. Always holds: the same bytes give the same events, however they are split, also within a character; data
of an event is bounded.
Source: WHATWG HTML Living Standard, section 9.2.6, "Interpreting an event stream".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flownodes.llm.wire.lines import MAX_LINE_BYTES, Lines, LineTooLongError

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event."""

    name: str
    """`message` where it has none of its own."""
    data: bytes
    """Its lines of data, joined by LF."""


class Events:
    """Bytes in, events out.

    Args:
        max_bytes: of the data of one event, and of one line.
    """

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines: Final = Lines(max_bytes)
        self._max_bytes: Final = max_bytes
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._is_first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in this piece.

        Raises:
            LineTooLongError: a line, or the data of one event, is larger than `max_bytes`.
        """
        found: list[Event] = []
        for line in self._lines.feed(chunk):
            if line:
                self._take(line)
            elif self._data:
                found.append(self._event())
            else:
                self._name = b""
        return found

    def end(self) -> list[Event]:
        """An event whose lines are whole though no empty line ended it, as some servers leave it out."""
        return [self._event()] if self._data else []

    def _take(self, line: bytes) -> None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        field, _, text = line.partition(b":")
        text = text.removeprefix(b" ")
        if field == b"data":
            self._data.append(text)
            self._size += len(text) + 1
            if self._size > self._max_bytes + 1:
                raise LineTooLongError(f"an event of more than {self._max_bytes:,} bytes")
        elif field == b"event":
            self._name = text

    def _event(self) -> Event:
        event = Event(self._name.decode("utf-8", "replace") or "message", b"\n".join(self._data))
        self._name, self._data, self._size = b"", [], 0
        return event
