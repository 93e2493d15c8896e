"""JSON to plain data with the line of every path, and back.

Owns: strict JSON (no NaN, no duplicate keys), the same limits as YAML, and the lines of paths.
Does not own: what the data means (flowcore.document).

Always holds: whatever the text, the answer is data or a ValidationFailedError with file and line.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from typing import Final

from flowcore.document import Fault
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark, Path, path_text, shown
from flowruntime.definition.parsed import Parsed

MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 100

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][-+]?[0-9]+)?")
_WORDS: Final = {"null": None, "true": True, "false": False}
_WORD = re.compile(r"null|true|false")


def parse_json(text: str, *, file: str | None = None) -> tuple[object, dict[Path, Mark]]:
    """One JSON text as plain data, and where each path was written.

    Raises:
        ValidationFailedError: not JSON, a duplicate key, a number too large for a float, or a limit exceeded
            (`MAX_NODES`, `MAX_DEPTH`).
    """
    parsed = read_json(text, file=file)
    if parsed.faults:
        raise ValidationFailedError([fault.problem for fault in parsed.faults])
    return parsed.data, parsed.marks


def read_json(text: str, *, file: str | None = None) -> Parsed:
    """As `parse_json`, but faults of one place are told with the data.

    A duplicate key leaves the first of two values, a number no float can hold is null.

    Raises:
        ValidationFailedError: the text as a whole cannot be read: it is not JSON, or exceeds a limit.
    """
    reader = _Reader(text, file)
    return Parsed(reader.document(), reader.marks, reader.faults)


def write_json(data: object) -> str:
    """Plain data as JSON, indented, that `parse_json` reads back unchanged."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _Reader:
    """A recursive-descent reader; the standard library's knows no lines and drops duplicate keys."""

    def __init__(self, text: str, file: str | None) -> None:
        self.marks: Final[dict[Path, Mark]] = {}
        self.faults: Final[list[Fault]] = []
        self._text: Final = text
        self._file: Final = file
        self._nodes = 0
        self._newlines: Final = array("L", (found.start() for found in re.finditer("\n", text)))

    def document(self) -> object:
        data, end = self._value(self._skip(0), ())
        end = self._skip(end)
        if end != len(self._text):
            raise self._refuse(
                end, (), f"unexpected {shown(self._text[end])} after the end of the JSON value"
            )
        return data

    def _value(self, at: int, path: Path) -> tuple[object, int]:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            limit = f"{MAX_NODES} values" if self._nodes > MAX_NODES else f"{MAX_DEPTH} levels of nesting"
            raise self._refuse(at, path[:6], f"there are more than {limit}", "make it smaller")
        self.marks[path] = Mark(self._file, self._line_of(at))
        match self._text[at : at + 1]:
            case "{":
                return self._mapping(at, path)
            case "[":
                return self._list(at, path)
            case '"':
                return self._string(at, path)
            case _:
                return self._scalar(at, path)

    def _mapping(self, at: int, path: Path) -> tuple[dict[str, object], int]:
        data: dict[str, object] = {}
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "}":
            return data, at + 1
        while True:
            start = at
            if self._text[at : at + 1] != '"':
                raise self._refuse(at, path, "a key in double quotes is expected")
            key, at = self._string(at, path)
            at = self._expect(self._skip(at), ":", path)
            here = (*path, key)
            first = self.marks.get(here) if key in data else None
            value, at = self._value(self._skip(at), here)
            if first is None:
                data[key] = value
            else:
                message = f"the key {shown(key)} is there twice (first on line {first.line})"
                self._note(start, here, message, "keep one of the two")
            at = self._skip(at)
            if self._text[at : at + 1] == "}":
                return data, at + 1
            at = self._skip(self._expect(at, ",", path))

    def _list(self, at: int, path: Path) -> tuple[list[object], int]:
        items: list[object] = []
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return items, at + 1
        while True:
            item, at = self._value(at, (*path, len(items)))
            items.append(item)
            at = self._skip(at)
            if self._text[at : at + 1] == "]":
                return items, at + 1
            at = self._skip(self._expect(at, ",", path))

    def _string(self, at: int, path: Path) -> tuple[str, int]:
        try:
            return json.decoder.scanstring(self._text, at + 1)  # type: ignore[attr-defined, no-any-return]
        except json.JSONDecodeError as fault:
            raise self._refuse(
                min(fault.pos, len(self._text)), path, f"not valid JSON: {fault.msg}"
            ) from fault

    def _scalar(self, at: int, path: Path) -> tuple[object, int]:
        word = _WORD.match(self._text, at)
        if word:
            return _WORDS[word[0]], word.end()
        match = _NUMBER.match(self._text, at)
        if match is None:
            found = shown(self._text[at : at + 10]) if at < len(self._text) else "the end of the text"
            raise self._refuse(at, path, f"a JSON value is expected, found {found}")
        try:
            whole = match["fraction"] is None and match["exponent"] is None
            number = int(match[0]) if whole else float(match[0])
        except ValueError:
            self._note(at, path, "the number has too many digits", "put it in quotes")
            return None, match.end()
        if number in {float("inf"), float("-inf")}:
            message = f"the number {shown(match[0])} is too large for a float"
            self._note(at, path, message, "put it in quotes")
            return None, match.end()
        return number, match.end()

    def _expect(self, at: int, token: str, path: Path) -> int:
        if self._text[at : at + 1] != token:
            found = shown(self._text[at : at + 10]) if at < len(self._text) else "the end of the text"
            raise self._refuse(at, path, f"{token!r} is expected, found {found}")
        return at + 1

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _line_of(self, at: int) -> int:
        return bisect_left(self._newlines, at) + 1

    def _note(self, at: int, path: Path, message: str, remedy: str) -> None:
        self.faults.append(Fault(path, self._problem(at, path, message, remedy)))

    def _refuse(self, at: int, path: Path, message: str, remedy: str = "") -> ValidationFailedError:
        return ValidationFailedError([self._problem(at, path, message, remedy)])

    def _problem(self, at: int, path: Path, message: str, remedy: str) -> Problem:
        return Problem(
            path=path_text(path) or "workflow",
            message=message,
            remedy=remedy,
            file=self._file,
            line=self._line_of(at),
        )
