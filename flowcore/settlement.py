"""Delivery accounting: which rows are settled and which position is safe to commit, in any order of acks.

Owns: `Ledger`, the settlement entry of one opened frame, and `SettlementTracker`, the commit rule of one
partition.
Does not own: when to commit or how (flowruntime.flowcontrol, connectors), or what a leaf is
(flowruntime.compile).

Pure: no I/O, no clock, no asyncio. A row is settled when every leaf has covered it, nothing holds it, is
expected for it or puts it off; it is settled exactly once. A committed position is the next row to read, not
the last one read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from flowcore.errors import EngineError

RowsSettled = Callable[["Ledger", Sequence[int]], None]


class Holder(Protocol):
    """What keeps a row unsettled beside the leaves: something live that belongs to it."""

    def covered(self) -> None:
        """Every leaf has covered the row: nobody will ask for what is held any more. Told once."""
        ...


class Ledger:
    """Counts, for one opened frame, how many leaves have yet to cover each row.

    Holds one integer while whole frames arrive, one small integer per row once parts do, one holder per row
    that is held, and one number per row something is expected for.
    """

    __slots__ = (
        "_counts",
        "_expected",
        "_held",
        "_on_settled",
        "_put_off",
        "_whole",
        "open_rows",
        "owner",
        "size",
    )

    def __init__(self, size: int, leaves: int, on_settled: RowsSettled, owner: object = None) -> None:
        if leaves < 1:
            raise EngineError(f"a frame needs at least one leaf to settle, got {leaves}")
        self.size = size
        self.open_rows = size
        """Rows not settled yet."""
        self.owner = owner
        self._whole = leaves
        self._counts: list[int] | None = None
        self._held: dict[int, Holder] | None = None
        self._expected: dict[int, int] | None = None
        self._put_off: dict[int, Callable[[], None]] | None = None
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
        """Every leaf has covered `rows`: those nothing holds, and nothing is expected for, are settled."""
        if self._held or self._expected:
            rows = self._without_held(rows)
        self._settle(rows)

    def _settle(self, rows: Sequence[int]) -> None:
        """`rows` are answered for in full: those that are not put off are settled."""
        if self._put_off:
            over = [ended for row in rows if (ended := self._put_off.get(row)) is not None]
            rows = [row for row in rows if row not in self._put_off]
            for ended in over:
                ended()
        if rows:
            self.open_rows -= len(rows)
            self._on_settled(self, rows)

    # --- rows that are put off ------------------------------------------------------------------------

    def put_off(self, row: int, ended: Callable[[], None]) -> None:
        """Keep `row` unsettled after it is answered for, until `settle_now`.

        Args:
            row: not settled yet.
            ended: called once the row would be settled otherwise.

        Raises:
            EngineError: it is settled already, or put off.
        """
        if self.is_settled(row) or (self._put_off is not None and row in self._put_off):
            raise EngineError(
                f"row {row} of {self.size} cannot be put off: it is settled, or put off already"
            )
        if self._put_off is None:
            self._put_off = {}
        self._put_off[row] = ended

    def settle_now(self, row: int) -> None:
        """A row that was put off, and is answered for, is settled.

        Raises:
            EngineError: it was not put off, or is not answered for.
        """
        if not self._put_off or row not in self._put_off or not self._is_answered_for(row):
            raise EngineError(f"row {row} of {self.size} was not put off, or is not answered for")
        del self._put_off[row]
        self._settle((row,))

    # --- rows that are held ---------------------------------------------------------------------------

    def hold(self, row: int, holder: Holder) -> bool:
        """Keep `row` unsettled until `let_go`, whatever covers it. False: it is settled already.

        Raises:
            EngineError: the row is held by another one.
        """
        if self.is_settled(row):
            return False
        if self._held is None:
            self._held = {}
        if self._held.setdefault(row, holder) is not holder:
            raise EngineError(f"row {row} of {self.size} is held already")
        return True

    def let_go(self, row: int) -> None:
        """Nothing holds `row` any more; it is settled now if every leaf has covered it.

        Raises:
            EngineError: nothing held it.
        """
        if self._held is None or self._held.pop(row, None) is None:
            raise EngineError(f"row {row} of {self.size} was let go, but nothing held it")
        if self._is_answered_for(row):
            self._settle((row,))

    def _without_held(self, rows: Sequence[int]) -> list[int]:
        """The rows of `rows` nothing holds; whoever holds one of the others is told that it is covered."""
        held = self._held or {}
        waiting = [holder for row in rows if (holder := held.get(row)) is not None]
        expected = self._expected or {}
        free = [row for row in rows if row not in held and row not in expected]
        for holder in waiting:
            holder.covered()
        return free

    # --- rows something is expected for ---------------------------------------------------------------

    def expect(self, row: int) -> None:
        """Keep `row` unsettled for one thing more, a dead letter to be kept; until as many have `arrived`.

        Raises:
            EngineError: the row is settled already, or there is none of that number.
        """
        if not 0 <= row < self.size or self.is_settled(row):
            raise EngineError(f"nothing can be expected for row {row} of {self.size}: it is settled already")
        if self._expected is None:
            self._expected = {}
        self._expected[row] = self._expected.get(row, 0) + 1

    def arrived(self, row: int) -> None:
        """One thing expected for `row` is there; it is settled now if nothing else is awaited.

        Raises:
            EngineError: nothing was expected for it.
        """
        if not self._expected or row not in self._expected:
            raise EngineError(f"something arrived for row {row} of {self.size}, but nothing was expected")
        left = self._expected.pop(row) - 1
        if left:
            self._expected[row] = left
        elif self._is_answered_for(row):
            self._settle((row,))

    def is_settled(self, row: int) -> bool:
        """Whether every leaf has covered `row`, nothing holds it, is expected for it, or puts it off."""
        return not (self._put_off and row in self._put_off) and self._is_answered_for(row)

    def _is_answered_for(self, row: int) -> bool:
        left = self._whole if self._counts is None else self._counts[row]
        if left or (self._held and row in self._held):
            return False
        return not (self._expected and row in self._expected)

    def unsettled(self) -> list[int]:
        """The rows some leaf has yet to cover, or something holds, ascending."""
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

    def oldest(self) -> tuple[int, int] | None:
        """`(seq, row)` of the first row that is not settled; None when all are.

        Cost: constant, spread over all calls.
        """
        self._advance()
        return (self._open[0][0], self._head) if self._open else None

    @property
    def unsettled(self) -> int:
        """Rows opened and not settled."""
        return self.rows_opened - self.rows_settled

    @property
    def settled_prefix(self) -> int:
        """Rows of the contiguous settled prefix: what may be committed."""
        self._advance()
        return self._passed + self._head

    @property
    def beyond_prefix(self) -> int:
        """Rows opened after the settled prefix."""
        return self.rows_opened - self.settled_prefix

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
