"""A byte stream that knows the last bytes it gave, and so whether it holds a position.

Owns: `Trail`.
Does not own: decoding (files.bytes), what a position says (files.identity).

Always holds: `recent` are the last bytes before `offset`, as many as a position hashes, or all there are.
"""

from __future__ import annotations

from connectors.files.bytes import ByteStream, PlainBytes
from connectors.files.identity import KNOWN_BYTES, FilePosition, digest
from flowcore.errors import SourceError

_CHUNK_BYTES = 1 << 18


class Trail:
    """Decoded bytes from the beginning of a file, forward only.

    Holds: `KNOWN_BYTES`, and what the stream holds.
    """

    def __init__(self, stream: ByteStream) -> None:
        """`stream`: nothing was read of it yet."""
        self._stream = stream
        self.recent = b""

    @property
    def offset(self) -> int:
        return self._stream.offset

    @property
    def is_plain(self) -> bool:
        """Offsets are those of the file itself: no compression, no wide encoding."""
        return isinstance(self._stream, PlainBytes)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; empty at the end."""
        chunk = self._stream.read(size)
        if len(chunk) >= KNOWN_BYTES:
            self.recent = chunk[-KNOWN_BYTES:]
        elif chunk:
            self.recent = (self.recent + chunk)[-KNOWN_BYTES:]
        return chunk

    def head(self) -> bytes:
        """The first bytes, as many as are hashed; what is damaged after them is found by a later read."""
        try:
            while self.offset < KNOWN_BYTES and self.read(KNOWN_BYTES - self.offset):
                pass
        except SourceError:
            pass
        return self.recent

    def why_not(self, where: FilePosition) -> str | None:
        """Why this is not the file of a position; None: it is, and the stream has got to its offset.

        When that is among the first `KNOWN_BYTES`, the stream may be after it.

        Cost: of a plain file the bytes between `check_at` and `offset`; of others all before `offset`.
        """
        if not self.go_to(where.head_bytes) or digest(self.recent) != where.head:
            return "the file begins differently: it was replaced or rewritten"
        if where.check_at > where.head_bytes:
            if not self.go_to(where.check_at):
                return self._too_short()
            if digest(self.recent[-where.check_bytes :]) != where.check:
                return f"other bytes are before byte {where.check_at} now: it was truncated or rewritten"
        return None if self.go_to(where.offset) else self._too_short()

    def go_to(self, offset: int) -> bool:
        """Go forward, if `offset` is ahead; False when the input ends before."""
        begin = offset - KNOWN_BYTES
        if begin > self.offset:
            if not self._stream.skip_to(begin):
                return False
            self.recent = b""
        while self.offset < offset:
            if not self.read(min(_CHUNK_BYTES, offset - self.offset)):
                return False
        return True

    def _too_short(self) -> str:
        return f"the file ends at byte {self.offset}: it was truncated"

    def close(self) -> None:
        self._stream.close()
