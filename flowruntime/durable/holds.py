"""The rows of one continuous run that wait: stored before they settle, back when they may go on.

Owns: `Holds`: taking rows that may go on for this run, marking them done, when nothing is left to come back.
Does not own: what a row needs (held, holding), storing it (storing), finding it (ready), its way through the
chain (flowruntime.execute.returns), answers (resuming).

The order. Before the record of a row settles: the row with its waits, in one commit. Before a row that may go
on is pushed: its execution as running, owned by this run. When it is settled: the execution as ended, at the
next commit. So whatever is stored when a process dies is enough to go on: what was pushed and not marked done
comes again.

Always holds: at most `KEPT` rows that may go on are in memory beside those taken; of all runs of one workflow
one takes a row, by compare-and-set of its revision; a row is marked done only when it is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flowcore.events import RowReturned
from flowcore.states import Completed, Partial, Paused, Running, WorkflowState
from flowcore.store_errors import ExecutionChangedError, NotStoredError, StoreError
from flowcore.waits import Wait
from flowruntime.crashpoints import crash_point
from flowruntime.durable.held import DONE, READY, HeldRow, may_be_row
from flowruntime.durable.holding import Returned, in_order, outcome_of
from flowruntime.durable.owner import begin_attempt, end_attempt
from flowruntime.durable.ready import KEPT, POLL_S, Ready
from flowruntime.durable.releasing import waits_of
from flowruntime.durable.steady import SteadyClock
from flowruntime.durable.storing import HoldWriter
from flowruntime.state.store.entries import (
    MAX_PAGE,
    ExecutionFilter,
    ExecutionHead,
    JournalEntry,
    StoredExecution,
)

if TYPE_CHECKING:
    from flowcore.frame import Failure
    from flowruntime.durable.holder import Holder
    from flowruntime.execute.context import Services
    from flowruntime.state.store.entries import WorkflowHead
    from flowruntime.state.store.protocol import Store

_AT_ONCE: Final = 16
"""Rows taken, or marked done, at once."""


class Holds:
    """The rows of one run that wait.

    Args:
        store: where.
        workflow: the version the run works with, as it is stored.
        holders: nodes that may hold rows, by id.
        services: clock, bus and log.
        workflow_id: for events.
    """

    def __init__(
        self,
        store: Store,
        workflow: WorkflowHead,
        holders: Mapping[str, Holder],
        services: Services,
        workflow_id: str,
    ) -> None:
        self._store = store
        self._head = workflow
        self.holders = holders
        self._services = services
        self._workflow_id = workflow_id
        self._clock = SteadyClock(services.clock, asyncio.get_running_loop().time)
        self._owner = ""
        self._epoch = 0
        self._taken: dict[str, ExecutionHead] = {}
        """Rows of this run that are not marked done."""
        self._done: list[tuple[str, Failure | None]] = []
        """Settled ones that are not marked so yet."""
        self._changed = asyncio.Event()
        self._more = asyncio.Event()
        """Set once rows are ready, or none will be any more; then there is a new one."""
        self._marking = asyncio.Lock()
        self._over = False
        self._sources_ended = False
        self._writer = HoldWriter(store, workflow, services.bus, workflow_id, self._stored)
        self._ready = Ready(store, workflow.id, holders, self._clock, services, self._taken)
        self.returned = 0
        """Rows that came back and are marked done."""
        self.left = 0
        """Rows of the workflow that waited when the run ended."""
        self.many_done: Callable[[], None] = lambda: None
        """Called when so many rows are settled that they are to be marked before the next commit is due."""
        self._unsettled = 0
        """Rows being taken, and taken ones that are not settled."""

    @property
    def workflow(self) -> str:
        return f"{self._head.id}\0{self._epoch}" if self._epoch else self._head.id

    @property
    def workflow_id(self) -> str:
        """As the store knows it."""
        return self._head.id

    @property
    def clock(self) -> Callable[[], float]:
        return self._clock

    # --- the run --------------------------------------------------------------------------------------

    async def begin(self, *, fresh: bool) -> None:
        """Before anything is read.

        Args:
            fresh: records are read again on purpose: those that were held before are not known again.

        Raises:
            StoreError: the store cannot be reached.
        """
        self._owner = begin_attempt()
        name = f"$rows {hashlib.sha256(self._head.id.encode()).hexdigest()[:24]}"
        entries = await self._store.journal.get_all(name)
        self._epoch = len(entries)
        if fresh:
            await self._store.journal.put([JournalEntry(execution_id=name, node="$fresh", call=self._epoch)])
            self._epoch += 1

    async def watch(self, sources: Iterable[asyncio.Future[None]]) -> None:
        """Until nothing more will come back: the sources have ended, no row is ready or only delayed.

        Args:
            sources: those of the workflow, each done when it has ended.
        """
        pending = set(sources)
        self._sources_ended = not pending
        while not self._over:
            self._changed.clear()
            found = await self._attempted(self._ready.look)
            self._tell_readers()
            pending = {source for source in pending if not source.done()}
            self._sources_ended = not pending
            if (
                found is False
                and not pending
                and self._is_idle
                and not await self._attempted(self._ready.any_delayed)
            ):
                self.end()
                return
            await self._until_changed(pending)

    def end(self) -> None:
        """Nothing is handed out any more; what is stored stays so. Idempotent."""
        self._over = True
        self.wake()
        self._tell_readers()

    def _tell_readers(self) -> None:
        more, self._more = self._more, asyncio.Event()
        more.set()

    def wake(self) -> None:
        """Look at once: something was answered, or settled."""
        self._changed.set()

    @property
    def _is_idle(self) -> bool:
        return not self._unsettled and self._writer.idle and not len(self._ready)

    async def _until_changed(self, pending: set[asyncio.Future[None]]) -> None:
        delay_s = POLL_S
        if self._ready.next_due is not None:
            delay_s = max(0.0, min(POLL_S, self._ready.next_due - self._clock()))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({changed, *pending}, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _attempted(self, look: Callable[[], Any]) -> bool | None:
        """What a look has found; None when the store is away: it is tried again."""
        try:
            return await look()
        except StoreError as error:
            if not error.retriable:
                raise
            self._log(f"rows that wait cannot be looked at: {error}", "warning")
            return None

    def _log(self, message: str, level: Any) -> None:
        self._services.log(message, level, {"workflow": self._workflow_id})

    # --- storing --------------------------------------------------------------------------------------

    def keep(self, id: str, row: HeldRow, waits: Sequence[Wait]) -> asyncio.Future[bool]:
        """Store a row with what it waits for; see `HoldWriter.keep`."""
        return self._writer.keep(id, row, waits)

    def _stored(self, due: float | None) -> None:
        ready = self._ready
        if due is not None and (ready.next_due is None or due < ready.next_due):
            ready.next_due = due
            self.wake()
        elif due is None and self._sources_ended:
            self.wake()

    # --- handing it out -------------------------------------------------------------------------------

    async def take(self, node_id: str, most: int) -> list[Returned] | None:
        """Rows that may go on at a node, at most `most`; waits for the first one. None: none will follow."""
        while True:
            candidates = [] if self._over else self._ready.pop(node_id, min(most, _AT_ONCE))
            if candidates:
                self._unsettled += len(candidates)
                self._taken.update((execution.id, execution) for execution, _ in candidates)
                taken = await asyncio.gather(*(self._claim(*candidate) for candidate in candidates))
                if len(self._ready) < KEPT // 2:
                    self.wake()  # there is room for further ones
                rows = [each for each in taken if each is not None]
                if rows:
                    return rows
                continue
            if self._over:
                return None
            await self._more.wait()

    async def _claim(self, execution: StoredExecution, row: HeldRow) -> Returned | None:
        """Take a row for this run; None: somebody else has it, or has given it up."""
        head = await self._step(execution, Running(), by=self._owner)
        if head is None:
            self._unsettled -= 1
            del self._taken[execution.id]
            return None
        self._taken[head.id] = head
        crash_point("hold.after_claim")
        waits = in_order(row, head.id, await waits_of(self._store, head.id))
        self._tell_returned(head, row)
        return Returned(head.id, row, [*row.answers, *map(outcome_of, waits)])

    def _tell_returned(self, head: ExecutionHead, row: HeldRow) -> None:
        bus = self._services.bus
        if bus.active and bus.wants(RowReturned):
            bus.publish(
                RowReturned(
                    workflow_id=self._workflow_id,
                    execution_id=head.id,
                    node=row.node,
                    row_id=head.id,
                    held_s=max(0.0, self._clock() - head.created_at),
                )
            )

    async def _step(self, head: ExecutionHead, following: WorkflowState, *, by: str) -> ExecutionHead | None:
        """The next state; None when somebody else was faster."""
        try:
            return await self._store.executions.step(head, following, at=self._clock(), by=by)
        except (ExecutionChangedError, NotStoredError):
            return None

    # --- what became of it ----------------------------------------------------------------------------

    def settled(self, id: str, failure: Failure | None) -> None:
        """A row that came back is settled; it is marked so at the next commit."""
        self._done.append((id, failure))
        self._unsettled -= 1
        if len(self._done) >= KEPT:
            self.many_done()
        if self._sources_ended and not self._unsettled:
            self.wake()

    async def mark_done(self) -> None:
        """Mark settled rows as done.

        Raises:
            StoreError: the store failed; they stay to be marked.
        """
        async with self._marking:
            while self._done:
                part = self._done[:_AT_ONCE]
                crash_point("hold.before_done")
                await asyncio.gather(*(self._mark(id, failure) for id, failure in part))
                crash_point("hold.after_done")
                del self._done[: len(part)]

    async def _mark(self, id: str, failure: Failure | None) -> None:
        head = self._taken.get(id)
        if head is None:
            return
        state = Completed() if failure is None else Partial()
        if await self._step(head, state, by=DONE) is not None:
            self.returned += 1
            await self._store.waits.cancel(id, at=self._clock())
        self._taken.pop(id, None)

    # --- the end --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Put back what was taken and is not done, and count what is left. No row is in flight any more."""
        self.end()
        await self._writer.until_idle()
        if self._writer.known:
            self._log(
                f"{self._writer.known} rows were known: read again, and neither asked nor passed on twice",
                "info",
            )
        try:
            for id in list(self._taken):
                await self._put_back(id)
            self.left = await self._count()
        except StoreError as error:
            self._log(f"rows that wait could not be put back, the next run finds them: {error}", "warning")
        finally:
            end_attempt(self._owner)

    async def _put_back(self, id: str) -> None:
        """A row that was taken, or about to be, and is not done may go on in another run."""
        head = await self._store.executions.get(id)
        if isinstance(head.state, Running) and head.owner == self._owner:
            await self._step(head, Paused("put back"), by=READY)

    async def _count(self) -> int:
        """Rows that wait, or may go on."""
        total = 0
        for state, owner in (("pending", None), ("paused", READY)):
            wanted = ExecutionFilter(workflow_id=self._head.id, states=frozenset({state}), owner=owner)
            after: str | None = None
            while True:
                page = await self._store.executions.list(wanted, limit=MAX_PAGE, after=after)
                total += sum(may_be_row(head.id) for head in page.items)
                after = page.after
                if after is None:
                    break
        return total

    def statistics(self) -> dict[str, int]:
        return {
            "ready": len(self._ready),
            "storing": len(self._writer),
            "known": self._writer.known,
            "taken": len(self._taken),
            "returned": self.returned,
        }
