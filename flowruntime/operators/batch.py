"""The batch stage: rows of any records become one list, which is a row of a new scope.

    rows in    1 2 3 4 5 |        max_items=2
    rows out   [1 2] [3 4] [5]    the last one at the end, or when `linger` is over

Emits when      `max_items` rows are there, a further one would make the list larger than `max_output_bytes`,
                the first has waited `linger`, the input ends, or the task has no credit left and nothing else
                in progress, or bytes are overdrawn (else it would wait for rows that cannot come).
Backpressures   by credit: the rows it holds are unsettled.
Completes when  the input has ended and the last batch has left.
Fails when      never: when the node raises, or what it makes is larger than `max_output_bytes`, every row of
                the batch fails; a row too large by itself is a batch by itself.
Holds           at most `max_items` rows, and `max_output_bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowcore.frame import Frame, Opened, Signal
from flowcore.sizes import ENTRY, size_up_to
from flowruntime.compile.bounds import linger_of
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.oversize import bound_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.collect import Reduce
    from flowruntime.operators.kernel import Kernel


class BatchOperator(StageOperator):
    """`reduce(items, members)` makes the value of the new row of the rows that are its members."""

    def __init__(self, kernel: Kernel, stage: Stage, reduce: Reduce) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        batch = self.node.policies.batch
        self._max_items = 100 if batch is None else batch.max_items
        self._linger_s = linger_of(self.node, kernel.plan.graph.tuning).total_seconds()
        self._reduce = reduce
        self._bound = bound_of(self.node)
        self._held: list[tuple[Opened, int, Any]] = []
        self._nbytes = 0
        """Of the list so far."""
        self._timer: Any = None
        kernel.gathering.append(self.release)

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        missing = absent_rows(frame)
        if missing:
            frame.opened.ledger.cover(missing)
        for row, value in zip(frame.present, frame.values, strict=True):
            nbytes = ENTRY + size_up_to(value, self._bound.most)
            if self._held and self._nbytes + nbytes > self._bound.most:
                self.release()
            self._held.append((frame.opened, row, value))
            self._nbytes += nbytes
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
        nbytes, self._nbytes = self._nbytes, 0
        if not held or self.kernel.closed:
            return
        kernel, node_id = self.kernel, self.node.id
        first, first_row, _ = held[0]
        members = [(opened, row) for opened, row, _ in held]
        started = kernel.worker.telemetry.node_started(kernel, node_id, first, first_row)
        try:
            value, more = self._made([value for _, _, value in held], members, nbytes)
        except BaseException as error:  # noqa: BLE001 - user code; it becomes the rows' failure
            self._fail(held, error)
            return
        kernel.counts[node_id].completed += 1
        kernel.completed(node_id, first, first_row, value, started)

        def settled(opened: Opened, rows: Sequence[int]) -> None:
            del opened, rows
            cover_all(members)

        child = kernel.open_child(self.stage.scope, [members[0]], settled, [more])
        child.members = [members]
        self.emit(Frame(child, [value]))

    def _made(self, items: list[Any], members: Sequence[tuple[Opened, int]], nbytes: int) -> tuple[Any, int]:
        """What the node makes of the list, and by how many bytes it is more than the rows it is made of.

        Raises:
            LimitExceededError: the list, or what was made of it, is larger than allowed.
            BaseException: the node's own.
        """
        if nbytes > self._bound.most:
            raise self._bound.exceeded(nbytes, "a list")
        value = self._reduce(items, members)
        return value, 0 if value is items else max(0, self._bound.size(value) - nbytes)

    def _fail(self, held: Sequence[tuple[Opened, int, Any]], error: BaseException) -> None:
        """Every row of the batch fails; the error port is given each of them."""
        kernel, node_id = self.kernel, self.node.id
        members = [(opened, row) for opened, row, _ in held]
        failures = {
            index: kernel.failed(node_id, opened, row, error, value=value)
            for index, (opened, row, value) in enumerate(held)
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
