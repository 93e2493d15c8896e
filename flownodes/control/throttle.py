"""control.throttle: at most so many rows in any span of time."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct

from flowcore.context import NodeContext
from flowcore.errors import ConfigError
from flowcore.node import Node


class ThrottleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of control.throttle."""

    rows: Annotated[int, Meta(ge=1, le=100_000, description="rows let through in any span of `per`")]
    per: Annotated[timedelta, Meta(description="the span, such as 1s")] = timedelta(seconds=1)
    even: Annotated[
        bool, Meta(description="true: equal gaps of per / rows; false: bursts of up to `rows`, then a pause")
    ] = True

    def __post_init__(self) -> None:
        if self.per <= timedelta(0):
            raise ConfigError(f"per: must be longer than 0, not {self.per}")


class ThrottleIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class Throttle(
    Node[ThrottleConfig, ThrottleIn, Any], type="control.throttle", concurrency=1, deterministic=True
):
    """Passes values on in order, at most `rows` in any half-open span of `per`, over all runs of a worker.

    Emits when      letting the row through keeps the rate; the first at once.
    Drops           nothing: rows wait, and the source with them.
    Fails when      never by itself; a cancelled row stops waiting and does not count.
    Holds           the times of the last `rows` rows; one row waits at a time.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        super().__init__(config)
        count, self._span_s = config.rows, config.per.total_seconds()
        if config.even:
            count, self._span_s = 1, self._span_s / config.rows
        self._passed: deque[float] = deque(maxlen=count)
        self._turn = asyncio.Lock()

    async def execute(self, inputs: ThrottleIn, ctx: NodeContext) -> Any:
        async with self._turn:  # one at a time, also when a policy raises `concurrency`
            while (wait_s := self._wait_s(ctx.monotonic())) > 0:
                await ctx.sleep(timedelta(seconds=wait_s))
            self._passed.append(ctx.monotonic())
        return inputs.value

    def _wait_s(self, now: float) -> float:
        if len(self._passed) < (self._passed.maxlen or 0):
            return 0.0
        rest_s = self._passed[0] + self._span_s - now
        return max(rest_s, 1e-6) if rest_s > 0 else 0.0  # a timedelta has no finer step; 0 would spin
