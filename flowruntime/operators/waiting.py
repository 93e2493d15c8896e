"""The stage of a node that waits: rows become jobs of the node's pool, results leave in the order asked for.

    rows in    1 2 3 4            (2 is slow)
    ordered    1 . . 2 3 4        unordered  1 3 4 2      by_key  1 3 4 2, each key in order

Emits when      rows finish; completions of one loop turn leave as one part per frame.
Backpressures   by credit: what waits here is unsettled, so the source is not given more; results are charged
                to the bytes in flight, and while these are overdrawn only rows of the oldest record begin.
Completes when  the input has ended and the last row has left.
Fails when      never: an exception becomes the row's failure, or is replaced by the node's fallback.
Holds           the unsettled rows, bounded by the worker's budget; for `by_key` at most `max_queued_per_key`
                of one key before further rows of that key fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowcore.errors import CancelledRowError, LimitExceededError
from flowcore.frame import Failure, Frame, Opened, Signal
from flowcore.sizes import size_up_to
from flowruntime.compile.sentinels import ABSENT
from flowruntime.durable.held import HELD, KNOWN
from flowruntime.durable.suspension import Suspension
from flowruntime.flowcontrol.jobs import Job, Lane
from flowruntime.operators.base import StageOperator, absent_rows, by_port, node_of
from flowruntime.operators.gate import Gate
from flowruntime.operators.kernel import precedence_of
from flowruntime.operators.oversize import bound_of

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowruntime.compile.plan import Stage
    from flowruntime.compile.resolved import ResolvedFallback
    from flowruntime.flowcontrol.pool import StagePool
    from flowruntime.operators.host import RowJournal
    from flowruntime.operators.kernel import Kernel

RECALLED: Final = object()
"""As `Job.extra`: what it gave is of an earlier pass of its execution."""
_WAITING: Final = "$waiting"
"""As the node of what a row is absent for that waits: no node's failure, and nothing for an error port."""


