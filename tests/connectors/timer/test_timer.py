"""timer.source: ticks keep to their times, and missed ones show as a gap."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.timer.source import TimerSource, TimerSourceConfig
from flowcore.connector import Credit
from flowcore.errors import ConfigError
from flowruntime.testing.contexts import StandaloneSourceContext


@given(
    interval_us=st.integers(1, 10_000_000),
    delays_us=st.lists(st.integers(0, 30_000_000), min_size=1, max_size=20),
    at_start=st.booleans(),
)
async def test_a_tick_never_comes_early_never_drifts_and_never_comes_twice(
    interval_us: int, delays_us: list[int], at_start: bool
) -> None:
    ctx = StandaloneSourceContext()
    interval = timedelta(microseconds=interval_us)
    reader = await TimerSource(TimerSourceConfig(interval=interval, at_start=at_start)).open("0", None, ctx)
    last = -1
    for delay_us in delays_us:
        asked = ctx.monotonic()
        rows = await reader.read(Credit(rows=10))
        assert rows is not None
        (tick,) = rows.values
        due = (tick + (0 if at_start else 1)) * interval.total_seconds()
        assert tick > last
        assert due - 1e-6 <= ctx.monotonic() <= max(asked, due + 2e-6)
        assert ctx.monotonic() < due + interval.total_seconds() + 2e-6
        last = tick
        ctx.time.advance(timedelta(microseconds=delay_us))
    await reader.close()


async def test_missed_ticks_are_coalesced_into_the_latest_and_counted_by_the_gap() -> None:
    ctx = StandaloneSourceContext()
    reader = await TimerSource(TimerSourceConfig(interval=timedelta(seconds=1), count=10)).open(
        "0", None, ctx
    )
    ticks: list[int] = []
    while (rows := await reader.read(Credit(rows=1))) is not None:
        ticks += rows.values
        assert rows.times == [ctx.now()]
        if ticks[-1] in {1, 6}:
            ctx.time.advance(timedelta(seconds=4.5))
    assert ticks == [0, 1, 5, 6, 9]


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="interval must be longer than nothing"):
        TimerSource(TimerSourceConfig(interval=timedelta(0)))
