"""text.template: a text with fields of the row put in."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from flowcore.coercion import coerce
from flowcore.errors import ConfigError
from flowcore.findings import shown
from flowcore.node import node
from flowcore.values import Json, kind_of
from flownodes.fields import ABSENT, find, missing_field, parse_path, wrong_kind

_WHOLE: Final = r"^(?:[^{}]|\{\{|\}\}|\{[^{}]+\})*$"
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[^{}]+")

TemplateText = Annotated[
    str,
    Meta(
        pattern=_WHOLE, min_length=1, max_length=100_000,
        description="the text; {field.path} puts a field in, {{ and }} are braces",
    ),
]  # fmt: skip


@node("text.template", deterministic=True)
def template(
    value: Any,
    *,
    template: TemplateText,
    missing: Annotated[
        Literal["error", "empty"],
        Meta(description="a field that is missing or null: fail the row, or put nothing"),
    ] = "error",
) -> str:
    """The text with `{customer.name}` replaced by that field of the value; `{value}` is the value itself.

    Text is put in as it is, numbers and true or false as JSON writes them, lists and dicts as JSON. Nothing
    is computed and no attribute is read: what a row holds can only ever become text.

    Emits when      every field is there, or `missing: empty`.
    Drops           nothing.
    Fails when      a field is missing, null, or has no form as text (a Stream); the error has its path.
    Cost            O(length of the result).
    """
    return filled(template, value, missing)


def filled(template: str, value: Any, missing: Literal["error", "empty"] = "error") -> str:
    """The text with fields of the value put in."""
    parts: list[str] = []
    for literal, path in _parsed(template):
        parts.append(literal if path is None else _field(value, path, missing))
    return "".join(parts)


@lru_cache(maxsize=1_024)
def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    if re.match(_WHOLE, template) is None:
        raise ConfigError(
            f"template {shown(template)} has a brace without its pair; write {{{{ and }}}} for braces"
        )
    found: list[tuple[str, str | None]] = []
    for match in _PARTS.finditer(template):
        path = match[1]
        found.append(
            ("", path.strip()) if path else (match[0][0] if match[0] in ("{{", "}}") else match[0], None)
        )
    return tuple(found)


def _field(value: Any, text: str, missing: Literal["error", "empty"]) -> str:
    row: object = value
    itself = text == "value" and not (type(row) is dict and "value" in row)
    path = () if itself else parse_path(text)
    found = find(value, path)
    if found is ABSENT or found is None:
        if missing == "empty":
            return ""
        if found is ABSENT:
            raise missing_field(value, path)
        raise wrong_kind(
            found, "a value", f"template field {text!r}", "set missing: empty to put nothing in its place"
        )
    if kind_of(found) in ("list", "dict"):
        return Json.of(found).raw.decode()
    written: str = coerce(found, "str", path=path)
    return written
