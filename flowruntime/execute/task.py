"""A task: one partition of one source, pumped through a chain of its own.

Owns: `SourceTask`: reading within credit, opening root frames, settlement and commits of one partition.
Does not own: starting, stopping and judging the run (run), the chain's stages.

Always holds: a row is read only with credit and inside the redelivery window; a position is committed only
when every row before it is settled; the pump gives the loop a turn at least every 5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.connector import Credit, Position, Reader, Rows
from flowcore.errors import ContractError
from flowcore.frame import END, Failure, Frame, Opened
from flowcore.settlement import SettlementTracker
from flowruntime.compile.chain import Chain, Program
from flowruntime.execute.execution import Execution
from flowruntime.operators.batch import BatchOperator
from flowruntime.operators.kernel import Kernel

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.execute.worker import Worker

SLICE_S = 0.005
_STARVED_CHECK_S = 0.01


class Control(Protocol):
    """What a task asks of its run."""

    @property
    def id(self) -> str: ...
    def note_failure(self, failure: Failure) -> None: ...
    def row_failed(self, failure: Failure) -> None: ...
    def crashed(self, error: BaseException) -> None: ...
    def take(self, rows: int) -> int: ...
    def give_back(self, rows: int) -> None: ...
    async def may_read(self) -> None: ...


class SourceTask:
    """Pumps one partition.

    Args:
        node: the source.
        partition: as the source named it.
        reader: opened at the committed position.
        program: lowered for this source.
        on_settled: told of settled root records; what reached the ends, and their failures, are kept until
            then.
        save: keeps a committed position, for sources whose system does not; None: the reader's own commit
            is enough.
    """

    def __init__(
        self,
        control: Control,
        worker: Worker,
        node: ResolvedNode,
        partition: str,
        reader: Reader[Any],
        program: Program,
        *,
        on_settled: Callable[[Opened, Sequence[int]], None] | None = None,
        save: Callable[[Position], Any] | None = None,
    ) -> None:
        self.name = f"{node.id}/{partition}"
        self.node = node
        self.partition = partition
        self.reader = reader
        self.in_flight = 0
        self.read = 0
        self._control = control
        self._worker = worker
        self._budget = worker.budget
        self._on_settled = on_settled
        self._save = save
        settings = worker.graph.settings
        self._max_frame = settings.max_frame
        self._at_most_once = settings.delivery == "at_most_once"
        self._window = settings.max_redelivery or max(1_000, 4 * worker.budget.max_rows)
        self.kernel = Kernel(program.plan, worker, self, recording=False, task=self.name)
        self.kernel.keeps_failures = on_settled is not None
        self.chain = Chain(program, self.kernel, worker)
        self._entry = self.chain.entries[node.id]
        self._scope = program.plan.entries[0].scope
        self._batches = [op for op in self.chain.operators.values() if isinstance(op, BatchOperator)]
        self.tracker = SettlementTracker()
        self._frames: dict[int, Opened] = {}
        self._bytes: dict[Opened, int] = {}
        self._committed: Any = None
        self._committing = asyncio.Lock()
        self.draining = False
        self._frozen = False
        self._final: Any = None
        self._reading = False
        self._pump: asyncio.Task[Any] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    # --- pumping --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read to the end, or until drained; return when every row is settled.

        When the reader fails, rows it gave before are finished first, for at most `drain_timeout`.
        """
        self._pump = asyncio.current_task()
        try:
            await self._pump_rows()
        except Exception:
            self._entry.emit(END)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._worker.graph.settings.drain_timeout.total_seconds()):
                    await self._idle.wait()
            raise
        self._entry.emit(END)
        await self._idle.wait()

    async def _pump_rows(self) -> None:
        loop = asyncio.get_running_loop()
        slice_end = loop.time() + SLICE_S
        while not self.draining:
            await self._control.may_read()
            if self.draining:
                return
            room = self._room()
            if room <= 0:
                await self._wait_for_credit()
                slice_end = loop.time() + SLICE_S
                continue
            allowed = self._control.take(room)
            if allowed <= 0:
                return
            rows = await self._read(allowed)
            if rows is None:
                return
            await self._push(rows, allowed)
            if loop.time() >= slice_end:
                await asyncio.sleep(0)
                slice_end = loop.time() + SLICE_S

    def _room(self) -> int:
        window = self._window - self.tracker.beyond_prefix
        return min(self._max_frame, self._budget.available(self.in_flight), window)

    async def _wait_for_credit(self) -> None:
        if self.draining:
            return
        if not self._batches:
            await self._interruptible(self._budget.wait())
            return
        # A stage that gathers rows must not wait for rows that cannot come.
        if self.kernel.in_progress == 0:
            for batch in self._batches:
                batch.release()
        try:
            async with asyncio.timeout(_STARVED_CHECK_S):
                await self._interruptible(self._budget.wait())
        except TimeoutError:
            pass

    async def _read(self, allowed: int) -> Rows[Any] | None:
        got = 0
        try:
            rows = await self._interruptible(self.reader.read(Credit(allowed, self._budget.available_bytes)))
            got = len(rows) if rows is not None else 0
        finally:
            self._control.give_back(allowed - got)
        return rows

    async def _interruptible(self, awaitable: Any) -> Any:
        """Await; a drain ends the wait, and gives None."""
        self._reading = True
        try:
            return await awaitable
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.draining or task is None:
                raise
            task.uncancel()
            return None
        finally:
            self._reading = False

    async def _push(self, rows: Rows[Any], allowed: int) -> None:
        size = len(rows.values)
        if size > allowed or size == 0:
            raise ContractError(
                f"source {self.node.id!r} gave {size} rows for a credit of {allowed}; "
                "a reader waits for at least one row and never gives more than its credit",
                node=self.node.id,
                rows=size,
                credit=allowed,
            )
        if self._at_most_once and rows.next is not None:
            await self._commit_position(rows.next)
        opened = self.kernel.open_root(
            self._scope,
            size,
            records=rows.values,
            keys=rows.keys,
            times=rows.times,
            headers=rows.headers,
            positions=rows.positions,
        )
        opened.cursor = rows.next
        opened.first_index = self.read
        self._frames[opened.seq] = opened
        self.tracker.opened(opened.seq, opened.ledger)
        self._bytes[opened] = rows.nbytes
        self._budget.charge(size, rows.nbytes)
        self.in_flight += size
        self.read += size
        self._idle.clear()
        self.kernel.counts[self.node.id].completed += size - len(rows.errors or ())
        self._entry.emit(self._frame(opened, rows))

    def _frame(self, opened: Opened, rows: Rows[Any]) -> Frame[Any]:
        if not rows.errors:
            return Frame(opened, rows.values)
        errors = rows.errors
        good = [row for row in range(opened.size) if row not in errors]
        failed = {row: self.kernel.failed(self.node.id, opened, row, error) for row, error in errors.items()}
        return Frame(opened, [rows.values[row] for row in good], good, None, failed)

    # --- what the chain tells -------------------------------------------------------------------------

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        count = len(rows)
        self.in_flight -= count
        self.tracker.settled(count)
        nbytes = self._bytes.pop(opened, 0) if opened.ledger.open_rows == 0 else 0
        self._budget.release(count, nbytes)
        if opened.executions is not None:
            for row in rows:
                opened.executions.pop(row, None)
        if self._on_settled is not None:
            self._on_settled(opened, rows)
        if opened.ledger.open_rows == 0:
            opened.forget()
        if self.in_flight == 0:
            self._idle.set()

    def failed(self, failure: Failure) -> None:
        self._control.note_failure(failure)

    def stop(self, failure: Failure, opened: Opened, row: int) -> None:
        del opened, row
        self._control.row_failed(failure)

    def crashed(self, error: BaseException) -> None:
        self._control.crashed(error)

    def execution(self, opened: Opened, row: int) -> Execution:
        if opened.executions is None:
            opened.executions = {}
        execution = opened.executions.get(row)
        if execution is None:
            execution_id = f"{self._control.id}/{self.name}#{opened.seq}.{row}"
            execution = opened.executions[row] = Execution(execution_id, self._worker.services.clock())
        return execution

    # --- commits --------------------------------------------------------------------------------------

    def position(self) -> Any:
        """The position to commit now; None while there is nothing new."""
        return self._final if self._frozen else self._settled_position()

    def _settled_position(self) -> Any:
        prefix = self.tracker.prefix()
        if prefix is None:
            return None
        seq, row = prefix
        for old in [number for number in self._frames if number < seq]:
            cursor = self._frames.pop(old).cursor
            if cursor is not None:
                self._last_cursor = cursor
        opened = self._frames.get(seq)
        if opened is None:
            return self._last_cursor
        if row == -1 or row == opened.size - 1:
            return opened.cursor
        return opened.positions[row] if opened.positions is not None else self._last_cursor

    _last_cursor: Any = None

    async def commit(self) -> None:
        """Commit the contiguous settled prefix, if it has grown."""
        if self._at_most_once:
            return
        position = self.position()
        if position is not None and position != self._committed:
            await self._commit_position(position)

    async def _commit_position(self, position: Any) -> None:
        async with self._committing:
            await self.reader.commit(position)
            if self._save is not None:
                await self._save(position)
            self._committed = position

    # --- ending ---------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Work on nothing more; what is not settled now comes again, whatever still leaves the chain."""
        if not self._frozen:
            self._final = self._settled_position()
            self._frozen = True
        self.kernel.closed = True

    def drain(self) -> None:
        """Read nothing more."""
        self.draining = True
        if self._reading and self._pump is not None:
            self._pump.cancel()

    async def close(self) -> None:
        """Take the chain down and release the reader."""
        abandoned = self.in_flight
        await self.chain.aclose()
        if abandoned:
            self._budget.release(abandoned, sum(self._bytes.values()))
        self._bytes.clear()
        await self.reader.close()

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "read": self.read,
            "unsettled": self.tracker.unsettled,
            "beyond_committed": self.tracker.beyond_prefix,
            "committed": self._committed,
            "stages": self.chain.statistics(),
        }
