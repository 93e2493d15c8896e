"""Bounds of one configuration value: what `Annotated[T, Meta(...)]` says, checked and put into words.

Owns: checking a value against a `msgspec.Meta`, and the same bounds as JSON Schema.
Does not own: the value's type (flowcore.config).

Always holds: NaN is within no bound; lengths of text count code points.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from typing import Any

import msgspec


def bound_fault(meta: msgspec.Meta, value: object) -> str | None:
    """Which bound of `meta` the value breaks, in words; None when it keeps them all."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_fault(meta, value)
    if isinstance(value, str) and meta.pattern is not None and re.search(meta.pattern, value) is None:
        return f"must match {meta.pattern!r}"
    if isinstance(value, Sized):
        what = "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "entries"
        if meta.min_length is not None and len(value) < meta.min_length:
            return f"must have at least {meta.min_length} {what}"
        if meta.max_length is not None and len(value) > meta.max_length:
            return f"must have at most {meta.max_length} {what}"
    return None


def bound_schema(meta: msgspec.Meta, *, kind: object) -> dict[str, object]:
    """The bounds as JSON Schema keywords of a `kind` ("string", "array", "object", ...)."""
    lengths = {"array": ("minItems", "maxItems"), "object": ("minProperties", "maxProperties")}
    least, most = lengths.get(str(kind), ("minLength", "maxLength"))
    said: dict[str, Any] = {
        "minimum": meta.ge,
        "exclusiveMinimum": meta.gt,
        "maximum": meta.le,
        "exclusiveMaximum": meta.lt,
        "multipleOf": meta.multiple_of,
        "pattern": meta.pattern,
        least: meta.min_length,
        most: meta.max_length,
        "title": meta.title,
        "description": meta.description,
    }
    return {keyword: bound for keyword, bound in said.items() if bound is not None} | (
        meta.extra_json_schema or {}
    )


def _number_fault(meta: msgspec.Meta, value: float) -> str | None:
    if meta.ge is not None and not value >= meta.ge:
        return f"must be at least {meta.ge}"
    if meta.gt is not None and not value > meta.gt:
        return f"must be greater than {meta.gt}"
    if meta.le is not None and not value <= meta.le:
        return f"must be at most {meta.le}"
    if meta.lt is not None and not value < meta.lt:
        return f"must be less than {meta.lt}"
    if meta.multiple_of is not None and value % meta.multiple_of != 0:
        return f"must be a multiple of {meta.multiple_of}"
    return None
