"""Paths to fields inside a value: `customer.name`, `items[0].id`, `["a.b"].c`.

Owns: reading the text of a path, following it, and putting a value at one without changing the original.
Does not own: expressions (a path cannot compute) or what a node does when a field is missing.

Always holds: a path either leads to a value or raises with the path as far as it led; no value is changed in
place. A text without `.`, `[` and `]` is one key, whatever else it holds.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from flowcore.errors import MissingFieldError, WrongKindError
from flowcore.findings import Path, did_you_mean, path_text, shown
from flowcore.shapes import type_name

_KEY = r"[^.\[\]]+"
_QUOTED = r"\[\"[^\"]*\"\]|\['[^']*'\]"
_INDEX = r"\[(?:0|[1-9][0-9]{0,8})\]"
_PATTERN: Final = rf"^(?:{_KEY}|{_QUOTED}|{_INDEX})(?:\.{_KEY}|{_QUOTED}|{_INDEX})*$"
_SEGMENT = re.compile(rf"{_QUOTED}|{_INDEX}|{_KEY}")

FieldPath = Annotated[
    str,
    msgspec.Meta(
        pattern=_PATTERN, max_length=1_000, description='path to a field, such as a.b, items[0].id or ["x.y"]'
    ),
]
"""A path as users write it."""

Missing = Literal["error", "null", "skip"]
"""What a field that is not there makes: a failed row, a null in its place, or nothing."""

ABSENT: Final = msgspec.UNSET


@lru_cache(maxsize=4_096)
def parse_path(text: str) -> Path:
    """The keys and indexes of a path.

    Raises:
        WrongKindError: not a path; configurations are checked before anything runs: a caller's slip.
    """
    if not re.match(_PATTERN, text):
        raise WrongKindError(
            f'{shown(text)} is not a path to a field; write it like a.b, items[0].id or ["x.y"]',
            expected="path",
            given=text,
        )
    return tuple(_segment(found[0]) for found in _SEGMENT.finditer(text))


def _segment(text: str) -> str | int:
    if not text.startswith("["):
        return text
    inner = text[1:-1]
    return inner[1:-1] if inner[0] in "\"'" else int(inner)


def find(value: object, path: Path) -> Any:
    """What stands at `path`, or `ABSENT` when a key or index on the way is not there; null has no fields.

    Raises:
        WrongKindError: a key of something that is no dict, or an index of something that is no list.
    """
    for depth, segment in enumerate(path):
        if value is None:
            return ABSENT
        if isinstance(segment, str):
            if type(value) is not dict:
                raise _no_fields(value, path[:depth], segment)
            fields = cast("dict[str, object]", value)
            if segment not in fields:
                return ABSENT
            value = fields[segment]
        else:
            if type(value) is not list:
                raise _no_fields(value, path[:depth], segment)
            items = cast("list[object]", value)
            if segment >= len(items):
                return ABSENT
            value = items[segment]
    return value


def get(value: object, path: Path) -> Any:
    """What stands at `path`.

    Raises:
        MissingFieldError: nothing does; the message names the fields that are there.
        WrongKindError: as `find`.
    """
    found = find(value, path)
    if found is ABSENT:
        raise missing_field(value, path)
    return found


def missing_field(value: object, path: Path) -> MissingFieldError:
    """The error for a path that leads nowhere, with the fields there are where it stops."""
    reached = 0
    while find(value, path[: reached + 1]) is not ABSENT:
        reached += 1
    last, parent = path[reached], find(value, path[:reached])
    where = f" of {path_text(path[:reached])}" if reached else ""
    known: list[str] = []
    if parent is None:
        message = f"{path_text(path[:reached]) or 'the value'} is null and has no {shown(last)}"
    elif isinstance(last, int):
        length = len(cast("list[object]", parent))
        message = f"item {last}{where} is missing: the list has {length} item{'' if length == 1 else 's'}"
    else:
        known = [key for key in cast("dict[object, object]", parent) if isinstance(key, str)]
        hint = did_you_mean(last, known) or "the dict is empty"
        message = f"field {shown(last)}{where} is missing; {hint}"
    return MissingFieldError(message, path=path_text(path), known=known[:40])


def replaced(value: object, path: Path, new: object) -> Any:
    """A value equal to `value` but for `new` at `path`; only the containers on the way are copied.

    Keys that are missing at the end of the path are added; the path before it must exist.
    """
    if not path:
        return new
    segment = path[0]
    if isinstance(segment, str):
        if type(value) is not dict:
            raise _no_fields(value, (), segment)
        fields = dict(cast("dict[str, object]", value))
        if segment not in fields and len(path) > 1:
            raise missing_field(cast("object", value), path[:1])
        fields[segment] = replaced(fields.get(segment), path[1:], new)
        return fields
    if type(value) is not list:
        raise _no_fields(value, (), segment)
    items = list(cast("list[object]", value))
    if segment >= len(items):
        raise missing_field(cast("object", value), path[:1])
    items[segment] = replaced(items[segment], path[1:], new)
    return items


def expect_dict(value: object, what: str) -> dict[str, Any]:
    """The value, which must be a dict.

    Raises:
        WrongKindError: naming `what` needs it.
    """
    if type(value) is not dict:
        raise wrong_kind(value, "a dict", what)
    return cast("dict[str, Any]", value)


def wrong_kind(value: object, expected: str, what: str, remedy: str = "") -> WrongKindError:
    """The error for a value `what` cannot work on."""
    tail = f"; {remedy}" if remedy else ""
    return WrongKindError(
        f"{what} needs {expected}, got {type_name(value)} {shown(value)}{tail}",
        expected=expected,
        given=shown(value),
    )


def _no_fields(value: object, reached: Path, segment: str | int) -> WrongKindError:
    wanted = "a dict" if isinstance(segment, str) else "a list"
    where = path_text(reached) or "the value"
    return WrongKindError(
        f"{where} must be {wanted} to have {shown(segment)}, it is {type_name(value)} {shown(value)}",
        expected=wanted,
        given=shown(value),
        path=path_text((*reached, segment)),
    )
