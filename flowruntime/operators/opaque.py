"""The operator stage: a user's own observable transformer, given Records and asked for Records.

    rows in    1 2 3
    user       distinct, debounce, window, anything of reactivex
    rows out   whatever it emits, as rows of a new scope

Emits when      the operator emits.
Backpressures   by credit: with `explicit`, rows not answered for are unsettled; with `on_entry` the engine
                cannot know.
Completes when  the operator completes.
Fails when      the operator fails: the chain fails with its error, because what it held is lost. A record
                larger than `max_output_bytes` fails the row it stems from.
Holds           one entry per unanswered row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from flowcore.errors import (
    ContractError,
    FlowError,
    LimitExceededError,
    NodeFailedError,
    NodeTimeoutError,
    RunError,
    describe_error,
)
from flowcore.frame import End, Frame, Opened, Record, Signal
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.gate import Gate, Generation
from flowruntime.operators.oversize import bound_of

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime

    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class LoopScheduler(AsyncIOScheduler):
    """reactivex's scheduler of the loop, its clock the loop's own: time operators work on virtual time, too.

    Args:
        loop: running.
        wall_s: Unix seconds now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wall_s: float) -> None:
        super().__init__(loop)
        self._wall_s = wall_s - loop.time()

    @property
    def now(self) -> datetime:
        return self.to_datetime(self._wall_s + self._loop.time())


class _Origin:
    """One row inside the operator."""

    __slots__ = ("answered", "children", "covered", "failed", "generation", "opened", "row", "timer", "value")

    def __init__(self, opened: Opened, row: int, generation: Generation, value: Any) -> None:
        self.opened = opened
        self.generation = generation
        self.row = row
        self.answered = False
        self.children = 0
        self.covered = False
        self.failed = False
        self.timer: asyncio.TimerHandle | None = None
        self.value = value
        """What came in; kept only where a dead letter would tell it."""


def _observable(node_id: str, transform: Any, source: Observable[Record[Any]]) -> Observable[Record[Any]]:
    """What the user's transformer makes of the rows.

    Raises:
        ContractError: it is no transformer, or what it makes is no Observable.
    """
    if not callable(transform):
        raise ContractError(
            f"operator {node_id!r} gave {transform!r:.200}; it must return a function from Observable to "
            "Observable",
            node=node_id,
        )
    made: Any = transform(source)
    if not isinstance(made, Observable):
        raise ContractError(
            f"operator {node_id!r} made {made!r:.200} of its Observable; it must return an Observable of "
            "Records",
            node=node_id,
        )
    return made  # pyright: ignore[reportUnknownVariableType] - of what, only the user knows


