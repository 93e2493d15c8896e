"""Rotations of a file: which names they have, and in which order they were written.

Owns: `Sibling`, `is_rotation_of`, `siblings_of`, `unread_of`, `InMotionError`.
Does not own: which of them holds a position or comes next (files.finding), when to look (files.tail).

Always holds: siblings are regular files, no links, so none leads out of the allowed roots; a compressed one
is left out while what it was made from is still there. Order is by the number in the name, by the date in it
(year first), or else by modification time; the file that bears the plain name is the youngest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from connectors.files.bytes import COMPRESSED, compression_of
from flowcore.errors import SourceError

_ROTATED: Final = re.compile(r"[.\-_](?:[0-9][0-9A-Za-z:_\-]*(?:\.[0-9][0-9A-Za-z:_\-]*)*|old|bak|prev)")
_NUMBER: Final = re.compile(r"[.\-_]([0-9]{1,3})")
_DATE: Final = re.compile(r"[^0-9]*[0-9]{4}")
_DIGITS: Final = re.compile(r"[0-9]+")
LOOKS: Final = 100
"""How often a folder that is being changed is looked at before one waits."""
MOTION_S: Final = 60.0
"""How long one waits for a folder in which files are renamed so fast that no look at it is certain."""
UNREADABLE: Final = (".bz2", ".xz", ".lz4", ".lzma", ".Z", ".zip", ".7z")
"""Extensions of compressed rotations that cannot be read."""


class InMotionError(SourceError):
    """Files were renamed between any two looks: nothing can be told now, and a later look may be luckier."""


Numbered = Literal["down", "up"]
"""`down`: `app.log.1` is the youngest, and each rotation moves the others on; `up`: the highest number is."""


class Sibling(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a rotation as it was seen just now."""

    path: str
    stamp: str
    """What the rotation added to the name, without the compression; empty for the plain name."""
    inode: int
    size: int
    """Bytes as they lie there."""
    mtime_ns: int

    @property
    def is_base(self) -> bool:
        """It bears the plain name."""
        return not self.stamp

    @property
    def is_compressed(self) -> bool:
        return not self.is_base and compression_of(self.path) is not None


def is_rotation_of(name: str, base: str) -> bool:
    """`app.log.1`, `app.log-20260101`, `app.log.2.gz`, `app.log.old` are rotations of `app.log`."""
    return _stamp_of(name, base) is not None and name != base


def _stamp_of(name: str, base: str) -> str | None:
    if name == base:
        return ""
    if not name.startswith(base) or name.endswith(UNREADABLE):
        return None
    stamp = name[len(base) :]
    if compression_of(stamp) is not None:
        stamp = os.path.splitext(stamp)[0]  # noqa: PTH122 - paths are text throughout
    return stamp if _ROTATED.fullmatch(stamp) else None


def siblings_of(path: str, numbered: Numbered | None = None) -> list[Sibling]:
    """The file at `path` and its rotations, oldest first, as they are at one moment: seen twice alike.

    Args:
        path: absolute.
        numbered: None: `down`, unless the modification times contradict.

    Raises:
        SourceError: they contradict, so that the order cannot be told.
        InMotionError: no two looks were alike.
    """
    found = _scan(path)
    for _ in range(LOOKS):
        again = _scan(path)
        if {(s.path, s.inode) for s in again} == {(s.path, s.inode) for s in found}:
            return _in_order(_without_doubles(again), numbered)
        found = again
    raise InMotionError(f"{path!r} is rotated faster than its folder can be listed", path=path)


def unread_of(path: str) -> list[str]:
    """Rotations of the file at `path` that are compressed in a way that cannot be read."""
    folder, base = os.path.split(path)
    return sorted(
        name
        for name in _names(folder)
        for extension in UNREADABLE
        if name.endswith(extension) and is_rotation_of(name.removesuffix(extension), base)
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")  # noqa: PTH208 - paths are text throughout
    except FileNotFoundError:
        return []


def _scan(path: str) -> list[Sibling]:
    folder, base = os.path.split(path)
    found: list[Sibling] = []
    for name in _names(folder):
        stamp = _stamp_of(name, base)
        if stamp is None:
            continue
        full = os.path.join(folder, name)  # noqa: PTH118 - paths are text throughout
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.append(
                Sibling(
                    path=full,
                    stamp=stamp,
                    inode=status.st_ino,
                    size=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                )
            )
    return found


def _without_doubles(found: Sequence[Sibling]) -> list[Sibling]:
    """While a file is being compressed, both are there, and only the original is whole."""
    plain = {sibling.stamp for sibling in found if not sibling.is_compressed}
    extensions = list(COMPRESSED)

    def rank(sibling: Sibling) -> int:
        return extensions.index(os.path.splitext(sibling.path)[1].lower())  # noqa: PTH122 - as above

    compressed: dict[str, Sibling] = {}
    for sibling in found:
        if sibling.is_compressed and sibling.stamp not in plain:
            other = compressed.get(sibling.stamp)
            if other is None or rank(sibling) < rank(other):
                compressed[sibling.stamp] = sibling
    return [*(sibling for sibling in found if not sibling.is_compressed), *compressed.values()]


def _in_order(found: Sequence[Sibling], numbered: Numbered | None) -> list[Sibling]:
    rotated = [sibling for sibling in found if not sibling.is_base]
    base = [sibling for sibling in found if sibling.is_base]
    return [*(_by_number(rotated, numbered) or _by_date(rotated) or _by_time(rotated)), *base]


def _by_number(rotated: Sequence[Sibling], numbered: Numbered | None) -> list[Sibling] | None:
    if not all(_NUMBER.fullmatch(sibling.stamp) for sibling in rotated):
        return None
    upward = sorted(rotated, key=lambda sibling: int(sibling.stamp[1:]))
    if numbered is None:
        # A compressed file may bear the time of its compression, an empty one that of its creation.
        _expect_downward([sibling for sibling in upward if sibling.size and not sibling.is_compressed])
    return upward if numbered == "up" else upward[::-1]


def _expect_downward(upward: Sequence[Sibling]) -> None:
    if len(upward) > 1 and all(one.mtime_ns < two.mtime_ns for one, two in pairwise(upward)):
        first, last = upward[0].path, upward[-1].path
        raise SourceError(
            f"the order of the rotations cannot be told: {first!r} should be younger than {last!r} by its "
            f"number, and is older by its modification time; set numbered: up if the highest number is the "
            f"youngest, or numbered: down",
            path=first,
        )


def _by_date(rotated: Sequence[Sibling]) -> list[Sibling] | None:
    forms = {_DIGITS.sub("#", sibling.stamp) for sibling in rotated}
    if len(forms) != 1 or not all(_DATE.match(sibling.stamp) for sibling in rotated):
        return None
    return sorted(rotated, key=lambda sibling: [int(digits) for digits in _DIGITS.findall(sibling.stamp)])


def _by_time(rotated: Sequence[Sibling]) -> list[Sibling]:
    return sorted(rotated, key=lambda sibling: (sibling.mtime_ns, sibling.stamp))
