"""The merge stage: exclusive branches of one row meet again, in the row's own place.

    edge a     1 . 3 .
    edge b     . 2 . .
    rows out   1 2 3 .        4 is absent once both have covered it

Emits when      a branch brings the row's value, at once; absent rows when all branches have covered them.
Backpressures   by itself never: no buffer.
Completes when  all inputs have ended.
Fails when      never: a second value of a row is the engine's fault and fails the chain.
Holds           one count per row that some branch has yet to cover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.errors import EngineError
from flowcore.frame import Failure, Frame, Opened
from flowruntime.operators.base import StageOperator
from flowruntime.operators.cause import first_cause

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class _Seen:
    __slots__ = ("covers", "emitted", "failure")

    def __init__(self) -> None:
        self.covers = 0
        self.emitted = False
        self.failure: Failure | None = None

    def emit(self, opened: Opened, row: int) -> None:
        """One branch has brought the value."""
        if self.emitted:
            raise EngineError(f"two branches that were proved exclusive both gave row {row} of {opened!r}")
        self.emitted = True


class MergeOperator(StageOperator):
    """Inputs of one scope that the plan has proved exclusive."""

    def __init__(self, kernel: Kernel, stage: Stage) -> None:
        super().__init__(kernel, stage)
        self._inputs_count = len(stage.slots)
        self._rows: dict[Opened, dict[int, _Seen]] = {}

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
        opened = frame.opened
        seen_rows = self._rows.setdefault(opened, {})
        present = dict(zip(frame.present, frame.values, strict=True))
        failed = frame.failed or {}
        values: list[Any] = []
        rows: list[int] = []
        covers: list[int] = []
        complete: list[int] = []
        reasons: dict[int, Failure] = {}
        for row in frame.covered:
            seen = seen_rows.get(row) or seen_rows.setdefault(row, _Seen())
            seen.covers += 1
            if row in present:
                seen.emit(opened, row)
                values.append(present[row])
                rows.append(row)
                covers.append(row)
            else:
                seen.failure = first_cause(seen.failure, failed.get(row), self.stage.receiver)
            if seen.covers == self._inputs_count:
                del seen_rows[row]
                complete.append(row)
                if not seen.emitted:
                    covers.append(row)
                    if seen.failure is not None:
                        reasons[row] = seen.failure
        if not seen_rows:
            del self._rows[opened]
        if covers:
            self.emit(_part(opened, values, rows, covers, reasons))
        if complete:
            # A branch may still have been at work on a row another one gave: only now is it done with.
            opened.ledger.cover(complete)

    def close(self) -> None:
        self._rows.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": sum(map(len, self._rows.values()))}


def _part(
    opened: Opened, values: list[Any], rows: list[int], covers: list[int], reasons: dict[int, Failure]
) -> Frame[Any]:
    """What leaves, said as briefly as a frame can."""
    whole = len(covers) == opened.size
    return Frame(
        opened,
        values,
        None if whole and len(rows) == opened.size else rows,
        None if whole else covers,
        reasons or None,
    )
