"""stream.collect: the items of a Stream as one list, or as one text."""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import Meta

from flowcore.errors import LimitExceededError
from flowcore.node import node
from flowcore.sizes import ENTRY, size_up_to
from flowcore.values import Stream
from flownodes.fields import wrong_kind

_MIB = 1 << 20


@node("stream.collect")
async def collect(
    stream: Stream[Any],
    *,
    join: Annotated[
        str | None, Meta(description="put the items, texts all of them, into one text with this in between")
    ] = None,
    max_items: Annotated[int, Meta(ge=1, description="a longer stream fails the row")] = 100_000,
    max_bytes: Annotated[
        int, Meta(ge=1, description="of all items together, as `max_output_bytes` counts them")
    ] = 16 * _MIB,
) -> list[Any] | str:
    """All items of the Stream, in order, once it has ended; with `join: ""` tokens become their text.

    Emits when      the stream has ended; an empty list, or the empty text, when it had no item.
    Drops           nothing.
    Fails when      its producer fails, it has more than `max_items` or `max_bytes`, the value is no Stream,
                    or an item is no text and there is a `join`. The producer is closed then.
    Holds           the items of the rows in work.
    """
    if not isinstance(cast("object", stream), Stream):
        raise wrong_kind(stream, "a Stream", "stream.collect", "connect a node that returns ctx.stream(...)")
    items: list[Any] = []
    nbytes = 0
    async for item in stream:
        if join is not None and not isinstance(item, str):
            what = f"stream.collect (item {len(items)})"
            raise wrong_kind(item, "text", what, "leave out join to get a list")
        items.append(item)
        nbytes += ENTRY + size_up_to(item, max_bytes)
        _check(len(items), max_items, "items", "max_items")
        _check(nbytes, max_bytes, "bytes", "max_bytes")
    return items if join is None else join.join(items)


def _check(found: int, most: int, unit: str, field: str) -> None:
    if found > most:
        raise LimitExceededError(
            f"stream.collect: the stream has more than {most} {unit}; raise {field}, or make a row of each "
            "item with stream.split",
            **{field: most},
        )
