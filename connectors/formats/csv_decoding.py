"""CSV into rows: quoted newlines, headers, and what is wrong with a record, said per row.

Owns: `CsvDecoder`, `CsvDialect`.
Does not own: framing (formats.framing), files, pipes.

Always holds: every record becomes a row or an error row that says `file:line` of its first line (blank
lines carry nothing and are passed over); a quote that is never closed costs one row, not the rest of the
file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

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

    Holds: the lines of the unfinished last record, at most `max_line_bytes`, plus one chunk.
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
        self._left = Framed([], [], line, {})
        self._header_due = dialect.header and columns is None
        self.columns: tuple[str, ...] | None = tuple(columns) if columns is not None else dialect.columns
        csv.field_size_limit(max(csv.field_size_limit(), max_line_bytes))

    @property
    def ready(self) -> bool:
        """The header, if one is due, has been read."""
        return not self._header_due

    def feed(self, chunk: bytes) -> Block:
        return self._decode(self._framer.feed(chunk), final=False)

    def end(self) -> Block:
        return self._decode(self._framer.end(), final=True)

    def skip(self, count: int) -> None:
        """Count bytes that belong to no row."""
        self._framer.skip(count)
        self._begin += count

    def _decode(self, framed: Framed, *, final: bool) -> Block:
        begin = self._begin
        lines = self._left_with(framed)
        if not lines.lines:
            return Block([], [], [], {}, begin=begin)
        records = self._simple(lines) or _Records(self, lines, final=final).all()
        self._left = records.left
        taken = len(lines.lines) - len(records.left.lines)
        if taken:
            self._begin = lines.ends[taken - 1]
        return self._shape(records, begin)

    def _left_with(self, framed: Framed) -> Framed:
        left = self._left
        if not left.lines:
            return framed
        count = len(left.lines)
        too_long = {index + count: length for index, length in framed.too_long.items()}
        return Framed(left.lines + framed.lines, left.ends + framed.ends, left.first, too_long)

    def _simple(self, framed: Framed) -> _Found | None:
        """One record a line, the fast path: no quotes, nothing to report."""
        joined = b"\n".join(framed.lines)
        if framed.too_long or self._quote in joined:
            return None
        try:
            rows = list(self.reader(io.StringIO(joined.decode(self._encoding) + "\n", newline="\n")))
        except (UnicodeDecodeError, csv.Error):
            return None
        numbers = range(framed.first + 1, framed.first + 1 + len(rows))
        after = Framed([], [], framed.first + len(rows), {})
        return _Found(rows, framed.ends, numbers, numbers, {}, after)

    def reader(self, texts: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(
            texts, delimiter=self._dialect.delimiter, quotechar=self._dialect.quote, strict=True
        )

    def _shape(self, found: _Found, begin: int) -> Block:
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
                        "" if len(row) > len(columns) else ", or set fill: true to get null for missing cells"
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

    def _take_header(self, found: _Found) -> _Found:
        index = next((i for i, row in enumerate(found.rows) if row), None)
        if index is None:
            return _Found([], [], [], [], {}, found.left)
        error = found.errors.get(index)
        if error is not None:
            raise SourceError(f"{error}; this is the header, without it no row has names", path=self._where)
        names = found.rows[index]
        repeated = sorted({name for name in names if names.count(name) > 1})
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
        return _Found(
            found.rows[rest:],
            found.ends[rest:],
            found.numbers[rest:],
            found.firsts[rest:],
            errors,
            found.left,
        )

    # --- used by _Records ----------------------------------------------------------------------------------

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

    @property
    def encoding(self) -> str:
        return self._encoding

    @property
    def max_bytes(self) -> int:
        return self._max


class _Found:
    """Records of one step: the raw cells, where each one ends, the line it begins and the line it ends on."""

    __slots__ = ("ends", "errors", "firsts", "left", "numbers", "rows")

    def __init__(
        self,
        rows: list[Any],
        ends: Sequence[int],
        numbers: Sequence[int],
        firsts: Sequence[int],
        errors: Mapping[int, Exception],
        left: Framed,
    ) -> None:
        self.rows = rows
        self.ends = ends
        self.numbers = numbers
        self.firsts = firsts
        self.errors = errors
        self.left = left


class _Records:
    """Record by record: quoted newlines, broken quotes, lines that are too long or no text."""

    def __init__(self, decoder: CsvDecoder, framed: Framed, *, final: bool) -> None:
        self._decoder = decoder
        self._framed = framed
        self._final = final
        self._texts, self._escaped = decoder.texts(framed.lines)
        self._rows: list[Any] = []
        self._spans: list[tuple[int, int]] = []
        self._errors: dict[int, Exception] = {}

    def all(self) -> _Found:
        framed = self._framed
        count = len(framed.lines)
        at = 0
        while at < count:
            if at in framed.too_long:
                error = self._decoder.too_long(framed.first + at + 1, framed.too_long[at])
                self._fail(at, at + 1, error)
                at += 1
                continue
            stop = next((index for index in range(at, count) if index in framed.too_long), count)
            broken = self._until(at, stop)
            if broken is None:
                at = stop
            elif stop == count and not self._final and self._fits(broken):
                return self._found(broken)
            else:
                reason = "a quote that opens here is never closed"
                self._fail(broken, broken + 1, self._malformed(broken, broken + 1, reason))
                at = broken + 1
        return self._found(count)

    def _until(self, at: int, stop: int) -> int | None:
        """Read records of the lines `at` to `stop`; the first line of an unfinished one, or None."""
        feeder = _Feeder(self._texts, at, stop)
        reader = self._decoder.reader(feeder)
        while True:
            start = feeder.at
            try:
                row = next(reader)
            except StopIteration:
                return None
            except csv.Error as fault:
                if feeder.exhausted:
                    return start
                self._fail(start, feeder.at, self._malformed(start, feeder.at, str(fault)))
                continue
            if self._escaped and not _is_text(row):
                reason = f"it is not {self._decoder.encoding} text; set encoding"
                self._fail(start, feeder.at, self._malformed(start, feeder.at, reason))
                continue
            self._rows.append(row)
            self._spans.append((start, feeder.at))

    def _fits(self, start: int) -> bool:
        return sum(map(len, self._framed.lines[start:])) <= self._decoder.max_bytes

    def _malformed(self, start: int, stop: int, reason: str) -> SourceError:
        raw = b"\n".join(self._framed.lines[start:stop])
        return self._decoder.malformed(self._framed.first + start + 1, reason, raw)

    def _fail(self, start: int, stop: int, error: Exception) -> None:
        self._errors[len(self._rows)] = error
        self._rows.append(b"\n".join(self._framed.lines[start:stop]) or b"\n")
        self._spans.append((start, stop))

    def _found(self, stop: int) -> _Found:
        framed = self._framed
        left = Framed(framed.lines[stop:], framed.ends[stop:], framed.first + stop, {})
        ends = [framed.ends[end - 1] for _, end in self._spans]
        numbers = [framed.first + end for _, end in self._spans]
        firsts = [framed.first + start + 1 for start, _ in self._spans]
        return _Found(self._rows, ends, numbers, firsts, self._errors, left)


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


def _is_text(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True
