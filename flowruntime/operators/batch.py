"""The batch stage: rows of any records become one list, which is a row of a new scope.

    rows in    1 2 3 4 5 |        max_items=2
    rows out   [1 2] [3 4] [5]    the last one at the end, or when `linger` is over

Emits when      `max_items` rows are there, the first has waited `linger`, the input ends, or the task has no
                credit left and nothing else in progress (else it would wait for rows that cannot come).
Backpressures   by credit: the rows it holds are unsettled.
Completes when  the input has ended and the last batch has left.
Fails when      never: when the node raises, every row of the batch fails.
Holds           at most `max_items` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.frame import Frame, Opened, Signal
from flowruntime.operators.base import StageOperator, absent_rows, node_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class BatchOperator(StageOperator):
    """`reduce(items)` makes the value of the new row."""

    def __init__(self, kernel: Kernel, stage: Stage, reduce: Callable[[list[Any]], Any]) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        batch = self.node.policies.batch
        self._max_items = 100 if batch is None else batch.max_items
        self._linger_s = 0.0 if batch is None else batch.linger.total_seconds()
        self._reduce = reduce
        self._held: list[tuple[Opened, int, Any]] = []
        self._timer: Any = None

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        missing = absent_rows(frame)
        if missing:
            frame.opened.ledger.cover(missing)
        for row, value in zip(frame.present, frame.values, strict=True):
            self._held.append((frame.opened, row, value))
            if len(self._held) >= self._max_items:
                self.release()
        if self._held and self._linger_s > 0 and self._timer is None:
            self._timer = self.kernel.loop.call_later(self._linger_s, self.release)

    def signal(self, signal: Signal) -> None:
        self.release()
        self.emit_signal(signal)

    def release(self) -> None:
        """Let what is held go as one batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if not held or self.kernel.closed:
            return
        kernel, node_id = self.kernel, self.node.id
        first, first_row, _ = held[0]
        members = [(opened, row) for opened, row, _ in held]
        started = kernel.worker.telemetry.node_started(kernel, node_id, first, first_row)
        try:
            value = self._reduce([value for _, _, value in held])
        except Exception as error:  # noqa: BLE001 - user code; it becomes the rows' failure
            self._fail(members, error)
            return
        kernel.counts[node_id].completed += 1
        kernel.completed(node_id, first, first_row, value, started)

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            cover_all(members)

        child = kernel.open_child(self.stage.scope, [members[0]], settled)
        child.members = [members]
        self.emit(Frame(child, [value]))

    def _fail(self, members: Sequence[tuple[Opened, int]], error: Exception) -> None:
        """Every row of the batch fails; the error port is given each of them."""
        kernel, node_id = self.kernel, self.node.id
        failures = {
            index: kernel.failed(node_id, opened, row, error) for index, (opened, row) in enumerate(members)
        }
        if node_id not in kernel.handled:
            cover_all(members)
            return

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened
            cover_all([members[row] for row in rows])

        self.emit(Frame(kernel.open_child(self.stage.scope, members, settled), [], [], None, failures))

    @property
    def holding(self) -> bool:
        return bool(self._held)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._held.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": len(self._held), "capacity": self._max_items}


def cover_all(members: Sequence[tuple[Opened, int]]) -> None:
    """Cover each row once at its ledger."""
    by_frame: dict[Opened, list[int]] = {}
    for opened, row in members:
        by_frame.setdefault(opened, []).append(row)
    for opened, rows in by_frame.items():
        opened.ledger.cover(rows)
