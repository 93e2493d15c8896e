"""The sink stage: rows go to the worker's writer of that sink and are covered when they are durable.

Emits when      never: rows end here.
Backpressures   by credit: rows not written are unsettled.
Completes when  all inputs have ended and everything is written.
Fails when      never: a row the sink refuses fails; a sink that cannot write at all fails its rows.
Holds           references to the frames that wait for the writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.frame import Frame, Opened, Signal
from flowruntime.operators.base import StageOperator, node_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.flowcontrol.writer import SinkWriter
    from flowruntime.operators.kernel import Kernel


class SinkOperator(StageOperator):
    """Hands frames to a writer."""

    def __init__(self, kernel: Kernel, stage: Stage, writer: SinkWriter) -> None:
        super().__init__(kernel, stage)
        self._writer = writer

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        del slot
        if self.kernel.closed:
            return
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
        for row, value in zip(frame.present, frame.values, strict=True):
            kernel.counts[node.id].completed += 1
            kernel.execution_of(frame.opened, row).captured(node.id, value)
        frame.opened.ledger.cover(frame.covers)

    def signal(self, signal: Signal) -> None:
        """Nothing follows."""
