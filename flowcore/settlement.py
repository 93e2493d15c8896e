"""Delivery accounting: which rows are settled and which position is safe to commit, in any order of acks.

Owns: `Ledger`, the settlement entry of one opened frame, and `SettlementTracker`, the commit rule of one
partition.
Does not own: when to commit or how (flowruntime.flowcontrol, connectors), or what a leaf is
(flowruntime.compile).

Pure: no I/O, no clock, no asyncio. A row is settled when every leaf has covered it; it is settled exactly
once. A committed position is the next row to read, not the last one read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from flowcore.errors import EngineError

RowsSettled = Callable[["Ledger", Sequence[int]], None]


class Ledger:
    """Counts, for one opened frame, how many leaves have yet to cover each row.

    Holds one integer while whole frames arrive, and one small integer per row once parts do.
    """

    __slots__ = ("_counts", "_on_settled", "_whole", "open_rows", "owner", "size")

    def __init__(self, size: int, leaves: int, on_settled: RowsSettled, owner: object = None) -> None:
        if leaves < 1:
            raise EngineError(f"a frame needs at least one leaf to settle, got {leaves}")
        self.size = size
        self.open_rows = size
        """Rows not settled yet."""
        self.owner = owner
        self._whole = leaves
        self._counts: list[int] | None = None
        self._on_settled = on_settled

    def cover(self, rows: Sequence[int] | None) -> None:
        """One leaf answers for `rows` (None: all).

        Rows no leaf has yet to cover are settled, and reported at once.

        Raises:
            EngineError: a leaf answered for a row more often than there are leaves.
        """
        counts = self._counts
        if counts is None:
            if rows is None or len(rows) == self.size:
                self._whole -= 1
                if self._whole == 0:
                    self._finish(range(self.size))
                elif self._whole < 0:
                    raise EngineError("a frame was covered by more leaves than it has")
                return
            counts = self._counts = [self._whole] * self.size
        settled: list[int] = []
        for row in range(self.size) if rows is None else rows:
            left = counts[row] - 1
            counts[row] = left
            if left == 0:
                settled.append(row)
            elif left < 0:
                raise EngineError(f"row {row} of {self.size} was covered by more leaves than it has")
        if settled:
            self._finish(settled)

    def _finish(self, rows: Sequence[int]) -> None:
        self.open_rows -= len(rows)
        self._on_settled(self, rows)

    def is_settled(self, row: int) -> bool:
        """Whether every leaf has covered `row`."""
        if self._counts is None:
            return self._whole == 0
        return self._counts[row] == 0

    def unsettled(self) -> list[int]:
        """The rows some leaf has yet to cover, ascending."""
        return [row for row in range(self.size) if not self.is_settled(row)]


class SettlementTracker:
    """The contiguous settled prefix of one partition, over frames opened in order.

    Rows are settled in any order; `prefix` never has a hole below it and never goes backwards.
    """

    __slots__ = ("_head", "_open", "_passed", "frames_opened", "rows_opened", "rows_settled")

    def __init__(self) -> None:
        self._open: deque[tuple[int, Ledger]] = deque()
        self._passed = 0
        """Rows of frames that are settled and let go."""
        self._head = 0
        """Settled rows at the start of the first open frame."""
        self.frames_opened = 0
        self.rows_opened = 0
        self.rows_settled = 0

    def opened(self, seq: int, ledger: Ledger) -> None:
        """The next frame of the partition; `seq` is dense.

        Raises:
            EngineError: a frame out of order.
        """
        if seq != self.frames_opened:
            raise EngineError(f"frame {seq} was opened where {self.frames_opened} was next")
        self.frames_opened += 1
        self.rows_opened += ledger.size
        self._open.append((seq, ledger))

    def settled(self, count: int) -> None:
        """`count` rows more are settled."""
        self.rows_settled += count
        if self.rows_settled > self.rows_opened:
            raise EngineError(f"{self.rows_settled} rows settled, but only {self.rows_opened} were opened")

    @property
    def unsettled(self) -> int:
        """Rows opened and not settled."""
        return self.rows_opened - self.rows_settled

    @property
    def beyond_prefix(self) -> int:
        """Rows opened after the committed prefix: what a crash now would read again at most."""
        self._advance()
        return self.rows_opened - self._passed - self._head

    def prefix(self) -> tuple[int, int] | None:
        """`(seq, row)` of the last row of the contiguous settled prefix; None while no row of it is settled.

        `row` is -1 when the prefix ends with the last row of frame `seq`.
        """
        self._advance()
        if self._open:
            seq, _ = self._open[0]
            if self._head:
                return seq, self._head - 1
            return (seq - 1, -1) if seq else None
        return (self.frames_opened - 1, -1) if self.frames_opened else None

    def _advance(self) -> None:
        """Let go of settled frames, and move on within the first that is not; each row is looked at once."""
        while self._open and self._open[0][1].open_rows == 0:
            self._passed += self._open.popleft()[1].size
            self._head = 0
        if self._open:
            ledger = self._open[0][1]
            if ledger.open_rows < ledger.size:
                while ledger.is_settled(self._head):
                    self._head += 1
