"""The worker pool of one stage: long-lived workers, permits, retries, timeouts, cancellation.

Owns: `StagePool`, shared by all chains of a worker.
Does not own: jobs and the lanes they wait in (jobs), the order results leave in
(flowruntime.operators.waiting), what a call does (flowruntime.flowcontrol.calls).

Always holds: a worker takes the next job by itself, no task per row; permits are given back before a
backoff; a cancelled job leaves the queue at once, and a running one is cancelled without ending its worker;
lanes (chains, requests) are served in turn; while more bytes are in flight than allowed a lane gives out only
what its precedence admits, and what was begun before. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowcore.errors import LimitExceededError, NodeTimeoutError
from flowruntime.crashpoints import crash_point
from flowruntime.durable.suspension import Suspension, suspension_in
from flowruntime.flowcontrol.jobs import Job, Lane, rows_of
from flowruntime.resilience.containment import contained
from flowruntime.resilience.guard import Guard
from flowruntime.resilience.retry import next_delay_s
from flowruntime.substream.reader import CALLER

if TYPE_CHECKING:
    import random

    from flowcore.policies import NodePolicies
    from flowruntime.flowcontrol.permits import Permits


PATIENCE_S = 5.0
"""How long a cancelled call may take to end before it is given up."""


Call = Callable[[Job], Awaitable[Any]]


class StagePool:
    """Runs the jobs of one node, up to the limits it is subject to.

    Args:
        name: the node's id.
        call: does one attempt of one job.
        permits: limits, the node's own included.
        policies: timeouts and retry.
        rng: for jitter, seeded by tests.
        guard: breaker, rates and retry budget; None: what the policies say, shared with no other pool.
        weigh: how many rows a job is, for rates; None: one.
        prepare: gets what an attempt needs, kept in `Job.prepared`; the timeout begins when it has it.
    """

    def __init__(
        self,
        name: str,
        call: Call,
        permits: Permits,
        policies: NodePolicies,
        rng: random.Random,
        *,
        guard: Guard | None = None,
        weigh: Callable[[Job], int] | None = None,
        prepare: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.name = name
        self._call = call
        self._prepare = prepare
        self._permits = permits
        self._timeout_s = None if policies.timeout is None else policies.timeout.total_seconds()
        self._total_s = None if policies.total_timeout is None else policies.total_timeout.total_seconds()
        self._retry = policies.retry
        if guard is None and policies.retry is not None:
            guard = Guard(name, policies)
        self._guard = guard
        self._weigh = weigh
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._turns: deque[Lane] = deque()
        self._idle: list[asyncio.Future[Job | None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.paused = False
        """Takes no further jobs; those it has go on."""
        self.in_flight = 0
        self.peak = 0
        self._returning = False
        self._wake = self.pump
        self._held: dict[Lane, None] = {}
        """Lanes with jobs, none of which may begin now; they have no turn."""

    # --- jobs in --------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; it starts now if a permit is free."""
        if self._total_s is not None and job.deadline is None:
            job.deadline = self._loop.time() + self._total_s
            job.overall = self._loop.call_at(job.deadline, self._expire_overall, job)
        lane = job.lane
        if self._begins_at_once(lane, job):
            lane.arrivals += 1
            self._hand_over(job)
            return
        if not lane.queued:
            self._turns.append(lane)
        if job.attempt > 1:
            lane.queued.appendleft(job)
        else:
            lane.queued.append(job)
        if self.came(lane, job):
            self.pump()

    def _begins_at_once(self, lane: Lane, job: Job) -> bool:
        """Begin a job before which nothing waits; False: it has to be queued, as most are under load."""
        if self._turns or lane.held or self._guard is not None or job.cancelled or job.attempt > 1:
            return False
        if self.paused or self._closed or self._returning:
            return False
        if lane.precedence is not None and lane.precedence.holds:
            return False
        if not self._permits.take(self._wake):
            return False
        self._begin(job)
        return True

    def came(self, lane: Lane, job: Job) -> bool:
        """A job waits in a lane, or behind those in it; False when nothing may begin there all the same."""
        lane.arrivals += 1
        if not lane.held:
            return True
        again = job.attempt > 1
        if not again and (lane.precedence is None or not lane.precedence.concerns(rows_of(job))):
            return False
        self._let_go(lane)
        return True

    def _hold(self, lane: Lane) -> None:
        self._turns.remove(lane)
        lane.held = True
        self._held[lane] = None
        if lane.precedence is not None:
            lane.precedence.wait(self._look_again)

    def _let_go(self, lane: Lane) -> None:
        lane.held = False
        del self._held[lane]
        self._turns.append(lane)

    def _look_again(self) -> None:
        """Rows have been released: lanes that were held have their turn again."""
        for lane in list(self._held):
            self._let_go(lane)
        self.pump()

    def pump(self) -> None:
        """Start waiting jobs while permits last."""
        if self._returning:
            return  # a worker gives its permits back, and takes the next job itself
        while self._turns and not self._closed:
            job = self._take()
            if job is None:
                return
            self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        """Give a job that has begun to a worker."""
        if self._idle:
            self._idle.pop().set_result(job)
            return
        worker = self._loop.create_task(self._work(job), name=f"flow stage {self.name}")
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def _take(self) -> Job | None:
        """The next job, with a permit of each limit; None: none is there, or none may begin now."""
        while self._turns and not self.paused:
            lane = self._turns[0]
            job = lane.first()
            if job is None:
                self._hold(lane)
                continue
            if job.cancelled:
                self._pop(job)
                self._finish(job)
                continue
            if self._guard is not None and not self._may_begin(job, self._guard):
                if job.done:
                    continue
                return None
            if not self._permits.take(self._wake):
                return None
            self._pop(job)
            if lane.precedence is not None and job.attempt == 1 and lane.precedence.holds:
                lane.precedence.begun(rows_of(job))
            self._begin(job)
            if self._guard is not None:
                self._guard.begin(job, self._weight(job), self._loop.time())
            return job
        return None

    def _begin(self, job: Job) -> None:
        """A job has its permits."""
        job.lane.running.add(job)
        self.in_flight += 1
        if self.in_flight > self.peak:  # noqa: PLR1730 - for every row: max() costs a call
            self.peak = self.in_flight

    def _may_begin(self, job: Job, guard: Guard) -> bool:
        """Whether breaker and rates let a job begin; one that never may is answered."""
        now = self._loop.time()
        refused: BaseException | None = guard.refusal(job, now)
        if refused is None:
            try:
                return guard.may_begin(job, self._weight(job), self._wake, now)
            except LimitExceededError as error:
                refused = error
        self._pop(job)
        # A further attempt that is not made leaves its job with the error of the last one.
        job.error = job.error or refused
        self._finish(job)
        return False

    def _weight(self, job: Job) -> int:
        return 1 if self._weigh is None else self._weigh(job)

    def _pop(self, job: Job) -> None:
        """Take out a job of the lane whose turn it is; the turn goes to the next lane."""
        lane = self._turns.popleft()
        lane.take_out(job)
        if lane.queued:
            self._turns.append(lane)

    # --- workers --------------------------------------------------------------------------------------

    async def _work(self, first: Job) -> None:
        job: Job | None = first
        task = asyncio.current_task()
        CALLER.set(task)
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

    async def _attempt(self, job: Job) -> None:
        loop = self._loop
        job.started = loop.time()
        job.error = None
        if job.cancelled or job.late:  # between being taken and being started
            self._judge(job)
            self._release(job)
            self._finish(job)
            return
        try:
            job.lane.owner.started(job)
            if self._prepare is not None:
                job.prepared = await self._prepare()
            if self._timeout_s is not None:
                job.expired = False
                job.timer = loop.call_later(self._timeout_s, self._expire, job)
            crash_point("node.before_call")
            job.result = await self._call(job)
            crash_point("node.after_call")
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            asked = task is not None and task.cancelling() > 0
            if self._closed or (asked and not (job.cancelled or job.expired or job.late)):
                self._release(job)
                raise
            job.error = contained(error, self.name)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not _is_current(job.worker):
                raise  # nobody's error: the loop is gone, and this coroutine is being taken down
            job.error = suspension_in(error) or contained(error, self.name)
        if job.cancelled or job.expired or job.late:
            self._judge(job)
        self._release(job)
        if _has_failed(job) and job.error is not None and self._again(job, job.error):
            return
        self._finish(job)

    def _judge(self, job: Job) -> None:
        """A cancelled or expired job stays that, whatever the node made of its cancellation."""
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        if job.cancelled:
            return
        if job.late:
            job.error = self._too_late(job)
        elif job.expired:
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
        job.lane.running.discard(job)
        self.in_flight -= 1
        self._returning = True
        try:
            self._permits.give_back(failed=_has_failed(job))
        finally:
            self._returning = False

    def _too_late(self, job: Job) -> NodeTimeoutError:
        last = "" if job.error is None or job.expired else f"; the last one failed: {job.error}"
        return NodeTimeoutError(
            f"node {self.name!r} did not answer within {self._total_s} s in all, after {job.attempt} attempts"
            f"{last}; raise its total_timeout",
            node=self.name,
            timeout_s=self._total_s,
        )

    def _again(self, job: Job, error: BaseException) -> bool:
        """Put a failed job back after its backoff, outside all permits."""
        policy, guard = self._retry, self._guard
        if policy is None or guard is None or job.late:
            return False
        delay_s = next_delay_s(policy, job.attempt, self._rng, error)
        if not guard.repeats(job, error, delay_s, self._loop.time()):
            return False
        job.lane.owner.retrying(job, error, delay_s)
        job.worker = None
        job.attempt += 1
        job.lane.backing_off.add(job)
        job.timer = self._loop.call_later(delay_s, self._retry_now, job)
        return True

    def _retry_now(self, job: Job) -> None:
        job.timer = None
        job.lane.backing_off.discard(job)
        if self._closed:
            return
        self.submit(job)

    def _finish(self, job: Job) -> None:
        job.done = True
        if job.overall is not None:
            job.overall.cancel()
            job.overall = None
        if job.ticket is not None and self._guard is not None:
            self._guard.ended(job, self._loop.time())
        job.lane.owner.finished(job)

    def pause(self) -> None:
        """Take no further jobs until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Take jobs again."""
        self.paused = False
        self.pump()

    # --- cancelling -----------------------------------------------------------------------------------

    def _expire(self, job: Job) -> None:
        job.timer = None
        job.expired = True
        if job.worker is not None:
            job.worker.cancel()

    def _expire_overall(self, job: Job) -> None:
        job.overall = None
        if job.done or job.cancelled:
            return
        job.late = True
        if job in job.lane.running:
            if job.worker is not None:
                job.worker.cancel()
            return
        job.error = self._too_late(job)
        self._withdraw(job)
        self._finish(job)

    def cancel(self, job: Job) -> None:
        """Take a job out wherever it is; its owner is told through `finished`."""
        if job.done or job.cancelled:
            return
        job.cancelled = True
        if job in job.lane.running:
            if job.worker is not None:
                job.worker.cancel()
            return
        self._withdraw(job)
        self._finish(job)

    def _withdraw(self, job: Job) -> None:
        """Take a job that does not run out of where it waits."""
        lane = job.lane
        if job in lane.backing_off:
            lane.backing_off.discard(job)
            if job.timer is not None:
                job.timer.cancel()
                job.timer = None
        elif job in lane.queued:
            lane.queued.remove(job)
            if not lane.queued:
                self._forget(lane)

    def _forget(self, lane: Lane) -> None:
        """Nothing is queued in it any more."""
        if lane.held:
            lane.held = False
            del self._held[lane]
            if not self._held and lane.precedence is not None:
                lane.precedence.forget(self._look_again)
        elif lane in self._turns:
            self._turns.remove(lane)

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
        if self._guard is not None:
            self._guard.forget(self._wake)
        for lane in self._held:
            if lane.precedence is not None:
                lane.precedence.forget(self._look_again)
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
            "paused": self.paused,
            "queued": sum(len(lane.queued) for lane in (*self._turns, *self._held)),
            "held": sum(len(lane.queued) for lane in self._held),
            **({} if self._guard is None else self._guard.statistics()),
        }


def _has_failed(job: Job) -> bool:
    """Whether the attempt failed; one that was cancelled did not, nor one that waits for an answer."""
    return job.error is not None and not job.cancelled and not isinstance(job.error, Suspension)


def _is_current(task: asyncio.Task[None] | None) -> bool:
    """Whether this code runs in `task`; False, too, where no loop runs."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
