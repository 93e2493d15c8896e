"""control.delay, throttle, limit: when and how many rows pass. Time is virtual."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError, ValidationFailedError
from flownodes.control.delay import delay
from flownodes.control.limit import Limit, LimitConfig, LimitIn
from flownodes.control.throttle import Throttle, ThrottleConfig, ThrottleIn
from flowruntime.testing.contexts import StandaloneNodeContext

SECOND = timedelta(seconds=1)


async def test_a_delay_waits_for_each_row_by_itself() -> None:
    ctx = StandaloneNodeContext()
    passed = await asyncio.gather(*(delay(number, ctx, duration=2 * SECOND) for number in range(3)))
    assert (passed, ctx.monotonic()) == ([0, 1, 2], 2.0)


async def times_of(throttle: Throttle, rows: int, ctx: StandaloneNodeContext) -> list[float]:
    times: list[float] = []
    for number in range(rows):
        assert await throttle.execute(ThrottleIn(number), ctx) == number
        times.append(ctx.monotonic())
    return times


async def test_rows_are_spaced_evenly() -> None:
    throttle = Throttle(ThrottleConfig(rows=4))
    assert await times_of(throttle, 5, StandaloneNodeContext()) == [0.0, 0.25, 0.5, 0.75, 1.0]


async def test_bursts_come_at_once_and_then_pause() -> None:
    throttle = Throttle(ThrottleConfig(rows=2, per=3 * SECOND, even=False))
    assert await times_of(throttle, 5, StandaloneNodeContext()) == [0.0, 0.0, 3.0, 3.0, 6.0]


@given(
    st.integers(1, 5),
    st.sampled_from([True, False]),
    st.lists(st.floats(0, 2), min_size=1, max_size=30),
)
async def test_no_span_of_time_holds_more_rows_than_allowed(rows: int, even: bool, gaps: list[float]) -> None:
    throttle, ctx = Throttle(ThrottleConfig(rows=rows, even=even)), StandaloneNodeContext()
    times: list[float] = []
    for gap in gaps:
        ctx.time.advance(timedelta(seconds=gap))
        await throttle.execute(ThrottleIn(0), ctx)
        times.append(ctx.monotonic())
    for begin in times:
        assert sum(1 for time in times if begin <= time < begin + 1.0 - 1e-6) <= rows


async def test_a_cancelled_row_gives_its_turn_to_the_next() -> None:
    throttle, ctx = Throttle(ThrottleConfig(rows=1, per=5 * SECOND)), StandaloneNodeContext()
    await throttle.execute(ThrottleIn(0), ctx)
    waiting = asyncio.ensure_future(throttle.execute(ThrottleIn(1), ctx))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await throttle.execute(ThrottleIn(2), ctx) == 2
    assert ctx.monotonic() == 5.0


def test_a_rate_over_no_time_is_refused() -> None:
    with pytest.raises((ConfigError, ValidationFailedError)):
        ThrottleConfig(rows=1, per=timedelta(0))


def test_the_first_rows_pass_and_the_others_do_not() -> None:
    limit = Limit(LimitConfig(rows=2))
    assert [limit.execute(LimitIn(0), StandaloneNodeContext()) for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert not Limit(LimitConfig(rows=0)).execute(LimitIn(0), StandaloneNodeContext())


def test_a_limit_per_record_counts_anew_for_each() -> None:
    limit = Limit(LimitConfig(rows=1, per="record"))
    contexts = [StandaloneNodeContext(node_id="first") for _ in range(3)]
    for ctx in contexts:
        assert [limit.execute(LimitIn(0), ctx) for _ in range(3)] == [True, False, False]
    other = StandaloneNodeContext(node_id="other")
    other.state.data.update(contexts[0].state.data)
    assert limit.execute(LimitIn(0), other)  # two limits of one workflow do not count together
