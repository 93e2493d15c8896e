"""Which file of a rotation a position is in now, and which one comes after it.

Owns: `Rotation`, `Found`.
Does not own: names and order (files.rotation), following (files.tail).

Always holds: a file is known by its content (first bytes, and those before an offset), its inode only decides
between equals; what cannot be looked into is told with its reason, never taken for absent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from connectors.files.bytes import decoded
from connectors.files.identity import KNOWN_BYTES, FileIdentity, FilePosition
from connectors.files.opening import open_regular
from connectors.files.rotation import LOOKS, InMotionError, Numbered, Sibling, siblings_of, unread_of
from connectors.files.trail import Trail
from flowcore.errors import ConnectorError


class Found(NamedTuple):
    """Where a position may go on."""

    holder: Sibling | None
    """None: no file has what the position says."""
    alike: Sequence[str]
    """Other files that begin like the holder, when only their content could be compared."""
    closed: Sequence[str]
    """Rotations that could not be looked into, each with the reason."""


class Rotation:
    """A file and its rotations; looks at the folder anew with each question.

    Args:
        path: absolute, of the file that bears the plain name.
        numbered: which number is the youngest.
    """

    def __init__(self, path: str, numbered: Numbered | None) -> None:
        self.path = path
        self._numbered: Numbered | None = numbered
        self._compressed: tuple[int, int] | None = None
        """The inode of a file that was read to its end and is gone, and of what it was compressed into."""

    def siblings(self) -> list[Sibling]:
        """Oldest first."""
        return siblings_of(self.path, self._numbered)

    def start(self, *, oldest: bool) -> FilePosition:
        """Where one begins who was never here: at the file that bears the plain name, or the oldest there is.

        While that file is absent or empty, what is written from now on is told by modification times.
        """
        family = self.siblings()
        if oldest:
            return FilePosition.before()
        base = next((sibling for sibling in family if sibling.is_base), None)
        if base is not None and base.size:
            identity = _identity_of(base)
            if identity is not None:
                return identity.position(0, 0)
        since = max((sibling.mtime_ns for sibling in family), default=None)
        return FilePosition.before(inode=0 if base is None else base.inode, since=since)

    def holder(self, where: FilePosition) -> Found:
        """The file that holds a position.

        Raises:
            InMotionError: files are renamed faster than they can be looked into.
        """
        for _ in range(LOOKS):
            family = self.siblings()
            found = self._holder_in(family, where)
            if found.holder is not None or _are_same(family, self.siblings()):
                return found
        raise InMotionError(
            f"{self.path!r} is rotated faster than its files can be looked into", path=self.path
        )

    def _holder_in(self, family: Sequence[Sibling], where: FilePosition) -> Found:
        if where.is_before:
            return Found(next((s for s in family if _is_after(s, where)), None), (), ())
        closed = [f"{name} (its compression is not known)" for name in unread_of(self.path)]
        same = [sibling for sibling in family if sibling.inode == where.inode]
        if any(self._holds(sibling, where, closed) for sibling in same):
            return Found(same[0], (), closed)
        others = [s for s in family if s.inode != where.inode and self._holds(s, where, closed)]
        if not others:
            return Found(None, (), closed)
        # The older one: going through too many files repeats lines, through too few loses them.
        return Found(others[0], [sibling.path for sibling in others[1:]], closed)

    def _holds(self, sibling: Sibling, where: FilePosition, closed: list[str]) -> bool:
        if where.head_bytes == 0 or (not sibling.is_compressed and sibling.size < where.offset):
            return False
        try:
            return _has(sibling, where)
        except FileNotFoundError:
            return False
        except (OSError, ConnectorError) as fault:
            closed.append(f"{sibling.path} ({getattr(fault, 'strerror', None) or fault})")
            return False

    def successor(self, finished: FilePosition, status: os.stat_result) -> tuple[Sibling | None, bool]:
        """The file begun after one that was read to its end, and whether that one is still known.

        None while there is none. When it is known no more, files modified later come after it.

        Raises:
            InMotionError: files are renamed faster than they can be looked into.
        """
        for _ in range(LOOKS):
            family = self.siblings()
            at = _index_of(family, status.st_ino)
            if at is not None:
                self._compressed = None
            else:
                at = self._index_compressed(family, finished, status.st_ino)
            if at is not None:
                return next(iter(family[at + 1 :]), None), True
            if _are_same(family, self.siblings()):  # else it may have been renamed while it was looked for
                younger = [s for s in family if s.is_base or s.mtime_ns >= status.st_mtime_ns]
                return next(iter(younger), None), False
        raise InMotionError(
            f"{self.path!r} is rotated faster than its files can be looked into", path=self.path
        )

    def _index_compressed(self, family: Sequence[Sibling], finished: FilePosition, inode: int) -> int | None:
        if self._compressed is not None and self._compressed[0] == inode:
            return _index_of(family, self._compressed[1])
        found = next((s for s in family if s.is_compressed and self._holds(s, finished, [])), None)
        if found is None:
            return None
        self._compressed = (inode, found.inode)
        return family.index(found)


def _are_same(family: Sequence[Sibling], again: Sequence[Sibling]) -> bool:
    return [(s.path, s.inode) for s in family] == [(s.path, s.inode) for s in again]


def _index_of(family: Sequence[Sibling], inode: int) -> int | None:
    return next((index for index, sibling in enumerate(family) if sibling.inode == inode), None)


def _is_after(sibling: Sibling, where: FilePosition) -> bool:
    if sibling.is_base or where.since is None or sibling.mtime_ns > where.since:
        return True
    # What was compressed is another file, and may have got the inode of one that is gone.
    return sibling.inode == where.inode and not sibling.is_compressed


def _identity_of(sibling: Sibling) -> FileIdentity | None:
    """None: another file bears the name by now."""
    try:
        with open_regular(sibling.path, sibling.path) as file:
            status = os.fstat(file.fileno())
            head = os.pread(file.fileno(), KNOWN_BYTES, 0)
            known = FileIdentity(status.st_ino, head, grows=True)
            return known if head and status.st_ino == sibling.inode else None
    except FileNotFoundError:
        return None


def _has(sibling: Sibling, where: FilePosition) -> bool:
    with open_regular(sibling.path, sibling.path) as file:
        if os.fstat(file.fileno()).st_ino != sibling.inode:
            return False
        trail = Trail(decoded(file, sibling.path, encoding="utf-8"))
        return trail.why_not(where) is None
