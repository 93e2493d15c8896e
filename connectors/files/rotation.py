"""Rotated files: which sibling holds what was in a file, and which comes after it.

Owns: `Sibling`, `siblings_of`, `holder_of`, `successor_of`.
Does not own: when to look (files.tail).

Always holds: a rotated file is known by its inode (rename and create) or by its first bytes (copy and
truncate), never by its name alone. Order is by modification time, then by the number in the name: `.1` is
younger than `.2`.
"""

from __future__ import annotations

import os
import re

from connectors.files.bytes import COMPRESSED
from connectors.files.identity import FilePosition, identify
from flowcore.errors import SourceError

_ROTATED = re.compile(r"[.\-_](?:[0-9][0-9A-Za-z:._\-]*|old|bak|prev)")
_SCANS = 100
_SHORT_NUMBER = re.compile(r"[.\-_]([0-9]{1,4})")


class Sibling:
    """One file of a rotation as it was seen just now."""

    __slots__ = ("age", "inode", "path", "size")

    def __init__(self, path: str, inode: int, size: int, age: tuple[int, int, int, str]) -> None:
        self.path = path
        self.inode = inode
        self.size = size
        self.age = age
        """Sorts older before younger; the file that bears the plain name is the youngest."""


def is_rotation_of(name: str, base: str) -> bool:
    """`app.log.1`, `app.log-20260101`, `app.log.old` are rotations of `app.log`; compressed ones are not."""
    if not name.startswith(base) or name.endswith(tuple(COMPRESSED)):
        return False
    return _ROTATED.fullmatch(name, len(base)) is not None


def siblings_of(path: str) -> list[Sibling]:
    """The file at `path` and its rotations, oldest first, as they are at one moment: seen twice alike."""
    found = _scan(path)
    for _ in range(_SCANS):
        again = _scan(path)
        if [(s.path, s.inode) for s in again] == [(s.path, s.inode) for s in found]:
            return again
        found = again
    raise SourceError(f"{path!r} is rotated faster than its folder can be listed", path=path)


def _scan(path: str) -> list[Sibling]:
    folder, base = os.path.split(path)
    found: list[Sibling] = []
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208 - paths are text throughout
    except FileNotFoundError:
        return []
    for name in names:
        if name == base or is_rotation_of(name, base):
            full = os.path.join(folder, name)  # noqa: PTH118 - as above
            try:
                status = os.stat(full)  # noqa: PTH116 - as above
            except FileNotFoundError:
                continue
            found.append(Sibling(full, status.st_ino, status.st_size, _age(name, base, status)))
    return sorted(found, key=lambda sibling: sibling.age)


def _age(name: str, base: str, status: os.stat_result) -> tuple[int, int, int, str]:
    number = _SHORT_NUMBER.fullmatch(name, len(base))
    return (int(name == base), status.st_mtime_ns, -int(number[1]) if number else 0, name)


def holder_of(path: str, position: FilePosition) -> Sibling | None:
    """The file that now holds what `position` was taken in: by inode, else by its first bytes."""
    able = [
        sibling
        for sibling in siblings_of(path)
        if sibling.size >= position.offset and _holds(sibling.path, position)
    ]
    by_inode = next((sibling for sibling in able if sibling.inode == position.inode), None)
    if by_inode is not None or position.head_bytes == 0:
        return by_inode
    return next(iter(able), None)


def _holds(path: str, position: FilePosition) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return identify(descriptor).holds(position)
    finally:
        os.close(descriptor)


def successor_of(path: str, finished: os.stat_result) -> Sibling | None:
    """The file that was begun after the one with that status; None: not there yet."""
    found = siblings_of(path)
    at = next((index for index, sibling in enumerate(found) if sibling.inode == finished.st_ino), None)
    younger = (
        found[at + 1 :] if at is not None else [s for s in found if s.age[:2] > (0, finished.st_mtime_ns)]
    )
    return next(iter(younger), None)
