"""The sink stage: rows go to the worker's writer of that sink and are covered when they are durable.

Emits when      never: rows end here.
Backpressures   by credit: rows not written are unsettled.
Completes when  all inputs have ended and everything is written.
Fails when      never: a row the sink refuses fails, and one that holds a live Stream; a sink that cannot
                write at all fails its rows.
Holds           references to the frames that wait for the writer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowcore.frame import Frame, Opened, Signal
from flowruntime.compile.sentinels import ABSENT
from flowruntime.operators.base import StageOperator, node_of
from flowruntime.substream.ends import rows_with_streams, without_rows, without_streams

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.flowcontrol.writer import SinkWriter
    from flowruntime.operators.kernel import Kernel
    from flowruntime.substream.rows import RowStreams


class SinkOperator(StageOperator):
    """Hands frames to a writer."""

    def __init__(self, kernel: Kernel, stage: Stage, writer: SinkWriter) -> None:
        super().__init__(kernel, stage)
        self._writer = writer
        name = node_of(stage).id
        self._end = name[1:].partition(".")[0] if name.startswith("$") else None
        """The node behind whose port the sink was put to see what comes to this end of the workflow."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        if self.kernel.closed:
            return
        if self.kernel.streams is not None:
            frame = self._without_streams(self.kernel.streams, frame)
            if self.kernel.closed:
                return
        if self.kernel.journal is not None:
            frame = self.kernel.journal.unwritten(self._writer.node_id, slot, frame)
        self._put(frame)

    def _without_streams(self, streams: RowStreams, frame: Frame[Any]) -> Frame[Any]:
        """The frame without streams: their rows fail, or come later where an end is looked at."""
        if self._end is None:
            return without_streams(self.kernel, node_of(self.stage).id, frame)
        opened, late = frame.opened, rows_with_streams(frame)
        for row, value in late.items():
            streams.ends.gather(value, self._end, opened, row, self._putter(opened, row))
        return without_rows(frame, late, covered=False) if late else frame

    def _putter(self, opened: Opened, row: int) -> Callable[[Any], None]:
        def put(value: Any) -> None:
            there = [] if value is ABSENT else [row]
            self._put(Frame(opened, [value][: len(there)], there, [row]))

        return put

    def _put(self, frame: Frame[Any]) -> None:
        if not frame.values:
            frame.opened.ledger.cover(frame.covers)
            return
        # Rows without a value are covered with the others, when these are written: one step for all.
        self.kernel.in_progress += len(frame.values)
        self._writer.put(self.kernel, frame)

    def cancel_execution(self, root: Opened, row: int) -> None:
        self._writer.forget(self.kernel, root, row)

    def signal(self, signal: Signal) -> None:
        """Rows end here, and so do signals; the run asks the writer when all is written."""


class CaptureOperator(StageOperator):
    """Stands in for a sink when a request brought its own values: rows go to the result, none is written."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        kernel, node = self.kernel, node_of(self.stage)
        if kernel.closed:
            return
        if kernel.streams is not None:
            frame = without_streams(kernel, node.id, frame)
        for row, value in zip(frame.present, frame.values, strict=True):
            kernel.counts[node.id].completed += 1
            kernel.execution_of(frame.opened, row).captured(node.id, value)
        frame.opened.ledger.cover(frame.covers)

    def signal(self, signal: Signal) -> None:
        """Nothing follows."""
