"""A stage's pool: limits hold, cancelled jobs leave at once, retries wait outside, nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore.errors import NodeTimeoutError
from flowcore.frame import Opened
from flowcore.policies import NodePolicies, RetryPolicy
from flowruntime.flowcontrol.jobs import Job, Lane
from flowruntime.flowcontrol.permits import Limit, Permits
from flowruntime.flowcontrol.pool import StagePool
from flowruntime.testing import run_virtual


class Recorder:
    """The owner of jobs: keeps what it is told, with the time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, float]] = []
        self.finished_jobs: list[Job] = []

    def _tell(self, what: str, job: Job) -> None:
        self.told.append((what, job.row, round(asyncio.get_running_loop().time(), 3)))

    def started(self, job: Job) -> None:
        self._tell("started", job)

    def finished(self, job: Job) -> None:
        assert job.done
        self._tell("finished", job)
        self.finished_jobs.append(job)

    def crashed(self, error: BaseException) -> None:
        raise error

    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None:
        del error, delay_s
        self._tell("retrying", job)

    def of(self, what: str) -> list[tuple[int, float]]:
        return [(row, at) for told, row, at in self.told if told == what]


class Bench:
    def __init__(self, call: Callable[[Job], Awaitable[Any]], *limits: Limit, **policies: Any) -> None:
        self.limits = limits or (Limit("node", 2),)
        self.owner = Recorder()
        self.lane = Lane(self.owner)
        self.pool = StagePool("n", call, Permits(self.limits), NodePolicies(**policies), random.Random(1))
        self.opened = Opened("s", 0, 1000)

    def submit(self, row: int, lane: Lane | None = None) -> Job:
        job = Job(lane or self.lane, self.opened, row, row)
        self.pool.submit(job)
        return job

    async def close(self) -> None:
        await self.pool.aclose()
        assert all(limit.in_use == 0 for limit in self.limits)
        assert self.pool.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def second(job: Job) -> int:
    await asyncio.sleep(1)
    return job.value * 10


def no_jitter(attempts: int) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=attempts,
        initial=timedelta(seconds=2),
        multiplier=1.0,
        jitter=0.0,
        retry_on=("ValueError", "NodeTimeoutError"),
    )


