"""The collect stage: the rows of one record become one list, in the record's own row again.

    children   a1 a2 b1 a3 | a has 3, b has 1
    rows out   b:[b1]  a:[a1 a2 a3]

Emits when      every child of a parent is covered here; the list is in the children's order.
Backpressures   by itself never; a child is answered for when it arrives, its value is then the parent's
                charge, bounded by `max_children`.
Completes when  the input has ended and every family is closed.
Fails when      never: a parent with a failed child is skipped with that cause.
Holds           the values of families not yet complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.frame import Failure, Frame, Opened, Signal
from flowruntime.operators.base import StageOperator, absent_rows, node_of
from flowruntime.operators.cause import first_cause

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.family import Family
    from flowruntime.operators.kernel import Kernel


class _Basket:
    __slots__ = ("covered", "failure", "values")

    def __init__(self) -> None:
        self.covered = 0
        self.values: list[tuple[int, int, Any]] = []
        self.failure: Failure | None = None


class CollectOperator(StageOperator):
    """`reduce(items)` makes the value of the parent's row."""

    def __init__(self, kernel: Kernel, stage: Stage, reduce: Callable[[list[Any]], Any]) -> None:
        super().__init__(kernel, stage)
        self.node = node_of(stage)
        self._reduce = reduce
        self._baskets: dict[Family, _Basket] = {}
        self._later: deque[tuple[int, Callable[[], None]]] = deque()
        """What was told ahead of a barrier."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        opened = frame.opened
        families: Sequence[Family] = opened.families
        touched: dict[Family, _Basket] = {}
        for row, value in zip(frame.present, frame.values, strict=True):
            basket = self._basket(families[row], touched)
            basket.covered += 1
            basket.values.append((opened.seq, row, value))
        failed = frame.failed or {}
        for row in absent_rows(frame):
            basket = self._basket(families[row], touched)
            basket.covered += 1
            basket.failure = first_cause(basket.failure, failed.get(row), self.node.id)
        for family, basket in touched.items():
            self._try(family, basket)
        opened.ledger.cover(frame.covers)

    def family_known(self, family: Family, barriers: int) -> None:
        """No further child of `family` will come.

        Args:
            family: told by the stage that opened it, past the edges.
            barriers: how many had passed there; those still on their way here go first.
        """
        if barriers > self.barriers:
            self._later.append((barriers, lambda: self.family_known(family, barriers)))
        elif family.total == 0 or family in self._baskets:
            self._try(family, self._basket(family, {}))

    def parent_absent(
        self, opened: Opened, rows: list[int], failed: Mapping[int, Failure], barriers: int
    ) -> None:
        """Parent rows that never came to be expanded are absent here, too."""
        if barriers > self.barriers:
            self._later.append((barriers, lambda: self.parent_absent(opened, rows, failed, barriers)))
            return
        reasons = {row: failed[row] for row in rows if row in failed}
        self.emit_absent(opened, rows, reasons or None)

    def signal(self, signal: Signal) -> None:
        self.emit_signal(signal)
        while self._later and self._later[0][0] <= self.barriers:
            self._later.popleft()[1]()

    def _basket(self, family: Family, touched: dict[Family, _Basket]) -> _Basket:
        basket = self._baskets.get(family)
        if basket is None:
            basket = self._baskets[family] = _Basket()
        touched[family] = basket
        return basket

    def _try(self, family: Family, basket: _Basket) -> None:
        if family.total is None or basket.covered < family.total or family not in self._baskets:
            return
        del self._baskets[family]
        failure = first_cause(basket.failure, family.failure, self.node.id)
        if failure is not None:
            self.emit(Frame(family.parent, [], [], [family.row], {family.row: failure}))
            return
        kernel, node_id = self.kernel, self.node.id
        started = kernel.worker.telemetry.node_started(kernel, node_id, family.parent, family.row)
        basket.values.sort(key=lambda item: item[:2])
        try:
            value = self._reduce([value for _, _, value in basket.values])
        except Exception as error:  # noqa: BLE001 - user code; it becomes the row's failure
            failure = kernel.failed(node_id, family.parent, family.row, error)
            self.emit(Frame(family.parent, [], [], [family.row], {family.row: failure}))
            return
        kernel.counts[node_id].completed += 1
        kernel.completed(node_id, family.parent, family.row, value, started)
        self.emit(Frame(family.parent, [value], [family.row], [family.row]))

    def close(self) -> None:
        self._baskets.clear()
        self._later.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": sum(len(basket.values) for basket in self._baskets.values())}
