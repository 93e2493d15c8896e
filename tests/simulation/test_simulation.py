"""The seeded simulation of the in-memory engine: workflows, schedules, faults; and a test of this tester."""

from __future__ import annotations

import pytest

from tests.properties.scenario import explain, play
from tests.simulation.broken import BROKEN

_QUICK = range(100)
_LONG_PART = 500
_LONG = range(1_000_000, 1_010_000, _LONG_PART)
_CAUGHT_WITHIN = 200


@pytest.mark.parametrize("seed", _QUICK)
def test_a_seed_finds_nothing_wrong(seed: int) -> None:
    faults = play(seed)
    assert not faults, explain(seed, faults)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", _LONG)
def test_ten_thousand_seeds_find_nothing_wrong(first: int) -> None:
    """In parts, so that they spread over the processes of a test run."""
    for seed in range(first, first + _LONG_PART):
        faults = play(seed)
        assert not faults, explain(seed, faults)


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
