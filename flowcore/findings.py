"""Findings: collect every problem of a declaration, each with its path, line, value and remedy.

Owns: how a path into plain data is written, how a value is shown in a message, and "did you mean".
Does not own: the rules that find problems (shapes, document, the compiler) or how they are printed.

Always holds: adding a finding never raises, whatever the value; order of discovery is kept.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from flowcore.errors import Problem, ValidationFailedError

Path: TypeAlias = tuple[str | int, ...]

NOTHING: Final = msgspec.UNSET
"""Stands for "no value to show" and "refused"; None is a value users write."""

_PLAIN_SEGMENT = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_SHOWN_LENGTH = 80


class Mark(msgspec.Struct, frozen=True):
    """Where one piece of plain data was written."""

    file: str | None
    line: int | None


def path_text(path: Sequence[str | int]) -> str:
    """A path as users read it: `nodes.fetch.config.headers["x y"][0]`."""
    parts: list[str] = []
    for segment in path:
        if isinstance(segment, int):
            parts.append(f"[{segment}]")
        elif _PLAIN_SEGMENT.fullmatch(segment):
            parts.append(f".{segment}" if parts else segment)
        else:
            parts.append(f"[{shown(segment)}]")
    return "".join(parts)


def shown(value: object) -> str:
    """`repr` of a value, shortened; never raises, whatever its `__repr__` does."""
    if isinstance(value, str | bytes) and len(value) > _SHOWN_LENGTH:
        return f"{value[:_SHOWN_LENGTH]!r}..."
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - another's __repr__; the finding is told all the same
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy naming the nearest known words, or the first 40 of them when none is near."""
    words = [known_word for known_word in known if known_word]
    near = difflib.get_close_matches(word[:64], words[:1_000], n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not words:
        return ""
    return f"known here: {', '.join(sorted(words)[:40])}"


class MarksUnder(Mapping[Path, Mark]):
    """The marks of one part of a document, seen from that part."""

    __slots__ = ("_marks", "_prefix")

    def __init__(self, marks: Mapping[Path, Mark], prefix: Path) -> None:
        self._marks = marks
        self._prefix = prefix

    def __getitem__(self, path: Path) -> Mark:
        return self._marks[(*self._prefix, *path)]

    def __iter__(self) -> Iterator[Path]:
        depth = len(self._prefix)
        return (path[depth:] for path in self._marks if path[:depth] == self._prefix)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Findings:
    """Problems found so far; give it marks and every problem carries its file and line.

    Args:
        marks: where each path was written; a path without a mark takes the one of its nearest parent.
        file: the file named when no mark is known.
    """

    __slots__ = ("_file", "_marks", "problems")

    def __init__(self, *, marks: Mapping[Path, Mark] | None = None, file: str | None = None) -> None:
        self._marks = marks or {}
        self._file = file
        self.problems: list[Problem] = []

    def add(
        self, path: Path, message: str, *, remedy: str = "", value: object = NOTHING, severity: str = "error"
    ) -> None:
        """Note one problem at `path`."""
        mark = self.mark_of(path)
        self.problems.append(
            Problem(
                path=path_text(path) or "workflow",
                message=message,
                remedy=remedy,
                value=None if value is NOTHING else shown(value),
                file=mark.file or self._file,
                line=mark.line,
                severity=severity,
            )
        )

    def add_unknown(self, path: Path, name: str, known: Iterable[str], *, what: str = "field") -> None:
        """Note that `name` is not one of the `known` names at `path`."""
        self.add((*path, name), f"unknown {what} {shown(name)}", remedy=did_you_mean(name, known))

    def add_undeclared(self, path: Path, name: str, known: Iterable[str]) -> None:
        """Note that what stands at `path` refers to a param that is not declared."""
        self.add(
            path,
            f"unknown param {shown(name)}",
            remedy=did_you_mean(name, known) or "declare it under params",
        )

    def include(self, problems: Iterable[Problem], path: Path) -> None:
        """Take over problems found deeper, whose paths start at `path`."""
        mark = self.mark_of(path)
        head = path_text(path)
        for problem in problems:
            joint = "" if not head or problem.path.startswith("[") else "."
            self.problems.append(
                msgspec.structs.replace(
                    problem,
                    path=f"{head}{joint}{problem.path}",
                    file=problem.file or mark.file or self._file,
                    line=problem.line if problem.line is not None else mark.line,
                )
            )

    def branch(self) -> Findings:
        """Empty findings with the same marks: for an attempt whose problems may turn out not to matter."""
        return Findings(marks=self._marks, file=self._file)

    def mark_of(self, path: Path) -> Mark:
        """Where `path`, or the nearest parent that has a mark, was written."""
        for end in range(len(path), -1, -1):
            mark = self._marks.get(path[:end])
            if mark is not None:
                return mark
        return Mark(self._file, None)

    def raise_if_any(self, what: str = "workflow") -> None:
        """Raise all errors at once; warnings alone raise nothing.

        Raises:
            ValidationFailedError: at least one finding is an error.
        """
        if any(problem.severity == "error" for problem in self.problems):
            raise ValidationFailedError(self.problems, what=what)
