"""Which file a position belongs to, and how it is known again.

Owns: `FileIdentity`, `FilePosition`, `Stretch`, `LazyPositions`.
Does not own: comparing them with a file (files.trail), finding that file (files.finding), where positions are
kept (the runtime).

Always holds: a position names the inode, a hash of the file's first bytes and a hash of the last bytes before
some offset that was read, so a file that was replaced, truncated or rewritten is noticed, a renamed, copied
or compressed one is found again, and nothing is skipped or repeated in silence. The device number is left
out: it changes with a remount or a restart, while the file does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final, overload

import msgspec

from flowcore.connector import Position
from flowcore.errors import PositionLostError

KNOWN_BYTES: Final = 256
"""How much of the beginning, and of what is before an offset, is hashed; less where there is less."""

CHECKS: Final = 8
"""How many of the rows handed over at once have a check of their own."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


def digest(data: bytes) -> str:
    """What a position keeps of bytes."""
    return blake2b(data, digest_size=8).hexdigest()


class FilePosition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The next row to read, and what the file it is in looks like. Offsets count decoded bytes."""

    offset: _Count
    line: _Count
    """Lines before `offset`."""
    inode: _Count
    head: str
    """Hash of the first `head_bytes` bytes."""
    head_bytes: _Count
    check: str = ""
    """Hash of the `check_bytes` bytes before `check_at`, which is not after `offset`."""
    check_at: _Count = 0
    check_bytes: _Count = 0
    since: int | None = None
    """Nanoseconds; of a position in no file yet: it is at the beginning of the oldest file modified after."""

    @classmethod
    def of(cls, position: Position, *, path: str) -> FilePosition:
        """Read a stored position.

        Raises:
            PositionLostError: it is not one of a file source.
        """
        try:
            return msgspec.convert(position, cls)
        except msgspec.ValidationError as fault:
            raise PositionLostError(
                f"{path}: {position!r} is no position of a file ({fault}); start afresh or set "
                f"on_lost_position: restart",
                path=path,
            ) from fault

    @classmethod
    def before(cls, *, inode: int = 0, since: int | None = None) -> FilePosition:
        """At the beginning of a file of which nothing is known: the one of that inode, or younger ones."""
        return cls(offset=0, line=0, inode=inode, head=digest(b""), head_bytes=0, since=since)

    @property
    def is_before(self) -> bool:
        """Nothing is known of what the file holds."""
        return self.offset == 0 and self.head_bytes == 0

    def plain(self) -> dict[str, Any]:
        """As it is stored."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class FileIdentity:
    """An open file: its inode and its first bytes, which an appending writer never changes."""

    __slots__ = ("_digests", "grows", "head", "inode")

    def __init__(self, inode: int, head: bytes, *, grows: bool) -> None:
        self.inode = inode
        self.head = head
        """At most `KNOWN_BYTES`."""
        self.grows = grows
        """It is only appended to; otherwise only what is before a position is sure to stay as it is."""
        self._digests: dict[int, str] = {}

    def position(self, offset: int, line: int, *, check_at: int = 0, check: bytes = b"") -> FilePosition:
        """Where a reader stands; `offset` counts decoded bytes, `line` the lines before it.

        `check` are the bytes before `check_at`, which is not after `offset`.
        """
        known = len(self.head) if self.grows else min(len(self.head), offset)
        head = self._digest(known)
        if not check or check_at <= known:
            return FilePosition(offset=offset, line=line, inode=self.inode, head=head, head_bytes=known)
        return FilePosition(
            offset=offset,
            line=line,
            inode=self.inode,
            head=head,
            head_bytes=known,
            check=digest(check),
            check_at=check_at,
            check_bytes=len(check),
        )

    def _digest(self, length: int) -> str:
        found = self._digests.get(length)
        if found is None:
            found = self._digests[length] = digest(self.head[:length])
        return found


class Stretch:
    """Consecutive decoded bytes of a file."""

    __slots__ = ("at", "data")

    def __init__(self, at: int, data: bytes) -> None:
        self.at = at
        """Offset of the first one."""
        self.data = data

    def before(self, offset: int) -> bytes:
        """The last `KNOWN_BYTES` before `offset`, or all there are; empty when they are not here."""
        begin = max(0, offset - KNOWN_BYTES) - self.at
        end = offset - self.at
        return self.data[begin:end] if begin >= 0 and end <= len(self.data) else b""


class LazyPositions(Sequence[Position]):
    """The position after each row of a block, made when asked for: most rows are never asked about.

    Holds: bytes before up to `CHECKS` of the rows, which their positions and those after them are checked by.
    """

    __slots__ = ("_checks", "_ends", "_first", "_identity", "_lines", "_stop")

    def __init__(
        self,
        identity: FileIdentity,
        stretch: Stretch,
        ends: Sequence[int],
        lines: Sequence[int],
        first: int,
        stop: int,
    ) -> None:
        self._identity = identity
        self._ends = ends
        self._lines = lines
        self._first = first
        self._stop = stop
        step = -(-(stop - first) // CHECKS)
        marks = [ends[row] for row in range(stop - 1, first - 1, -step)]
        self._checks = [(mark, stretch.before(mark)) for mark in reversed(marks)]

    def __len__(self) -> int:
        return self._stop - self._first

    @overload
    def __getitem__(self, index: int) -> Position: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Position]: ...
    def __getitem__(self, index: int | slice) -> Position | Sequence[Position]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        size = self._stop - self._first
        if not -size <= index < size:
            raise IndexError(index)
        at = self._first + (index if index >= 0 else size + index)
        offset = self._ends[at]
        check_at, check = 0, b""
        for mark, bytes_before in self._checks:
            if mark <= offset:
                check_at, check = mark, bytes_before
        return self._identity.position(offset, self._lines[at], check_at=check_at, check=check).plain()
