"""CSV records one after the other: where each one ends, and what is wrong with it.

Owns: `Records` (of whole lines), `OpenRecord` (one whose quote is not closed yet), `Found`, `leaves_open`,
`expect_signs`.
Does not own: columns and headers (formats.csv_decoding), framing (formats.framing).

Always holds: a record is what the csv module, in its strict form, takes for one; a fault costs its record and
no other; the lines of an open record are looked at once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol

from connectors.formats.framing import Framed
from flowcore.errors import ConfigError, SourceError

_PIECE_BYTES: Final = 1 << 18


class Language(Protocol):
    """How bytes are read, and what is said of those that cannot be."""

    @property
    def encoding(self) -> str: ...
    @property
    def max_bytes(self) -> int: ...
    def reader(self, texts: Iterator[str]) -> Iterator[list[str]]: ...
    def texts(self, lines: Sequence[bytes]) -> tuple[list[str], bool]: ...
    def too_long(self, line: int, length: int) -> SourceError: ...
    def malformed(self, line: int, reason: str, raw: bytes) -> SourceError: ...
    def unclosed(self, line: int, raw: bytes) -> SourceError: ...


def expect_signs(*, delimiter: str, quote: str = '"', encoding: str = "utf-8") -> None:
    """Cells can be told apart by these.

    Raises:
        ConfigError: they are the same, a line break, or have no form in the encoding.
    """
    for name, sign in (("delimiter", delimiter), ("quote", quote)):
        if sign in "\r\n\0":
            raise ConfigError(f"{name}: {sign!r} ends a line; use another character", value=sign)
        try:
            sign.encode(encoding)
        except UnicodeEncodeError:
            raise ConfigError(
                f"{name}: {sign!r} does not exist in the encoding {encoding!r}; use another one", value=sign
            ) from None
    if delimiter == quote:
        raise ConfigError(f"delimiter and quote are both {delimiter!r}; use two characters", value=quote)


def leaves_open(text: str, *, is_open: bool, delimiter: str, quote: str = '"') -> bool:
    """Whether a quoted cell goes on after this line, as the csv module in its strict form sees it.

    A quote in a cell that began without one is text; what is no cell at all ends with its line, as an error.
    """
    at = 0
    while True:
        if is_open:
            closing = text.find(quote, at)
            if closing < 0:
                return True
            at = closing + 1
            if text[at : at + 1] != quote:
                is_open = False
                if text[at : at + 1] != delimiter:
                    return False
            at += 1
        elif text[at : at + 1] == quote:
            is_open = True
            at += 1
        else:
            following = text.find(delimiter, at)
            if following < 0 or "\r" in text[at:following]:
                return False
            at = following + 1


class Found:
    """Records of one step: the raw cells, where each one ends, the line it begins and the line it ends on."""

    __slots__ = ("ends", "errors", "firsts", "left", "numbers", "rows")

    def __init__(
        self,
        rows: list[Any],
        ends: Sequence[int],
        numbers: Sequence[int],
        firsts: Sequence[int],
        errors: Mapping[int, Exception],
        left: Framed | None = None,
    ) -> None:
        self.rows = rows
        self.ends = ends
        self.numbers = numbers
        self.firsts = firsts
        self.errors = errors
        self.left = left
        """Lines of a record that does not end among them."""

    @classmethod
    def one(cls, row: object, *, end: int, first: int, number: int, error: Exception | None = None) -> Found:
        """A single record; with `error` the row is its raw bytes."""
        return cls([row], [end], [number], [first], {} if error is None else {0: error})

    def and_then(self, other: Found) -> Found:
        """Both, one after the other."""
        count = len(self.rows)
        return Found(
            self.rows + other.rows,
            [*self.ends, *other.ends],
            [*self.numbers, *other.numbers],
            [*self.firsts, *other.firsts],
            {**self.errors, **{index + count: error for index, error in other.errors.items()}},
            other.left,
        )


class Records:
    """Record by record: quoted newlines, broken quotes, lines that are too long or no text."""

    def __init__(self, language: Language, framed: Framed, *, final: bool) -> None:
        """`final`: nothing follows."""
        self._language = language
        self._framed = framed
        self._final = final
        self._texts, self._escaped = language.texts(framed.lines)
        self._rows: list[Any] = []
        self._spans: list[tuple[int, int]] = []
        self._errors: dict[int, Exception] = {}

    def all(self) -> Found:
        framed = self._framed
        count = len(framed.lines)
        at = 0
        while at < count:
            if at in framed.too_long:
                error = self._language.too_long(framed.first + at + 1, framed.too_long[at])
                self._fail(at, at + 1, error)
                at += 1
                continue
            stop = next((index for index in range(at, count) if index in framed.too_long), count)
            broken = self._until(at, stop)
            if broken is None:
                at = stop
            elif stop == count and not self._final and self._fits(broken, count):
                return self._found(broken)
            else:
                error = self._language.unclosed(framed.first + broken + 1, framed.lines[broken])
                self._fail(broken, broken + 1, error)
                at = broken + 1
        return self._found(count)

    def _until(self, at: int, stop: int) -> int | None:
        """Read records of the lines `at` to `stop`; the first line of one that has no end here, or None."""
        feeder = _Feeder(self._texts, at, stop)
        reader = self._language.reader(feeder)
        while True:
            start = feeder.at
            try:
                row = next(reader)
            except StopIteration:
                return None
            except csv.Error as fault:
                if feeder.exhausted or not self._fits(start, feeder.at):
                    return start
                self._fail(start, feeder.at, self._malformed(start, feeder.at, why(fault)))
                continue
            if not self._fits(start, feeder.at):
                return start
            if self._escaped and not is_text(row):
                reason = f"it is not {self._language.encoding} text; set encoding"
                self._fail(start, feeder.at, self._malformed(start, feeder.at, reason))
                continue
            self._rows.append(row)
            self._spans.append((start, feeder.at))

    def _fits(self, start: int, stop: int) -> bool:
        """A line by itself always does: its length was looked at before."""
        if stop - start == 1:
            return True
        return sum(map(len, self._framed.lines[start:stop])) + stop - start - 1 <= self._language.max_bytes

    def _malformed(self, start: int, stop: int, reason: str) -> SourceError:
        raw = b"\n".join(self._framed.lines[start:stop])
        return self._language.malformed(self._framed.first + start + 1, reason, raw)

    def _fail(self, start: int, stop: int, error: Exception) -> None:
        self._errors[len(self._rows)] = error
        self._rows.append(b"\n".join(self._framed.lines[start:stop]) or b"\n")
        self._spans.append((start, stop))

    def _found(self, stop: int) -> Found:
        framed = self._framed
        left = framed.after(stop) if stop < len(framed.lines) else None
        ends = [framed.ends[end - 1] for _, end in self._spans]
        numbers = [framed.first + end for _, end in self._spans]
        firsts = [framed.first + start + 1 for start, _ in self._spans]
        return Found(self._rows, ends, numbers, firsts, self._errors, left)


class OpenRecord:
    """A record whose quote is not closed yet.

    Holds: its bytes as they are, so that a million short lines cost no more than a long one.
    """

    __slots__ = ("_parts", "begin", "end", "first", "lines", "nbytes")

    def __init__(self, lines: Framed, begin: int) -> None:
        self.begin = begin
        """Offset of its first byte."""
        self.first = lines.first
        """Lines before it."""
        self.end = begin
        """Offset after its last byte; the last line of the input may have no newline."""
        self.lines = 0
        self.nbytes = 0
        """Of its lines, each with a newline."""
        self._parts: list[bytes] = []
        self.add(lines.lines, lines.ends[-1])

    def add(self, lines: Sequence[bytes], end: int) -> None:
        """The next lines, and where they end."""
        self.end = end
        part = b"\n".join([*lines, b""])
        self._parts.append(part)
        self.lines += len(lines)
        self.nbytes += len(part)

    def raw(self) -> bytes:
        """All its lines, each with a newline."""
        return b"".join(self._parts)

    def given_up(self, language: Language) -> tuple[Found, list[Piece]]:
        """Its first line as an error row, and the other lines in pieces to be read as records."""
        first, _, rest = self.raw().partition(b"\n")
        end, line = min(self.begin + len(first) + 1, self.end), self.first + 1
        error = language.unclosed(line, first)
        found = Found.one(first or b"\n", end=end, first=line, number=line, error=error)
        pieces: list[Piece] = []
        at = 0
        while at < len(rest):
            cut = rest.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or rest.find(b"\n", at) + 1
            piece = Piece(end + at, line, rest[at:cut], self.end)
            pieces.append(piece)
            at, line = cut, line + piece.data.count(b"\n")
        return found, pieces


class Piece:
    """Whole lines of the input that are to be read again."""

    __slots__ = ("data", "first", "last", "offset")

    def __init__(self, offset: int, first: int, data: bytes, last: int) -> None:
        """`last`: offset after the last line of them all, which may have had no newline."""
        self.last = last
        self.offset = offset
        self.first = first
        self.data = data

    def framed(self) -> Framed:
        lines = self.data.split(b"\n")
        lines.pop()
        ends = list(accumulate((len(line) + 1 for line in lines), initial=self.offset))
        return Framed(lines, [min(end, self.last) for end in ends[1:]], self.first, {})


class _Feeder:
    """Lines for the csv reader, one at a time, so that it is known which of them a record took."""

    __slots__ = ("_stop", "_texts", "at", "exhausted")

    def __init__(self, texts: list[str], at: int, stop: int) -> None:
        self._texts = texts
        self._stop = stop
        self.at = at
        self.exhausted = False

    def __iter__(self) -> _Feeder:
        return self

    def __next__(self) -> str:
        if self.at >= self._stop:
            self.exhausted = True
            raise StopIteration
        text = self._texts[self.at]
        self.at += 1
        return text


def why(fault: csv.Error) -> str:
    """What the csv module says, in words that help."""
    text = str(fault)
    if text.startswith("new-line character"):
        return "a cell without quotes holds a carriage return; end lines with LF or CRLF, or quote the cell"
    return text


def is_text(row: list[str]) -> bool:
    """No byte was escaped in it."""
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True
