"""Which rows a stage may begin while more bytes are in flight than allowed: those of the oldest record.

Owns: `Precedence`, the rule for one stage of one chain.
Does not own: bytes in flight (budget), queues (pool, expand), which record is the oldest (the task).

Always holds, while the budget is overdrawn: a stage begins rows of its task's oldest unsettled record alone,
and has at most `places` of them unsettled at a time; what was begun goes on. So bytes in flight are bounded
by `max_bytes`, what was at work when it was passed, and `places` rows per stage; and a chain always drains,
since the oldest record finds its way whatever waits behind it. In a stage that keeps an order, rows that
stand before those of the oldest record are begun, too, for they hold it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.flowcontrol.budget import Budget

Row = tuple["Opened", int]
Rows = Callable[[Any], Iterable[Row]]


class Task(Protocol):
    """What is asked of the chain."""

    def oldest(self) -> tuple[int, int] | None:
        """Frame and row of the oldest unsettled record; None when all are settled, or nobody knows."""
        ...

    def stalled(self) -> None:
        """A stage holds work back: whoever gathers rows must not wait for more of them."""
        ...


class Precedence:
    """The rule for one stage.

    Args:
        budget: of the worker.
        task: the chain.
        places: rows of the oldest record it may have unsettled while the budget is overdrawn; what the stage
            works on at once.
    """

    def __init__(self, budget: Budget, task: Task, places: int) -> None:
        self._budget = budget
        self._task = task
        self._places = places
        self._begun: list[Row] = []
        """Rows begun while the budget was overdrawn, and not known to be settled."""
        self._absent: tuple[object, int] | None = None
        """The record none of whose rows was found, and how many had come: looking again is of no use."""

    @property
    def holds(self) -> bool:
        """Whether work may have to wait now."""
        return self._budget.overdrawn and self._task.oldest() is not None

    def admits(self, rows: Iterable[Row]) -> bool:
        """Whether one of these rows may be begun now, though the budget is overdrawn."""
        return self.concerns(rows) and self._has_place()

    def choose(
        self,
        queued: Iterable[Any],
        rows_of: Rows,
        elsewhere: Callable[[], Iterable[Row]] | None,
        arrivals: int,
    ) -> int | None:
        """Which of the queued items may be begun now, by its place in the queue; None: none of them.

        Args:
            queued: first come first.
            rows_of: the rows of an item.
            elsewhere: for stages that keep an order: rows that wait for those queued; there the first item is
                begun when any row behind it is of the oldest record. None: no order is kept.
            arrivals: how many rows have ever come here.

        Cost: O(queued) when the oldest record or the queue is another than before, else constant.
        """
        seen = self._task.oldest(), arrivals
        if seen == self._absent or not self._has_place():
            return None
        for index, item in enumerate(queued):
            if self.concerns(rows_of(item)):
                return index if elsewhere is None else 0
        if elsewhere is not None and self.concerns(elsewhere()):
            return 0
        self._absent = seen
        return None

    def begun(self, rows: Iterable[Row]) -> None:
        """These rows were begun while the budget was overdrawn; those of the oldest record take a place."""
        self._begun += [row for row in rows if self._is_of_oldest(*row)]

    def wait(self, look_again: Callable[[], None]) -> None:
        """Work is held back: call `look_again` when rows have been released."""
        self._budget.hold(look_again)
        self._task.stalled()

    def forget(self, look_again: Callable[[], None]) -> None:
        """Nobody waits here any more."""
        self._budget.forget(look_again)

    def concerns(self, rows: Iterable[Row]) -> bool:
        """Whether one of these rows is of the oldest record."""
        return any(self._is_of_oldest(opened, row) for opened, row in rows)

    def _is_of_oldest(self, opened: Opened, row: int) -> bool:
        oldest = self._task.oldest()
        if opened.parents is None:
            return (opened.seq, row) == oldest
        return any((root.seq, root_row) == oldest for root, root_row in opened.roots(row))

    def _has_place(self) -> bool:
        if len(self._begun) < self._places:
            return True
        self._begun = [(opened, row) for opened, row in self._begun if not opened.ledger.is_settled(row)]
        return len(self._begun) < self._places
