"""The expand stage: one row in, many out, pulled lazily.

    rows in    a            b
    children   a1 a2 a3     b1 |

Emits when      a generator yields, in parts of at most `PART` rows, round robin over parents.
Backpressures   by a budget of its own: while as many children as the worker's budget allows are unsettled,
                no generator is pulled; so one record may expand to any number in bounded memory. Children are
                charged to the bytes in flight, too: a part ends where these are spent, and while they are
                overdrawn only generators of the oldest record are pulled, child by child.
Completes when  the input has ended, every generator is exhausted and every part has left.
Fails when      never: a generator that raises, or yields a child larger than `max_output_bytes`, fails its
                row; children it had yielded go on. Before its first child has left, the node's fallback is
                its one child instead.
Holds           one generator per unfinished parent (with its row's value, where a dead letter would tell it),
                the children of one part.

A plain generator runs on the loop's thread, one at a time and for some milliseconds at most, as a fused
function does: it takes no permits, and nothing can interrupt it. Asynchronous ones: `dripping`.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from flowcore.errors import ContractError, LimitExceededError, describe_error
from flowcore.frame import Barrier, Frame, Opened, Signal
from flowruntime.compile.bounds import LEAST_CHILDREN
from flowruntime.compile.sentinels import ABSENT
from flowruntime.operators.base import StageOperator, absent_rows, by_port, node_of
from flowruntime.operators.family import Family
from flowruntime.operators.gate import Gate, Generation
from flowruntime.operators.kernel import precedence_of
from flowruntime.operators.oversize import bound_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.compile.resolved import ResolvedFallback
    from flowruntime.operators.collect import CollectOperator
    from flowruntime.operators.kernel import Kernel
    from flowruntime.resilience.breaker import Ticket

PART = 256
_SLICE_S = 0.005

Start = Callable[[Opened, int, Any, int], Any]
"""Frame, row, value, number of the attempt."""


class Parent:
    """One row that is being expanded; to breaker, rates and retry budget, a call."""

    __slots__ = (
        "attempt", "cancelled", "deadline", "error", "family", "generation", "iterator", "recalled",
        "replaced", "started", "ticket", "value",
    )  # fmt: skip

    def __init__(self, family: Family, value: Any, generation: Generation) -> None:
        self.family = family
        self.value = value
        self.generation = generation
        self.iterator: Any = None
        self.attempt = 1
        self.started = 0.0
        self.error: BaseException | None = None
        """Of its last attempt."""
        self.cancelled = False
        self.replaced = False
        """It failed before its first child had left, and its fallback went on in its children's place."""
        self.recalled = False
        """Its children are of an earlier pass of its execution."""
        self.ticket: Ticket | None = None
        self.deadline: float | None = None
        """There is none: what its children wait for is not its time."""


