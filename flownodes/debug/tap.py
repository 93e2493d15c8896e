"""debug.tap: publishes each row as an event."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from flowcore.context import NodeContext
from flowcore.node import node
from flownodes.redaction import Redact, Redactor


@node("debug.tap")
def tap(
    value: Any,
    ctx: NodeContext,
    *,
    redact: Redact = [],  # noqa: B006 - @node copies it
    max_characters: Annotated[int, Meta(ge=1, le=100_000, description="longest text published")] = 500,
) -> Any:
    """Publishes a redacted copy of the value as a NodeEvent of kind `data`, and passes the value on as it is.

    Emits when      always.
    Drops           nothing; in the event, long texts and large values are cut and say so.
    Fails when      never.
    Cost            a copy of the value a row.
    """
    ctx.emit("data", Redactor(redact, max_characters=max_characters).copy(value))
    return value
