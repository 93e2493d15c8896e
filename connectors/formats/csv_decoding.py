"""CSV into rows: quoted newlines, headers, and what is wrong with a record, said per row.

Owns: `CsvDecoder`, `CsvDialect`.
Does not own: where records end (formats.csv_records), framing (formats.framing), files, pipes.

Always holds: every record becomes a row or an error row that says `file:line` of its first line (blank
lines carry nothing and are passed over); a quote that is never closed costs one row, not the rest of the
file.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from connectors.formats.csv_records import (
    Found,
    OpenRecord,
    Piece,
    Records,
    is_text,
    leaves_open,
    why,
)
from connectors.formats.decoding import UTF_8
from connectors.formats.framing import Block, Framed, LineFramer, too_long_error
from flowcore.errors import SourceError
from flowcore.findings import shown


class CsvDialect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How cells are told apart, and which columns there are."""

    delimiter: str = ","
    quote: str = '"'
    columns: tuple[str, ...] | None = None
    """None: the header names them."""
    header: bool = True
    """The first record holds names, not values. With `columns` given too, those are used and the header
    passed over. Without header and columns a row is a list of texts."""
    fill: bool = False
    """A record with fewer cells than columns gets None for the missing ones; otherwise it is an error row."""


class CsvDecoder:
    """Records into dicts of text by column, or lists of text when there are no columns.

    Holds: the bytes of the unfinished last record, at most `max_line_bytes`, plus one chunk.
    """

    def __init__(
        self,
        *,
        where: str,
        max_line_bytes: int,
        dialect: CsvDialect,
        encoding: str = UTF_8,
        offset: int = 0,
        line: int = 0,
        columns: Sequence[str] | None = None,
    ) -> None:
        """`columns`: as an earlier decoder of the same input found them; no header is looked for then."""
        self._where = where
        self._max = max_line_bytes
        self._dialect = dialect
        self._encoding = encoding
        self._framer = LineFramer(max_line_bytes=max_line_bytes, offset=offset, line=line)
        self._begin = offset
        self._quote = dialect.quote.encode(encoding)
        self._open: OpenRecord | None = None
        self._again: deque[Piece | Framed] = deque()
        """Lines to be looked at next: those after a record that was given up, and what came since."""
        self._header_due = dialect.header and columns is None
        self.columns: tuple[str, ...] | None = tuple(columns) if columns is not None else dialect.columns
        csv.field_size_limit(max(csv.field_size_limit(), max_line_bytes))

    @property
    def ready(self) -> bool:
        """The header, if one is due, has been read."""
        return not self._header_due

    @property
    def has_more(self) -> bool:
        """`feed` with nothing new gives further rows."""
        return bool(self._again)

    def feed(self, chunk: bytes) -> Block:
        framed = self._framer.feed(chunk)
        if self._again:
            if framed.lines:
                self._again.append(framed)
            framed = self._next_again()
        return self._decode(framed, final=False)

    def end(self) -> Block:
        """The next rows when the input has ended; none: there are no more."""
        while True:
            final = not self._again
            framed = self._framer.end() if final else self._next_again()
            block = self._decode(framed, final=final)
            if block.values or not (self._again or self._open):
                return block

    def skip(self, count: int) -> None:
        """Count bytes that belong to no row."""
        self._framer.skip(count)
        self._begin += count

    def _next_again(self) -> Framed:
        following = self._again.popleft()
        return following.framed() if isinstance(following, Piece) else following

    def _decode(self, framed: Framed, *, final: bool) -> Block:
        begin = self._begin
        found, framed = self._go_on(framed, final=final)
        if framed.lines:
            further = self._simple(framed) or Records(self, framed, final=final).all()
            if further.left is not None:
                at = len(framed.lines) - len(further.left.lines)
                start = framed.ends[at - 1] if at else self._begin
                self._open = OpenRecord(further.left, start)
            self._begin = framed.ends[-1] if self._open is None else self._open.begin
            found = further if found is None else found.and_then(further)
        if found is None:
            return Block([], [], [], {}, begin=begin)
        return self._shape(found, begin)

    def _go_on(self, framed: Framed, *, final: bool) -> tuple[Found | None, Framed]:
        """The open record, if it ends here or is given up, and the lines after it."""
        held = self._open
        if held is None:
            return None, framed
        stop = self._closing(framed, held.nbytes)
        fits = held.nbytes + sum(map(len, framed.lines)) + len(framed.lines) - 1 <= self._max
        if stop is None and fits and not (final or framed.too_long):
            if framed.lines:
                held.add(framed.lines, framed.ends[-1])
            return None, framed.after(len(framed.lines))
        self._open = None
        if stop is None:
            found, pieces = held.given_up(self)
            self._again.extendleft(reversed([*pieces, *([framed] if framed.lines else [])]))
            self._begin = found.ends[-1]
            return found, framed.after(len(framed.lines))
        held.add(framed.lines[: stop + 1], framed.ends[stop])
        self._begin = framed.ends[stop]
        return self._closed(held), framed.after(stop + 1)

    def _closing(self, framed: Framed, held_bytes: int) -> int | None:
        """The line the open record ends with; None: it does not, or is too long by then."""
        dialect = self._dialect
        lines = framed.lines[: min(framed.too_long, default=len(framed.lines))]
        if self._quote not in b"\n".join(lines):
            return None
        for index, text in enumerate(self.texts(lines)[0]):
            held_bytes += len(lines[index]) + 1
            if not leaves_open(text, is_open=True, delimiter=dialect.delimiter, quote=dialect.quote):
                return index if held_bytes - 1 <= self._max else None
        return None

    def _closed(self, held: OpenRecord) -> Found:
        raw = held.raw()
        first, number, end = held.first + 1, held.first + held.lines, held.end
        (text,), escaped = self.texts([raw[:-1]])
        try:
            rows = list(self.reader(io.StringIO(text, newline="\n")))
            reason = None if len(rows) == 1 else "its quotes are broken"
        except csv.Error as fault:
            rows, reason = [], why(fault)
        if escaped and reason is None and not is_text(rows[0]):
            reason = f"it is not {self._encoding} text; set encoding"
        if reason is None:
            return Found.one(rows[0], end=end, first=first, number=number)
        error = self.malformed(first, reason, raw[:-1])
        return Found.one(raw[:-1], end=end, first=first, number=number, error=error)

    def _simple(self, framed: Framed) -> Found | None:
        """One record a line, the fast path: no quoted newline, nothing to report."""
        if framed.too_long:
            return None
        count = len(framed.lines)
        try:
            text = b"\n".join(framed.lines).decode(self._encoding) + "\n"
            rows = list(self.reader(io.StringIO(text, newline="\n")))
        except (UnicodeDecodeError, csv.Error):
            return None
        if len(rows) != count:
            return None
        numbers = range(framed.first + 1, framed.first + 1 + count)
        return Found(rows, framed.ends, numbers, numbers, {})

    def reader(self, texts: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(
            texts, delimiter=self._dialect.delimiter, quotechar=self._dialect.quote, strict=True
        )

    def _shape(self, found: Found, begin: int) -> Block:
        if self._header_due and found.rows:
            found = self._take_header(found)
        rows, errors, columns = found.rows, found.errors, self.columns
        if not errors and rows:
            widths = set(map(len, rows))
            if columns is None and 0 not in widths:
                return Block(list(rows), found.ends, found.numbers, {}, begin=begin, firsts=found.firsts)
            if columns is not None and widths == {len(columns)}:
                values = [dict(zip(columns, row, strict=True)) for row in rows]
                return Block(values, found.ends, found.numbers, {}, begin=begin, firsts=found.firsts)
        kept = [index for index, row in enumerate(rows) if row]
        ends, lines, firsts = (
            [column[i] for i in kept] for column in (found.ends, found.numbers, found.firsts)
        )
        block = Block([], ends, lines, {}, begin=begin, firsts=firsts)
        for index in kept:
            self._add(block, rows[index], errors.get(index), found.firsts[index])
        return block

    def _add(self, block: Block, row: Any, error: Exception | None, line: int) -> None:
        columns = self.columns
        if error is None and columns is not None:
            if len(row) > len(columns) or (len(row) < len(columns) and not self._dialect.fill):
                error = SourceError(
                    f"{self._where}:{line}: the record has {len(row)} cells, the columns are {len(columns)} "
                    f"({', '.join(columns)}); the record is {shown(row)}; fix it"
                    + (
                        ""
                        if len(row) > len(columns)
                        else ", or set ragged: fill to get null for missing cells"
                    ),
                    path=self._where,
                    line=line,
                )
            else:
                missing = [None] * (len(columns) - len(row))
                row = dict(zip(columns, [*row, *missing], strict=True))
        if error is not None:
            block.errors[len(block.values)] = error
        block.values.append(row)

    def _take_header(self, found: Found) -> Found:
        index = next((i for i, row in enumerate(found.rows) if row), None)
        if index is None:
            return Found([], [], [], [], {})
        error = found.errors.get(index)
        if error is not None:
            raise SourceError(f"{error}; this is the header, without it no row has names", path=self._where)
        names = found.rows[index]
        counts = Counter[str](names)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated and self._dialect.columns is None:
            raise SourceError(
                f"{self._where}:{found.firsts[index]}: the header names {', '.join(map(repr, repeated))} "
                f"more than once; give columns, with header: true to pass over this one",
                path=self._where,
                columns=tuple(names),
            )
        self._header_due = False
        if self.columns is None:
            self.columns = tuple(names)
        rest = index + 1
        errors = {i - rest: error for i, error in found.errors.items()}
        return Found(
            found.rows[rest:],
            found.ends[rest:],
            found.numbers[rest:],
            found.firsts[rest:],
            errors,
        )

    # --- used by Records ----------------------------------------------------------------------------------

    def texts(self, lines: Sequence[bytes]) -> tuple[list[str], bool]:
        """The lines as text with their newlines, and whether bytes that are no text were escaped in them."""
        try:
            return [line.decode(self._encoding) + "\n" for line in lines], False
        except UnicodeDecodeError:
            return [line.decode(self._encoding, "surrogateescape") + "\n" for line in lines], True

    def too_long(self, line: int, length: int) -> SourceError:
        return too_long_error(self._where, line, length, self._max)

    def malformed(self, line: int, reason: str, raw: bytes) -> SourceError:
        return SourceError(
            f"{self._where}:{line}: the record cannot be read: {reason}; it is {shown(raw)}",
            path=self._where,
            line=line,
        )

    def unclosed(self, line: int, raw: bytes) -> SourceError:
        reason = f"a quote that opens here is never closed, or not within max_line_bytes={self._max}"
        return self.malformed(line, reason, raw)

    @property
    def max_bytes(self) -> int:
        return self._max

    @property
    def encoding(self) -> str:
        return self._encoding
