"""Budgets: exceeded by no more than what calls under way take beyond their estimates."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.answers import Generation, Usage
from flowcore.llm.policy import BudgetPolicy, Hedge, ModelLimits
from flowcore.policies import Breaker, RetryPolicy
from flowruntime.models.balancing import Health, order
from flowruntime.models.budgets import Budgets, BudgetShort, Reserved, Spender
from flowruntime.models.cache import MemoryCache
from flowruntime.models.embedding import chunks
from flowruntime.models.estimate import Quantile
from flowruntime.models.hedging import Hedging
from flowruntime.models.kept import DamagedAnswerError, packed, unpacked
from flowruntime.models.limits import CONCURRENCY, Declared
from flowruntime.models.pricing import Price
from flowruntime.models.spending import Cost, Held, Spending

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "end"]), st.integers(1, 50), st.integers(0, 80), st.floats(0, 20)
    ),
    max_size=100,
)


@given(limit=st.integers(50, 500), steps=STEPS, windowed=st.booleans())
def test_a_budget_is_exceeded_by_no_more_than_calls_took_beyond_their_estimates(
    limit: int, steps: list[tuple[str, int, int, float]], windowed: bool
) -> None:
    window = timedelta(seconds=60) if windowed else None
    account, now, excess = Spending(BudgetPolicy(tokens=limit, window=window)), 0.0, 0
    open_: list[tuple[Held, int, int]] = []
    for what, estimate, actual, passed in steps:
        now += passed
        if what == "begin":
            if account.refusal(Cost(estimate, None), now) is None:
                open_.append((account.hold(Cost(estimate, None), now), estimate, actual))
        elif open_:
            held, estimated, took = open_.pop(0)
            account.settle(held, Cost(took, None), now)
            excess += max(0, took - estimated)
        assert account.tokens + account.held <= limit + excess
        assert account.held >= 0
    for held, _, took in open_:
        account.settle(held, Cost(took, None), now)
    assert account.held == 0


def test_a_window_begins_with_its_first_call_and_then_anew() -> None:
    account = Spending(BudgetPolicy(tokens=100, window=timedelta(seconds=60)))
    account.settle(account.hold(Cost(100, None), 10.0), Cost(100, None), 12.0)
    refusal = account.refusal(Cost(1, None), 20.0)
    assert refusal is not None
    assert refusal.resets_in_s == pytest.approx(50.0)
    assert account.refusal(Cost(1, None), 70.0) is None


def test_money_is_counted_like_tokens_and_an_unknown_price_is_refused() -> None:
    budgets, policy = Budgets(), BudgetPolicy(usd=1.0)
    spender = Spender("w")
    got = budgets.try_hold([policy], spender, Cost(10, 0.75), 0.0)
    assert isinstance(got, Reserved)
    short = budgets.try_hold([policy], spender, Cost(10, 0.5), 0.0)
    assert isinstance(short, BudgetShort)
    assert "0.75 of 1 usd" in str(short.error("m", Cost(10, 0.5)))
    got.settle(Cost(10, 0.1), 1.0)
    assert isinstance(budgets.try_hold([policy], spender, Cost(10, 0.5), 0.0), Reserved)
    unknown = budgets.try_hold([policy], spender, Cost(10, None), 0.0)
    assert isinstance(unknown, BudgetShort)
    assert "is not known" in str(unknown.error("m", Cost(10, None)))


def test_a_call_reserves_with_all_of_its_budgets_or_with_none() -> None:
    budgets, spender = Budgets(), Spender("w")
    wide, narrow = BudgetPolicy(name="wide", tokens=1_000), BudgetPolicy(name="narrow", tokens=10)
    assert isinstance(budgets.try_hold([wide, narrow], spender, Cost(50, None), 0.0), BudgetShort)
    assert budgets.held == 0


def test_keys_workflows_and_runs_have_accounts_of_their_own() -> None:
    budgets = Budgets()
    by_key = BudgetPolicy(name="k", tokens=10, scope="key", window=timedelta(hours=1))
    everyone = BudgetPolicy(name="a", tokens=10, scope="all")
    per_run = BudgetPolicy(name="r", tokens=10)
    one, two = Spender("w", "ann"), Spender("w", ["unhashable"])
    assert isinstance(budgets.try_hold([by_key], one, Cost(10, None), 0.0), Reserved)
    assert isinstance(budgets.try_hold([by_key], two, Cost(10, None), 0.0), Reserved)
    assert isinstance(budgets.try_hold([everyone], one, Cost(10, None), 0.0), Reserved)
    assert isinstance(budgets.try_hold([everyone], two, Cost(10, None), 0.0), BudgetShort)
    assert isinstance(budgets.try_hold([per_run], one, Cost(10, None), 0.0), Reserved)
    assert isinstance(budgets.try_hold([per_run], one, Cost(10, None), 0.0), BudgetShort)
    assert isinstance(budgets.try_hold([per_run], two, Cost(10, None), 0.0), Reserved)
    assert len(budgets.statistics()) == 3


def test_accounts_of_windows_that_are_over_are_forgotten() -> None:
    budgets, policy = Budgets(), BudgetPolicy(tokens=10, scope="key", window=timedelta(seconds=1))
    for number in range(10_000):
        got = budgets.try_hold([policy], Spender("w", number), Cost(1, None), float(number))
        assert isinstance(got, Reserved)
        got.settle(Cost(1, None), float(number))
    assert len(budgets.statistics()) <= 1_001


# --- smaller rules ------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=300), st.floats(0.01, 1.0))
def test_no_more_than_the_share_is_hedged(slow: list[bool], share: float) -> None:
    hedging, hedge = Hedging(), Hedge(budget=share)
    for number, is_slow in enumerate(slow, 1):
        hedging.called()
        if is_slow:
            hedging.take(hedge)
        assert hedging.hedged <= 1 + share * number


def test_without_a_delay_a_hedge_waits_until_twenty_calls_were_seen() -> None:
    hedging, p95 = Hedging(), Quantile(0.95)
    for _ in range(19):
        p95.add(1.0)
    assert hedging.delay_s(Hedge(), p95) is None
    p95.add(1.0)
    assert hedging.delay_s(Hedge(), p95) == 1.0
    assert hedging.delay_s(Hedge(after=timedelta(seconds=3)), Quantile(0.95)) == 3.0


@given(
    st.sampled_from(["fallback", "round_robin", "least_busy"]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(0, 20),
)
def test_every_endpoint_is_in_the_order_once_and_those_that_are_down_come_last(
    balance: object, health: list[tuple[bool, int]], turn: int
) -> None:
    found = order(balance, [Health(*each) for each in health], turn)  # pyright: ignore[reportArgumentType] - sampled
    assert sorted(found) == list(range(len(health)))
    ready = [health[index][0] for index in found]
    assert ready == sorted(ready, reverse=True)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60)), max_size=300),
    st.integers(1, 20),
    st.integers(100, 500),
)
def test_a_memory_cache_stays_within_its_bounds(
    steps: list[tuple[int, int]], entries: int, max_bytes: int
) -> None:
    cache = MemoryCache(max_bytes)
    for name, size in steps:
        cache.put(str(name), bytes(size), 0.0, entries)
        assert len(cache) <= entries
        assert cache.nbytes <= max_bytes
        kept = cache.get(str(name), 0.0, None)
        assert kept in (None, bytes(size))
    assert cache.get("0", 100.0, 10.0) is None, "too old"


def test_an_answer_reads_back_as_it_was_kept() -> None:
    answer = Generation(text="é", usage=Usage(input_tokens=3))
    assert unpacked(packed(answer)) == answer
    assert unpacked(packed(b"1234")) == b"1234"
    for damaged in (b"", b"x12", b"g\xff"):
        with pytest.raises(DamagedAnswerError):
            unpacked(damaged)


@given(st.lists(st.integers(1, 50), max_size=100), st.integers(1, 20), st.integers(50, 300))
def test_texts_are_split_into_as_few_requests_as_their_bounds_allow(
    sizes: list[int], most: int, most_tokens: int
) -> None:
    found = chunks(sizes, most, most_tokens)
    assert [index for run in found for index in run] == list(range(len(sizes)))
    for run in found:
        assert len(run) <= most
        assert sum(sizes[index] for index in run) <= most_tokens
    for run, following in pairwise(found):
        one_more = [*run, following[0]]
        assert len(one_more) > most or sum(sizes[index] for index in one_more) > most_tokens


def test_the_strictest_of_what_is_declared_holds() -> None:
    declared = Declared()
    assert declared.add(ModelLimits(concurrency=8), Breaker(failures=10), RetryPolicy(budget=0.5)) == []
    assert declared.add(ModelLimits(concurrency=8), Breaker(failures=10), RetryPolicy(budget=0.5)) is None
    changes = declared.add(
        ModelLimits(concurrency=4, most=5), Breaker(failures=3, window=50), RetryPolicy(budget=0.1)
    )
    assert changes == [(CONCURRENCY, 8, 4)]
    assert declared.add(ModelLimits(concurrency=100), None, RetryPolicy()) == []
    assert (declared.concurrency, declared.most, declared.ratio) == (4, 5, 0.1)
    assert declared.breaker is not None
    assert (declared.breaker.failures, declared.breaker.window) == (3, 50)


def test_cached_tokens_have_a_price_of_their_own() -> None:
    price = Price(input=10.0, output=20.0, cached=1.0)
    assert price.of(Usage(input_tokens=1_000_000, cached_tokens=500_000)) == pytest.approx(5.5)
    assert price.of(Usage(output_tokens=1_000_000)) == pytest.approx(20.0)
