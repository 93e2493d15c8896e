"""The operator stage: a user's own observable transformer, given Records and asked for Records.

    rows in    1 2 3
    user       distinct, debounce, window, anything of reactivex
    rows out   whatever it emits, as rows of a new scope

Emits when      the operator emits.
Backpressures   by credit: with `explicit`, rows not answered for are unsettled; with `on_entry` the engine
                cannot know.
Completes when  the operator completes.
Fails when      the operator fails: the chain fails with its error, because what it held is lost.
Holds           one entry per unanswered row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from flowcore.errors import ContractError, NodeTimeoutError, RunError
from flowcore.frame import End, Frame, Opened, Record, Signal
from flowruntime.operators.base import StageOperator, absent_rows

if TYPE_CHECKING:
    import asyncio

    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class _Origin:
    """One row inside the operator."""

    __slots__ = ("answered", "children", "covered", "failed", "opened", "row", "timer")

    def __init__(self, opened: Opened, row: int) -> None:
        self.opened = opened
        self.row = row
        self.answered = False
        self.children = 0
        self.covered = False
        self.failed = False
        self.timer: asyncio.TimerHandle | None = None


class OpaqueOperator(StageOperator):
    """`transform` is the user's `Observable[Record] -> Observable[Record]`."""

    def __init__(self, kernel: Kernel, stage: Stage, transform: Any) -> None:
        super().__init__(kernel, stage)
        assert stage.node is not None
        self.node = stage.node
        self._explicit = stage.node.node.settles == "explicit"
        timeout = stage.node.policies.timeout
        self._timeout_s = None if timeout is None else timeout.total_seconds()
        self._observers: list[abc.ObserverBase[Record[Any]]] = []
        self._open: set[_Origin] = set()
        self._failed = False

        def subscribe(
            observer: abc.ObserverBase[Record[Any]], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            del scheduler
            self._observers.append(observer)
            return Disposable(
                lambda: self._observers.remove(observer) if observer in self._observers else None
            )

        source: Observable[Record[Any]] = Observable(subscribe)
        self._subscription = transform(source).subscribe(
            on_next=self._on_next,
            on_error=self._on_error,
            on_completed=self._on_completed,
            scheduler=AsyncIOScheduler(kernel.loop),
        )

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed or self._failed:
            return
        opened = frame.opened
        missing = absent_rows(frame)
        if missing:
            opened.ledger.cover(missing)
        for row, value in zip(frame.present, frame.values, strict=True):
            origin = _Origin(opened, row)
            self.kernel.counts[self.node.id].completed += 1
            if self._explicit:
                self._open.add(origin)
                self.kernel.in_progress += 1
                if self._timeout_s is not None:
                    origin.timer = self.kernel.loop.call_later(self._timeout_s, self._expire, origin)
            record = Record(value, origin)
            for observer in list(self._observers):
                observer.on_next(record)
            if not self._explicit:
                opened.ledger.cover((row,))

    def signal(self, signal: Signal) -> None:
        if not isinstance(signal, End):
            self.emit_signal(signal)
            return
        for observer in list(self._observers):
            observer.on_completed()

    # --- what the operator does -----------------------------------------------------------------------

    def _on_next(self, item: Any) -> None:
        if self.kernel.closed:
            return
        if not isinstance(item, Record):
            self._on_error(
                ContractError(
                    f"operator {self.node.id!r} emitted a {type(item).__name__}, not a Record; use record.with_value(...)",
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
                    f"operator {self.node.id!r} emitted for a row that was settled already; answer each Record once, "
                    "or emit all of its Records before the last is settled",
                    node=self.node.id,
                )
            )
            return
        origin.answered = True
        if record.value is msgspec.UNSET:
            self._try_cover(origin)
            return
        origin.children += 1

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            origin.children -= 1
            self._try_cover(origin)

        parents = [(origin.opened, origin.row)]
        self.emit(Frame(self.kernel.open_child(self.stage.scope, parents, settled), [record.value]))

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
            f"operator {self.node.id!r} did not answer for a row within {self._timeout_s} s; forward it, or record.drop()",
            node=self.node.id,
        )
        self._fail(origin, error)

    def _fail(self, origin: _Origin, error: Exception) -> None:
        """The row fails here; what the operator still says of it is not heard."""
        kernel = self.kernel
        origin.covered = origin.failed = True
        self._release(origin)
        failure = kernel.failed(self.node.id, origin.opened, origin.row, error)
        if self.node.id not in kernel.handled or kernel.closed:
            origin.opened.ledger.cover((origin.row,))
            return

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            origin.opened.ledger.cover((origin.row,))

        child = kernel.open_child(self.stage.scope, [(origin.opened, origin.row)], settled)
        self.emit(Frame(child, [], [], None, {0: failure}))

    def cancel_execution(self, root: Opened, row: int) -> None:
        for origin in [each for each in self._open if each.opened.root(each.row) == (root, row)]:
            origin.answered = origin.failed = True
            self._try_cover(origin)

    def _on_error(self, error: Exception) -> None:
        if self._failed or self.kernel.closed:
            return
        self._failed = True
        failure = RunError(f"operator {self.node.id!r} failed: {error}", node=self.node.id)
        failure.__cause__ = error
        self.kernel.crash(failure)

    def _on_completed(self) -> None:
        for origin in [origin for origin in self._open if not origin.answered]:
            error = ContractError(
                f"operator {self.node.id!r} completed without answering for a row; forward it, or record.drop()",
                node=self.node.id,
            )
            self._fail(origin, error)
        self.emit_signal(End())

    def close(self) -> None:
        self._subscription.dispose()
        for origin in self._open:
            if origin.timer is not None:
                origin.timer.cancel()
        self._open.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": len(self._open)}
