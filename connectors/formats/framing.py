"""Bytes into lines: what a line is, where it ends, and what happens to one that is too long.

Owns: `LineFramer`, `Framed`, `Block` (decoded rows with where each one ends) and the `Decoder` protocol.
Does not own: what a line means (the decoders beside this module) or where bytes come from (the connectors).

Always holds: any split of the input into chunks gives the same lines; every byte belongs to exactly one
line; no more than `max_line_bytes` and one chunk are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol

from flowcore.errors import SourceError

SAMPLE_BYTES: Final = 1024
"""How much of a line that is too long is kept, to show it."""


class Framed:
    """Consecutive whole lines, without their newlines."""

    __slots__ = ("ends", "first", "lines", "too_long")

    def __init__(self, lines: list[bytes], ends: list[int], first: int, too_long: Mapping[int, int]) -> None:
        self.lines = lines
        self.ends = ends
        """Offset in the input after each line and its newline."""
        self.first = first
        """Lines of the input before these."""
        self.too_long = too_long
        """Length by index; such a line holds its first `SAMPLE_BYTES` only."""

    def after(self, count: int) -> Framed:
        """Without the first `count` lines."""
        too_long = {index - count: length for index, length in self.too_long.items() if index >= count}
        return Framed(self.lines[count:], self.ends[count:], self.first + count, too_long)


class Block:
    """Decoded rows: `values`, where each ends (`ends`, `lines`), and which of them are errors."""

    __slots__ = ("begin", "ends", "errors", "firsts", "lines", "values")

    def __init__(
        self,
        values: list[Any],
        ends: Sequence[int],
        lines: Sequence[int],
        errors: dict[int, Exception],
        *,
        begin: int,
        firsts: Sequence[int] | None = None,
    ) -> None:
        self.values = values
        self.ends = ends
        """Offset in the input after each row."""
        self.lines = lines
        """Lines of the input up to and including each row."""
        self.firsts = lines if firsts is None else firsts
        """The line each row begins on; None when built: every row is one line."""
        self.errors = errors
        """Rows that cannot be decoded, by index; their value is the raw bytes."""
        self.begin = begin
        """Offset before the first row."""


class Decoder(Protocol):
    """Chunks in, rows out; holds what is not yet a whole row."""

    def feed(self, chunk: bytes) -> Block:
        """The rows that `chunk` completes."""
        ...

    @property
    def has_more(self) -> bool:
        """`feed` with no bytes gives further rows."""
        ...

    def end(self) -> Block:
        """What is left when the input has ended, at most some of it; no rows: nothing."""
        ...


class LineFramer:
    """Splits chunks at newlines; holds the unfinished last line.

    Holds: at most `max_line_bytes` plus one chunk; of a longer line the first `SAMPLE_BYTES` only.
    """

    def __init__(self, *, max_line_bytes: int, offset: int = 0, line: int = 0) -> None:
        self._max = max_line_bytes
        self._offset = offset
        self._line = line
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes seen since the last newline."""
        return self._held_bytes

    def skip(self, count: int) -> None:
        """Count bytes that belong to no line: a byte order mark."""
        self._offset += count

    def feed(self, chunk: bytes) -> Framed:
        lines = chunk.split(b"\n")
        last = lines.pop()
        if not lines:
            self._hold(last)
            return Framed([], [], self._line, {})
        true_length = self._held_bytes + len(lines[0])
        if self._held:
            lines[0] = b"".join((*self._held, lines[0]))
            self._held, self._held_bytes = [], 0
        framed = self._frame(lines, true_length, newline=1)
        self._hold(last)
        return framed

    def end(self) -> Framed:
        """The unfinished last line, if there is one."""
        if not self._held_bytes:
            return Framed([], [], self._line, {})
        line, length = b"".join(self._held), self._held_bytes
        self._held, self._held_bytes = [], 0
        return self._frame([line], length, newline=0)

    def _frame(self, lines: list[bytes], true_length: int, *, newline: int) -> Framed:
        base = self._offset + true_length - len(lines[0])
        lengths = map(len, lines)
        ends = list(accumulate((length + newline for length in lengths), initial=base))
        del ends[0]
        too_long: dict[int, int] = {}
        if true_length > self._max:
            too_long[0] = true_length
            lines[0] = lines[0][:SAMPLE_BYTES]
        if max(map(len, lines)) > self._max:
            for index, line in enumerate(lines):
                if len(line) > self._max:
                    too_long.setdefault(index, len(line))
                    lines[index] = line[:SAMPLE_BYTES]
        framed = Framed(lines, ends, self._line, too_long)
        self._offset, self._line = ends[-1], self._line + len(lines)
        return framed

    def _hold(self, part: bytes) -> None:
        if not part:
            return
        self._held_bytes += len(part)
        if self._held_bytes <= self._max:
            self._held.append(part)
        elif sum(map(len, self._held)) < SAMPLE_BYTES or self._held_bytes - len(part) <= self._max:
            self._held = [b"".join((*self._held, part))[:SAMPLE_BYTES]]


def too_long_error(where: str, line: int, length: int, limit: int) -> SourceError:
    """What is said of a line that is longer than allowed."""
    return SourceError(
        f"{where}:{line}: the line has {length} bytes, more than max_line_bytes={limit}; only its first "
        f"{SAMPLE_BYTES} bytes are kept in the failed row; raise max_line_bytes",
        path=where,
        line=line,
        length=length,
    )
