"""Permits are taken all or none, never beyond a limit, and whoever can go on is woken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import EngineError
from flowruntime.flowcontrol.permits import Limit, Permits


class Stage:
    """Wants permits for a number of jobs, starts as many as it gets."""

    def __init__(self, limits: list[Limit], jobs: int) -> None:
        self.permits = Permits(limits)
        self.jobs = jobs
        self.running = 0
        self.pump: Callable[[], None] = self._pump

    def _pump(self) -> None:
        while self.jobs and self.permits.take(self.pump):
            self.jobs -= 1
            self.running += 1

    def finish(self) -> None:
        self.running -= 1
        self.permits.give_back()
        self.pump()


CAPACITIES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
STAGES = st.lists(
    st.tuples(st.sets(st.integers(0, 3), min_size=1), st.integers(0, 6)), min_size=1, max_size=5
)


@given(capacities=CAPACITIES, stages=STAGES, choices=st.lists(st.integers(0, 99), min_size=60, max_size=60))
def test_limits_hold_at_every_moment_and_all_work_is_done(
    capacities: list[int], stages: list[tuple[set[int], int]], choices: list[int]
) -> None:
    limits = [Limit(str(index), capacity) for index, capacity in enumerate(capacities)]
    made = [
        Stage([limits[index % len(limits)] for index in sorted({i % len(limits) for i in uses})], jobs)
        for uses, jobs in stages
    ]

    def check() -> None:
        for limit in limits:
            users = sum(stage.running for stage in made if limit in stage.permits.limits)
            assert limit.in_use == users <= limit.capacity

    for stage in made:
        stage.pump()
        check()
    for choice in choices:
        running = [stage for stage in made if stage.running]
        if not running:
            break
        running[choice % len(running)].finish()
        check()
        idle = [
            stage for stage in made if stage.jobs and all(x.in_use < x.capacity for x in stage.permits.limits)
        ]
        assert not idle, "a stage has work and room, and nobody woke it"
    assert all(stage.jobs == 0 for stage in made)
    assert all(limit.in_use == 0 for limit in limits)


def test_a_refusal_takes_nothing() -> None:
    wide, narrow = Limit("wide", 5), Limit("narrow", 1)
    permits = Permits([wide, narrow])
    assert permits.take(lambda: None)
    assert not permits.take(lambda: None)
    assert (wide.in_use, narrow.in_use) == (1, 1)


def test_a_woken_stage_without_work_lets_the_next_one_go() -> None:
    """Its job was cancelled while it waited; the others must not wait for a permit that is free."""
    limit = Limit("one", 1)
    first, gone, last = (Stage([limit], 1) for _ in range(3))
    for stage in (first, gone, last):
        stage.pump()
    gone.jobs = 0
    first.finish()
    assert last.running == 1


def test_a_raised_capacity_wakes_as_many_as_fit() -> None:
    limit = Limit("grows", 1)
    stages = [Stage([limit], 1) for _ in range(4)]
    for stage in stages:
        stage.pump()
    limit.set_capacity(3)
    assert [stage.running for stage in stages] == [1, 1, 1, 0]
    assert limit.statistics()["waiting"] == 1


def test_more_permits_back_than_given_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="'one' got back more"):
        Limit("one", 1).returned()
