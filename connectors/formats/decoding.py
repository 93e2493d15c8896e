"""Lines into rows: plain text lines and JSON lines.

Owns: `LinesDecoder`, `JsonLinesDecoder`. CSV has a module of its own.
Does not own: framing (formats.framing), files, pipes.

Always holds: every line becomes a row or an error row that says `file:line` (blank lines of JSON input
carry nothing and are passed over); whole numbers of any size are exact, text with lone surrogates is kept,
NaN is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from connectors.formats.framing import Block, Framed, LineFramer, too_long_error
from flowcore.errors import SourceError
from flowcore.findings import shown
from flowcore.plain import from_plain

UTF_8 = "utf-8"


class _LineDecoder:
    """Frames chunks and turns each batch of lines into a block."""

    def __init__(self, *, where: str, encoding: str, max_line_bytes: int, offset: int, line: int) -> None:
        self._where = where
        self._encoding = encoding
        self._max = max_line_bytes
        self._framer = LineFramer(max_line_bytes=max_line_bytes, offset=offset, line=line)
        self._begin = offset

    def feed(self, chunk: bytes) -> Block:
        return self._block(self._framer.feed(chunk))

    @property
    def has_more(self) -> bool:
        return False

    def end(self) -> Block:
        return self._block(self._framer.end())

    def skip(self, count: int) -> None:
        """Count bytes that belong to no row."""
        self._framer.skip(count)
        self._begin += count

    def _block(self, framed: Framed) -> Block:
        begin = self._begin
        if not framed.lines:
            return Block([], [], [], {}, begin=begin)
        self._begin = framed.ends[-1]
        values = None if framed.too_long else self._all(framed.lines)
        if values is not None:
            numbers = range(framed.first + 1, framed.first + 1 + len(values))
            return Block(values, framed.ends, numbers, {}, begin=begin)
        return self._one_by_one(framed, begin)

    def _one_by_one(self, framed: Framed, begin: int) -> Block:
        values: list[Any] = []
        ends: list[int] = []
        numbers: list[int] = []
        errors: dict[int, Exception] = {}
        for index, line in enumerate(framed.lines):
            number = framed.first + index + 1
            length = framed.too_long.get(index)
            if length is not None:
                errors[len(values)] = too_long_error(self._where, number, length, self._max)
                values.append(line)
            elif self._carries(line):
                try:
                    values.append(self._one(line))
                except (ValueError, RecursionError, msgspec.MsgspecError) as fault:
                    errors[len(values)] = self._malformed(line, number, fault)
                    values.append(line)
            else:
                continue
            ends.append(framed.ends[index])
            numbers.append(number)
        return Block(values, ends, numbers, errors, begin=begin)

    def _malformed(self, line: bytes, number: int, fault: Exception) -> SourceError:
        error = SourceError(
            f"{self._where}:{number}: {self._reason(fault)}; the line is {shown(line)}",
            path=self._where,
            line=number,
        )
        error.__cause__ = fault
        return error

    def _reason(self, fault: Exception) -> str:
        if isinstance(fault, UnicodeDecodeError):
            return (
                f"the line is not {self._encoding} text ({fault.reason} at byte {fault.start}); set encoding"
            )
        return str(fault)

    def _carries(self, line: bytes) -> bool:
        return True

    def _all(self, lines: list[bytes]) -> list[Any] | None:
        """All lines at once, the fast path; None when they must be looked at one by one."""
        raise NotImplementedError

    def _one(self, line: bytes) -> object:
        raise NotImplementedError


class LinesDecoder(_LineDecoder):
    """Each line is one row of text, without its line ending (LF or CRLF)."""

    def __init__(
        self, *, where: str, max_line_bytes: int, encoding: str = UTF_8, offset: int = 0, line: int = 0
    ) -> None:
        super().__init__(
            where=where, encoding=encoding, max_line_bytes=max_line_bytes, offset=offset, line=line
        )

    def _all(self, lines: list[bytes]) -> list[str] | None:
        try:
            texts = b"\n".join(lines).decode(self._encoding).split("\n")
        except UnicodeDecodeError:
            return None
        if any(text.endswith("\r") for text in texts):
            return [text.removesuffix("\r") for text in texts]
        return texts

    def _one(self, line: bytes) -> str:
        return line.removesuffix(b"\r").decode(self._encoding)


class JsonLinesDecoder(_LineDecoder):
    """Each line is one JSON value; with `lossless` the `$` forms become the values they stand for."""

    def __init__(
        self,
        *,
        where: str,
        max_line_bytes: int,
        encoding: str = UTF_8,
        offset: int = 0,
        line: int = 0,
        lossless: bool = False,
    ) -> None:
        super().__init__(
            where=where, encoding=encoding, max_line_bytes=max_line_bytes, offset=offset, line=line
        )
        self._lossless = lossless
        # Not orjson: it reads whole numbers beyond 64 bits as floats without a word.
        self._parse: Callable[[bytes | str], Any] = msgspec.json.Decoder().decode

    def _all(self, lines: list[bytes]) -> list[Any] | None:
        if self._encoding != UTF_8:
            return None
        try:
            values = list(map(self._parse, lines))
            return list(map(from_plain, values)) if self._lossless else values
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return None

    def _carries(self, line: bytes) -> bool:
        return bool(line.strip())

    def _one(self, line: bytes) -> object:
        text = line if self._encoding == UTF_8 else line.decode(self._encoding)
        try:
            value = self._parse(text)
        except msgspec.MsgspecError:
            value = _parse_leniently(text)
        return from_plain(value) if self._lossless else value

    def _reason(self, fault: Exception) -> str:
        if isinstance(fault, UnicodeDecodeError):
            return super()._reason(fault)
        if isinstance(fault, RecursionError):
            return "the JSON value is nested too deep"
        return f"the line is not a JSON value ({fault})"


def _parse_leniently(text: bytes | str) -> object:
    """JSON with escaped lone surrogates, which the fast parser refuses; NaN and infinities stay refused."""
    value: object = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    return value


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a float")
    return number
