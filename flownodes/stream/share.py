"""stream.share: lets several nodes read one Stream."""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import Meta

from flowcore.node import node
from flowcore.values import SharedStream, Stream
from flownodes.fields import wrong_kind


@node("stream.share")
def share(
    stream: Stream[Any],
    *,
    capacity: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="items the slowest consumer may lag, and a late one may have missed",
        ),
    ] = 64,
) -> SharedStream[Any]:
    """The same items for every node behind it, each from the first one on.

    Emits when      always, at once; nothing is read by that.
    Drops           nothing. A consumer that comes after more than `capacity` items fails its row.
    Fails when      the value is no Stream, or is read already.
    Holds           at most `capacity` items of each stream; then the fastest consumer waits for the slowest.
    """
    if not isinstance(cast("object", stream), Stream):
        raise wrong_kind(stream, "a Stream", "stream.share", "connect a node that returns ctx.stream(...)")
    return stream.share(capacity)
