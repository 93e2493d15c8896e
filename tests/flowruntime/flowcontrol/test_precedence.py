"""Precedence: while bytes are overdrawn the oldest record goes on, and what holds it up; nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from flowcore.frame import Opened
from flowcore.policies import NodePolicies
from flowcore.settlement import Ledger
from flowruntime.flowcontrol.budget import Budget
from flowruntime.flowcontrol.jobs import Job, Lane
from flowruntime.flowcontrol.permits import Limit, Permits
from flowruntime.flowcontrol.pool import StagePool
from flowruntime.flowcontrol.precedence import Precedence
from flowruntime.testing import run_virtual


def opened(seq: int, size: int = 10, parents: Any = None, settled: Any = None) -> Opened:
    frame = Opened("s" if parents is None else "child", seq, size, parents=parents)
    frame.ledger = Ledger(size, 1, settled or (lambda _ledger, _rows: None), frame)
    return frame


class Chain:
    """Knows the oldest record, because a test says so."""

    def __init__(self) -> None:
        self.first: tuple[int, int] | None = (0, 0)
        self.stalls = 0

    def oldest(self) -> tuple[int, int] | None:
        return self.first

    def stalled(self) -> None:
        self.stalls += 1


def overdrawn() -> Budget:
    budget = Budget(100, 10)
    budget.grow(11)
    return budget


def rows_of(row: tuple[Opened, int]) -> Sequence[tuple[Opened, int]]:
    return (row,)


def test_nothing_is_held_while_bytes_are_not_overdrawn_or_nothing_is_unsettled() -> None:
    budget, chain = Budget(100, 10), Chain()
    precedence = Precedence(budget, chain, 1)
    budget.grow(10)
    assert not precedence.holds
    budget.grow(1)
    assert precedence.holds
    chain.first = None
    assert not precedence.holds


def test_rows_of_the_oldest_record_are_chosen_wherever_they_stand_where_no_order_is_kept() -> None:
    frame, chain = opened(0), Chain()
    chain.first = (0, 7)
    precedence = Precedence(overdrawn(), chain, 1)
    queued = [(frame, row) for row in (3, 9, 7, 1)]
    assert precedence.choose(queued, rows_of, None, 4) == 2


def test_in_a_stage_that_keeps_an_order_what_stands_before_them_goes_first() -> None:
    """Else they would be done, and wait for ever for rows that may not begin."""
    frame, chain = opened(0), Chain()
    chain.first = (0, 7)
    precedence = Precedence(overdrawn(), chain, 1)
    queued = [(frame, row) for row in (3, 9, 7, 1)]
    assert precedence.choose(queued, rows_of, lambda: (), 4) == 0
    assert precedence.choose(queued[:2], rows_of, lambda: [(frame, 7)], 5) == 0
    assert precedence.choose(queued[:2], rows_of, lambda: [(frame, 8)], 6) is None


def test_children_and_batches_belong_to_every_record_they_stem_from() -> None:
    root, chain = opened(0), Chain()
    chain.first = (0, 2)
    precedence = Precedence(overdrawn(), chain, 5)
    child = opened(0, 2, parents=[(root, 1), (root, 2)])
    grandchild = opened(0, 1, parents=[(child, 1)])
    batch = opened(0, 1, parents=[(root, 1)])
    batch.members = [[(root, 1), (root, 2)]]
    assert precedence.admits([(child, 1)])
    assert not precedence.admits([(child, 0)])
    assert precedence.admits([(grandchild, 0)])
    assert precedence.admits([(batch, 0)])


def test_no_more_rows_of_it_are_begun_than_there_are_places_until_some_are_settled() -> None:
    root, chain = opened(0), Chain()
    precedence = Precedence(overdrawn(), chain, 2)
    children = opened(0, 5, parents=[(root, 0)] * 5)
    for row in range(2):
        assert precedence.choose([(children, row)], rows_of, None, row) == 0
        precedence.begun([(children, row)])
    assert precedence.choose([(children, 2)], rows_of, None, 2) is None
    children.ledger.cover([1])
    assert precedence.choose([(children, 2)], rows_of, None, 2) == 0


def test_looking_again_costs_nothing_before_something_has_changed() -> None:
    frame, chain = opened(0), Chain()
    chain.first = (0, 9)
    precedence = Precedence(overdrawn(), chain, 1)
    looked_at = 0

    def counted(row: tuple[Opened, int]) -> Sequence[tuple[Opened, int]]:
        nonlocal looked_at
        looked_at += 1
        return (row,)

    queued = [(frame, row) for row in range(8)]
    for _ in range(5):
        assert precedence.choose(queued, counted, None, 8) is None
    assert looked_at == 8
    chain.first = (0, 3)
    assert precedence.choose(queued, counted, None, 8) == 3
    chain.first = (0, 9)
    assert precedence.choose([*queued, (frame, 9)], counted, None, 9) == 8


def test_who_waits_is_told_soon_but_never_while_rows_are_being_released() -> None:
    async def scenario() -> None:
        budget, chain = overdrawn(), Chain()
        precedence = Precedence(budget, chain, 1)
        told: list[int] = []
        precedence.wait(lambda: told.append(1))
        assert chain.stalls == 1
        budget.release(0)
        budget.release(0)
        assert told == []
        await asyncio.sleep(0)
        assert told == [1]
        budget.release(0)
        await asyncio.sleep(0)
        assert told == [1]

    run_virtual(scenario())


# --- with a pool ----------------------------------------------------------------------------------------


class Owner:
    def __init__(self, budget: Budget, grows: int) -> None:
        self.budget = budget
        self.grows = grows
        self.started_rows: list[int] = []
        self.finished_rows: list[int] = []

    def started(self, job: Job) -> None:
        self.started_rows.append(job.row)

    def finished(self, job: Job) -> None:
        self.finished_rows.append(job.row)
        self.budget.grow(self.grows)

    def crashed(self, error: BaseException) -> None:
        raise error

    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None: ...


async def second(job: Job) -> int:
    await asyncio.sleep(1)
    return job.row


class Bench:
    """A pool whose rows settle when the test says so; each grows by 10 bytes, and 29 are allowed."""

    def __init__(self, *, in_order: bool, limit: int = 2) -> None:
        self.budget = Budget(1_000, 29)
        self.chain = Chain()
        self.frame = opened(0, 20)
        self.owner = Owner(self.budget, 10)
        precedence = Precedence(self.budget, self.chain, limit)
        self.lane = Lane(self.owner, precedence, (lambda: ()) if in_order else None)
        self.limit = Limit("node", limit)
        self.pool = StagePool("n", second, Permits([self.limit]), NodePolicies(), random.Random(1))

    def submit(self, *rows: int) -> list[Job]:
        jobs = [Job(self.lane, self.frame, row, row) for row in rows]
        for job in jobs:
            self.pool.submit(job)
        return jobs

    def settle(self, row: int, oldest: int) -> None:
        self.frame.ledger.cover([row])
        self.chain.first = (0, oldest)
        self.budget.grow(-10)
        self.budget.release(1)

    async def close(self) -> None:
        await self.pool.aclose()
        assert self.limit.in_use == 0
        assert self.budget.statistics()["holding"] == 0


def test_a_pool_begins_no_further_rows_while_bytes_are_overdrawn() -> None:
    async def scenario() -> None:
        bench = Bench(in_order=True)
        bench.submit(*range(10))
        await asyncio.sleep(100)
        assert bench.owner.finished_rows == [0, 1, 2, 3]  # two at a time: 40 bytes
        assert bench.pool.statistics()["held"] == 6
        bench.settle(0, oldest=1)
        await asyncio.sleep(100)
        assert bench.owner.finished_rows == [0, 1, 2, 3]  # 30 bytes are still too many
        bench.settle(1, oldest=2)
        await asyncio.sleep(100)
        assert bench.owner.finished_rows == [0, 1, 2, 3, 4, 5]
        await bench.close()

    run_virtual(scenario())


@pytest.mark.parametrize("in_order", [False, True])
def test_the_oldest_row_is_begun_all_the_same_and_in_order_those_before_it(in_order: bool) -> None:
    async def scenario() -> None:
        bench = Bench(in_order=in_order)
        bench.submit(4, 5, 6, 7, 1, 2, 0)
        await asyncio.sleep(100)
        begun = [4, 5, 6, 7, 1, 2, 0] if in_order else [4, 5, 6, 7, 0]
        assert bench.owner.started_rows == begun
        await bench.close()

    run_virtual(scenario())


def test_a_row_of_the_oldest_record_that_comes_later_is_begun_at_once() -> None:
    async def scenario() -> None:
        bench = Bench(in_order=False)
        bench.submit(4, 5, 6, 7, 8)
        await asyncio.sleep(100)
        assert bench.pool.statistics()["held"] == 1
        bench.submit(9)
        bench.submit(0)
        await asyncio.sleep(2)
        assert bench.owner.finished_rows == [4, 5, 6, 7, 0]
        await bench.close()

    run_virtual(scenario())


def test_a_cancelled_row_leaves_a_held_lane_and_closing_forgets_it() -> None:
    async def scenario() -> None:
        bench = Bench(in_order=True)
        bench.submit(4, 5, 6, 7)
        await asyncio.sleep(100)
        held = bench.submit(8, 9)
        for job in held:
            bench.pool.cancel(job)
        assert bench.pool.statistics()["queued"] == 0
        assert not bench.lane.held
        bench.submit(0)
        await asyncio.sleep(2)
        assert bench.owner.finished_rows[-1] == 0
        await bench.close()

    run_virtual(scenario())


def test_lanes_that_are_not_held_go_on_beside_one_that_is() -> None:
    async def scenario() -> None:
        bench = Bench(in_order=True)
        other = Lane(bench.owner)
        bench.submit(4, 5, 6, 7, 8)
        await asyncio.sleep(100)
        bench.pool.submit(Job(other, bench.frame, 15, 15))
        await asyncio.sleep(2)
        assert bench.owner.finished_rows[-1] == 15
        assert bench.pool.statistics()["held"] == 1
        await bench.close()

    run_virtual(scenario())


def test_a_row_that_backs_off_goes_on_since_it_was_begun_before() -> None:
    async def scenario() -> None:
        bench = Bench(in_order=True)
        bench.submit(4, 5, 6, 7, 8)
        await asyncio.sleep(100)
        retried = Job(bench.lane, bench.frame, 9, 9)
        retried.attempt = 2
        bench.lane.backing_off.add(retried)
        bench.pool._retry_now(retried)
        await asyncio.sleep(2)
        assert bench.owner.finished_rows[-1] == 9
        assert bench.pool.statistics()["held"] == 1
        await bench.close()

    run_virtual(scenario())