def test_no_more_at_once_than_the_limit_and_long_lived_workers() -> None:
    async def scenario() -> None:
        bench = Bench(second, Limit("node", 3))
        for row in range(9):
            bench.submit(row)
        await asyncio.sleep(10)
        assert bench.owner.of("finished") == [(row, 1.0 + row // 3) for row in range(9)]
        assert [job.result for job in bench.owner.finished_jobs] == [row * 10 for row in range(9)]
        figures = bench.pool.statistics()
        assert (figures["in_flight"], figures["peak"], figures["queued"]) == (0, 3, 0)
        assert figures["workers"] <= 4  # one may have been started while another was giving its permit back
        await bench.close()

    run_virtual(scenario())


def test_lanes_take_turns() -> None:
    """One request with a thousand rows does not hold another with one."""

    async def scenario() -> None:
        bench = Bench(second, Limit("node", 1))
        other = Lane(bench.owner)
        for row in range(5):
            bench.submit(row)
        bench.submit(100, other)
        await asyncio.sleep(20)
        assert [row for row, _ in bench.owner.of("started")].index(100) <= 2
        await bench.close()

    run_virtual(scenario())


@pytest.mark.parametrize("when", ["queued", "handed over", "running", "backing off"])
def test_a_cancelled_job_leaves_at_once_wherever_it_is(when: str) -> None:
    async def failing(job: Job) -> Any:
        await asyncio.sleep(1)
        raise ValueError(job.row)

    async def scenario() -> None:
        call = failing if when == "backing off" else second
        bench = Bench(call, Limit("node", 1), retry=no_jitter(3))
        first = bench.submit(0)
        queued = bench.submit(1)
        cancelled = queued if when == "queued" else first
        await asyncio.sleep({"queued": 0.5, "handed over": 0, "running": 0.5, "backing off": 1.5}[when])
        before = asyncio.get_running_loop().time()
        bench.pool.cancel(cancelled)
        bench.pool.cancel(cancelled)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert cancelled.done
        assert cancelled.cancelled
        assert asyncio.get_running_loop().time() == before
        await asyncio.sleep(30)
        assert sorted(job.row for job in bench.owner.finished_jobs) == [0, 1]
        await bench.close()

    run_virtual(scenario())


def test_a_cancelled_job_does_not_end_its_worker() -> None:
    async def scenario() -> None:
        bench = Bench(second, Limit("node", 1))
        job = bench.submit(0)
        await asyncio.sleep(0.5)
        (worker,) = (task for task in asyncio.all_tasks() if task.get_name() == "flow stage n")
        bench.pool.cancel(job)
        bench.submit(1)
        await asyncio.sleep(5)
        assert not worker.done()
        assert bench.owner.finished_jobs[-1].result == 10
        await bench.close()

    run_virtual(scenario())


def test_a_timeout_is_per_attempt_and_the_permit_is_free_during_the_backoff() -> None:
    async def hangs_twice(job: Job) -> str:
        await asyncio.sleep(100 if job.row == 0 and job.attempt < 3 else 1)
        return "answer"

    async def scenario() -> None:
        bench = Bench(hangs_twice, Limit("node", 1), timeout=timedelta(seconds=5), retry=no_jitter(3))
        job = bench.submit(0)
        bench.submit(1)
        await asyncio.sleep(60)
        assert job.result == "answer"
        assert job.attempt == 3
        assert bench.owner.of("retrying") == [(0, 5.0), (0, 12.0)]
        assert bench.owner.of("finished") == [(1, 6.0), (0, 15.0)]
        await bench.close()

    run_virtual(scenario())


def test_a_retry_goes_before_what_is_queued() -> None:
    async def fails_once(job: Job) -> None:
        await asyncio.sleep(1)
        if job.row == 0 and job.attempt == 1:
            raise ValueError("once")

    async def scenario() -> None:
        bench = Bench(fails_once, Limit("node", 1), retry=no_jitter(2))
        for row in range(6):
            bench.submit(row)
        await asyncio.sleep(30)
        assert [row for row, _ in bench.owner.of("finished")] == [1, 2, 0, 3, 4, 5]
        await bench.close()

    run_virtual(scenario())


def test_a_job_out_of_attempts_has_its_last_error() -> None:
    async def hangs(_: Job) -> None:
        await asyncio.sleep(100)

    async def scenario() -> None:
        bench = Bench(hangs, timeout=timedelta(seconds=1), retry=no_jitter(2))
        job = bench.submit(0)
        await asyncio.sleep(30)
        assert isinstance(job.error, NodeTimeoutError)
        assert "attempt 2" in str(job.error)
        await bench.close()

    run_virtual(scenario())


def test_a_node_that_raises_cancelled_error_by_itself_fails_its_row() -> None:
    """Else the row would never be answered for, and its worker be gone."""

    async def gives_up(_: Job) -> None:
        raise asyncio.CancelledError

    async def scenario() -> None:
        bench = Bench(gives_up)
        job = bench.submit(0)
        await asyncio.sleep(1)
        assert job.done
        assert job.error is not None
        await bench.close()

    run_virtual(scenario())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_closing_gives_back_every_permit_of_shared_limits(turns: int) -> None:
    """The runtime's limits outlive the pool; jobs handed to a worker that never ran hold some of them."""

    async def scenario() -> None:
        shared = Limit("runtime:*", 4)
        bench = Bench(second, Limit("node", 4), shared)
        bench.submit(0)
        await asyncio.sleep(2)  # one worker is idle now
        for row in range(8):
            bench.submit(row)
        for _ in range(turns):
            await asyncio.sleep(0)
        await bench.close()
        assert shared.in_use == 0

    run_virtual(scenario())


def test_random_work_leaves_no_task_no_permit_and_no_job_without_an_answer() -> None:
    async def scenario(seed: int) -> None:
        chance = random.Random(seed)

        async def work(job: Job) -> int:
            await asyncio.sleep(chance.choice((0, 0, 0.5, 1, 9)))
            if chance.random() < 0.3:
                raise ValueError(job.row)
            return job.row

        limit = Limit("node", chance.randint(1, 5))
        bench = Bench(work, limit, timeout=timedelta(seconds=4), retry=no_jitter(2))
        jobs: list[Job] = []
        for row in range(80):
            jobs.append(bench.submit(row))
            if chance.random() < 0.4:
                bench.pool.cancel(chance.choice(jobs))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0, 0.2, 3)))
            assert limit.in_use <= limit.capacity
        await asyncio.sleep(1000)
        assert sorted(job.row for job in bench.owner.finished_jobs) == list(range(80))
        assert not bench.lane.running
        assert not bench.lane.backing_off
        await bench.close()

    for seed in range(40):
        run_virtual(scenario(seed), seed=seed)
