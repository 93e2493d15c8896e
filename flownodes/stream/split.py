"""stream.split: makes a row of each item of a Stream, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flowcore.node import node
from flowcore.values import Stream
from flownodes.fields import wrong_kind


@node("stream.split", kind="expand", deterministic=True)
async def split(stream: Stream[Any]) -> AsyncIterator[Any]:
    """One row per item of the Stream, in order, as it comes; children of the row that holds it.

    Emits when      the producer has given an item, which is asked for no more than the rows behind can take.
    Drops           nothing; an empty Stream yields no row.
    Fails when      the value is no Stream, or its producer fails; rows made until then go on.
    Cost            O(1) a row; `max_children` bounds the rows of one row.
    """
    if not isinstance(stream, Stream):  # pyright: ignore[reportUnnecessaryIsInstance] - an untyped port may give anything
        raise wrong_kind(stream, "a Stream", "stream.split", "use transform.split for a list or text")
    async for item in stream:
        yield item
