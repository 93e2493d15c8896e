"""The fused stage: calls the generated function per frame and covers the rows on every edge.

    frame in   rows 0 1 2 3      (2 is dropped by a filter, 3 raises)
    edge out   values 0 1, covers all, failed {3}

Emits when      a frame comes in, at once, one part per edge.
Backpressures   by itself never: no buffer, no async boundary.
Completes when  the input ends.
Fails when      never: a row's exception becomes that row's failure.
Holds           nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flowcore.errors import describe_error
from flowcore.frame import Failure, Frame
from flowruntime.crashpoints import crash_point
from flowruntime.operators.at import At
from flowruntime.operators.base import StageOperator

if TYPE_CHECKING:
    from flowruntime.compile.fuse import Fused, Output
    from flowruntime.middleware.nodes import Place
    from flowruntime.operators.kernel import Kernel

StageFunction = Callable[[list[Any], Iterable[int] | None, At], tuple[list[Any], tuple[int, ...]]]


class FusedOperator(StageOperator):
    """One fused stage. `edges[k]` belongs to `fused.outputs[k]`."""

    def __init__(self, kernel: Kernel, fused: Fused, lean: StageFunction, recording: StageFunction) -> None:
        super().__init__(kernel, fused.stage)
        self._fused = fused
        self._lean = lean
        self._recording = recording
        self._lists_gone = bool(fused.lean_lines)
        self._at = At(kernel, fused)
        self.place: Place | None = None
        """Where middleware around some node of the stage learns which row it is; None: there is none."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        kernel = self.kernel
        if kernel.closed:
            return
        at = self._at
        at.opened = frame.opened
        telemetry = kernel.worker.telemetry
        watched = kernel.recording or telemetry.watched
        run = self._recording if watched else self._lean
        started = telemetry.clock() if telemetry.metered else None
        kernel.worker.current = self.stage
        rows = frame.rows if self.place is None else self.place.follow(frame)
        crash_point("stage.before")
        columns, tallies = run(frame.values, rows, at)
        crash_point("stage.after")
        kernel.worker.current = None
        if started is not None:
            self._observe(len(frame.values), telemetry.clock() - started)
        failures: dict[int, dict[int, Failure]] = {}
        if at.notes:
            failures = self._report(frame)
        self._count(len(frame.values), tallies, failures)
        if not self.edges:
            frame.opened.ledger.cover(frame.covers)
            return
        gone_listed = run is self._lean and self._lists_gone
        if not failures and frame.failed is None:
            self._emit_unharmed(frame, columns, gone_listed=gone_listed)
            return
        if gone_listed:
            columns = [self._kept(frame, failures, *column) for column in columns]
        self._emit_with_failures(frame, columns, failures)

    def _emit_unharmed(self, frame: Frame[Any], columns: list[Any], *, gone_listed: bool) -> None:
        """No row of the frame has failed, here or before: the fast path."""
        opened, covers = frame.opened, frame.covers
        for edge, column, output in zip(self.edges, columns, self._fused.outputs, strict=True):
            if column is None:
                edge.emit(Frame(opened, [], [], covers))
                continue
            values, rows = column
            if gone_listed:
                edge.emit(Frame(opened, values, frame.rows, covers, None, rows or None))
            else:
                edge.emit(Frame(opened, values, rows if output.may_drop else frame.rows, covers))

    def _kept(
        self, frame: Frame[Any], failures: dict[int, dict[int, Failure]], values: list[Any], gone: list[int]
    ) -> tuple[list[Any], list[int]]:
        """The rows that stay, from those that are gone."""
        absent = {*gone, *failures}
        return values, [row for row in frame.present if row not in absent]

    def _observe(self, rows: int, duration_s: float) -> None:
        """What the frame took, for every node of the stage: fused nodes cannot be told apart in time."""
        telemetry = self.kernel.worker.telemetry
        for node_id in self.stage.node_ids:
            telemetry.meter(node_id).observe(rows, duration_s)

    def _report(self, frame: Frame[Any]) -> dict[int, dict[int, Failure]]:
        """Failures by row and step."""
        notes, self._at.notes = self._at.notes, []
        failures: dict[int, dict[int, Failure]] = {}
        for row, step, failure in notes:
            failures.setdefault(row, {})[step] = failure
        return failures

    def _count(self, rows: int, tallies: tuple[int, ...], failures: dict[int, dict[int, Failure]]) -> None:
        """Exact counts per node: tallied, or the frame's size less the rows that failed on the way."""
        counts = self.kernel.counts
        for tally, count in zip(self._fused.tallies, tallies, strict=True):
            if count:
                node = counts[tally.node]
                setattr(node, tally.what, getattr(node, tally.what) + count)
        for step, takers in self._fused.derived:
            lost = 0
            for taker in takers:
                lost += tallies[taker]
            if failures:
                lost += sum(
                    1 for by_step in failures.values() if step.index in by_step or step.after & by_step.keys()
                )
            counts[step.name].completed += rows - lost

    def _emit_with_failures(
        self, frame: Frame[Any], columns: list[Any], failures: dict[int, dict[int, Failure]]
    ) -> None:
        came_in = frame.failed or {}
        for edge, column, output in zip(self.edges, columns, self._fused.outputs, strict=True):
            absent = dict(came_in)
            for row, by_step in failures.items():
                for step in sorted(by_step):
                    if step in output.after:
                        absent[row] = by_step[step]
                        break
            if column is None:
                edge.emit(self._error_frame(frame, failures, came_in, output))
                continue
            values, rows = column
            if output.may_drop:
                for row in rows:  # an exclusive branch had its value, whatever failed on the way of another
                    absent.pop(row, None)
            else:
                rows = [row for row in frame.present if row not in absent]
            edge.emit(Frame(frame.opened, values, rows, frame.covers, absent or None))

    def _error_frame(
        self,
        frame: Frame[Any],
        failures: dict[int, dict[int, Failure]],
        came_in: dict[int, Failure],
        output: Output,
    ) -> Frame[Any]:
        """The rows that failed at one node, or on a connection into it, as error records.

        All others are dropped here, or failed elsewhere.
        """
        found: dict[int, Failure] = {}
        others: dict[int, Failure] = {}
        steps, node = self._fused.steps, output.error_of
        for row, failure in came_in.items():
            (found if failure.node == node else others)[row] = failure
        for row, by_step in failures.items():
            for step in sorted(by_step):
                if steps[step].name == node:
                    found[row] = by_step[step]
                    break
                if step in output.after:
                    others.setdefault(row, by_step[step])
        rows = sorted(found)
        values = [self._error_record(frame, row, found[row]) for row in rows]
        reasons = {row: failure for row, failure in others.items() if row not in found}
        return Frame(frame.opened, values, rows, frame.covers, reasons or None)

    def _error_record(self, frame: Frame[Any], row: int, failure: Failure) -> dict[str, Any]:
        opened, root_row = frame.opened.root(row)
        return {
            "node": failure.node,
            "error": describe_error(failure.error),
            "attempts": failure.attempts,
            "record": None if opened.records is None else opened.records[root_row],
        }
