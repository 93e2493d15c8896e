"""The join stage: a row's values from several stages become one tuple.

    edge a     1 . 3
    edge b     . 1 3 2
    rows out   . 1 3 .        2 leaves when edge a covers it

Emits when      every input has covered the row: a tuple with one value per port, or the row absent with its
                cause.
Backpressures   by itself never: what waits here is unsettled.
Completes when  all inputs have ended.
Fails when      never.
Holds           rows some input has yet to cover; the values of an outer row for as long as its children may
                come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowcore.frame import Failure, Frame, Opened
from flowruntime.compile.sentinels import ABSENT
from flowruntime.operators.base import StageOperator
from flowruntime.operators.cause import first_cause

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class _Cell:
    """One row being put together."""

    __slots__ = ("dropped", "failure", "missing", "opened", "values")

    def __init__(self, opened: Opened, missing: int, slots: int) -> None:
        self.opened = opened
        self.missing = missing
        self.values: list[Any] = [ABSENT] * slots
        self.failure: Failure | None = None
        self.dropped = False


class _Kept:
    """The value of an outer row, for its children."""

    __slots__ = ("failure", "value", "waiting")

    def __init__(self) -> None:
        self.value: Any = _UNKNOWN
        self.failure: Failure | None = None
        self.waiting: list[tuple[Opened, int]] = []


_UNKNOWN = object()
_NONE_FAILED: Mapping[int, Failure] = {}


class JoinOperator(StageOperator):
    """Same-scope inputs meet row by row; inputs of an outer scope are broadcast to the children."""

    def __init__(self, kernel: Kernel, stage: Stage) -> None:
        super().__init__(kernel, stage)
        self._scope = stage.scope
        self._outer = [slot.scope is not stage.scope for slot in stage.slots]
        self._steps_up = [stage.scope.depth - slot.scope.depth for slot in stage.slots]
        self._outer_slots = [index for index, outer in enumerate(self._outer) if outer]
        self._inner_count = len(stage.slots) - len(self._outer_slots)
        self._cells: dict[Opened, dict[int, _Cell]] = {}
        self._whole: dict[Opened, list[Frame[Any] | None]] = {}
        """Frames that came whole, waiting for the others to come whole, too: no cell per row."""
        gathering = {slot.port for slot in stage.slots if slot.gather}
        self._gather_slots = [
            [index for index, slot in enumerate(stage.slots) if slot.port == port]
            for port in sorted(gathering)
        ]
        self._single = len(stage.constants) == 1
        self._only_gathers = self._single and all(slot.gather for slot in stage.slots)
        """Every input goes into the one list of the one port."""
        self._joins_whole = not self._outer_slots and (not self._gather_slots or self._only_gathers)

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        if self.kernel.closed:
            return
        if self._outer[slot]:
            self._keep(slot, frame)
            return
        if self._joins_whole and self._take_whole(slot, frame):
            return
        self._take_rows(slot, frame)

    # --- frames that come whole -----------------------------------------------------------------------

    def _take_whole(self, slot: int, frame: Frame[Any]) -> bool:
        """Join column by column when every input brings all rows in one frame; False: go row by row."""
        opened = frame.opened
        if opened in self._cells:
            return False
        if frame.covers is not None or frame.rows is not None:
            self._unpack_whole(opened)
            return False
        frames = self._whole.get(opened)
        if frames is None:
            frames = self._whole[opened] = [None] * len(self.stage.slots)
        frames[slot] = frame
        if None in frames:
            return True
        columns = [part.values for part in frames if part is not None]
        del self._whole[opened]
        ports = [slot.port for slot in self.stage.slots]
        rows: list[Any] = list(zip(*columns, strict=True))
        if self._only_gathers:
            rows = [list(values) for values in rows]
        elif self._single or ports != list(range(len(self.stage.constants))):
            rows = [self._row(list(values)) for values in rows]
        self.emit(Frame(opened, rows))
        return True

    def _unpack_whole(self, opened: Opened) -> None:
        """Another input came in parts: what came whole is taken apart."""
        for slot, frame in enumerate(self._whole.pop(opened, [])):
            if frame is not None:
                self._take_rows(slot, frame)

    # --- row by row -----------------------------------------------------------------------------------

    def _take_rows(self, slot: int, frame: Frame[Any]) -> None:
        opened = frame.opened
        if self._whole:
            self._unpack_whole(opened)
        cells = self._cells.get(opened)
        if cells is None:
            cells = self._cells[opened] = {}
        done: list[int] = []
        present = dict(zip(frame.present, frame.values, strict=True))
        failed = frame.failed or _NONE_FAILED
        for row in frame.covered:
            cell = cells.get(row)
            if cell is None:
                cell = cells[row] = _Cell(opened, self._inner_count, len(self.stage.slots))
                if self._outer_slots:
                    self._ask_outer(cell, opened, row)
            self._put(cell, slot, present.get(row, ABSENT), failed.get(row))
            cell.missing -= 1
            if cell.missing == 0:
                done.append(row)
        self._emit_done(opened, cells, done)

    def _put(self, cell: _Cell, slot: int, value: Any, failure: Failure | None) -> None:
        if value is not ABSENT:
            cell.values[slot] = value
        elif failure is not None:
            cell.failure = first_cause(cell.failure, failure, self.stage.receiver)
        elif not self.stage.slots[slot].gather:
            cell.dropped = True

    def _emit_done(self, opened: Opened, cells: dict[int, _Cell], done: list[int]) -> None:
        if not done:
            return
        values: list[Any] = []
        rows: list[int] = []
        failed: dict[int, Failure] = {}
        done.sort()
        for row in done:
            cell = cells.pop(row)
            if cell.failure is not None:
                failed[row] = cell.failure
            elif not cell.dropped and not self._nothing_gathered(cell):
                values.append(self._row(cell.values))
                rows.append(row)
        if not cells:
            self._cells.pop(opened, None)
        whole = len(done) == opened.size
        all_rows = None if whole and len(rows) == opened.size else rows
        self.emit(Frame(opened, values, all_rows, None if whole else done, failed or None))

    def _nothing_gathered(self, cell: _Cell) -> bool:
        """Not one connection of some Gather port has a value."""
        return any(all(cell.values[slot] is ABSENT for slot in slots) for slots in self._gather_slots)

    def _row(self, values: list[Any]) -> Any:
        """The ports' values, defaults and gathered lists in their places; of a single port its value."""
        if self._only_gathers:
            return [value for value in values if value is not ABSENT]
        ports: list[Any] = [list(item) if isinstance(item, list) else item for item in self.stage.constants]  # pyright: ignore[reportUnknownArgumentType] - defaults of any type
        gathered: dict[int, list[Any]] = {}
        for slot, value in zip(self.stage.slots, values, strict=True):
            if slot.gather:
                items = gathered.setdefault(slot.port, [])
                if value is not ABSENT:
                    items.append(value)
            elif slot.port >= 0:
                ports[slot.port] = value
        for port, items in gathered.items():
            ports[port] = items
        return ports[0] if self._single else tuple(ports)

    # --- values of outer rows -------------------------------------------------------------------------

    def _keep(self, slot: int, frame: Frame[Any]) -> None:
        """An outer row's value has come: keep it with the row, and give it to the children that wait."""
        opened = frame.opened
        present = dict(zip(frame.present, frame.values, strict=True))
        failed = frame.failed or {}
        ready: dict[Opened, list[int]] = {}
        for row in frame.covered:
            kept = self._kept(opened, slot, row)
            kept.value = present.get(row, ABSENT)
            kept.failure = failed.get(row)
            waiting, kept.waiting = kept.waiting, []
            for child, child_row in waiting:
                cell = self._cells[child][child_row]
                self._put(cell, slot, kept.value, kept.failure)
                cell.missing -= 1
                if cell.missing == 0:
                    ready.setdefault(child, []).append(child_row)
        for child, rows in ready.items():
            self._emit_done(child, self._cells[child], rows)
        opened.ledger.cover(frame.covers)

    def _ask_outer(self, cell: _Cell, opened: Opened, row: int) -> None:
        for slot in self._outer_slots:
            outer, outer_row = opened, row
            for _ in range(self._steps_up[slot]):
                assert outer.parents is not None  # noqa: S101 - the plan has counted the scopes between
                outer, outer_row = outer.parents[outer_row]
            kept = self._kept(outer, slot, outer_row)
            if kept.value is _UNKNOWN:
                cell.missing += 1
                kept.waiting.append((opened, row))
            else:
                self._put(cell, slot, kept.value, kept.failure)

    def _kept(self, opened: Opened, slot: int, row: int) -> _Kept:
        """Lives with the outer frame, so it goes when that is settled and forgotten."""
        if opened.kept is None:
            opened.kept = {}
        key = (self.stage.index, slot, row)
        kept = opened.kept.get(key)
        if kept is None:
            kept = opened.kept[key] = _Kept()
        return kept

    def close(self) -> None:
        self._cells.clear()
        self._whole.clear()

    def statistics(self) -> dict[str, Any]:
        return {"in_flight": sum(map(len, self._cells.values())) + sum(o.size for o in self._whole)}
