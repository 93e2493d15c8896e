"""control.limit: the first rows only."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from msgspec import Meta, Struct

from flowcore.context import NodeContext
from flowcore.node import Node


class LimitConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of control.limit."""

    rows: Annotated[int, Meta(ge=0, description="how many rows pass")]
    per: Annotated[
        Literal["run", "record"],
        Meta(description="counted over the whole run, or anew for each record of the source (each request)"),
    ] = "run"


class LimitIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class Limit(Node[LimitConfig, LimitIn, bool], type="control.limit", kind="filter"):
    """Lets the first `rows` rows pass.

    Counted as rows come by: `per: run` over a continuous run, from 0 again after a restart; `per: record`
    within one record of the source. In a request both count within that request.

    Emits when      fewer than `rows` rows came before.
    Drops           the others; counted as `dropped`. The source goes on reading; `flow run --limit` ends it.
    Fails when      never.
    Holds           one number, or one per record in flight.
    """

    def __init__(self, config: LimitConfig) -> None:
        super().__init__(config)
        self._seen = 0

    def execute(self, inputs: LimitIn, ctx: NodeContext) -> bool:
        if self.config.per == "run" and ctx.mode == "stream":
            if self._seen >= self.config.rows:
                return False
            self._seen += 1
            return True
        name = f"control.limit/{ctx.node_id}"
        seen = cast("int", ctx.state.data.get(name, 0))
        ctx.state.data[name] = seen + 1
        return seen < self.config.rows
