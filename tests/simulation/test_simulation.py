"""The seeded simulation of the in-memory engine: workflows, schedules, faults; and a test of this tester."""

from __future__ import annotations

import time

import pytest

from tests.properties.scenario import explain, play
from tests.simulation.broken import BROKEN

_QUICK = range(100)
_LONG_S = 240.0
_LONG_FROM = 1_000_000
_LONG_MOST = 5_000
_CAUGHT_WITHIN = 200


@pytest.mark.parametrize("seed", _QUICK)
def test_a_seed_finds_nothing_wrong(seed: int) -> None:
    faults = play(seed)
    assert not faults, explain(seed, faults)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_five_thousand_seeds_or_four_minutes_of_them_find_nothing_wrong() -> None:
    deadline = time.monotonic() + _LONG_S
    seed = _LONG_FROM
    while time.monotonic() < deadline and seed < _LONG_FROM + _LONG_MOST:
        faults = play(seed)
        assert not faults, explain(seed, faults)
        seed += 1
    assert seed - _LONG_FROM >= 500, "too few seeds to mean anything"


@pytest.mark.parametrize("seed", [3, 17, 42])
def test_a_seed_does_the_same_ten_times_out_of_ten(seed: int) -> None:
    traces: list[list[object]] = []
    for _ in range(10):
        traces.append([])
        assert play(seed, traces[-1]) == []
    assert traces[0]
    assert all(trace == traces[0] for trace in traces)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broken_engine_is_caught_within_two_hundred_seeds(name: str) -> None:
    with BROKEN[name]():
        assert any(play(seed) for seed in range(_CAUGHT_WITHIN))
