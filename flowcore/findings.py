"""Findings: collect every problem of a declaration, each with its path, line, value and remedy.

Owns: how a path into plain data is written, how a value is shown in a message, "did you mean", and the
places that were refused.
Does not own: the rules that find problems (shapes, document, the compiler) or how they are printed.

Always holds: adding a finding never raises, whatever the value; order of discovery is kept; what stands at a
refused place is not known, so nothing that only follows from it is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from flowcore.errors import Problem, ValidationFailedError

Path: TypeAlias = tuple[str | int, ...]

NOTHING: Final = msgspec.UNSET
"""Stands for "no value to show" and "refused"; None is a value users write."""
MOST_SUGGESTED: Final = 50
"""Names that are compared with a long list of known ones, to tell what was probably meant."""

_PLAIN_SEGMENT = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_SHOWN_LENGTH = 80
_FEW_WORDS: Final = 64


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


def near_words(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """The one or two known words that resemble `word` most, the nearest first; none when none is near.

    Args:
        word: capital letters count as small ones.
        known: words to choose from.
        cutoff: how near is near: 1.0 is the same word.

    Cost: some 10 us per known word, of which the first 1,000 are looked at.
    """
    import difflib  # only where something is wrong: it would cost every start

    words = [known_word for known_word in known if known_word][:1_000]
    by_small = {known_word.casefold(): known_word for known_word in reversed(words)}
    found = difflib.get_close_matches(word[:64].casefold(), list(by_small)[::-1], n=2, cutoff=cutoff)
    return [by_small[small] for small in found]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy naming the nearest known words, or the first 40 of them when none is near."""
    words = [known_word for known_word in known if known_word]
    return _meant(near_words(word, words), words)


def _meant(near: Sequence[str], words: Sequence[str]) -> str:
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    return f"known here: {', '.join(sorted(words)[:40])}" if words else ""


class Refused:
    """Places of a document whose content is not known, because what stands there was refused.

    Args:
        places: paths from the root of the document; one covers everything below it.
    """

    __slots__ = ("_around", "places")

    def __init__(self, places: Iterable[Path] = ()) -> None:
        self.places: Final = frozenset(places)
        self._around: Final = {place[:end] for place in self.places for end in range(len(place))}

    def covers(self, path: Path) -> bool:
        """Whether `path`, or something around it, was refused."""
        return bool(self.places) and any(path[:end] in self.places for end in range(len(path) + 1))

    def touches(self, path: Path) -> bool:
        """Whether `path`, something around it or something in it was refused."""
        return path in self._around or self.covers(path)

    def under(self, prefix: Path) -> Refused:
        """What was refused below `prefix`, seen from there; everything when that was refused itself."""
        if not self.touches(prefix):
            return NOTHING_REFUSED
        if self.covers(prefix):
            return Refused([()])
        depth = len(prefix)
        return Refused(place[depth:] for place in self.places if place[:depth] == prefix)

    def and_also(self, places: Collection[Path]) -> Refused:
        """These places and others."""
        return Refused([*self.places, *places]) if places else self

    def __bool__(self) -> bool:
        return bool(self.places)

    def __repr__(self) -> str:
        return f"Refused({', '.join(sorted(path_text(place) or '.' for place in self.places))})"


NOTHING_REFUSED: Final = Refused()


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
        refused: places where something was found before; what is found there now only follows from that.
    """

    __slots__ = ("_file", "_marks", "_places", "_refused", "_suggested", "problems", "unknown")

    def __init__(
        self,
        *,
        marks: Mapping[Path, Mark] | None = None,
        file: str | None = None,
        refused: Refused = NOTHING_REFUSED,
    ) -> None:
        self._marks: Final[Mapping[Path, Mark]] = {} if marks is None else marks  # asking for a length costs
        self._file = file
        self._refused = refused
        self._suggested = 0
        self._places: set[Path] = set()
        self.problems: list[Problem] = []
        self.unknown: set[str] = set()
        """Paths, as text, of names that are not known: wrong whatever stands there."""

    @property
    def refused(self) -> Refused:
        """Where the content is not known, by what was found so far."""
        return self._refused.and_also(self._places)

    def refuses(self, path: Path) -> bool:
        """Whether something was found at `path`, or around it, already."""
        return self._refused.covers(path) or any(path[:end] in self._places for end in range(len(path) + 1))

    def refuse(self, path: Path) -> None:
        """Note that what stands at `path` is not known, by what was found elsewhere."""
        self._places.add(path)

    def add(
        self,
        path: Path,
        message: str,
        *,
        remedy: str = "",
        value: object = NOTHING,
        severity: str = "error",
        sound: bool = False,
    ) -> None:
        """Note one problem at `path`.

        Args:
            path: where it stands.
            message: what is wrong.
            remedy: what to do about it.
            value: what stands there.
            severity: `error` or `warning`.
            sound: what stands at and below `path` can be read all the same.
        """
        if self._refused.covers(path):
            return
        if severity == "error" and not sound:
            self._places.add(path)
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

    def add_unknown(
        self, path: Path, name: str, known: Collection[str], *, what: str = "field", remedy: str = ""
    ) -> None:
        """Note that `name` is not one of the `known` names at `path`.

        Those it was probably meant for are refused, too: that they are missing only follows from it.
        """
        words = self._comparable(known)
        near = near_words(name, words)
        self.add((*path, name), f"unknown {what} {shown(name)}", remedy=remedy or _meant(near, words))
        self._places.update((*path, each) for each in near)
        self.unknown.add(path_text((*path, name)))

    def add_undeclared(self, path: Path, name: str, known: Collection[str]) -> None:
        """Note that what stands at `path` refers to a param that is not declared."""
        remedy = did_you_mean(name, self._comparable(known)) or "declare it under params"
        self.add(path, f"unknown param {shown(name)}", remedy=remedy)

    def _comparable(self, known: Collection[str]) -> Sequence[str]:
        """The known names, but many of them only `MOST_SUGGESTED` times: comparing them costs up to 10 ms."""
        if len(known) > _FEW_WORDS:
            self._suggested += 1
            if self._suggested > MOST_SUGGESTED:
                return ()
        return [word for word in known if word]

    def include(self, problems: Iterable[Problem], path: Path) -> None:
        """Take over problems found deeper, whose paths start at `path`."""
        if self._refused.covers(path):
            return
        self._places.add(path)
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
        """Empty findings with the same marks, for an attempt whose problems may turn out not to matter."""
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
