"""Lines of a body that comes in pieces: NDJSON, and what server-sent events are made of.

Owns: `Lines`. Does not own: what a line means.

Pure. Always holds: the same bytes give the same lines, however they are split; no line is longer than the
bound, and no more than that is kept.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LINE_BYTES: Final = 16 * 1024 * 1024

_END: Final = re.compile(rb"\r\n|\n|\r")
_LF: Final = 0x0A


class LineTooLongError(ValueError):
    """A line is longer than the bound."""


class Lines:
    """Bytes in, whole lines out, without their ends: LF, CR LF or CR.

    Args:
        max_bytes: of one line.
    """

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes: Final = max_bytes
        self._begun: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this piece.

        Raises:
            LineTooLongError: one is longer than `max_bytes`.

        Cost: linear in the bytes.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if not chunk:
            return []
        *lines, rest = _END.split(chunk)
        if lines:
            self._begun.append(lines[0])
            lines[0] = b"".join(self._begun)
            self._begun, self._size = [], 0
        self._begun.append(rest)
        self._size += len(rest)
        self._after_cr = chunk.endswith(b"\r")
        longest = max(self._size, max(map(len, lines), default=0))
        if longest > self._max_bytes:
            raise LineTooLongError(f"a line of more than {self._max_bytes:,} bytes")
        return lines

    def end(self) -> bytes:
        """What stands after the last end of a line; empty where the body ended with one."""
        return b"".join(self._begun)
