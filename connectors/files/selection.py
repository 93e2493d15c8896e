"""Which files a path means: one, those of a folder, those that match a pattern.

Owns: `Selection`, `Matched`.
Does not own: when to look (files.source), reading them.

Always holds: files are in the order of their names; each lies inside the allowed roots, links followed; a
file that several links lead to is read once; a folder that cannot be looked into is an error; what is left
out is told, once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from connectors.files.opening import EXTENSIONS
from connectors.files.rotation import is_rotation_of
from flowcore.errors import SourceError

_MAGIC: Final = re.compile(r"[*?[]")
_SHOWN: Final = 5
_DEEPEST: Final = 64
"""Folders below each other that `**` descends into."""


class Matched(NamedTuple):
    """What was found at one look."""

    paths: list[str]
    left_out: list[str]
    """What is not read and why; what was told before is not told again."""


class Selection:
    """The files of a path.

    Args:
        path: a file, a folder or a pattern.
        any_extension: the format was given, so a folder means all its files.
        follow: rotations belong to the file they are of, and nothing there yet is no error.
    """

    def __init__(self, path: str, *, any_extension: bool, follow: bool) -> None:
        self._path = path
        self._any_extension = any_extension
        self._follow = follow
        self._real: dict[str, str] = {}
        self._told: set[str] = set()

    def look(self, allowed: Callable[[str], str]) -> Matched:
        """The files there are now. Blocks.

        Args:
            allowed: gives a path made absolute, links followed; raises when it is outside the roots.

        Raises:
            SourceError: there is none and nothing is followed, or a folder cannot be looked into.
            PathRefusedError: as `allowed`.
        """
        path = self._path
        if _MAGIC.search(path) and not os.path.lexists(path):
            fixed, parts = _split(path)
            found = {os.path.join(fixed, name) for name in _matching(allowed(fixed), parts)}  # noqa: PTH118 - paths are text throughout
            return self._checked(found, [], allowed, f"no file matches {path!r}")
        absolute = allowed(path)
        if os.path.isdir(absolute):  # noqa: PTH112 - as above
            names = [
                entry.name for entry in _entries(absolute) if not _is_folder(entry) and entry.name[0] != "."
            ]
            known = {name for name in names if self._any_extension or _names_a_format(name)}
            unknown = sorted(set(names) - known)
            return self._checked(
                {os.path.join(path, name) for name in known},  # noqa: PTH118 - as above
                unknown,
                allowed,
                f"the folder {path!r} holds no file of a known format",
            )
        if not self._follow:
            _expect_there(path, absolute)
        return Matched([path], [])

    def _checked(
        self, found: set[str], unknown: Sequence[str], allowed: Callable[[str], str], nothing: str
    ) -> Matched:
        for path in found - self._real.keys():
            self._real[path] = allowed(path)
        regular = {path for path in found if os.path.isfile(self._real[path])}  # noqa: PTH113 - as above
        kept, doubles = self._once(regular)
        rotations = _rotations_in(kept, self._real.keys()) if self._follow else set[str]()
        if not self._follow and not regular:
            raise SourceError(f"{nothing}; check path", path=self._path)
        told = [
            self._tell(unknown, "their extension names no format; set format to read them"),
            self._tell(found - regular, "they are no regular files, or links that lead nowhere"),
            self._tell(doubles, "they are links to files that are read anyway"),
            self._tell(rotations, "they are rotations, read after the file they are of; see begin"),
        ]
        return Matched(sorted(kept - rotations), [message for message in told if message])

    def _once(self, paths: Iterable[str]) -> tuple[set[str], set[str]]:
        """Of several paths of one file the plainest, and the others."""
        by_file: dict[str, list[str]] = {}
        for path in paths:
            by_file.setdefault(self._real[path], []).append(path)
        kept = {
            same[0]
            if len(same) == 1
            else min(same, key=lambda path: (path.count(os.sep), _is_link(path), path))
            for same in by_file.values()
        }
        return kept, set(paths) - kept

    def _tell(self, names: Iterable[str], why: str) -> str | None:
        fresh = sorted(set(names) - self._told)
        if not fresh:
            return None
        self._told.update(fresh)
        shown = ", ".join(map(repr, fresh[:_SHOWN])) + (", ..." if len(fresh) > _SHOWN else "")
        return f"{self._path!r}: {len(fresh)} files are not read ({shown}): {why}"


def _expect_there(path: str, absolute: str) -> None:
    try:
        os.stat(absolute)  # noqa: PTH116 - as above
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise SourceError(
            f"{path!r} does not exist (looked for {absolute!r}); check path, or set mode: tail to wait "
            f"for it",
            path=path,
        ) from fault
    except OSError as fault:
        raise SourceError(f"cannot read {path!r}: {fault.strerror or fault}", path=path) from fault


def _names_a_format(name: str) -> bool:
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - paths are text throughout
    if extension.lower() in (".gz", ".zst"):
        extension = os.path.splitext(stem)[1]  # noqa: PTH122 - as above
    return extension.lower() in EXTENSIONS


def _is_link(path: str) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - as above


def _rotations_in(paths: set[str], ever: Container[str]) -> set[str]:
    """Those that are a rotation of a file that is there, or was."""
    found: set[str] = set()
    for path in paths:
        folder, name = os.path.split(path)
        for end, letter in enumerate(name):
            base = os.path.join(folder, name[:end])  # noqa: PTH118 - as above
            if letter in ".-_" and base in ever and is_rotation_of(name, name[:end]):
                found.add(path)
    return found


# --- patterns ---------------------------------------------------------------------------------------------


def _split(path: str) -> tuple[str, list[str]]:
    """The folder before the first wildcard, and the parts after it."""
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    folder = os.sep.join(parts[:fixed]) or (os.sep if path.startswith(os.sep) else "")  # noqa: PTH118 - as above
    return folder, [part for part in parts[fixed:] if part]


def _matching(folder: str, parts: Sequence[str], depth: int = 0) -> Iterator[str]:
    """Names below `folder`, which may come twice; hidden ones only where the pattern says so."""
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matching(folder, rest or ["*"], depth)
        for entry in _entries(folder):
            if entry.name[0] != "." and _is_folder(entry) and not _leads_back(entry.path):
                _expect_shallow(depth, entry.path)
                yield from _below(entry.path, entry.name, parts, depth + 1)
        return
    if rest and not _MAGIC.search(head):
        yield from _below(os.path.join(folder, head), head, rest, depth)  # noqa: PTH118 - as above
        return
    for entry in _entries(folder):
        if fnmatchcase(entry.name, head) and (entry.name[0] != "." or head[0] == "."):
            if rest:
                yield from _below(entry.path, entry.name, rest, depth)
            elif not _is_folder(entry):
                yield entry.name


def _below(folder: str, name: str, parts: Sequence[str], depth: int) -> Iterator[str]:
    for found in _matching(folder, parts, depth):
        yield os.path.join(name, found)  # noqa: PTH118 - as above


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        raise SourceError(
            f"cannot look into the folder {folder!r}: {fault.strerror or fault}; give access to it, or "
            f"narrow path",
            path=folder,
        ) from fault


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look: no folder, and no regular file either
        return False


def _leads_back(folder: str) -> bool:
    """A link to a folder it lies in itself: everything would come again and again."""
    if not os.path.islink(folder):  # noqa: PTH114 - as above
        return False
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(os.path.dirname(folder))]) == real  # noqa: PTH120 - as above


def _expect_shallow(depth: int, folder: str) -> None:
    if depth >= _DEEPEST:
        raise SourceError(
            f"{folder!r} lies {_DEEPEST} folders deep, as far as ** goes; do links lead in a circle?",
            path=folder,
        )
