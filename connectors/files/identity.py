"""Which file a position belongs to, and whether it is still the same one.

Owns: `FileIdentity`, positions of files and how they are checked.
Does not own: where positions are kept (the runtime).

Always holds: a position names the inode and a hash of the file's first bytes, so a file that was replaced,
truncated or rewritten is noticed, and nothing is skipped or repeated in silence. The device number is left
out: it changes with a remount or a restart, while the file does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, overload

from flowcore.connector import Position
from flowcore.errors import PositionLostError

HEAD_BYTES: Final = 256
"""How much of the beginning is hashed, once the file is that long."""


class FileIdentity:
    """An open file: its inode and its first bytes, which an appending writer never changes."""

    __slots__ = ("_digests", "head", "inode")

    def __init__(self, inode: int, head: bytes) -> None:
        self.inode = inode
        self.head = head
        self._digests: dict[int, str] = {}

    def digest(self, length: int) -> str:
        """Hash of the first `length` bytes, at most those known."""
        found = self._digests.get(length)
        if found is None:
            found = self._digests[length] = blake2b(self.head[:length], digest_size=8).hexdigest()
        return found

    def position(self, offset: int, line: int) -> dict[str, Any]:
        """Where a reader stands; `offset` counts decoded bytes, `line` the lines before it."""
        # Of a file that grows only what is before the offset is sure to stay as it is.
        known = min(HEAD_BYTES, len(self.head), offset)
        return {
            "offset": offset,
            "line": line,
            "inode": self.inode,
            "head": self.digest(known),
            "head_bytes": known,
        }

    def holds(self, where: FilePosition) -> bool:
        """The first bytes are those the position was taken with."""
        return len(self.head) >= where.head_bytes and self.digest(where.head_bytes) == where.head


class FilePosition:
    """A position as it comes back from the store."""

    __slots__ = ("head", "head_bytes", "inode", "line", "offset")

    def __init__(self, *, offset: int, line: int, inode: int, head: str, head_bytes: int) -> None:
        self.offset = offset
        self.line = line
        self.inode = inode
        self.head = head
        self.head_bytes = head_bytes

    @classmethod
    def of(cls, position: Position, *, path: str) -> FilePosition:
        """Read a stored position.

        Raises:
            PositionLostError: it is not one of a file source.
        """
        try:
            fields: Mapping[str, Any] = position if isinstance(position, Mapping) else {}
            head = fields["head"]
            numbers = {name: fields[name] for name in ("offset", "line", "inode", "head_bytes")}
        except KeyError as fault:
            raise _no_position(position, path) from fault
        if not isinstance(head, str) or not all(type(n) is int and n >= 0 for n in numbers.values()):
            raise _no_position(position, path)
        return cls(head=head, **numbers)


def _no_position(position: Position, path: str) -> PositionLostError:
    return PositionLostError(
        f"{path}: {position!r} is no position of a file (it needs offset, line, inode, head, head_bytes); "
        f"start afresh or set on_lost_position: restart",
        path=path,
    )


def identify(descriptor: int) -> FileIdentity:
    """The identity of an open file, from its raw bytes as they are now; its read position stays."""
    return FileIdentity(os.fstat(descriptor).st_ino, os.pread(descriptor, HEAD_BYTES, 0))


class LazyPositions(Sequence[Position]):
    """The position after each row of a block, made when asked for: most rows are never asked about."""

    __slots__ = ("_ends", "_first", "_identity", "_lines", "_stop")

    def __init__(
        self, identity: FileIdentity, ends: Sequence[int], lines: Sequence[int], first: int, stop: int
    ) -> None:
        self._identity = identity
        self._ends = ends
        self._lines = lines
        self._first = first
        self._stop = stop

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
        return self._identity.position(self._ends[at], self._lines[at])
