"""The rate limit: no window of time ever sees more calls than declared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import LimitExceededError
from flowcore.policies import Rate
from flowruntime.resilience.rate import RateLimit


def test_calls_are_spread_over_the_time() -> None:
    limit, begun = RateLimit("api", Rate(rows=10)), list[float]()
    now = 0.0
    for _ in range(20):
        now += limit.wait_s(now)
        limit.begin(now)
        begun.append(now)
    assert begun == pytest.approx([index * 0.1 for index in range(20)])


def test_after_a_pause_a_burst_may_begin_at_once() -> None:
    limit = RateLimit("api", Rate(rows=1, burst=5))
    for _ in range(5):
        assert limit.wait_s(100.0) == 0.0
        limit.begin(100.0)
    assert limit.wait_s(100.0) == pytest.approx(1.0)


def test_a_batch_larger_than_the_bucket_fails_at_once() -> None:
    with pytest.raises(LimitExceededError, match="lets 5 calls begin at once, and 6 were asked for"):
        RateLimit("api", Rate(rows=1, burst=5)).wait_s(0.0, 6)


def test_a_new_rate_holds_from_the_next_call() -> None:
    limit = RateLimit("api", Rate(rows=1))
    limit.begin(0.0)
    limit.set(Rate(rows=1_000))
    now = limit.wait_s(0.0)
    limit.begin(now)
    assert limit.wait_s(now) == pytest.approx(0.001)


@given(
    rows=st.integers(1, 50),
    burst=st.integers(1, 10),
    asks=st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 3)), max_size=60),
    window=st.floats(0.001, 5),
)
def test_no_window_sees_more_than_burst_and_rate(
    rows: int, burst: int, asks: list[tuple[float, int]], window: float
) -> None:
    limit, now, begun = RateLimit("api", Rate(rows=rows, burst=burst)), 0.0, list[float]()
    for passed, calls in asks:
        now += passed
        if calls > burst:
            continue
        if limit.wait_s(now, calls) <= 0.0:
            limit.begin(now, calls)
            begun += [now] * calls
    for start in begun:
        seen = sum(start <= at < start + window for at in begun)
        assert seen <= burst + window * rows + 1e-6
