"""transform.coerce: turns fields into other kinds, without changing what they say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from flowcore.coercion import coerce as coerce_value
from flowcore.node import node
from flownodes.fields import (
    ABSENT,
    FieldPath,
    Missing,
    expect_dict,
    find,
    missing_field,
    parse_path,
    replaced,
)

ToKind = Literal["bool", "int", "float", "str", "bytes", "json", "list", "dict"]


@node("transform.coerce", deterministic=True)
def coerce(
    value: dict[str, Any],
    *,
    fields: Annotated[
        dict[FieldPath, ToKind], Meta(min_length=1, description="field: kind, as in price: float")
    ],
    missing: Annotated[
        Missing, Meta(description="a field that is not there: fail, null, or leave it out")
    ] = "error",
    null: Annotated[
        Literal["error", "keep"], Meta(description="a field that is null: fail, or leave it null")
    ] = "error",
) -> dict[str, Any]:
    """The dict with the named fields as the kinds asked for: `"42"` as int, `"true"` as bool, 7 as float.

    Nothing is rounded, cut or guessed: `"1.5"` is no int, 2**53 + 1 no float, `"yes"` no bool.

    Emits when      every field converts.
    Drops           nothing.
    Fails when      a field does not convert or is missing, with its path; the row stays as it was.
    Cost            O(fields named x depth), plus a copy of each dict on the way.
    """
    result = expect_dict(value, "transform.coerce")
    for text, kind in fields.items():
        path = parse_path(text)
        found = find(result, path)
        if found is ABSENT:
            if missing == "error":
                raise missing_field(result, path)
            if missing == "null":
                result = replaced(result, path, None)
        elif not (found is None and null == "keep"):
            result = replaced(result, path, coerce_value(found, kind, path=path))
    return result
