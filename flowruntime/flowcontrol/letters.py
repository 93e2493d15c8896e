"""The writer of dead letters: rows that were given up on stay unsettled until their letters are kept.

Owns: `LetterWriter`: gathering letters, calling `DeadLetterStore.write`, settling rows once they are kept.
Does not own: what a letter says (flowruntime.execute.letters), which rows are given up on (policies), stores
(connectors).

Always holds: a row is settled only after `write` has returned; when it raises, the run fails and the row is
not settled, so that it comes again; letters may come twice, records are never lost. Memory: letters of
unsettled rows, at most one per failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Protocol

from flowcore.errors import DeadLetterError
from flowcore.frame import Failure, Opened
from flowruntime.crashpoints import crash_point

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetter, DeadLetterStore
    from flowruntime.operators.kernel import Kernel

MAX_LETTERS = 1_024
"""In one write, unless a single row needs more."""


class Maker(Protocol):
    """Writes the letters of one failure, one per root record."""

    def letters(
        self, kernel: Kernel, opened: Opened, row: int, failure: Failure, value: object, *, undecoded: bool
    ) -> list[DeadLetter]: ...


class _Pending:
    """One failed row and its letters."""

    __slots__ = ("failure", "forgotten", "held", "kernel", "letters", "opened", "row")

    def __init__(
        self, kernel: Kernel, opened: Opened, row: int, failure: Failure, letters: list[DeadLetter]
    ) -> None:
        self.kernel = kernel
        self.opened = opened
        self.row = row
        self.failure = failure
        self.letters = letters
        self.held = not opened.ledger.is_settled(row)
        """False: it was settled before it failed, as rows of an operator may be that settles on entry."""
        self.forgotten = False
        """Its request was cancelled and waits no longer; the letter is written all the same."""


class LetterWriter:
    """Writes the letters of all chains of a worker, one write at a time, with whatever waits.

    Args:
        store: opened; None: sinks are captured and so are letters, in results instead of the store.
        maker: of letters.
        place: where they go, for messages.
    """

    def __init__(self, store: DeadLetterStore | None, maker: Maker, place: str) -> None:
        self._store = store
        self._maker = maker
        self._place = place
        self._waiting: deque[_Pending] = deque()
        self._writing: list[_Pending] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.letters_written = 0

    def put(
        self, kernel: Kernel, opened: Opened, row: int, failure: Failure, value: object, *, undecoded: bool
    ) -> None:
        """Hold a failed row until its letters are kept."""
        if kernel.closed or self._closed:
            return  # not settled either: it comes again
        letters = self._maker.letters(kernel, opened, row, failure, value, undecoded=undecoded)
        pending = _Pending(kernel, opened, row, failure, letters)
        if self._store is None:
            _count(pending, kept=False)
            return
        if pending.held:
            opened.ledger.expect(row)
        kernel.in_progress += 1
        self._waiting.append(pending)
        if self._task is None:
            self._start()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._write_all(), name="flow dead letters")
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the engine's own fault: every chain with a letter under way fails, loudly
            for pending in [*self._writing, *self._waiting]:
                pending.kernel.crash(error)
            self._writing = []
            self._waiting.clear()
        elif self._waiting and not self._closed:
            self._start()  # a row failed between the task's last look and its end

    async def _write_all(self) -> None:
        store = self._store
        while self._waiting and store is not None:
            await self._write_some(store)

    async def _write_some(self, store: DeadLetterStore) -> None:
        self._writing = writing = self._take()
        letters = [letter for pending in writing for letter in pending.letters]
        failed: Exception | None = None
        try:
            crash_point("letters.before_write")
            await store.write(letters)
            crash_point("letters.after_write")
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed or (task is not None and task.cancelling()):
                raise
            failed = DeadLetterError(
                f"the store of dead letters raised {error!r}, though nobody had cancelled it"
            )
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the letters are not known to be kept
            failed = error
        if failed is None:
            self.letters_written += len(letters)
        for pending in writing:
            if failed is None:
                await _keep(pending)
                _count(pending, kept=True)
            else:
                self._stop(pending, failed)
            self._settle(pending)
        self._writing = []

    def _take(self) -> list[_Pending]:
        """What waits, up to a bound; rows of closed chains come again and need no letter now."""
        taken: list[_Pending] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0].letters) <= MAX_LETTERS):
            pending = self._waiting.popleft()
            if not pending.kernel.closed:
                taken.append(pending)
                count += len(pending.letters)
        return taken

    def _stop(self, pending: _Pending, cause: Exception) -> None:
        """The letter is not kept: the run, or the request, fails whatever the policy of the node."""
        node = pending.failure.node
        error = DeadLetterError(
            f"the dead letter of a row that failed at {node!r} could not be written to {self._place}: "
            f"{cause}; the row is not settled and comes again (it failed with: {pending.failure.error})",
            node=node,
            place=self._place,
        )
        error.__cause__ = cause
        if not pending.kernel.closed and not pending.forgotten:
            failure = Failure(node, error, pending.failure.attempts)
            pending.kernel.listener.stop(failure, pending.opened, pending.row)

    def _settle(self, pending: _Pending) -> None:
        """Nothing is awaited for the row here any more. A run that fails has closed its chains by now."""
        if not pending.kernel.closed and not pending.forgotten:
            pending.kernel.in_progress -= 1
            if pending.held:
                pending.opened.ledger.arrived(pending.row)

    def forget(self, kernel: Kernel, root: Opened, row: int) -> None:
        """A request was cancelled: it waits no longer for its letters; they are written all the same."""
        for pending in [*self._waiting, *self._writing]:
            mine = pending.kernel is kernel and pending.opened.root(pending.row) == (root, row)
            if mine and not pending.forgotten:
                self._settle(pending)
                pending.forgotten = True

    async def flush(self, *, within_s: float) -> None:
        """Until every letter is kept, or its run has failed, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._task is not None:
                    await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Stop at once, letters that wait are not written and their rows not settled; close the store."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._waiting.clear()
        if self._store is not None:
            await self._store.close()

    def statistics(self) -> dict[str, int]:
        return {
            "waiting": sum(len(pending.letters) for pending in self._waiting),
            "writing": sum(len(pending.letters) for pending in self._writing),
            "letters_written": self.letters_written,
        }


async def _keep(pending: _Pending) -> None:
    """Where executions survive their process: the letters are written once, whatever becomes of it."""
    journal = pending.kernel.journal
    if journal is not None and not pending.kernel.closed:
        await journal.lettered(pending.failure.node, pending.opened, pending.row, pending.letters)


def _count(pending: _Pending, *, kept: bool) -> None:
    """The failure is handled: its letters are kept, or captured as those of sinks are."""
    kernel, node = pending.kernel, pending.failure.node
    if kernel.closed:
        return
    counts = kernel.counts[node]
    counts.handled += 1
    if kept:
        counts.dead_lettered += len(pending.letters)
        kernel.worker.telemetry.dead_lettered(kernel, pending.letters)
    if kernel.recording and not pending.forgotten:
        kernel.execution_of(pending.opened, pending.row).dead_lettered(pending.letters, kept=kept)
