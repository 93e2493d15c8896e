"""transform.flatten: one level instead of many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from msgspec import Meta

from flowcore.errors import ConflictError
from flowcore.findings import shown
from flowcore.node import node
from flownodes.fields import wrong_kind

Lists = Annotated[
    Literal["keep", "index"],
    Meta(description="lists inside a dict: keep them as values, or flatten by index: tags.0"),
]


@node("transform.flatten", deterministic=True)
def flatten(
    value: dict[str, Any] | list[Any],
    *,
    separator: Annotated[str, Meta(min_length=1, description="between the names of a nested field")] = ".",
    depth: Annotated[int, Meta(ge=1, le=200, description="levels to take away at most")] = 200,
    lists: Lists = "keep",
) -> dict[str, Any] | list[Any]:
    """A nested dict as one with keys like `customer.name`; a list of lists as one list.

    Empty dicts (and lists, with `lists: index`) stay as values, so that nothing is lost.

    Emits when      the value is a dict or a list.
    Drops           nothing.
    Fails when      it is neither, or two fields flatten to one key.
    Cost            O(fields at all levels).
    """
    if type(value) is list:
        return list(_items(value, depth))
    if type(value) is not dict:
        raise wrong_kind(value, "a dict or a list", "transform.flatten")
    flat: dict[str, Any] = {}
    for key, content in _fields(value, separator, depth, index=lists == "index"):
        if key in flat:
            raise ConflictError(
                f"two fields flatten to the key {shown(key)}; choose another separator than "
                f"{separator!r}, or rename one",
                name=key,
            )
        flat[key] = content
    return flat


def _fields(value: dict[str, Any], separator: str, depth: int, *, index: bool) -> Iterator[tuple[str, Any]]:
    """Keys and values in order, without recursion: deep values are no danger."""
    stack: list[Iterator[tuple[str, Any, int]]] = [
        iter([(key, content, depth) for key, content in value.items()])
    ]
    while stack:
        for key, content, levels in stack[-1]:
            children = _children(content, index=index) if levels else ()
            if children:
                stack.append(
                    iter([(f"{key}{separator}{name}", child, levels - 1) for name, child in children])
                )
                break
            yield key, content
        else:
            stack.pop()


def _children(value: object, *, index: bool) -> list[tuple[str, Any]]:
    if type(value) is dict:
        return list(cast("dict[str, Any]", value).items())
    if index and type(value) is list:
        return [(str(position), item) for position, item in enumerate(cast("list[Any]", value))]
    return []


def _items(value: list[Any], depth: int) -> Iterator[Any]:
    stack: list[tuple[Iterator[Any], int]] = [(iter(value), depth)]
    while stack:
        items, levels = stack[-1]
        for item in items:
            if levels and type(item) is list:
                stack.append((iter(cast("list[Any]", item)), levels - 1))
                break
            yield item
        else:
            stack.pop()