class OpaqueOperator(StageOperator):
    """`transform()` gives the user's `Observable[Record] -> Observable[Record]`.

    Raises:
        NodeFailedError: it cannot be made or subscribed.
        ContractError: it is something else.
    """

    def __init__(self, kernel: Kernel, stage: Stage, transform: Any) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self._explicit = self.node.node.settles == "explicit"
        timeout = self.node.policies.timeout
        self._timeout_s = None if timeout is None else timeout.total_seconds()
        self._observers: list[abc.ObserverBase[Record[Any]]] = []
        self._open: set[_Origin] = set()
        self._failed = False
        self._gate = Gate()
        self._thread = threading.get_ident()
        self._bound = bound_of(self.node)
        self._keeps_values = kernel.worker.letters_of(self.node.id) is not None

        def subscribe(
            observer: abc.ObserverBase[Record[Any]], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            del scheduler
            self._observers.append(observer)
            return Disposable(
                lambda: self._observers.remove(observer) if observer in self._observers else None
            )

        source: Observable[Record[Any]] = Observable(subscribe)
        try:
            made = _observable(self.node.id, transform(), source)
            self._subscription = made.subscribe(
                on_next=self._on_next,
                on_error=self._on_error,
                on_completed=self._on_completed,
                scheduler=LoopScheduler(kernel.loop, kernel.worker.telemetry.clock()),
            )
        except (FlowError, KeyboardInterrupt):
            raise
        except BaseException as error:
            told = describe_error(error)
            raise NodeFailedError(
                f"operator {self.node.id!r} could not be made: {told['kind']}: {told['message']}",
                node=self.node.id,
            ) from error

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed or self._failed:
            return
        opened = frame.opened
        missing = absent_rows(frame)
        if missing:
            opened.ledger.cover(missing)
        for row, value in zip(frame.present, frame.values, strict=True):
            origin = _Origin(opened, row, self._gate.current, value if self._keeps_values else msgspec.UNSET)
            self.kernel.counts[self.node.id].completed += 1
            if self._explicit:
                self._open.add(origin)
                self.kernel.in_progress += 1
                origin.generation.outstanding += 1
                if self._timeout_s is not None:
                    origin.timer = self.kernel.loop.call_later(self._timeout_s, self._expire, origin)
            record = Record(value, origin)
            self._tell(lambda observer, record=record: observer.on_next(record))
            if not self._explicit:
                opened.ledger.cover((row,))
            elif self.ended and not origin.answered:
                self._unanswered(origin)  # it has completed early and listens no more

    def signal(self, signal: Signal) -> None:
        if self.ended or self._failed:
            return
        if not isinstance(signal, End):
            self._gate.signal(signal)
            self._pass_signals()
            return
        self._tell(lambda observer: observer.on_completed())

    def _tell(self, say: Callable[[abc.ObserverBase[Record[Any]]], None]) -> None:
        """Hand something to the user's operator; whatever it raises fails the chain."""
        try:
            for observer in list(self._observers):
                say(observer)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - user code; reactivex passes on what is no Exception
            self._on_error(error)

    def _pass_signals(self) -> None:
        """With `explicit`, a signal waits for an answer to each row before it."""
        for signal in self._gate.passed():
            self.emit_signal(signal)

    # --- what the operator does -----------------------------------------------------------------------

    def _on_next(self, item: Any) -> None:
        if self.kernel.closed or not self._is_here("emitted"):
            return
        if not isinstance(item, Record):
            self._on_error(
                ContractError(
                    f"operator {self.node.id!r} emitted a {type(item).__name__}, not a Record; "
                    "use record.with_value(...)",
                    node=self.node.id,
                )
            )
            return
        record: Record[Any] = item  # pyright: ignore[reportUnknownVariableType] - the user's element type
        origin = record.origin
        if not isinstance(origin, _Origin):
            self._on_error(
                ContractError(
                    f"operator {self.node.id!r} emitted a Record that did not come from it", node=self.node.id
                )
            )
            return
        if origin.failed:
            return
        if self._explicit and origin.covered:
            self._on_error(
                ContractError(
                    f"operator {self.node.id!r} emitted for a row that was settled already; "
                    "answer each Record once, or emit all of its Records before the last is settled",
                    node=self.node.id,
                )
            )
            return
        first = not origin.answered
        origin.answered = True
        if record.value is msgspec.UNSET:
            self._try_cover(origin)
        else:
            try:
                size = self._bound.size(record.value)
            except LimitExceededError as error:
                self._refuse(origin, error)
                return
            self.emit(Frame(self._child(origin, size), [record.value]))
        if first:
            self._answered(origin)

    def _child(self, origin: _Origin, nbytes: int = 0) -> Opened:
        """A row of the new scope; the row it stems from is answered for when it is settled."""
        origin.children += 1

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            origin.children -= 1
            self._try_cover(origin)

        return self.kernel.open_child(self.stage.scope, [(origin.opened, origin.row)], settled, [nbytes])

    def _try_cover(self, origin: _Origin) -> None:
        if not self._explicit or origin.covered or not origin.answered or origin.children:
            return
        origin.covered = True
        self._release(origin)
        origin.opened.ledger.cover((origin.row,))

    def _release(self, origin: _Origin) -> None:
        self._open.discard(origin)
        self.kernel.in_progress -= 1
        if origin.timer is not None:
            origin.timer.cancel()
            origin.timer = None

    def _expire(self, origin: _Origin) -> None:
        origin.timer = None
        if origin.answered or origin.covered:
            return
        error = NodeTimeoutError(
            f"operator {self.node.id!r} did not answer for a row within {self._timeout_s} s; forward it, or "
            "record.drop()",
            node=self.node.id,
        )
        self._fail(origin, error)

    def _unanswered(self, origin: _Origin) -> None:
        error = ContractError(
            f"operator {self.node.id!r} completed without answering for a row; forward it, or record.drop()",
            node=self.node.id,
        )
        self._fail(origin, error)

    def _fail(self, origin: _Origin, error: Exception) -> None:
        """The row fails here; what the operator still says of it is not heard."""
        kernel = self.kernel
        origin.covered = origin.failed = True
        self._release(origin)
        failure = kernel.failed(self.node.id, origin.opened, origin.row, error, value=origin.value)
        if self.node.id not in kernel.handled or kernel.closed:
            origin.opened.ledger.cover((origin.row,))
            self._answered(origin)
            return

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            origin.opened.ledger.cover((origin.row,))

        child = kernel.open_child(self.stage.scope, [(origin.opened, origin.row)], settled)
        self.emit(Frame(child, [], [], None, {0: failure}))
        self._answered(origin)

    def _refuse(self, origin: _Origin, error: Exception) -> None:
        """What it made of the row is too large: the row fails; what it emitted of it before goes on."""
        kernel = self.kernel
        origin.failed = True
        failure = kernel.failed(self.node.id, origin.opened, origin.row, error, value=origin.value)
        if self.node.id in kernel.handled and not kernel.closed:
            self.emit(Frame(self._child(origin), [], [], None, {0: failure}))
        first = not origin.answered
        origin.answered = True
        self._try_cover(origin)
        if first:
            self._answered(origin)

    def _answered(self, origin: _Origin) -> None:
        """A row is answered for, for the first time: signals behind it may pass."""
        origin.answered = True
        if self._explicit:
            origin.generation.outstanding -= 1
            self._pass_signals()

    def cancel_execution(self, root: Opened, row: int) -> None:
        for origin in [each for each in self._open if each.opened.root(each.row) == (root, row)]:
            origin.failed = True
            if not origin.answered:
                self._answered(origin)
            self._try_cover(origin)

    def _on_error(self, error: BaseException) -> None:
        if not self._is_here(f"failed ({error!r})"):
            return
        if self._failed or self.kernel.closed:
            return
        self._failed = True
        told = describe_error(error)
        failure = RunError(
            f"operator {self.node.id!r} failed: {told['kind']}: {told['message']}", node=self.node.id
        )
        failure.__cause__ = error
        self.kernel.crash(failure)

    def _is_here(self, what: str) -> bool:
        """Whether this is the loop's thread; from any other the chain is told to fail there."""
        if threading.get_ident() == self._thread:
            return True
        error = ContractError(
            f"operator {self.node.id!r} {what} on another thread than the event loop's; "
            "give its time operators no scheduler of their own, or observe_on the loop's",
            node=self.node.id,
        )
        self.kernel.loop.call_soon_threadsafe(self._on_error, error)
        return False

    def _on_completed(self) -> None:
        if not self._is_here("completed"):
            return
        for origin in [origin for origin in self._open if not origin.answered]:
            self._unanswered(origin)
        self.emit_signal(End())

    def close(self) -> None:
        self._subscription.dispose()
        for origin in self._open:
            if origin.timer is not None:
                origin.timer.cancel()
        self._open.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": len(self._open)}