class ExpandOperator(StageOperator):
    """`start(opened, row, value, attempt)` calls the node and returns its iterator."""

    def __init__(self, kernel: Kernel, stage: Stage, start: Start, *, max_children: int) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self.collects: list[CollectOperator] = []
        """The stages that close this scope; bound when the chain is built."""
        self._start = start
        self._max_children = max_children
        self._bound = bound_of(self.node)
        self._budget = kernel.worker.budget
        self._precedence = precedence_of(kernel, kernel.plan.graph.tuning.expanding)
        self._parents: deque[Parent] = deque()
        """Those to be pulled."""
        self._arrivals = 0
        self._open_children = 0
        self._allowance = max(LEAST_CHILDREN, kernel.worker.budget.max_rows)
        self._running = False
        self._gate = Gate()
        self._keeps_values = kernel.worker.letters_of(self.node.id) is not None

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
            self._take_in(opened, row, value)
        self.pull()

    def _take_in(self, opened: Opened, row: int, value: Any) -> None:
        family = Family(opened, row)
        generation = self._gate.current
        generation.outstanding += 1
        self.kernel.in_progress += 1
        parent = Parent(family, value, generation)
        if self.kernel.journal is not None:
            parent.recalled = self.kernel.journal.was_called(self.node.id, opened, row)
        stopped = self.kernel.stopped(opened, row) if self.kernel.recording else None
        if stopped is not None:
            family.failure = stopped
            self.exhausted(parent)
            return
        self.begin(parent)

    def begin(self, parent: Parent) -> None:
        """Call the node for a row, and put it among those to be pulled."""
        family = parent.family
        self.note_started(parent)
        try:
            iterator = self._start(family.parent, family.row, parent.value, parent.attempt)
            parent.iterator = iterator if isinstance(iterator, Iterator) else self._iterator_of(iterator)
        except BaseException as error:  # noqa: BLE001 - user code; it becomes the row's failure
            self._fail(parent, error)
            return
        if not self._keeps_values:
            parent.value = None
        self.line_up(parent)

    def line_up(self, parent: Parent) -> None:
        """It is to be pulled."""
        self._parents.append(parent)
        self._arrivals += 1

    def _iterator_of(self, given: Any) -> Iterator[Any]:
        if hasattr(given, "__aiter__"):
            raise ContractError(
                f"node {self.node.id!r} gave an asynchronous iterator and its signature does not say so; "
                "annotate it -> AsyncIterator[...], or write it as 'async def' with yield",
                node=self.node.id,
            )
        return iter(given)

    def note_started(self, parent: Parent) -> None:
        if parent.recalled:
            return
        telemetry, family = self.kernel.worker.telemetry, parent.family
        parent.started = telemetry.node_started(self.kernel, self.node.id, family.parent, family.row)

    def signal(self, signal: Signal) -> None:
        self._gate.signal(signal)
        if isinstance(signal, Barrier):
            self.hold(0)  # children of later rows must not leave before it
        self._pass_signals()

    # --- pulling --------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Pull generators in turn while there is room, for at most some milliseconds at a time."""
        if self._running or self.kernel.closed:
            return
        self._running = True
        started = self.kernel.loop.time()
        try:
            while self._parents and self._open_children < self._allowance:
                most = PART
                if self._precedence is not None and self._precedence.holds:
                    if not self.bring_oldest():
                        self._precedence.wait(self.pull)
                        break
                    most = 1
                parent = self._parents[0]
                self._parents.rotate(-1)
                if self._pull_one(parent, most):
                    self._parents.remove(parent)
                    self.exhausted(parent)
                if self.kernel.loop.time() - started > _SLICE_S and self._parents:
                    self.kernel.loop.call_soon(self.pull)
                    break
        finally:
            self._running = False

    def bring_oldest(self) -> bool:
        """Bytes are overdrawn: bring a parent that may be pulled to the front; False when there is none."""
        assert self._precedence is not None  # noqa: S101 - asked for by the caller
        index = self._precedence.choose(self._parents, rows_of, None, self._arrivals)
        if index is None:
            return False
        self._parents.rotate(-index)
        return True

    def _pull_one(self, parent: Parent, most: int) -> bool:
        """One part of one parent; True when its generator is done."""
        values: list[Any] = []
        sizes: list[int] = []
        room = min(most, self._allowance - self._open_children)
        left, size_of = self._max_children - parent.family.size, self._bound.size
        nbytes, spent = 0, self._budget.max_bytes - self._budget.bytes_in_flight
        done = False
        broken: BaseException | None = None
        try:
            while len(values) < room:
                value = next(parent.iterator, DONE)
                if value is DONE:
                    done = True
                    break
                if len(values) == left:
                    broken = self.too_many()
                    break
                size = size_of(value)
                values.append(value)
                sizes.append(size)
                nbytes += size
                if nbytes > spent and self._precedence is not None:
                    break
        except BaseException as error:  # noqa: BLE001 - user code; it becomes the row's failure
            broken = error
        if values:
            self.emit_children(parent.family, values, sizes)
        if broken is not None:
            self._close_iterator(
                parent
            )  # it may be in the middle: too many children, or a failing middleware
            self.note_failure(parent, broken)
        return done or broken is not None

    def too_many(self) -> LimitExceededError:
        """The failure of a row with more children than allowed."""
        return LimitExceededError(
            f"node {self.node.id!r}: a row has more than {self._max_children} children; "
            "raise max_children, or split the record before",
            node=self.node.id,
            max_children=self._max_children,
        )

    def emit_children(self, family: Family, values: list[Any], sizes: list[int]) -> None:
        count = len(values)
        family.size += count
        self._open_children += count
        parents = [(family.parent, family.row)] * count
        opened = self.kernel.open_child(self.stage.scope, parents, self._child_settled, sizes)
        opened.families = [family] * count
        if self.kernel.keeps_places:
            opened.places = range(family.size - count, family.size)
        if self._precedence is not None and self._precedence.holds:
            self._precedence.begun((opened, row) for row in range(count))
        if self.kernel.streams is not None:
            for row, value in enumerate(values):
                self.kernel.streams.move(value, (family.parent, family.row), (opened, row), shared=False)
        if self.kernel.recording:
            self._record_children(family, opened, values)
        self.emit(Frame(opened, values))

    def _record_children(self, family: Family, opened: Opened, values: list[Any]) -> None:
        execution = self.kernel.execution_of(family.parent, family.row)
        streams = self.kernel.streams
        for row, value in enumerate(values):
            execution.yielded(self.node.id, opened.order(row), value)
            if streams is not None:
                streams.ends.completed(self.node.id, opened, row, value)

    # --- ends of families -----------------------------------------------------------------------------

    def note_failure(self, parent: Parent, error: BaseException) -> None:
        kernel, family = self.kernel, parent.family
        fallback = self.node.fallback
        if fallback is not None and not family.size:
            self._replace(parent, error, fallback)
            return
        value = by_port(self.node.node, parent.value) if self._keeps_values else UNSET
        family.failure = kernel.failed(
            self.node.id,
            family.parent,
            family.row,
            error,
            parent.attempt,
            started=parent.started,
            value=value,
            recalled=parent.recalled,
        )
        if self.node.id not in kernel.handled or kernel.closed:
            return
        # For the error port the failed record is one more child, absent for its own failure.
        opened = kernel.open_child(self.stage.scope, [(family.parent, family.row)], self._child_settled)
        opened.families = [family]
        opened.places = (family.size,)
        family.size += 1
        self._open_children += 1
        self.emit(Frame(opened, [], [], None, {0: family.failure}))

    def _replace(self, parent: Parent, error: BaseException, fallback: ResolvedFallback) -> None:
        """The row failed before its first child had left: its fallback is its one child."""
        family = parent.family
        self.kernel.failed(
            self.node.id,
            family.parent,
            family.row,
            error,
            parent.attempt,
            started=parent.started,
            replaced=True,
            recalled=parent.recalled,
        )
        parent.replaced = True
        if not self.kernel.closed:
            self.emit_children(family, [fallback.make()], [fallback.nbytes])

    def _fail(self, parent: Parent, error: BaseException) -> None:
        self.note_failure(parent, error)
        self.exhausted(parent)

    def exhausted(self, parent: Parent) -> None:
        """No further child of this parent will come."""
        family = parent.family
        family.total = family.size
        kernel = self.kernel
        if parent.replaced:
            pass  # counted when it failed
        elif family.failure is None:
            kernel.counts[self.node.id].completed += not parent.recalled
            kernel.completed(
                self.node.id,
                family.parent,
                family.row,
                ABSENT,
                parent.started,
                parent.attempt,
                recalled=parent.recalled,
            )
        elif kernel.recording and family.failure is kernel.stopped(family.parent, family.row):
            kernel.counts[self.node.id].cancelled += 1
            kernel.execution_of(family.parent, family.row).cancelled_node(self.node.id)
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
        self.children_settled()

    def children_settled(self) -> None:
        """There may be room for further ones. Settling never pushes: not before the next turn of the loop."""
        if self._parents and not self._running:
            self.kernel.loop.call_soon(self.pull)

    def _pass_signals(self) -> None:
        for signal in self._gate.passed():
            self.emit_signal(signal)
            if isinstance(signal, Barrier):
                self.let_go()

    # --- taking down ----------------------------------------------------------------------------------

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Stop pulling for one root record."""
        for parent in [each for each in self._parents if is_of(each, root, row)]:
            self._parents.remove(parent)
            parent.family.failure = self.kernel.stopped(parent.family.parent, parent.family.row)
            self._close_iterator(parent)
            self.exhausted(parent)

    def _close_iterator(self, parent: Parent) -> None:
        """Run a generator's own clean-up; what that raises harms nobody else, and is told."""
        if not inspect.isgenerator(parent.iterator):
            return
        try:
            parent.iterator.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - user code; the others are still to be taken out
            told = describe_error(error)
            fault = f"failed to clean up after it was cancelled: {told['kind']}: {told['message']}"
            self.kernel.worker.report(self.node.id, fault)

    def close(self) -> None:
        for parent in self._parents:
            self._close_iterator(parent)
        self._parents.clear()
        if self._precedence is not None:
            self._precedence.forget(self.pull)

    def statistics(self) -> dict[str, Any]:
        return {
            "in_flight": self._open_children,
            "parents": len(self._parents),
            "capacity": self._allowance,
        }


DONE = object()


def is_of(parent: Parent, root: Opened, row: int) -> bool:
    """Whether it descends from a root record."""
    return parent.family.parent.root(parent.family.row) == (root, row)


def rows_of(parent: Parent) -> Sequence[tuple[Opened, int]]:
    """The row it is, as `Precedence` asks for it."""
    return ((parent.family.parent, parent.family.row),)
