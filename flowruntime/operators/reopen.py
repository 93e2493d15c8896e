"""The reopen stage: connections that may all carry one row meet; each value becomes a row of a new scope.

    edge a     1 2
    edge b     1 .
    rows out   1a 2a 1b       the children of row 1 are 1a and 1b

Emits when      a part comes in, at once, as a frame of its own.
Backpressures   by itself never; the rows it adds are charged and make the source wait.
Completes when  all inputs have ended.
Fails when      never.
Holds           per row that some input has yet to cover: how many values it has had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowcore.frame import Frame, Opened
from flowruntime.operators.base import StageOperator, absent_rows
from flowruntime.operators.cause import first_cause
from flowruntime.operators.family import Family

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.collect import CollectOperator
    from flowruntime.operators.kernel import Kernel


class ReopenOperator(StageOperator):
    """Each input is a leaf of its own scope: a row is covered there when the child it became is settled."""

    def __init__(self, kernel: Kernel, stage: Stage) -> None:
        super().__init__(kernel, stage)
        self.collects: list[CollectOperator] = []
        self._inputs_count = len(stage.slots)
        self._families: dict[Opened, dict[int, tuple[Family, int]]] = {}

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        kernel = self.kernel
        if kernel.closed:
            return
        opened = frame.opened
        if frame.values:
            parents = [(opened, row) for row in frame.present]
            children = kernel.open_child(self.stage.scope, parents, self._child_settled)
            if kernel.keeps_places:
                children.places = [slot] * len(parents)
            children.families = (
                [self._family(opened, row) for row in frame.present] if self.collects else None
            )
        else:
            children = None
        known = self._count(frame) if self.collects else []
        if children is not None:
            self.emit(Frame(children, frame.values))
        for family in known:
            for collect in self.collects:
                collect.family_known(family, self.barriers)
        missing = absent_rows(frame)
        if missing:
            opened.ledger.cover(missing)

    def _family(self, opened: Opened, row: int) -> Family:
        rows = self._families.setdefault(opened, {})
        if row not in rows:
            rows[row] = (Family(opened, row), 0)
        family = rows[row][0]
        family.size += 1
        return family

    def _count(self, frame: Frame[Any]) -> list[Family]:
        """Families all inputs have covered now: their size is known."""
        rows = self._families.setdefault(frame.opened, {})
        known: list[Family] = []
        failed = frame.failed or {}
        for row in frame.covered:
            family, covers = rows.get(row, (None, 0))
            family = family or Family(frame.opened, row)
            family.failure = first_cause(family.failure, failed.get(row), self.stage.receiver)
            if covers + 1 == self._inputs_count:
                rows.pop(row, None)
                family.total = family.size
                known.append(family)
            else:
                rows[row] = (family, covers + 1)
        if not rows:
            self._families.pop(frame.opened, None)
        return known

    def _child_settled(self, opened: Opened, rows: Sequence[int]) -> None:
        cover_parents(opened, rows)

    def close(self) -> None:
        self._families.clear()


def cover_parents(opened: Opened, rows: Sequence[int]) -> None:
    """Each settled row covers its parent once."""
    assert opened.parents is not None  # noqa: S101 - every frame of an inner scope has them
    by_parent: dict[Opened, list[int]] = {}
    for row in rows:
        parent, parent_row = opened.parents[row]
        by_parent.setdefault(parent, []).append(parent_row)
    for parent, parent_rows in by_parent.items():
        parent.ledger.cover(parent_rows)
