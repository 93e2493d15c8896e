"""The stage of a node that takes its rows in batches: several rows become one job of the node's pool.

    rows in    1 2 3 4 5          max_items=2, one job at a time
    jobs       [1 2] [3 4] [5]    what has gathered goes when the loop turn ends, or `linger` is over
    rows out   1 2 3 4 5          each with its own value or error

Emits when      rows finish, as the stage of single rows does (waiting).
Backpressures   by credit: what gathers here is unsettled.
Completes when  the input has ended and the last row has left.
Fails when      never: an exception in the place of a result fails that row alone. A call that fails whole is
                divided until the row to blame stands alone, unless what it called is down, or the node is not
                idempotent: then every row of the batch fails.
Holds           at most `max_items` rows that gather, and the batches of the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.errors import ContractError, NodeTimeoutError
from flowcore.frame import End, Opened, Signal
from flowruntime.compile.bounds import linger_of
from flowruntime.flowcontrol.jobs import Job, Lane
from flowruntime.operators.kernel import precedence_of
from flowruntime.operators.waiting import WaitingOperator
from flowruntime.resilience.verdict import verdict

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowruntime.compile.plan import Stage
    from flowruntime.flowcontrol.pool import StagePool
    from flowruntime.operators.kernel import Kernel


class BatchingOperator(WaitingOperator):
    """Several rows per job, up to `batch.max_items`; a lingering batch waits for at most `batch.linger`."""

    def __init__(self, kernel: Kernel, stage: Stage, pool: StagePool, order: Order) -> None:
        super().__init__(kernel, stage, pool, order)
        batch = self.node.policies.batch
        assert batch is not None  # noqa: S101 - what makes a node a batched one
        self._max_items = batch.max_items
        self._linger_s = linger_of(self.node, kernel.plan.graph.tuning).total_seconds()
        self._gathering: list[Job] = []
        self._timer: Any = None
        self._release_due = False
        self._closing = False
        precedence = precedence_of(kernel, pool.capacity * batch.max_items)
        self._batch_lane = self.submits_to = Lane(_BatchOwner(self), precedence, self.lane.behind)
        kernel.gathering.append(self.release)

    def submit(self, job: Job) -> None:
        self._gathering.append(job)
        if len(self._gathering) >= self._max_items:
            self.release()
        elif self._linger_s > 0:
            if self._timer is None:
                self._timer = self.kernel.loop.call_later(self._linger_s, self._time_is_up)
        elif not self._release_due:
            self._release_due = True
            self.kernel.loop.call_soon(self.release)

    def _time_is_up(self) -> None:
        self._timer = None  # what comes later lingers anew, also when this release has to wait
        self.release()

    def release(self) -> None:
        """Send what has gathered; a short batch goes on gathering while another waits for its turn.

        But not while none may begin: those that are held back may wait for a row of this one.
        """
        self._release_due = False
        lane = self._batch_lane
        may_gather = len(self._gathering) < self._max_items and not self._closing
        if may_gather and lane.queued and not lane.held:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered = [job for job in self._gathering if not job.cancelled]
        self._gathering = []
        for start in range(0, len(gathered), self._max_items):
            members = gathered[start : start + self._max_items]
            batch = Job(self._batch_lane, members[0].opened, members[0].row, [job.value for job in members])
            batch.members = members
            self.pool.submit(batch)

    def batch_started(self, batch: Job) -> None:
        for job in batch.members:
            job.attempt = batch.attempt
            if batch.attempt == 1:
                self.started(job)

    def batch_retrying(self, batch: Job, error: BaseException, delay_s: float) -> None:
        self._call_ended(batch)
        for job in batch.members:
            self.retrying(job, error, delay_s)

    def _call_ended(self, batch: Job) -> None:
        if self.kernel.streams is not None and batch.worker is not None:
            self.kernel.streams.call_ended(batch.worker, failed=batch.error is not None)

    def batch_finished(self, batch: Job) -> None:
        """Hand each row its result; an exception in the place of a result fails that row alone."""
        members = batch.members
        self._call_ended(batch)
        if batch.error is not None and not batch.cancelled and self._is_divisible(batch.error):
            waiting = [job for job in members if not job.done and not job.cancelled]
            if len(waiting) > 1:
                self._divide(batch, waiting)
                return
        for index, job in enumerate(members):
            if job.done:
                continue
            if batch.cancelled or job.cancelled:
                job.cancelled = True
            elif batch.error is not None:
                job.error = batch.error
            else:
                result = batch.result[index]
                if isinstance(result, Exception):
                    job.error = result
                elif isinstance(result, BaseException):
                    job.error = ContractError(
                        f"batch node {self.node.id!r} returned {type(result).__name__} for a row",
                        node=self.node.id,
                    )
                else:
                    job.result = result
            self.finished(job)
        if self._gathering and not self._release_due:
            self._release_due = True
            self.kernel.loop.call_soon(self.release)

    def _is_divisible(self, error: BaseException) -> bool:
        """Whether one row may be to blame: the call was answered, or hung, and what it called is not down."""
        if not self.node.node.idempotent or isinstance(error, ContractError):
            return False
        return isinstance(error, NodeTimeoutError) or verdict(error) == "up"

    def _divide(self, batch: Job, waiting: list[Job]) -> None:
        """Try the halves of a failed batch by themselves, until the row to blame stands alone."""
        middle = len(waiting) // 2
        for half in (waiting[:middle], waiting[middle:]):
            part = Job(self._batch_lane, half[0].opened, half[0].row, [job.value for job in half])
            part.members = half
            part.attempt = batch.attempt + 1
            self.pool.submit(part)

    def signal(self, signal: Signal) -> None:
        self._closing = True
        self.release()
        self._closing = isinstance(signal, End)
        super().signal(signal)

    def cancel_execution(self, root: Opened, row: int) -> None:
        super().cancel_execution(root, row)
        mine = [job for job in self._gathering if job.opened.root(job.row) == (root, row)]
        for job in mine:
            self._gathering.remove(job)
        for batch in [*self._batch_lane.queued, *self._batch_lane.running, *self._batch_lane.backing_off]:
            mine += [job for job in batch.members if not job.done and job.opened.root(job.row) == (root, row)]
        for job in mine:
            # The answer of a shared call is thrown away; the call itself ends when all its rows are gone.
            job.cancelled = True
            self.finished(job)
        for batch in [*self._batch_lane.queued, *self._batch_lane.running, *self._batch_lane.backing_off]:
            if all(job.done for job in batch.members):
                self.pool.cancel(batch)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gathering = []
        super().close()
        self.pool.cancel_where(self._batch_lane, lambda _: True)

    def statistics(self) -> dict[str, Any]:
        figures, lane = super().statistics(), self._batch_lane
        return {
            **figures,
            "in_flight": sum(len(batch.members) for batch in lane.running),
            "queued": figures["queued"] + sum(len(batch.members) for batch in lane.queued),
            "gathering": len(self._gathering),
        }


class _BatchOwner:
    """What the pool tells of batches."""

    def __init__(self, operator: BatchingOperator) -> None:
        self._operator = operator
        self.kernel = operator.kernel
        """Of the chain the batch belongs to, for the context of its call."""

    def started(self, job: Job) -> None:
        self._operator.batch_started(job)

    def crashed(self, error: BaseException) -> None:
        self._operator.crashed(error)

    def finished(self, job: Job) -> None:
        self._operator.batch_finished(job)

    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None:
        self._operator.batch_retrying(job, error, delay_s)
