"""transform.pick: keeps only some fields."""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import Meta

from flowcore.findings import Path
from flowcore.node import node
from flownodes.fields import (
    ABSENT,
    FieldPath,
    Missing,
    expect_dict,
    find,
    missing_field,
    parse_path,
    wrong_kind,
)

Picked = Annotated[
    list[FieldPath], Meta(min_length=1, description="what to keep, in this order; nested: customer.name")
]


@node("transform.pick", deterministic=True)
def pick(
    value: dict[str, Any],
    *,
    fields: Picked,
    missing: Annotated[
        Missing, Meta(description="a field that is not there: fail, null, or leave it out")
    ] = "error",
) -> dict[str, Any]:
    """A dict of the named fields, each where it was: picking `customer.name` gives `{customer: {name: ...}}`.

    Emits when      the value is a dict and its fields are there, or `missing` allows for it.
    Drops           nothing; fields not named are left out.
    Fails when      the value is no dict, a field is missing, or a path goes through a list.
    Cost            O(fields).
    """
    source = expect_dict(value, "transform.pick")
    picked: dict[str, Any] = {}
    for text in fields:
        path = parse_path(text)
        if not all(isinstance(segment, str) for segment in path):
            raise wrong_kind(
                text, "paths of names only", "transform.pick", "use transform.map for items of lists"
            )
        found = _lookup(source, path, missing)
        if found is not ABSENT:
            _put(picked, path, found)
    return picked


def _lookup(source: dict[str, Any], path: Path, policy: Missing) -> Any:
    found = find(source, path)
    if found is not ABSENT or policy == "skip":
        return found
    if policy == "null":
        return None
    raise missing_field(source, path)


def _put(target: dict[str, Any], path: Path, found: object) -> None:
    """Set a field of the new dict; dicts of the source that were picked whole are copied, not changed."""
    for segment in path[:-1]:
        below = target.get(str(segment))
        copy: dict[str, Any] = dict(cast("dict[str, Any]", below)) if isinstance(below, dict) else {}
        target[str(segment)] = copy
        target = copy
    target[str(path[-1])] = found