class WaitingOperator(StageOperator):
    """One row per job."""

    def __init__(self, kernel: Kernel, stage: Stage, pool: StagePool, order: Order) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self.pool = pool
        behind = None if order == "unordered" else self._behind_queued
        self.lane = self.submits_to = Lane(self, precedence_of(kernel, pool.capacity), behind)
        self._order = order
        self._in_order: deque[Job] = deque()
        """For `ordered`: jobs in the order they came."""
        self._keys: dict[Any, deque[Job]] = {}
        """For `by_key`: rows of a key behind the one that is being worked on."""
        self._max_per_key = 1_000
        if self.node.policies.concurrency is not None:
            self._max_per_key = self.node.policies.concurrency.max_queued_per_key
        self._finished: list[Job] = []
        self._flush_due = False
        self._gate = Gate()
        self._is_filter = self.node.role == "filter"
        self._fallback = self.node.fallback
        self._bound = bound_of(self.node)
        self._measures_input = kernel.charges_bytes and stage.scope.linear and stage.follows_code
        self._telemetry = kernel.worker.telemetry

    # --- rows in --------------------------------------------------------------------------------------

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        kernel = self.kernel
        if kernel.closed:
            return
        opened = frame.opened
        missing = absent_rows(frame)
        if missing and self._gate.may_leave(self._gate.current):
            self.emit_absent(opened, missing, frame.failed)
        elif missing:
            self._hold_absent(opened, missing, frame.failed or {})
        if self._measures_input and opened.charged is not None:
            self._measure_input(frame)
        lane, generation, journal = self.lane, self._gate.current, kernel.journal
        generation.outstanding += len(frame.values)
        kernel.in_progress += len(frame.values)
        for row, value in zip(frame.present, frame.values, strict=True):
            job = Job(lane, opened, row, value)
            job.generation = generation
            if self._order == "ordered":
                self._in_order.append(job)
            if kernel.recording and kernel.stopped(opened, row) is not None:
                job.cancelled = True
                self.finished(job)
                continue
            if self._order == "by_key" and not self._admit(job):
                continue
            if journal is not None and self._recall(journal, job):
                continue
            self.submit(job)

    def _recall(self, journal: RowJournal, job: Job) -> bool:
        """Answer a job with what its call gave in an earlier pass; False: it was not called."""
        found = journal.recall(self.node.id, job.opened, job.row)
        if found is None:
            return False
        job.extra, job.result, job.error = RECALLED, found.value, found.error
        self.finished(job)
        return True

    def _measure_input(self, frame: Frame[Any]) -> None:
        """Plain functions have changed rows that are charged: charge what has become of them."""
        most = self.kernel.worker.budget.max_bytes
        for row, value in zip(frame.present, frame.values, strict=True):
            self.kernel.charge(frame.opened, row, size_up_to(value, most), instead=True)

    def _behind_queued(self) -> Iterable[tuple[Opened, int]]:
        """Rows that wait until others of their key are through; of those in order all are queued."""
        for waiting in self._keys.values():
            for job in waiting:
                yield job.opened, job.row

    def _hold_absent(self, opened: Opened, rows: list[int], failed: Mapping[int, Failure]) -> None:
        """Rows without a value that came behind a barrier wait for it like the others."""
        generation = self._gate.current
        for row in rows:
            job = Job(self.lane, opened, row, None)
            job.generation = generation
            job.done = True
            job.result = ABSENT
            if row in failed:
                job.error, job.result = failed[row].error, failed[row]
            generation.outstanding += 1
            self.kernel.in_progress += 1
            (self._in_order if self._order == "ordered" else self._finished).append(job)

    def submit(self, job: Job) -> None:
        """Hand a job to the pool."""
        self.pool.submit(job)

    def signal(self, signal: Signal) -> None:
        self._gate.signal(signal)
        self._pass_signals()

    def _admit(self, job: Job) -> bool:
        """Queue a row behind an unfinished one of its key. False: it waits, or has failed."""
        try:
            job.key = self._key_of(job)
            waiting = self._keys.get(job.key)
        except Exception as error:  # noqa: BLE001 - a user's expression, or a key that cannot be hashed
            job.error = error
            job.key = ABSENT
            self.finished(job)
            return False
        if waiting is None:
            self._keys[job.key] = deque()
            return True
        if len(waiting) >= self._max_per_key:
            job.error = LimitExceededError(
                f"node {self.node.id!r}: {len(waiting)} rows of key {job.key!r} wait already; raise "
                "concurrency.max_queued_per_key, or spread the key",
                node=self.node.id,
                key=repr(job.key),
            )
            job.key = ABSENT
            self.finished(job)
            return False
        waiting.append(job)
        held = self.submits_to.held
        if self.pool.came(self.submits_to, job) and held:
            self.pool.pump()
        return False

    def _key_of(self, job: Job) -> Any:
        root, row = job.opened.root(job.row)
        expression = self.node.key
        if expression is None:
            return None if root.keys is None else root.keys[row]
        columns: dict[str, Any] = {
            "value": job.value[0] if self.stage.unpack and job.value else job.value,
            "record": None if root.records is None else root.records[row],
            "key": None if root.keys is None else root.keys[row],
            "headers": {} if root.headers is None else root.headers[row],
        }
        return expression(**{name: columns[name] for name in expression.names})

    # --- what the pool tells --------------------------------------------------------------------------

    def started(self, job: Job) -> None:
        if job.attempt == 1:
            job.extra = self._telemetry.node_started(self.kernel, self.node.id, job.opened, job.row)

    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None:
        if self.kernel.streams is not None and job.worker is not None:
            self.kernel.streams.call_ended(job.worker, failed=True)
        self.kernel.counts[self.node.id].retried += 1
        self._telemetry.node_retrying(
            self.kernel, self.node.id, job.opened, job.row, error, job.attempt, delay_s
        )

    def crashed(self, error: BaseException) -> None:
        """The engine failed while it worked on a job."""
        self.kernel.crash(error)

    def finished(self, job: Job) -> None:
        """A job has its result or error, or was cancelled: reported now, emitted now or as the turn ends."""
        job.done = True
        kernel = self.kernel
        if kernel.streams is not None and job.worker is not None:
            kernel.streams.call_ended(job.worker, failed=job.error is not None)
        if kernel.closed:
            return
        journal = kernel.journal
        if journal is None or job.cancelled or job.extra is RECALLED:
            if kernel.holds is None or job.cancelled:
                self._conclude(job)
            else:
                kernel.holds.take(self.node.id, job, lambda: self._conclude(job))
        else:
            journal.take(self.node.id, job, lambda: self._conclude(job))

    def _conclude(self, job: Job) -> None:
        """What came of a job is known, and durable where it has to be."""
        kernel = self.kernel
        if kernel.closed:
            return
        self._settle_outcome(job)
        if self._order == "by_key" and job.key is not ABSENT:
            self._next_of_key(job)
        if self._order != "ordered":
            self._finished.append(job)
        if self._flush_due:
            return
        if job.opened.size == 1:
            self._flush_single(job)
            return
        self._flush_due = True
        kernel.loop.call_soon(self._flush)

    def _settle_outcome(self, job: Job) -> None:
        """Turn what came of the job into a value or a Failure, and report it."""
        kernel, node_id = self.kernel, self.node.id
        counts = kernel.counts[node_id]
        if job.cancelled:
            counts.cancelled += 1
            cause = kernel.stopped(job.opened, job.row)
            job.error = CancelledRowError(f"node {node_id!r} was cancelled", node=node_id)
            job.result = cause if cause is not None else Failure(node_id, job.error, job.attempt)
            if kernel.recording:
                kernel.execution_of(job.opened, job.row).cancelled_node(node_id)
            return
        if isinstance(job.error, Suspension):
            kernel.execution_of(job.opened, job.row).node(node_id).waiting += 1
            job.result = Failure(_WAITING, job.error)
            return
        if job.extra is HELD or job.extra is KNOWN:
            counts.held += job.extra is HELD
            return
        recalled = job.extra is RECALLED
        started = job.extra if isinstance(job.extra, float) else 0.0
        telemetry = self._telemetry
        if started and telemetry.metered:
            telemetry.meter(node_id).observe(1, telemetry.clock() - started)
        if job.error is None:
            self._judge_result(job)
        if job.error is not None and self._fallback is not None:
            self._replace(job, job.error, self._fallback)
            return
        if job.error is not None:
            job.result = kernel.failed(
                node_id,
                job.opened,
                job.row,
                job.error,
                job.attempt,
                started=started,
                value=by_port(self.node.node, job.value),
                recalled=recalled,
            )
            return
        counts.completed += not recalled
        if job.result is ABSENT:
            counts.dropped += not recalled
        kernel.completed(node_id, job.opened, job.row, job.result, started, job.attempt, recalled=recalled)

    def _replace(self, job: Job, error: BaseException, fallback: ResolvedFallback) -> None:
        """The row has failed and goes on with the node's fallback."""
        kernel = self.kernel
        started = job.extra if isinstance(job.extra, float) else 0.0
        job.result = kernel.replace(
            self.node.id,
            fallback,
            job.opened,
            job.row,
            error,
            job.attempt,
            started=started,
            recalled=job.extra is RECALLED,
        )
        job.error = None
        kernel.charge(job.opened, job.row, fallback.nbytes, instead=self.stage.scope.linear)

    def _judge_result(self, job: Job) -> None:
        """What the call gave, as the row's value; an error when it is larger than allowed."""
        try:
            if self._is_filter:
                job.result = (job.value[0] if self.stage.unpack else job.value) if job.result else ABSENT
            if job.result is not ABSENT:
                size = self._bound.size(job.result)
                if job.result is not job.value and not self._is_filter:
                    self.kernel.charge(job.opened, job.row, size, instead=self.stage.scope.linear)
        except BaseException as error:  # noqa: BLE001 - too large, or a verdict that is neither true nor false
            job.error = error

    def _next_of_key(self, job: Job) -> None:
        waiting = self._keys.get(job.key)
        if waiting is None:
            return
        while waiting:
            following = waiting.popleft()
            if following.cancelled:
                continue
            self.submit(following)
            return
        del self._keys[job.key]

    # --- rows out -------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_due = False
        kernel = self.kernel
        if kernel.closed:
            return
        ready = self._ready()
        for job in ready:
            job.generation.outstanding -= 1
        kernel.in_progress -= len(ready)
        start = 0
        while start < len(ready):
            opened = ready[start].opened
            end = start + 1
            # Rows that leave in the order they came need a part of their own each time they step back.
            while end < len(ready) and ready[end].opened is opened and ready[end].row > ready[end - 1].row:
                end += 1
            self._emit_part(opened, ready[start:end])
            start = end
        self._pass_signals()

    def _flush_single(self, job: Job) -> None:
        """The only row of its frame leaves at once: nothing can follow that it would leave with."""
        gate = self._gate
        if self._order == "ordered" or len(self._finished) > 1 or not gate.may_leave(job.generation):
            self._flush()
            return
        self._finished.clear()
        job.generation.outstanding -= 1
        self.kernel.in_progress -= 1
        if job.error is not None:
            self.emit(Frame(job.opened, [], [], None, {0: job.result}))
        elif job.result is ABSENT:
            self.emit(Frame(job.opened, [], []))
        else:
            self.emit(Frame(job.opened, [job.result]))
        self._pass_signals()

    def _ready(self) -> list[Job]:
        if self._order == "ordered":
            ready: list[Job] = []
            while self._is_next_ready():
                ready.append(self._in_order.popleft())
            return ready
        finished, self._finished = self._finished, []
        ready = [job for job in finished if self._gate.may_leave(job.generation)]
        if len(ready) != len(finished):
            self._finished = [job for job in finished if not self._gate.may_leave(job.generation)]
        if len(ready) > 1:
            ready.sort(key=lambda job: (job.opened.seq, job.row))
        return ready

    def _is_next_ready(self) -> bool:
        """Whether the oldest row of an ordered stage is done and no barrier stands before it."""
        return (
            bool(self._in_order)
            and self._in_order[0].done
            and self._gate.may_leave(self._in_order[0].generation)
        )

    def _emit_part(self, opened: Opened, jobs: list[Job]) -> None:
        values: list[Any] = []
        rows: list[int] = []
        failed: dict[int, Failure] | None = None
        for job in jobs:
            if job.error is not None:
                failed = {} if failed is None else failed
                failed[job.row] = job.result
            elif job.result is not ABSENT:
                values.append(job.result)
                rows.append(job.row)
        if len(jobs) == opened.size:
            self.emit(Frame(opened, values, None if len(rows) == opened.size else rows, None, failed))
        else:
            self.emit(Frame(opened, values, rows, [job.row for job in jobs], failed))

    def _pass_signals(self) -> None:
        for signal in self._gate.passed():
            self.emit_signal(signal)
            if (self._finished or self._is_next_ready()) and not self._flush_due:
                self._flush_due = True
                self.kernel.loop.call_soon(self._flush)

    # --- taking down ----------------------------------------------------------------------------------

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Take out every row that descends from one root record."""

        def of_execution(job: Job) -> bool:
            return job.opened.root(job.row) == (root, row)

        for waiting in list(self._keys.values()):
            for job in [job for job in waiting if of_execution(job)]:
                waiting.remove(job)
                job.cancelled = True
                job.key = ABSENT
                self.finished(job)
        self.pool.cancel_where(self.lane, of_execution)

    def close(self) -> None:
        self._keys.clear()
        self.pool.cancel_where(self.lane, lambda _: True)

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": len(self.lane.running),
            "queued": len(self.lane.queued) + sum(map(len, self._keys.values())),
            "backing_off": len(self.lane.backing_off),
            "held": len(self._finished) + len(self._in_order),
        }
