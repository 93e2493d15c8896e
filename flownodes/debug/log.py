"""debug.log: writes a log line for each row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from flowcore.context import NodeContext
from flowcore.expression import Template
from flowcore.node import node
from flownodes.redaction import Redact, Redactor

Level = Literal["debug", "info", "warning", "error"]


@node("debug.log")
def log(
    value: Any,
    ctx: NodeContext,
    *,
    message: Annotated[str, Meta(min_length=1, description="the text of the line")] = "row",
    level: Level = "info",
    fields: Annotated[
        Template | None,
        Meta(description="what to log, name: expression over `value`; null: the value"),
    ] = None,
    redact: Redact = [],  # noqa: B006 - @node copies it
    max_characters: Annotated[int, Meta(ge=1, le=100_000, description="longest text shown")] = 500,
) -> Any:
    """Logs the value, or the `fields` made of it, and passes it on as it is.

    Emits when      always.
    Drops           nothing; in the log, long texts and large values are cut and say so.
    Fails when      an expression of `fields` has no value.
    Cost            a copy of what is logged, and the line.
    """
    redactor = Redactor(redact, max_characters=max_characters)
    if fields is None:
        ctx.log(message, level=level, value=redactor.copy(value))
    else:
        ctx.log(message, level=level, fields=redactor.copy(fields(value=value)))
    return value
