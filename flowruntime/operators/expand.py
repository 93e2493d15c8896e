"""The expand stage: one row in, many out, pulled lazily.

    rows in    a            b
    children   a1 a2 a3     b1 |

Emits when      a generator yields, in parts of at most `PART` rows, round robin over parents.
Backpressures   by a budget of its own: while as many children as the worker's budget allows are unsettled,
                no generator is pulled; so one record may expand to any number in bounded memory.
Completes when  the input has ended, every generator is exhausted and every part has left.
Fails when      never: a generator that raises fails its row; children it had yielded go on.
Holds           one generator per unfinished parent, the children of one part.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import CancelledRowError, LimitExceededError
from flowcore.frame import Barrier, Frame, Opened, Signal
from flowruntime.compile.sentinels import ABSENT
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.family import Family
from flowruntime.operators.gate import Gate, Generation

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.collect import CollectOperator
    from flowruntime.operators.kernel import Kernel

PART = 256
_SLICE_S = 0.005

Start = Callable[[Opened, int, Any], Any]


class _Parent:
    __slots__ = ("family", "generation", "iterator", "started")

    def __init__(self, family: Family, iterator: Any, generation: Generation) -> None:
        self.family = family
        self.iterator = iterator
        self.generation = generation
        self.started = 0.0


class ExpandOperator(StageOperator):
    """`start(opened, row, value)` calls the node and returns its iterator."""

    def __init__(
        self, kernel: Kernel, stage: Stage, start: Start, *, max_children: int, concurrency: int
    ) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self.collects: list[CollectOperator] = []
        """The stages that close this scope; bound when the chain is built."""
        self._start = start
        self._max_children = max_children
        self._concurrency = concurrency
        self._parents: deque[_Parent] = deque()
        self._tasks: dict[asyncio.Task[None], _Parent] = {}
        self._open_children = 0
        self._allowance = max(PART, kernel.worker.budget.max_rows)
        self._running = False
        self._gate = Gate()
        self._room: asyncio.Event | None = None

    # --- rows in --------------------------------------------------------------------------------------

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        opened = frame.opened
        missing = absent_rows(frame)
        if missing:
            failed = frame.failed or {}
            for collect in self.collects:
                collect.parent_absent(opened, missing, failed, self.barriers)
            opened.ledger.cover(missing)
        for row, value in zip(frame.present, frame.values, strict=True):
            self._begin(opened, row, value)
        self._pull()

    def _begin(self, opened: Opened, row: int, value: Any) -> None:
        family = Family(opened, row)
        generation = self._gate.current
        generation.outstanding += 1
        self.kernel.in_progress += 1
        parent = _Parent(family, None, generation)
        if self.kernel.recording and self.kernel.stopped(opened, row) is not None:
            family.failure = self.kernel.stopped(opened, row)
            self._exhausted(parent)
            return
        parent.started = self.kernel.worker.telemetry.node_started(self.kernel, self.node.id, opened, row)
        try:
            iterator = self._start(opened, row, value)
            if not isinstance(iterator, Iterator | AsyncIterator):
                iterator = iter(iterator)
        except Exception as error:  # noqa: BLE001 - user code; it becomes the row's failure
            self._fail(parent, error)
            return
        parent.iterator = iterator
        self._parents.append(parent)

    def signal(self, signal: Signal) -> None:
        self._gate.signal(signal)
        if isinstance(signal, Barrier):
            self.hold(0)  # children of later rows must not leave before it
        self._pass_signals()

    # --- children out ---------------------------------------------------------------------------------

    def _pull(self) -> None:
        """Pull generators in turn while there is room, for at most some milliseconds at a time."""
        if self._running or self.kernel.closed:
            return
        self._running = True
        started = self.kernel.loop.time()
        try:
            while self._parents and self._open_children < self._allowance:
                parent = self._parents[0]
                if isinstance(parent.iterator, AsyncIterator):
                    if not self._start_task():
                        break
                    continue
                self._parents.rotate(-1)
                if self._pull_one(parent):
                    self._parents.remove(parent)
                    self._exhausted(parent)
                if self.kernel.loop.time() - started > _SLICE_S and self._parents:
                    self.kernel.loop.call_soon(self._pull)
                    break
        finally:
            self._running = False

    def _pull_one(self, parent: _Parent) -> bool:
        """One part of one parent; True when its generator is done."""
        values: list[Any] = []
        room = min(PART, self._allowance - self._open_children)
        done = False
        broken: Exception | None = None
        try:
            while len(values) < room:
                value = next(parent.iterator, _DONE)
                if value is _DONE:
                    done = True
                    break
                self._check_count(parent.family, len(values) + 1)
                values.append(value)
        except Exception as error:  # noqa: BLE001 - user code; it becomes the row's failure
            broken = error
        if values:
            self._emit_children(parent.family, values)
        if broken is not None:
            self._note_failure(parent, broken)
        return done or broken is not None

    def _check_count(self, family: Family, more: int) -> None:
        if family.size + more > self._max_children:
            raise LimitExceededError(
                f"node {self.node.id!r}: a row has more than {self._max_children} children; "
                "raise max_children, or split the record before",
                node=self.node.id,
                max_children=self._max_children,
            )

    def _emit_children(self, family: Family, values: list[Any]) -> None:
        count = len(values)
        family.size += count
        self._open_children += count
        opened = self.kernel.open_child(
            self.stage.scope, [(family.parent, family.row)] * count, self._child_settled
        )
        opened.families = [family] * count
        if self.kernel.recording:
            execution = self.kernel.execution_of(family.parent, family.row)
            for row, value in enumerate(values):
                execution.yielded(self.node.id, opened.order(row), value)
        self.emit(Frame(opened, values))

    def _start_task(self) -> bool:
        """Pull an asynchronous generator in a task of its own; False when as many as allowed run already."""
        if len(self._tasks) >= self._concurrency:
            return False
        parent = self._parents.popleft()
        task = self.kernel.loop.create_task(self._pull_async(parent), name=f"flow expand {self.node.id}")
        self._tasks[task] = parent
        task.add_done_callback(self._task_done)
        return True

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """The one place a pulled parent ends, even when its task was cancelled before its first step."""
        parent = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if self.kernel.closed:
            return
        family = parent.family
        stopped = self.kernel.stopped(family.parent, family.row)
        if task.cancelled() and stopped is not None:
            family.failure = stopped
        elif task.cancelled():
            message = f"node {self.node.id!r} raised CancelledError, though nobody had cancelled its row"
            self._note_failure(parent, CancelledRowError(message, node=self.node.id))
        elif error is not None:
            self._note_failure(parent, error)
        self._exhausted(parent)
        self._pull()

    async def _pull_async(self, parent: _Parent) -> None:
        try:
            async for value in parent.iterator:
                self._check_count(parent.family, 1)
                while self._open_children >= self._allowance:
                    self._room = self._room or asyncio.Event()
                    self._room.clear()
                    await self._room.wait()
                self._emit_children(parent.family, [value])
        finally:
            if isinstance(parent.iterator, AsyncGenerator):
                await parent.iterator.aclose()  # pyright: ignore[reportUnknownMemberType] - of any element type

    # --- ends of families -----------------------------------------------------------------------------

    def _note_failure(self, parent: _Parent, error: BaseException) -> None:
        kernel, family = self.kernel, parent.family
        family.failure = kernel.failed(self.node.id, family.parent, family.row, error, started=parent.started)
        if self.node.id not in kernel.handled or kernel.closed:
            return
        # For the error port the failed record is one more child, absent for its own failure.
        opened = kernel.open_child(self.stage.scope, [(family.parent, family.row)], self._child_settled)
        opened.families = [family]
        family.size += 1
        self._open_children += 1
        self.emit(Frame(opened, [], [], None, {0: family.failure}))

    def _fail(self, parent: _Parent, error: BaseException) -> None:
        self._note_failure(parent, error)
        self._exhausted(parent)

    def _exhausted(self, parent: _Parent) -> None:
        """No further child of this parent will come."""
        family = parent.family
        family.total = family.size
        kernel = self.kernel
        if family.failure is None:
            kernel.counts[self.node.id].completed += 1
            kernel.completed(self.node.id, family.parent, family.row, ABSENT, parent.started)
        parent.generation.outstanding -= 1
        kernel.in_progress -= 1
        for collect in self.collects:
            collect.family_known(family, self.barriers)
        family.cover_parent()
        self._pass_signals()

    def _child_settled(self, opened: Opened, rows: Sequence[int]) -> None:
        self._open_children -= len(rows)
        for row in rows:
            family: Family = opened.families[row]
            family.settled += 1
            family.cover_parent()
        if self._room is not None:
            self._room.set()
        if self._parents and not self._running:
            self.kernel.loop.call_soon(self._pull)

    def _pass_signals(self) -> None:
        for signal in self._gate.passed():
            self.emit_signal(signal)
            if isinstance(signal, Barrier):
                self.let_go()

    # --- taking down ----------------------------------------------------------------------------------

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Stop pulling for one root record."""
        for parent in [p for p in self._parents if p.family.parent.root(p.family.row) == (root, row)]:
            self._parents.remove(parent)
            parent.family.failure = self.kernel.stopped(parent.family.parent, parent.family.row)
            _close(parent.iterator)
            self._exhausted(parent)
        for task, parent in list(self._tasks.items()):
            if parent.family.parent.root(parent.family.row) == (root, row):
                task.cancel()

    async def until_quiet(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        for parent in self._parents:
            _close(parent.iterator)
        self._parents.clear()
        for task in list(self._tasks):
            task.cancel()

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self._open_children,
            "parents": len(self._parents) + len(self._tasks),
            "capacity": self._allowance,
        }


_DONE = object()


def _close(iterator: Any) -> None:
    """Run the generator's own clean-up."""
    if inspect.isgenerator(iterator):
        iterator.close()
