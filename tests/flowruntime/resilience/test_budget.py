"""The retry budget: an outage costs a fifth more calls, not five times as many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowruntime.resilience.budget import MOST_SAVED, RESERVE, RetryBudget


def test_a_quiet_node_may_retry_at_once() -> None:
    budget = RetryBudget(0.2)
    assert all(budget.take(0.0) for _ in range(int(RESERVE)))
    assert not budget.take(0.0)
    assert budget.refused == 1


def test_in_an_outage_retries_stay_below_the_ratio_and_the_reserve() -> None:
    budget, retries = RetryBudget(0.2), 0
    for _ in range(10_000):
        budget.first_attempt()
        retries += sum(budget.take(0.0) for _ in range(4))
    assert retries <= 10_000 * 0.2 + RESERVE


def test_good_times_do_not_pay_for_an_endless_burst() -> None:
    budget = RetryBudget(0.2)
    for _ in range(1_000_000):
        budget.first_attempt()
    assert sum(budget.take(0.0) for _ in range(10_000)) <= MOST_SAVED


def test_the_reserve_comes_back_within_a_minute() -> None:
    budget = RetryBudget(0.0)
    while budget.take(0.0):
        pass
    assert sum(budget.take(60.0) for _ in range(100)) == int(RESERVE)


@given(st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.floats(0, 5)), max_size=300))
def test_over_any_time_retries_stay_within_what_was_paid_for(steps: list[tuple[str, float]]) -> None:
    budget, now, calls, retries = RetryBudget(0.2), 0.0, 0, 0
    for what, passed in steps:
        now += passed
        if what == "call":
            calls += 1
            budget.first_attempt()
        else:
            retries += budget.take(now)
        assert retries <= RESERVE + RESERVE * now / 60 + 0.2 * calls + 1e-6
