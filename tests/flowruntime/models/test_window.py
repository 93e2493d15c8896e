"""Requests and tokens per minute: no minute has more than the limit, nothing that was taken is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import LimitExceededError
from flowruntime.models.estimate import Quantile, TokenEstimate
from flowruntime.models.window import PERIOD_S, Ceiling, Reservation, Window

Entries = list[tuple[float, int]]


class Watched(Window):
    """Notes what is entered in the ledger, and when."""

    __slots__ = ("at", "entered")

    def __init__(self, limit: int) -> None:
        super().__init__("tokens", limit)
        self.entered: Entries = []
        self.at = 0.0

    def _enter(self, slot: int, amount: int) -> None:
        self.entered.append((self.at, amount))
        super()._enter(slot, amount)


CALLS = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 100), st.floats(0, 3), st.floats(0, 40)), max_size=60
)


@given(limit=st.integers(100, 300), calls=CALLS)
def test_no_minute_has_more_than_the_limit_whatever_calls_turn_out_to_take(
    limit: int, calls: list[tuple[float, int, float, float]]
) -> None:
    """Estimates may be too low: the debt is entered as room comes free, and holds back what follows."""
    window, now = Watched(limit), 0.0
    open_: list[tuple[float, Reservation, int]] = []
    taken = 0
    for passed, amount, ratio, lasts in calls:
        now += passed
        while True:
            for ended in [each for each in open_ if each[0] <= now]:
                window.at = now
                window.true_up(ended[1], ended[2], now)
                open_.remove(ended)
            window.at = now
            wait_s = window.wait_s(now, amount)
            if wait_s <= 0:
                break
            now += max(wait_s, 0.001)
        actual = int(amount * ratio)
        taken += actual
        window.at = now
        open_.append((now + lasts, window.reserve(now, amount), actual))
    for _, reservation, actual in open_:
        window.at = now
        window.true_up(reservation, actual, now)
    for start, _ in window.entered:
        within = sum(amount for at, amount in window.entered if start <= at < start + PERIOD_S)
        back = sum(r.amount for _, r, _ in open_ if r.amount == 0)  # lowered again: counted in full here
        assert within <= limit + back + _lowered(calls)
    assert window.total == taken


def _lowered(calls: list[tuple[float, int, float, float]]) -> int:
    """What estimates were too high by: entered first, and taken back."""
    return sum(max(0, amount - int(amount * ratio)) for _, amount, ratio, _ in calls)


@given(
    limit=st.integers(1, 50),
    arrivals=st.lists(st.floats(0, 10), max_size=200),
)
def test_requests_of_any_minute_stay_within_the_limit(limit: int, arrivals: list[float]) -> None:
    window, now, begun = Window("requests", limit), 0.0, list[float]()
    for passed in arrivals:
        now += passed
        while (wait_s := window.wait_s(now, 1)) > 0:
            now += max(wait_s, 0.001)
        window.reserve(now, 1)
        begun.append(now)
    for start in begun:
        assert sum(start <= at < start + PERIOD_S for at in begun) <= limit


def test_a_debt_of_several_minutes_is_paid_over_several_minutes() -> None:
    window = Window("tokens", 100)
    window.true_up(window.reserve(0.0, 10), 310, 1.0)
    assert window.debt == 210
    now, waited = 1.0, 0
    while (wait_s := window.wait_s(now, 1)) > 0:
        now += wait_s
        waited += 1
    assert now == pytest.approx(181, abs=1.0), "310 tokens at 100 a minute"
    assert waited <= 10


def test_what_was_reserved_for_nothing_is_free_at_once() -> None:
    window = Window("tokens", 100)
    reservation = window.reserve(0.0, 100)
    assert window.wait_s(1.0, 1) > 0
    window.true_up(reservation, 20, 1.0)
    assert window.wait_s(1.0, 80) == 0
    assert window.used(1.0) == 20


def test_a_call_that_no_minute_has_room_for_fails_at_once() -> None:
    with pytest.raises(LimitExceededError, match="would take 101, and 100 are allowed"):
        Window("tokens", 100).wait_s(0.0, 101)


def test_a_limit_can_only_be_tightened_by_what_is_declared() -> None:
    window = Window("tokens", 100)
    assert not window.tighten(None)
    assert not window.tighten(200)
    assert window.tighten(50)
    assert window.limit == 50


def test_what_the_provider_says_is_left_holds_until_it_is_back() -> None:
    ceiling = Ceiling()
    assert ceiling.wait_s(0.0, 1_000) == 0
    ceiling.heard(0.0, left=10, reset_s=20.0, full=None, under_way=4)
    assert ceiling.wait_s(1.0, 6) == 0
    ceiling.begin(1.0, 6)
    assert ceiling.wait_s(1.0, 1) == pytest.approx(19.0)
    assert ceiling.wait_s(20.0, 1_000) == 0
    ceiling.heard(30.0, left=0, reset_s=60.0, full=600, under_way=0)
    assert ceiling.wait_s(30.0, 100) == pytest.approx(10.0), "600 come back evenly within 60 s"
    ceiling.heard(30.0, left=None, reset_s=None, full=None, under_way=0)
    assert ceiling.wait_s(30.0, 100) == pytest.approx(10.0), "nothing newer was said"


@given(ratio=st.floats(0.1, 10), start=st.integers(1, 10_000))
def test_the_estimate_of_tokens_comes_to_what_calls_take(ratio: float, start: int) -> None:
    estimate, rough = TokenEstimate(), start * 100
    for _ in range(100):
        estimate.learn(rough, max(1, round(rough * ratio)))
    assert estimate.of(rough) == pytest.approx(rough * ratio, rel=0.02, abs=1)
    assert estimate.of(rough, most=1) == 1


@given(st.lists(st.floats(0.001, 100), min_size=200, max_size=600, unique=True), st.sampled_from([0.5, 0.95]))
def test_a_quantile_in_five_numbers_is_near_the_true_one(numbers: list[float], share: float) -> None:
    quantile = Quantile(share)
    for number in numbers:
        quantile.add(number)
    found = quantile.value
    assert found is not None
    below = sum(number <= found for number in numbers) / len(numbers)
    assert abs(below - share) < 0.2
    assert min(numbers) <= found <= max(numbers)
