"""transform.json_parse: turns JSON text or bytes into a value."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Final, Literal, cast

from msgspec import Meta

from flowcore.errors import ParseError
from flowcore.findings import shown
from flowcore.node import node
from flowcore.values import Json
from flownodes.fields import wrong_kind

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?', re.DOTALL)
_BOM: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"


@node("transform.json_parse", deterministic=True)
def json_parse(
    value: str | bytes | Json,
    *,
    duplicate_keys: Annotated[
        Literal["error", "last"],
        Meta(description="a key twice in one object: fail the row, or keep the last"),
    ] = "error",
    max_bytes: Annotated[int, Meta(ge=1, description="longest text, in bytes of UTF-8")] = 16 * 1024 * 1024,
    max_depth: Annotated[int, Meta(ge=1, le=200, description="deepest nesting of lists and objects")] = 100,
) -> Any:
    """The value a JSON text stands for.

    Whole numbers of any size are exact, 1 and 1.0 stay apart. `NaN`, `Infinity` and numbers too large for a
    float are not JSON's and fail the row. Bytes are UTF-8; a byte order mark at the start is skipped.

    Emits when      the text is one JSON value with nothing but blanks around it.
    Drops           nothing.
    Fails when      it is not JSON (with line and column), is too long or too deep, or holds a key twice.
    Cost            O(bytes); some 3 times a parser that does not look for keys given twice.
    """
    text = _text(value, max_bytes)
    hook = _refuse_duplicates if duplicate_keys == "error" else None
    try:
        parsed = json.loads(
            text, object_pairs_hook=hook, parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except json.JSONDecodeError as fault:
        raise _parse_error(fault.msg, text, fault.pos) from None
    except _NotJsonError as fault:
        raise _parse_error(str(fault), text, _find_token(text, fault.token)) from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as fault:  # a whole number of more digits than Python converts
        raise ParseError(f"not valid JSON: {fault}", reason=str(fault), line=None, column=None) from fault
    if text.count("[") + text.count("{") > max_depth and _depth(parsed) > max_depth:
        raise _too_deep(max_depth)
    return parsed


class _NotJsonError(ValueError):
    """What the parser would take and JSON does not allow; `token` is its text, None when it has no place."""

    def __init__(self, message: str, token: str | None = None) -> None:
        super().__init__(message)
        self.token = token


def _text(value: object, max_bytes: int) -> str:
    raw = value.raw if isinstance(value, Json) else value
    if not isinstance(raw, str | bytes):
        raise wrong_kind(value, "text or bytes", "transform.json_parse")
    if len(raw) > max_bytes or (
        isinstance(raw, str) and 3 * len(raw) > max_bytes and _utf8_length(raw) > max_bytes
    ):
        raise ParseError(
            f"the text is longer than max_bytes={max_bytes} bytes; raise it if such texts are expected",
            reason="too long",
            line=None,
            column=None,
        )
    if isinstance(raw, str):
        return raw.removeprefix(_BOM)
    try:
        return raw.decode().removeprefix(_BOM)
    except UnicodeDecodeError as fault:
        before = raw[: fault.start]
        line, column = before.count(b"\n") + 1, fault.start - before.rfind(b"\n")
        raise ParseError(
            f"not UTF-8 at line {line}, byte {column} of it: {shown(raw[fault.start : fault.start + 8])}; "
            "decode it first",
            reason="not UTF-8",
            line=line,
            column=column,
        ) from fault


def _utf8_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _NotJsonError(
            f"key {shown(twice)} stands twice in one object; set duplicate_keys to 'last' to keep the last"
        )
    return found


def _refuse_constant(word: str) -> object:
    raise _NotJsonError(f"{word} is not JSON", word)


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _NotJsonError(f"the number {shown(text)} is too large for a float", text)
    return number


def _find_token(text: str, token: str | None) -> int | None:
    """Where the token stands outside strings; the first such place is the one that failed."""
    if token is None:
        return None
    return next((found.start() for found in _TOKENS.finditer(text) if found[0] == token), None)


def _parse_error(reason: str, text: str, position: int | None) -> ParseError:
    if position is None:
        return ParseError(f"not valid JSON: {reason}", reason=reason, line=None, column=None)
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    near = shown(text[position : position + 20]) if position < len(text) else "the end"
    return ParseError(
        f"not valid JSON at {line}:{column}, near {near}: {reason}", reason=reason, line=line, column=column
    )


def _too_deep(max_depth: int) -> ParseError:
    return ParseError(
        f"nested deeper than max_depth={max_depth} levels", reason="too deep", line=None, column=None
    )


def _depth(value: object) -> int:
    """Levels of lists and dicts, without recursion."""
    depth = 0
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        item, above = stack.pop()
        if isinstance(item, list | dict):
            depth = max(depth, above + 1)
            stack.extend((child, above + 1) for child in _children(cast("object", item)))
    return depth


def _children(value: object) -> list[object]:
    return (
        list(cast("dict[str, object]", value).values())
        if isinstance(value, dict)
        else cast("list[object]", value)
    )
