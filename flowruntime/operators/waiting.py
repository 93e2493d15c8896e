"""The stage of a node that waits: rows become jobs of the node's pool, results leave in the order asked for.

    rows in    1 2 3 4            (2 is slow)
    ordered    1 . . 2 3 4        unordered  1 3 4 2      by_key  1 3 4 2, each key in order

Emits when      rows finish; completions of one loop turn leave as one part per frame.
Backpressures   by credit: what waits here is unsettled, so the source is not given more.
Completes when  the input has ended and the last row has left.
Fails when      never: an exception becomes the row's failure.
Holds           the unsettled rows, bounded by the worker's budget; for `by_key` at most `max_queued_per_key`
                of one key before further rows of that key fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowcore.errors import CancelledRowError, LimitExceededError
from flowcore.frame import Failure, Frame, Opened, Signal
from flowruntime.compile.sentinels import ABSENT
from flowruntime.flowcontrol.pool import Job, Lane
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.gate import Gate

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowruntime.compile.plan import Stage
    from flowruntime.flowcontrol.pool import StagePool
    from flowruntime.operators.kernel import Kernel


class WaitingOperator(StageOperator):
    """One row per job."""

    def __init__(self, kernel: Kernel, stage: Stage, pool: StagePool, order: Order) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self.pool = pool
        self.lane = Lane(self)
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
        self._max_bytes = self.node.policies.max_output_bytes
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
        lane, generation = self.lane, self._gate.current
        for row, value in zip(frame.present, frame.values, strict=True):
            job = Job(lane, opened, row, value)
            job.generation = generation
            generation.outstanding += 1
            kernel.in_progress += 1
            if self._order == "ordered":
                self._in_order.append(job)
            if kernel.recording and kernel.stopped(opened, row) is not None:
                job.cancelled = True
                self.finished(job)
                continue
            if self._order == "by_key" and not self._admit(job):
                continue
            self.submit(job)

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
        self.kernel.counts[self.node.id].retried += 1
        self._telemetry.node_retrying(
            self.kernel, self.node.id, job.opened, job.row, error, job.attempt, delay_s
        )

    def crashed(self, error: BaseException) -> None:
        """The engine failed while it worked on a job."""
        self.kernel.crash(error)

    def finished(self, job: Job) -> None:
        """A job has its result or error, or was cancelled: reported now, emitted when the loop turn ends."""
        job.done = True
        kernel = self.kernel
        if kernel.closed:
            return
        self._settle_outcome(job)
        if self._order == "by_key" and job.key is not ABSENT:
            self._next_of_key(job)
        if self._order != "ordered":
            self._finished.append(job)
        if not self._flush_due:
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
        started = job.extra if isinstance(job.extra, float) else 0.0
        telemetry = self._telemetry
        if started and telemetry.metered:
            telemetry.meter(node_id).observe(1, telemetry.clock() - started)
        if job.error is None and self._max_bytes is not None:
            job.error = oversize(job.result, self._max_bytes, node_id)
        if job.error is not None:
            started = job.extra if isinstance(job.extra, float) else 0.0
            job.result = kernel.failed(node_id, job.opened, job.row, job.error, job.attempt, started=started)
            return
        counts.completed += 1
        if self._is_filter:
            keep = job.result
            job.result = (job.value[0] if self.stage.unpack else job.value) if keep else ABSENT
            if not keep:
                counts.dropped += 1
        kernel.completed(node_id, job.opened, job.row, job.result, started, job.attempt)

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


def oversize(value: Any, most: int, node_id: str) -> LimitExceededError | None:
    """An error when a text, bytes or JSON value is larger than allowed; other values are not measured.

    Text is measured in characters, which is at most its size in bytes.
    """
    size = len(value) if isinstance(value, str | bytes | bytearray) else 0
    if size <= most:
        return None
    return LimitExceededError(
        f"node {node_id!r} gave an output of {size} bytes; {most} are allowed (max_output_bytes)",
        node=node_id,
        size_bytes=size,
        max_output_bytes=most,
    )
