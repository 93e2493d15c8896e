"""The worker pool of one stage: long-lived workers, permits, retries, timeouts, cancellation.

Owns: `StagePool`, shared by all chains of a worker, and `Job`, one call under way or waiting.
Does not own: the order results leave in (flowruntime.operators.waiting), what a call does
(flowruntime.flowcontrol.calls).

Always holds: a worker takes the next job by itself, no task per row; permits are given back before a
backoff; a
cancelled job leaves the queue at once, and a running one is cancelled without ending its worker; lanes
(chains,
requests) are served in turn. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.errors import CancelledRowError, NodeTimeoutError
from flowcore.frame import Opened
from flowruntime.resilience.retry import next_delay_s, should_retry

if TYPE_CHECKING:
    import random

    from flowcore.policies import NodePolicies
    from flowruntime.flowcontrol.permits import Permits


PATIENCE_S = 5.0
"""How long a cancelled call may take to end before it is given up."""


class Owner(Protocol):
    """Whoever submitted a job."""

    def started(self, job: Job) -> None: ...
    def finished(self, job: Job) -> None: ...
    def crashed(self, error: BaseException) -> None: ...
    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None: ...


class Job:
    """One row (or one batch of rows) on its way through a waiting stage."""

    __slots__ = (
        "attempt", "cancelled", "done", "error", "expired", "extra", "generation", "key", "lane", "opened",
        "result", "row", "started", "timer", "value", "worker",
    )  # fmt: skip

    def __init__(self, lane: Lane, opened: Opened, row: int, value: Any) -> None:
        self.lane = lane
        self.opened = opened
        self.row = row
        self.value = value
        self.attempt = 1
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.expired = False
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.worker: asyncio.Task[None] | None = None
        self.generation: Any = None
        self.key: Any = None
        self.extra: Any = None


class Lane:
    """The jobs of one owner, first in first out; lanes of a pool are served round robin."""

    __slots__ = ("backing_off", "owner", "queued", "running")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.queued: deque[Job] = deque()
        self.running: set[Job] = set()
        self.backing_off: set[Job] = set()


Call = Callable[[Job], Awaitable[Any]]


class StagePool:
    """Runs the jobs of one node, up to the limits it is subject to.

    Args:
        name: the node's id.
        call: does one attempt of one job.
        permits: limits, the node's own included.
        policies: timeout and retry.
        rng: for jitter, seeded by tests.
    """

    def __init__(
        self, name: str, call: Call, permits: Permits, policies: NodePolicies, rng: random.Random
    ) -> None:
        self.name = name
        self._call = call
        self._permits = permits
        self._timeout_s = None if policies.timeout is None else policies.timeout.total_seconds()
        self._retry = policies.retry
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._turns: deque[Lane] = deque()
        self._idle: list[asyncio.Future[Job | None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.in_flight = 0
        self.peak = 0
        self._returning = False
        self._wake = self.pump

    # --- jobs in --------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; it starts now if a permit is free."""
        lane = job.lane
        if not lane.queued:
            self._turns.append(lane)
        lane.queued.append(job)
        self.pump()

    def pump(self) -> None:
        """Start waiting jobs while permits last."""
        if self._returning:
            return  # a worker gives its permits back, and takes the next job itself
        while self._turns and not self._closed:
            job = self._take()
            if job is None:
                return
            if self._idle:
                self._idle.pop().set_result(job)
            else:
                worker = self._loop.create_task(self._work(job), name=f"flow stage {self.name}")
                self._workers.add(worker)
                worker.add_done_callback(self._workers.discard)

    def _next(self) -> Job | None:
        """The next job of the lane whose turn it is; cancelled ones are answered on the way."""
        while self._turns:
            lane = self._turns.popleft()
            job = lane.queued.popleft()
            if lane.queued:
                self._turns.append(lane)
            if job.cancelled:
                self._finish(job)
                continue
            lane.running.add(job)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            return job
        return None

    # --- workers --------------------------------------------------------------------------------------

    async def _work(self, first: Job) -> None:
        job: Job | None = first
        task = asyncio.current_task()
        while not self._closed:
            if job is None:
                idle: asyncio.Future[Job | None] = self._loop.create_future()
                self._idle.append(idle)
                job = await idle
                if job is None:
                    return
            job.worker = task
            try:
                await self._attempt(job)
            except Exception as error:  # noqa: BLE001 - not the node's: the engine's own; the chain fails, loudly
                job.lane.owner.crashed(error)
            job = self._take()
            if self._turns:
                self.pump()

    def _take(self) -> Job | None:
        if not self._turns or not self._permits.take(self._wake):
            return None
        job = self._next()
        if job is None:
            self._permits.give_back()
        return job

    async def _attempt(self, job: Job) -> None:
        loop = self._loop
        job.started = loop.time()
        job.error = None
        if job.cancelled:  # between being taken and being started
            self._release(job)
            self._finish(job)
            return
        if self._timeout_s is not None:
            job.expired = False
            job.timer = loop.call_later(self._timeout_s, self._expire, job)
        try:
            job.lane.owner.started(job)
            job.result = await self._call(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            asked = task is not None and task.cancelling() > 0
            if self._closed or (asked and not (job.cancelled or job.expired)):
                self._release(job)
                raise
            job.error = CancelledRowError(
                f"node {self.name!r} raised CancelledError, though nobody had cancelled its row",
                node=self.name,
            )
        except Exception as error:  # noqa: BLE001 - user code; it becomes the row's failure
            job.error = error
        self._judge(job)
        self._release(job)
        if job.error is not None and not job.cancelled and self._again(job, job.error):
            return
        self._finish(job)

    def _judge(self, job: Job) -> None:
        """A cancelled or expired job stays that, whatever the node made of its cancellation."""
        if not (job.cancelled or job.expired):
            return
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        if job.expired and not job.cancelled:
            job.error = NodeTimeoutError(
                f"node {self.name!r} did not answer within {self._timeout_s} s (attempt {job.attempt}); "
                "raise its timeout, or retry",
                node=self.name,
                timeout_s=self._timeout_s,
            )

    def _release(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        job.worker = None
        job.lane.running.discard(job)
        self.in_flight -= 1
        self._returning = True
        try:
            self._permits.give_back()
        finally:
            self._returning = False

    def _again(self, job: Job, error: BaseException) -> bool:
        """Put a failed job back after its backoff, outside all permits."""
        policy = self._retry
        if policy is None or job.attempt >= policy.max_attempts or not should_retry(policy, error):
            return False
        delay_s = next_delay_s(policy, job.attempt, self._rng, error)
        job.lane.owner.retrying(job, error, delay_s)
        job.attempt += 1
        job.lane.backing_off.add(job)
        job.timer = self._loop.call_later(delay_s, self._retry_now, job)
        return True

    def _retry_now(self, job: Job) -> None:
        job.timer = None
        job.lane.backing_off.discard(job)
        if self._closed:
            return
        if not job.lane.queued:
            self._turns.append(job.lane)
        job.lane.queued.appendleft(job)
        self.pump()

    def _finish(self, job: Job) -> None:
        job.done = True
        job.lane.owner.finished(job)

    # --- cancelling -----------------------------------------------------------------------------------

    def _expire(self, job: Job) -> None:
        job.timer = None
        job.expired = True
        if job.worker is not None:
            job.worker.cancel()

    def cancel(self, job: Job) -> None:
        """Take a job out wherever it is; its owner is told through `finished`."""
        if job.done or job.cancelled:
            return
        job.cancelled = True
        lane = job.lane
        if job in lane.running:
            if job.worker is not None:
                job.worker.cancel()
            return
        if job in lane.backing_off:
            lane.backing_off.discard(job)
            if job.timer is not None:
                job.timer.cancel()
                job.timer = None
        elif job in lane.queued:
            lane.queued.remove(job)
            if not lane.queued and lane in self._turns:
                self._turns.remove(lane)
        self._finish(job)

    def cancel_where(self, lane: Lane, matches: Callable[[Job], bool]) -> None:
        """Cancel all jobs of a lane that match."""
        for job in [*lane.queued, *lane.backing_off, *lane.running]:
            if matches(job):
                self.cancel(job)

    async def aclose(self) -> int:
        """Cancel everything and wait until no worker is left.

        Returns:
            How many calls do not end, because the node swallows its cancellation.
        """
        self._closed = True
        for limit in self._permits.limits:
            limit.forget(self._wake)
        for idle in self._idle:
            if not idle.done():
                idle.set_result(None)
        self._idle.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        stuck: set[asyncio.Task[None]] = set()
        if workers:
            _, stuck = await asyncio.wait(workers, timeout=PATIENCE_S)
        for _ in range(self.in_flight - len(stuck)):  # jobs whose worker was cancelled before its first step
            self.in_flight -= 1
            self._permits.give_back()
        return len(stuck)

    @property
    def capacity(self) -> int:
        """Jobs at once, by the tightest of its limits."""
        return min(limit.capacity for limit in self._permits.limits)

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "peak": self.peak,
            "workers": len(self._workers),
            "queued": sum(len(lane.queued) for lane in self._turns),
        }
