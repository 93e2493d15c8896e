"""A task: one partition of one source, pumped through a chain of its own.

Owns: `SourceTask`: reading within credit, opening root frames, settlement and commits of one partition.
Does not own: starting, stopping and judging the run (run), the chain's stages.

Always holds: a row is read only with credit and inside the redelivery window; a position is committed only
when every row before it is settled; the pump gives the loop a turn at least every 5 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.connector import Credit, Position, Reader, Rows
from flowcore.errors import CancelledRowError, ContractError
from flowcore.frame import END, Failure, Frame, Opened
from flowcore.settlement import SettlementTracker
from flowcore.store_errors import StoreError
from flowruntime.compile.chain import Chain, Program
from flowruntime.crashpoints import crash_point
from flowruntime.execute.attempts import Attempts
from flowruntime.execute.execution import Execution
from flowruntime.execute.leaving import Leaving
from flowruntime.execute.source_errors import as_source_error
from flowruntime.operators.batch import BatchOperator
from flowruntime.operators.kernel import Kernel
from flowruntime.state.positions import partition_name, position_name

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.execute.careful import Careful
    from flowruntime.execute.worker import Worker

SLICE_S = 0.005
_STARVED_CHECK_S = 0.01


class Control(Protocol):
    """What a task asks of its run."""

    @property
    def id(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    def note_failure(self, failure: Failure) -> None: ...
    def row_failed(self, failure: Failure) -> None: ...
    def crashed(self, error: BaseException) -> None: ...
    def take(self, rows: int) -> int: ...
    def give_back(self, rows: int) -> None: ...
    async def may_read(self) -> None: ...
    def begin_drain(self) -> None: ...


class SourceTask:
    """Pumps one partition.

    Args:
        node: the source.
        partition: as the source named it.
        reader: opened at the committed position.
        program: lowered for this source.
        on_settled: told of settled root records; what reached the ends, and their failures, are kept until
            then. Of those that are unfinished when the task is closed it is told then, each with a failure.
        save: keeps a committed position, for sources whose system does not; None: the reader's own commit
            is enough.
        commit_due: set when half of what may come again after a crash is settled; None: nothing is committed
            while the run goes on, and the window bounds what is read beyond the settled rows.
        careful: processes have died in a row: what comes again is worked on one by one, under a note.
    """

    def __init__(  # noqa: PLR0913 - one keyword per thing its run decides
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
        commit_due: asyncio.Event | None = None,
        careful: Careful | None = None,
    ) -> None:
        self.name = f"{node.id}/{partition}"
        self.node = node
        self.partition = partition
        self.reader = reader
        self.in_flight = self.read = 0
        self._left = Leaving(self._look_whether_idle)
        self._control = control
        self._worker = worker
        self._budget = worker.budget
        self._bus = worker.services.bus
        self._events_per_row = 1 + 2 * len(worker.graph.nodes)
        """Of a row that is not expanded: each node tells when it begins and how it ends."""
        self._careful = careful
        self._on_settled = on_settled
        self._save = save
        settings = worker.graph.settings
        self._max_frame = worker.graph.tuning.max_frame
        self._at_most_once = settings.delivery == "at_most_once"
        self._window = settings.max_redelivery or max(1_000, 4 * worker.budget.max_rows)
        self.kernel = Kernel(program.plan, worker, self, recording=False, task=self.name)
        self.kernel.run = control.id
        self.kernel.keeps_failures = on_settled is not None
        self.kernel.run_attributes = control.attributes
        self.kernel.oldest = self._oldest
        self.kernel.drain = lambda _: control.begin_drain()
        self.chain = Chain(program, self.kernel, worker)
        self._entry = self.chain.entries[node.id]
        self._scope = program.plan.entries[0].scope
        self._retries = any(node.attempts > 1 for node in worker.graph.nodes.values())
        self._attempts = Attempts(
            self.kernel, self._scope, self._entry, self._bus, worker.rng, self._value_of
        )
        self._batches = [op for op in self.chain.operators.values() if isinstance(op, BatchOperator)]
        self.tracker = SettlementTracker()
        self._frames: dict[int, Opened] = {}
        self._told: dict[Opened, set[int]] = {}
        """Rows of unfinished frames `on_settled` was told of; kept only where there is one."""
        self._bytes: dict[Opened, int] = {}
        self._committed: Any = None
        self._committed_rows = 0
        """Rows before the committed position."""
        self._position_rows = 0
        """Rows before the position last worked out."""
        self._commit_due = None if self._at_most_once else commit_due
        self._window_moved = asyncio.Event()
        self._committing = asyncio.Lock()
        self.draining = self._frozen = False
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
        crash_point("source.assigned")
        try:
            await self._pump_rows()
        except Exception:
            if not self._retries:
                self._entry.emit(END)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._worker.graph.settings.drain_timeout.total_seconds()):
                    await self._idle.wait()
            raise
        if self._retries:
            await self._idle.wait()  # a record that is tried again would come behind the end
        self._entry.emit(END)
        await self._idle.wait()

    async def _pump_rows(self) -> None:
        if self._careful is not None and not await self._pump_carefully(self._careful):
            return
        loop = asyncio.get_running_loop()
        slice_end = loop.time() + SLICE_S
        while not self.draining:
            await self._control.may_read()
            if self.draining:
                return
            if self._bus.held_up:
                await self._interruptible(self._bus.ready())
                continue
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

    async def _pump_carefully(self, careful: Careful) -> bool:
        """Work on what may come again after a crash, one record at a time; False: nothing is left to read."""
        place = (position_name(self.node.id, self.node.definition.type), partition_name(self.partition))
        for _ in range(self._window):
            await self._control.may_read()
            if self.draining or self._control.take(1) < 1:
                return False
            rows = await self._read(1)
            if rows is None:
                return False
            async with careful.lock:
                deaths = await careful.deaths.note(*place, rows.next)
                if deaths >= careful.limit:
                    await self._quarantine(rows, careful, deaths)
                else:
                    await self._push(rows, 1)
                await self._until_settled()
                await careful.deaths.clear(*place, rows.next)
        return True

    async def _quarantine(self, rows: Rows[Any], careful: Careful, deaths: int) -> None:
        """Put the record aside, in a frame of its own, so that its position is committed with its letter."""
        letters = await careful.letters()
        opened = self._open(rows)
        error = careful.error(self.node.id, deaths)
        failure = self.kernel.quarantined(self.node.id, opened, error, deaths, letters)
        self._entry.emit(Frame(opened, [], [], None, {0: failure}))

    async def _until_settled(self) -> None:
        while self.in_flight > self._left.over:
            if self.kernel.in_progress == 0:
                for batch in self._batches:
                    batch.release()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STARVED_CHECK_S if self._batches else None):
                    await self._idle.wait()

    @property
    def is_past(self) -> bool:
        """Whether more is committed than may have come again after a crash."""
        return self._committed_rows >= self._window

    def _room(self) -> int:
        window = self._window - self._beyond_committed
        room = min(self._max_frame, self._budget.available(self.in_flight), window)
        if self._bus.active and (spare := self._bus.spare) is not None:
            # Someone who must not miss an event: a frame tells no more than fits.
            return min(room, max(1, spare // self._events_per_row))
        return room

    @property
    def _beyond_committed(self) -> int:
        """Rows a crash now would read again; where nothing is committed on the way, those not settled yet."""
        return self.tracker.beyond_prefix if self._commit_due is None else self.read - self._committed_rows

    async def _wait_for_credit(self) -> None:
        if self.draining:
            return
        if not self._batches:
            await self._interruptible(self._room_changed())
            return
        # A stage that gathers rows must not wait for rows that cannot come.
        if self.kernel.in_progress == 0:
            for batch in self._batches:
                batch.release()
        try:
            async with asyncio.timeout(_STARVED_CHECK_S):
                await self._interruptible(self._room_changed())
        except TimeoutError:
            pass

    async def _room_changed(self) -> None:
        """Returns when there may be room again: of the window where that is used up, else of the budget."""
        if self._beyond_committed < self._window:
            await self._budget.wait()
            return
        self._window_moved.clear()
        await self._window_moved.wait()

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
        opened = self._open(rows)
        self.kernel.counts[self.node.id].completed += size - len(rows.errors or ())
        self._entry.emit(self._frame(opened, rows))

    def _open(self, rows: Rows[Any]) -> Opened:
        """A frame of the root scope for what was read, charged and in its place among the others."""
        size = len(rows.values)
        opened = self._root(rows)
        crash_point("source.after_read")
        opened.cursor = rows.next
        opened.first_index = self.read
        self._frames[opened.seq] = opened
        if self._on_settled is not None:
            self._told[opened] = set()
        self.tracker.opened(opened.seq, opened.ledger)
        self._bytes[opened] = rows.nbytes
        self._budget.charge(size, rows.nbytes)
        self.in_flight += size
        self.read += size
        self._idle.clear()
        return opened

    def _root(self, rows: Rows[Any]) -> Opened:
        return self.kernel.open_root(
            self._scope,
            len(rows.values),
            records=rows.values,
            keys=rows.keys,
            times=rows.times,
            headers=rows.headers,
            positions=rows.positions,
        )

    def _value_of(self, root: Opened, row: int) -> Any:
        """What enters the chain of a record that goes through it again."""
        return None if root.records is None else root.records[row]

    def _frame(self, opened: Opened, rows: Rows[Any]) -> Frame[Any]:
        if not rows.errors:
            return Frame(opened, rows.values)
        errors = rows.errors
        good = [row for row in range(opened.size) if row not in errors]
        failed = {
            row: self.kernel.failed(self.node.id, opened, row, error, undecoded=True)
            for row, error in errors.items()
        }
        return Frame(opened, [rows.values[row] for row in good], good, None, failed)

    # --- what the chain tells -------------------------------------------------------------------------

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        count = len(rows)
        self.in_flight -= count
        self.tracker.settled(count)
        self.kernel.discharge(opened, rows)
        nbytes = self._bytes.pop(opened, 0) if opened.ledger.open_rows == 0 else 0
        self._budget.release(count, nbytes)
        if opened.executions is not None:
            for row in rows:
                opened.executions.pop(row, None)
        if self._on_settled is not None:
            self._told[opened].update(rows)
            self._on_settled(opened, rows)
        if opened.ledger.open_rows == 0:
            self._told.pop(opened, None)
            opened.forget()
        if self._commit_due is None:
            self._window_moved.set()
        elif 2 * (self.tracker.settled_prefix - self._committed_rows) >= self._window:
            self._commit_due.set()
        self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        if self.in_flight == self._left.over:
            self._idle.set()

    def leave(self, opened: Opened, row: int) -> bool:
        root, root_row = opened.root(row)
        if self._at_most_once or self._attempts.is_trying(root, root_row):
            return False
        self._left.add(root, root_row)
        return True

    def _oldest(self) -> tuple[int, int] | None:
        return self.tracker.oldest()

    def failed(self, failure: Failure) -> None:
        self._control.note_failure(failure)

    def again(self, failure: Failure, opened: Opened, row: int) -> bool:
        if opened.root(row) in self._left:
            return False
        return self._attempts.again(failure, opened, row)

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
            name = self.kernel.name_of(opened, row)
            execution = opened.executions[row] = Execution(name, self._worker.services.clock())
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
            opened = self._frames.pop(old)
            if opened.cursor is not None:
                self._last_cursor = opened.cursor
                self._position_rows = opened.first_index + opened.size
        opened = self._frames.get(seq)
        if opened is None:
            return self._last_cursor
        if row == -1 or row == opened.size - 1:
            self._position_rows = opened.first_index + opened.size
            return opened.cursor
        if opened.positions is None:
            return self._last_cursor
        self._position_rows = opened.first_index + row + 1
        return opened.positions[row]

    _last_cursor: Any = None

    async def commit(self) -> None:
        """Commit the contiguous settled prefix, if it has grown."""
        if self._at_most_once:
            return
        position, rows = self.position(), self._position_rows
        if position is not None and position != self._committed:
            await self._commit_position(position)
            self._committed_rows = rows
            self._window_moved.set()
            if self.kernel.journaled:
                await self._forget_calls(rows)

    async def _forget_calls(self, rows: int) -> None:
        """What the calls of committed records gave need not be kept any more."""
        journaled = self.kernel.journaled
        gone = [index for index in journaled if index < rows]
        journal = self._worker.services.models().journal
        records = [journaled.pop(index) for index in gone]
        if journal is not None:
            try:
                await journal.forget(records)
            except StoreError as fault:
                self._worker.report(self.node.id, f"could not let go of journaled calls: {fault}")

    async def _commit_position(self, position: Any) -> None:
        async with self._committing:
            crash_point("commit.before")
            with as_source_error(f"could not commit position {position!r}", self.node, self.partition):
                await self.reader.commit(position)
            if self._save is not None:
                crash_point("commit.between")
                await self._save(position)
            self._committed = position
            crash_point("commit.after")

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
        """Take the chain down; the reader is its opener's to close."""
        abandoned = self.in_flight
        self._attempts.close()
        try:
            await self.chain.aclose()
        finally:
            self.kernel.give_back()
            if abandoned:
                self._budget.release(abandoned, sum(self._bytes.values()))
            self._bytes.clear()
            self._tell_unfinished()

    def _tell_unfinished(self) -> None:
        """Whoever waits for an outcome of each record gets one."""
        told, self._told = self._told, {}
        for opened, rows in told.items():
            left = [row for row in range(opened.size) if row not in rows]
            if opened.failures is None:
                opened.failures = {}
            for row in left:
                error = CancelledRowError("the run ended before this record was finished")
                opened.failures.setdefault(row, Failure("", error))
            if self._on_settled is not None:
                self._on_settled(opened, left)

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "read": self.read,
            "unsettled": self.tracker.unsettled,
            "beyond_committed": self._beyond_committed,
            "committed": self._committed,
            "stages": self.chain.statistics(),
            "streams": {} if self.kernel.streams is None else self.kernel.streams.statistics(),
        }
