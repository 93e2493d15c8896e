"""The writer of one sink: frames of all chains of a worker go out in batches, one write at a time.

Owns: `SinkWriter`: gathering rows, calling `Sink.write`, covering rows once they are durable, finishing the
    sink.
Does not own: what a write does (connectors), when positions are committed (flowruntime.execute).

Always holds: rows are covered only after `write` has returned; a row is written once, or again with the same
others while the sink's retry policy says so, and meanwhile nothing else is; a write that raises for good
fails its rows and, where the policy says so, the run. Memory: references to frames charged elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from flowcore.connector import Rows, Sink
from flowcore.errors import ContractError, SinkError, describe_error
from flowcore.frame import Frame, Opened
from flowruntime.crashpoints import crash_point
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.resilience.containment import contained

if TYPE_CHECKING:
    from flowruntime.flowcontrol.rewriting import Rewriting
    from flowruntime.operators.kernel import Kernel

MAX_BATCH = 4_096


class SinkWriter:
    """Writes for one sink node.

    Args:
        node_id: of the sink.
        sink: opened.
        rewriting: whether a write that raises is made again; None: never.
    """

    def __init__(self, node_id: str, sink: Sink[Any, Any], rewriting: Rewriting | None = None) -> None:
        self.node_id = node_id
        self._rewriting = rewriting
        self.sink = sink
        self._waiting: deque[tuple[Kernel, Frame[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._attempts = 1
        """Of the write under way."""
        self.rows_written = 0
        self._writing: list[tuple[Kernel, Frame[Any]]] = []
        self._forgotten: set[Frame[Any]] = set()
        """Of those being written: frames of requests that were cancelled meanwhile."""
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, kernel: Kernel, frame: Frame[Any]) -> None:
        """Queue the rows of a frame."""
        self._waiting.append((kernel, frame))
        if self._task is None:
            self._start()

    def _start(self) -> None:
        self._idle.clear()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._write_all(), name=f"flow sink {self.node_id}")
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self._closed:
            self._idle.set()
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for kernel, _ in [*self._writing, *self._waiting]:
                kernel.crash(error)
        self._writing = []
        if self._waiting and not task.cancelled() and error is None:
            self._start()
            return
        self._idle.set()

    async def _write_all(self) -> None:
        while self._waiting:
            await self._write_some()

    async def _write_some(self) -> None:
        """One write: as many waiting frames as fit, at least one."""
        parts, values = self._take()
        if not parts:
            return
        self._writing = parts
        keys, times, headers = _columns(parts)
        batch: Rows[Any] = Rows(values, keys=keys, times=times, headers=headers)
        telemetry = parts[0][0].worker.telemetry
        started = telemetry.clock() if telemetry.metered else None
        errors, whole = await self._write(batch)
        if self._rewriting is not None:
            errors, whole = await self._write_again(batch, errors, whole, self._rewriting)
        if started is not None:
            telemetry.meter(self.node_id).observe(len(values), telemetry.clock() - started)
        self.rows_written += 0 if whole is not None else len(values) - len(errors)
        await self._keep(parts, errors, whole)
        start = 0
        for kernel, frame in parts:
            size = len(frame.values)
            if frame in self._forgotten:
                self._forgotten.discard(frame)
            elif not kernel.closed:
                self._settle(kernel, frame, start, errors, whole)
            start += size
        self._writing = []

    async def _write(self, batch: Rows[Any]) -> tuple[dict[int, Exception], Exception | None]:
        """Rows that failed each for itself, and the error of a write that failed whole."""
        try:
            crash_point("sink.before_write")
            errors = self._failed_rows(await self.sink.write(batch), len(batch))
            crash_point("sink.after_write")
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, GeneratorExit) or (
                isinstance(error, asyncio.CancelledError)
                and (self._closed or (task is not None and task.cancelling()))
            ):
                raise
            return {}, contained(error, self.node_id)
        return errors, None

    async def _write_again(
        self,
        batch: Rows[Any],
        errors: dict[int, Exception],
        whole: Exception | None,
        rewriting: Rewriting,
    ) -> tuple[dict[int, Exception], Exception | None]:
        """Repeat a write that failed whole for as long as the policy says; what the last one came to."""
        loop = asyncio.get_running_loop()
        call = rewriting.begin(loop.time())
        while whole is not None:
            delay_s = rewriting.delay_s(call, whole, loop.time())
            if delay_s is None:
                break
            self._tell_of_retry(whole, call.attempt, delay_s)
            await asyncio.sleep(delay_s)
            call.attempt += 1
            errors, whole = await self._write(batch)
        self._attempts = call.attempt
        return errors, whole

    def _tell_of_retry(self, error: Exception, attempt: int, delay_s: float) -> None:
        for kernel, frame in self._writing:
            if kernel.closed or frame in self._forgotten:
                continue
            kernel.counts[self.node_id].retried += len(frame.values)
            telemetry = kernel.worker.telemetry
            for row in frame.present:
                telemetry.node_retrying(kernel, self.node_id, frame.opened, row, error, attempt, delay_s)

    async def _keep(
        self,
        parts: list[tuple[Kernel, Frame[Any]]],
        errors: Mapping[int, Exception],
        whole: Exception | None,
    ) -> None:
        """Where executions survive their process: their rows are written once, whatever becomes of it."""
        start = 0
        for kernel, frame in parts:
            size = len(frame.values)
            if kernel.journal is not None and not kernel.closed:
                mine = {row - start: error for row, error in errors.items() if start <= row < start + size}
                await kernel.journal.wrote(self.node_id, frame, mine, whole)
            start += size

    def _failed_rows(self, answer: object, size: int) -> dict[int, Exception]:
        """What `write` returned, checked: a failure of no row must not pass for success of all.

        Raises:
            ContractError: it is no mapping from rows of the batch to exceptions.
        """
        if isinstance(answer, Mapping):
            answered = cast("Mapping[object, object]", answer)
            wrong = [
                (row, error)
                for row, error in answered.items()
                if type(row) is not int or not 0 <= row < size or not isinstance(error, BaseException)
            ]
            if not wrong:
                failed = cast("Mapping[int, BaseException]", answered)
                return {row: contained(error, self.node_id) for row, error in failed.items()}
            answer = dict(wrong)
        raise ContractError(
            f"sink {self.node_id!r} was given {size} rows and its write returned {answer!r:.200}; return a "
            "mapping of the rows that failed, each by its index with its exception: {} when all are durable",
            node=self.node_id,
            rows=size,
        )

    def _take(self) -> tuple[list[tuple[Kernel, Frame[Any]]], list[Any]]:
        """Waiting frames for one write, and their values; frames of closed chains are let go."""
        parts: list[tuple[Kernel, Frame[Any]]] = []
        values: list[Any] = []
        while self._waiting and (not parts or len(values) + len(self._waiting[0][1].values) <= MAX_BATCH):
            kernel, frame = self._waiting.popleft()
            if kernel.closed:
                continue
            parts.append((kernel, frame))
            values.extend(frame.values)
        return parts, values

    def _settle(
        self,
        kernel: Kernel,
        frame: Frame[Any],
        start: int,
        errors: dict[int, Exception],
        whole: Exception | None,
    ) -> None:
        kernel.in_progress -= len(frame.values)
        counts = kernel.counts[self.node_id]
        told = kernel.recording or kernel.worker.telemetry.watched
        if whole is None and not errors and not told:
            counts.completed += len(frame.values)
        else:
            # Only now are the rows of the values worked out: it costs some 50 ns each.
            now = kernel.worker.telemetry.clock()
            for index, (row, value) in enumerate(zip(frame.present, frame.values, strict=True), start):
                error = whole if whole is not None else errors.get(index)
                if error is not None:
                    attempts = self._attempts if error is whole else 1
                    kernel.failed(self.node_id, frame.opened, row, error, attempts, value=value)
                    if kernel.closed:
                        return
                    continue
                counts.completed += 1
                if told:
                    kernel.sink_wrote(self.node_id, frame.opened, row, now)
        frame.opened.ledger.cover(frame.covers)

    def forget(self, kernel: Kernel, root: Opened, row: int) -> None:
        """Answer now for the rows of a cancelled request; a write under way is shared and goes on."""
        for waiting, frame in [*self._waiting, *self._writing]:
            if waiting is not kernel or frame in self._forgotten:
                continue
            rows = list(frame.present)
            if frame.opened.root(rows[0]) != (root, row):
                continue
            if (waiting, frame) in self._waiting:
                self._waiting.remove((waiting, frame))
            else:
                self._forgotten.add(frame)
            kernel.in_progress -= len(rows)
            kernel.counts[self.node_id].cancelled += len(rows)
            kernel.execution_of(root, row).cancelled_node(self.node_id)
            frame.opened.ledger.cover(frame.covers)

    async def flush(self) -> None:
        """Until nothing waits and no write is under way."""
        while self._waiting or self._task is not None:
            await self._idle.wait()
            await asyncio.sleep(0)

    async def finish(self, *, within_s: float | None = None) -> None:
        """Everything was written and nothing follows.

        Args:
            within_s: how long a write under way may still take; None: as long as it needs.

        Raises:
            SinkError: the sink could not make its rows durable.
        """
        try:
            async with asyncio.timeout(within_s):
                await self.flush()
        except TimeoutError as error:
            raise SinkError(
                f"sink {self.node_id!r} has not answered for {within_s} s; what it was writing may be lost",
                node=self.node_id,
            ) from error
        try:
            crash_point("sink.before_finish")
            await self.sink.finish()
            crash_point("sink.after_finish")
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, KeyboardInterrupt | GeneratorExit) or (
                isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
            ):
                raise
            told = describe_error(error)
            raise SinkError(
                f"sink {self.node_id!r} could not finish: {told['kind']}: {told['message']}; nothing of this "
                "run is committed",
                node=self.node_id,
            ) from error

    async def aclose(self) -> None:
        """Stop writing at once; what waits is not written and so not settled."""
        self._closed = True
        task = self._task
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait({task}, timeout=PATIENCE_S)
        finally:
            self._waiting.clear()
            await self.sink.close()

    def statistics(self) -> dict[str, int]:
        return {
            "queued": sum(len(frame.values) for _, frame in self._waiting),
            "writing": int(self._task is not None),
            "rows_written": self.rows_written,
        }


def _columns(parts: list[tuple[Kernel, Frame[Any]]]) -> tuple[Any, Any, Any]:
    """Keys, times and headers of the root records, where any source gave them."""
    if all(
        _root(frame.opened) is frame.opened
        and frame.opened.keys is None
        and frame.opened.times is None
        and frame.opened.headers is None
        for _, frame in parts
    ):
        return None, None, None
    keys: list[Any] = []
    times: list[Any] = []
    headers: list[Any] = []
    for _, frame in parts:
        for row in frame.present:
            root, root_row = frame.opened.root(row)
            keys.append(None if root.keys is None else root.keys[root_row])
            times.append(None if root.times is None else root.times[root_row])
            headers.append({} if root.headers is None else root.headers[root_row])
    has_times = any(time is not None for time in times)
    return keys, times if has_times else None, headers


def _root(opened: Opened) -> Opened:
    while opened.parents:
        opened = opened.parents[0][0]
    return opened
