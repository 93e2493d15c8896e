"""transform.rename: gives fields other names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from flowcore.errors import ConflictError
from flowcore.findings import shown
from flowcore.node import node
from flownodes.fields import expect_dict, missing_field


@node("transform.rename", deterministic=True)
def rename(
    value: dict[str, Any],
    *,
    fields: Annotated[dict[str, str], Meta(min_length=1, description="old name: new name; top-level fields")],
    missing: Annotated[
        Literal["error", "skip"],
        Meta(description="a field that is not there: fail the row, or go on without"),
    ] = "error",
) -> dict[str, Any]:
    """The same dict under other names, order kept; two fields may swap theirs.

    Emits when      the value is a dict and the fields to rename are there, or `missing: skip`.
    Drops           nothing.
    Fails when      a field is missing, or a new name is already another field's, which would be lost.
    Cost            O(fields of the value).
    """
    source = expect_dict(value, "transform.rename")
    if missing == "error":
        for old in fields:
            if old not in source:
                raise missing_field(source, (old,))
    renamed = {fields.get(old, old): content for old, content in source.items()}
    if len(renamed) != len(source):
        raise _conflict(source, fields)
    return renamed


def _conflict(source: dict[str, Any], fields: dict[str, str]) -> ConflictError:
    names = [fields.get(old, old) for old in source]
    name = next(name for name in names if names.count(name) > 1)
    claims = [old for old in source if fields.get(old, old) == name]
    return ConflictError(
        f"fields {' and '.join(map(shown, claims))} would both be named {shown(name)}; "
        "rename or drop one of them first",
        name=name,
    )
