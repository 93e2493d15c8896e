"""Values without Streams: what results and events are given of values that hold one.

Owns: `plain_of`, `described`, `gathered`.
Does not own: when streams are gathered, and what becomes of a failure (ends).

Always holds: nothing but `gathered` reads a stream; a value without one is given back as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from flowcore.errors import LimitExceededError
from flowcore.sizes import ENTRY, size_up_to
from flowcore.values import Stream, streams_in
from flowruntime.substream.live import production_of
from flowruntime.substream.reader import CALLER


def plain_of(value: Any) -> Any:
    """The value with each stream as the list an end of the workflow has gathered, else as `described`."""

    def plain(stream: Stream[Any]) -> Any:
        production = production_of(stream)
        if production is not None and production.gathered is not None:
            return production.gathered
        return described(stream)

    return _replaced(value, plain) if streams_in(value) else value


def described(stream: Stream[Any]) -> dict[str, Any]:
    """What there is to say of a stream without reading it: `{"stream": "ended", "items": 12}`."""
    production = production_of(stream)
    if production is None:
        return {"stream": "live"}
    return {"stream": production.state, "items": production.items_produced}


def description_of(value: Any) -> Any:
    """The value with each stream as `described`, as it stands now."""
    return _replaced(value, described) if streams_in(value) else value


class Allowance:
    """How much may be gathered for one value.

    Args:
        node_id: whose output it is.
        items: of all its streams together.
        nbytes: of them, as `max_output_bytes` counts.
    """

    def __init__(self, node_id: str, items: int, nbytes: int) -> None:
        self._node_id = node_id
        self._most = (items, nbytes)
        self._items = 0
        self._bytes = 0

    def charge(self, item: object) -> None:
        """One item more.

        Raises:
            LimitExceededError: it is too much.
        """
        most_items, most_bytes = self._most
        self._items += 1
        if self._items > most_items:
            raise LimitExceededError(
                f"node {self._node_id!r}: its stream is gathered into a list at an end of the workflow, "
                f"and has more than {most_items} items; read it in a node, or raise the setting max_children",
                node=self._node_id,
                max_children=most_items,
            )
        self._bytes += ENTRY + size_up_to(item, most_bytes)
        if self._bytes > most_bytes:
            raise LimitExceededError(
                f"node {self._node_id!r}: its stream is gathered into a list at an end of the workflow, "
                f"and has more than {most_bytes} bytes; read it in a node, or raise its max_output_bytes",
                node=self._node_id,
                max_output_bytes=most_bytes,
            )


async def gathered(value: Any, allowance: Allowance) -> Any:
    """The value with every stream in it read to its end, all at once; a list in the place of each.

    Raises:
        LimitExceededError: more than `allowance`.
        Exception: what a producer raised; no stream is read any further.
    """
    streams = streams_in(value)
    readings = [asyncio.ensure_future(_items_of(stream, allowance)) for stream in streams]
    try:
        await asyncio.wait(readings, return_when=asyncio.FIRST_EXCEPTION)
        for reading in readings:
            if reading.done():
                reading.result()
    finally:
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
    lists = {id(stream): reading.result() for stream, reading in zip(streams, readings, strict=True)}
    for stream in streams:
        production = production_of(stream)
        if production is not None:
            production.gathered = lists[id(stream)]
    return _replaced(value, lambda stream: lists[id(stream)])


async def _items_of(stream: Stream[Any], allowance: Allowance) -> list[Any]:
    CALLER.set(None)  # it is read for the result, whoever's call this began in
    items: list[Any] = []
    reader = aiter(stream)
    try:
        async for item in reader:
            allowance.charge(item)
            items.append(item)
    finally:
        close = getattr(reader, "aclose", None)
        if close is not None:
            await close()
    return items


def _replaced(value: Any, replace: Callable[[Stream[Any]], Any]) -> Any:
    """A copy of the parts of a value that hold streams; parts that hold none are the value's own."""
    made: dict[int, Any] = {}
    """By identity, so that what holds itself is copied once."""

    def copy(part: Any) -> Any:
        if isinstance(part, Stream):
            return replace(cast("Stream[Any]", part))
        if id(part) not in made:
            made[id(part)] = copy_of(part)
        return made[id(part)]

    def copy_of(part: Any) -> Any:
        if isinstance(part, dict):
            fields: dict[Any, Any] = {}
            made[id(part)] = fields  # pyright: ignore[reportUnknownArgumentType] - of any key and value
            fields.update({name: copy(item) for name, item in cast("Mapping[Any, Any]", part).items()})
            return fields
        if isinstance(part, list):
            items: list[Any] = []
            made[id(part)] = items  # pyright: ignore[reportUnknownArgumentType] - of any item
            items.extend(copy(item) for item in cast("list[Any]", part))
            return items
        if isinstance(part, tuple):
            return tuple(copy(item) for item in cast("tuple[Any, ...]", part))
        if isinstance(part, msgspec.Struct):
            names = part.__struct_fields__
            return msgspec.structs.replace(part, **{name: copy(getattr(part, name)) for name in names})
        return part

    return copy(value)
