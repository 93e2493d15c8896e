"""timer.source: a row each interval: the number of the tick.

Owns: `TimerSource`.
Does not own: the clock; it is the context's, so tests run on virtual time.

Always holds: tick n is due n intervals after the first: delays do not add up.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated

import msgspec

from flowcore.connector import Credit, Position, Reader, Rows, Source
from flowcore.context import SourceContext
from flowcore.errors import ConfigError, ContractError, PositionLostError


class TimerSourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When ticks come."""

    interval: timedelta
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Ends after tick `count - 1`; None: never."""
    at_start: bool = True
    """The first tick comes at once; otherwise after one interval."""


class TimerSource(Source[TimerSourceConfig, int], type="timer.source"):
    """Numbers of ticks, from 0.

    Emits           one number per tick, with the time it was handed over as its event time. Ticks missed
                    while nobody asked are coalesced into the latest: the gap in the numbers says how many
                    were missed.
    Resumes         at the number after the last one settled; the interval begins anew.
    Ends            after `count` ticks, missed ones counted.
    Holds           nothing.
    """

    def __init__(self, config: TimerSourceConfig) -> None:
        super().__init__(config)
        if config.interval <= timedelta(0):
            raise ConfigError(
                f"interval must be longer than nothing, got {config.interval!r}", value=config.interval
            )

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[int]:
        if resume is not None and (type(resume) is not int or resume < 0):
            raise PositionLostError(
                f"{resume!r} is no position of timer.source: it is the number of the next tick"
            )
        return _TimerReader(self.config, resume if isinstance(resume, int) else 0, ctx)


class _TimerReader:
    def __init__(self, config: TimerSourceConfig, first: int, ctx: SourceContext) -> None:
        self._interval_s = config.interval.total_seconds()
        self._count = config.count
        self._ctx = ctx
        self._next = first
        start = ctx.monotonic() + (0.0 if config.at_start else self._interval_s)
        self._first = first
        self._start = start
        self._closed = False

    async def read(self, credit: Credit) -> Rows[int] | None:
        """The tick that is due, or the next one when it is; None after the last."""
        if self._closed or credit.rows < 1:
            raise ContractError(f"a closed reader of timer.source was read, or without credit: {credit!r}")
        if self._count is not None and self._next >= self._count:
            return None
        while (wait_s := self._due_s(self._next) - self._ctx.monotonic()) > 0:
            # rounded up: a wait too short for a timedelta would not move a virtual clock
            await self._ctx.sleep(timedelta(microseconds=math.ceil(wait_s * 1e6)))
        tick = max(self._next, self._latest())
        if self._count is not None:
            tick = min(tick, self._count - 1)
        self._next = tick + 1
        return Rows([tick], next=self._next, positions=[self._next], times=[self._ctx.now()])

    async def commit(self, position: Position) -> None:
        """Nothing is kept."""
        del position

    async def close(self) -> None:
        self._closed = True

    def _due_s(self, tick: int) -> float:
        return self._start + (tick - self._first) * self._interval_s

    def _latest(self) -> int:
        return self._first + int((self._ctx.monotonic() - self._start) / self._interval_s)
