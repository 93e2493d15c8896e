"""control.delay: passes values on later."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from msgspec import Meta

from flowcore.context import NodeContext
from flowcore.node import node


@node("control.delay", delays="duration", concurrency=1_000, deterministic=True)
async def delay(
    value: Any,
    ctx: NodeContext,
    *,
    duration: Annotated[timedelta, Meta(description="how long each row waits, such as 250ms")],
) -> Any:
    """The value as it is, `duration` after it came in; each row waits by itself.

    Emits when      the time is over.
    Drops           nothing.
    Fails when      never by itself; a cancelled row stops waiting at once.
    Holds           the rows that wait: at most the policy `concurrency` (1,000 unless said); then the
                    input waits. In a continuous run rows that wait longer than the setting `max_hold` are
                    stored, and take no memory.
    """
    await ctx.sleep(duration)
    return value
