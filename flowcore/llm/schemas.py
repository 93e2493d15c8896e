"""Schemas models are asked to keep to: made from Python types, and without references.

Owns: `schema_of`, `inlined`, and reading the JSON of an answer that may have text around it.
Does not own: checking a value against a schema (flowcore.answers).

Always holds: what `inlined` gives has no `$ref` and no `$defs`; pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from flowcore.errors import ConfigError
from flowcore.findings import shown
from flowcore.values import Json

_LOCAL: Final = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_FENCED: Final = re.compile(r"```[A-Za-z]*\s*\n(.*?)```", re.DOTALL)
_MAX_CHARACTERS: Final = 4_000_000


def schema_of(kind: Any) -> dict[str, Any]:
    """JSON Schema of a Python type (a msgspec struct, a dataclass, `list[int]`), without references.

    Raises:
        ConfigError: the type has no schema, or refers to itself.
    """
    try:
        made = msgspec.json.schema(kind)
    except TypeError as fault:
        raise ConfigError(f"{kind!r} has no JSON Schema: {fault}", value=repr(kind)) from fault
    return inlined(made)


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with each local `$ref` replaced by what it refers to; what stands beside one wins.

    Raises:
        ConfigError: a reference leads nowhere, outside the schema, or back to itself.
    """
    definitions: dict[str, Any] = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    found: dict[str, Any] = _inlined(schema, definitions, ())
    found.pop("$defs", None)
    found.pop("definitions", None)
    return found


def _inlined(part: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_inlined(each, definitions, within) for each in cast("list[Any]", part)]
    if not isinstance(part, Mapping):
        return part
    fields = cast("Mapping[str, Any]", part)
    beside = {
        name: each if name in ("$defs", "definitions") else _inlined(each, definitions, within)
        for name, each in fields.items()
        if name != "$ref"
    }
    reference = fields.get("$ref")
    if not isinstance(reference, str):
        return beside
    match = _LOCAL.fullmatch(reference)
    name = "" if match is None else match[1]
    if name not in definitions:
        raise ConfigError(
            f"schema refers to {shown(reference)}, which is not in its $defs; write that part in its place",
            value=reference,
        )
    if name in within:
        raise ConfigError(
            f"schema part {shown(name)} contains itself; a model cannot be held to that: give it a depth",
            value=reference,
        )
    return {**_inlined(definitions[name], definitions, (*within, name)), **beside}


def json_in(text: str) -> Any:
    """The JSON value of an answer: the whole text, or a fenced block, or the first object or array in it.

    Raises:
        ValueError: there is none; the message says what was tried.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the answer has {len(text):,} characters, more than {_MAX_CHARACTERS:,}")
    first: Exception | None = None
    for piece in _pieces(text):
        try:
            return Json(piece.encode()).parse()
        except ValueError as fault:  # a lone surrogate is a UnicodeEncodeError, which is one too
            first = first or fault
    raise ValueError(f"the answer is no JSON: {first}; it starts with {shown(text[:80])}")


def _pieces(text: str) -> Iterator[str]:
    yield text.strip()
    for match in _FENCED.finditer(text):
        yield match[1].strip()
    for begin, end in (("{", "}"), ("[", "]")):
        start, stop = text.find(begin), text.rfind(end)
        if 0 <= start < stop:
            yield text[start : stop + 1]
