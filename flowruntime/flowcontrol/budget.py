"""Credit: how many rows and bytes a worker may have in flight, shared by its tasks.

Owns: `Budget`: charge, grow, release, waiting for credit in turn with a floor of one row per task, telling
stages when it may be worth looking again.
Does not own: reading (tasks), when a row is settled (flowcore.settlement), which work may begin while the
budget is overdrawn (precedence).

Always holds: a source waits while the budget is spent, but for a task with nothing in flight, which may read
one row; records read take no more than `max_input_bytes`, so that there is room for what becomes of them;
growth inside the chain is charged without waiting: it makes sources wait, and while more is charged than
`max_bytes` stages begin only the oldest work. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Budget:
    """Rows and bytes in flight on one worker.

    Args:
        max_rows: rows in flight.
        max_bytes: bytes in flight, of records read and of what nodes made of them.
        max_input_bytes: of these, bytes of records read; None: all of them.
    """

    __slots__ = (
        "_holding",
        "_tell_due",
        "_waiting",
        "bytes_in_flight",
        "grown_bytes",
        "max_bytes",
        "max_input_bytes",
        "max_rows",
        "peak_bytes",
        "peak_rows",
        "rows_in_flight",
    )

    def __init__(self, max_rows: int, max_bytes: int, max_input_bytes: int | None = None) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.max_input_bytes = max_bytes if max_input_bytes is None else max_input_bytes
        self.rows_in_flight = 0
        self.bytes_in_flight = 0
        self.grown_bytes = 0
        """Of these, what nodes made of the records read."""
        self.peak_rows = 0
        self.peak_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._holding: dict[Callable[[], None], None] = {}
        self._tell_due = False

    # --- records read ---------------------------------------------------------------------------------

    def available(self, in_flight: int) -> int:
        """Rows a task may read now.

        Args:
            in_flight: rows of that task not settled; with none it may always read one.
        """
        rows = self.max_rows - self.rows_in_flight
        if rows <= 0 or self._bytes_left <= 0:
            return 1 if in_flight == 0 else 0
        return rows

    @property
    def available_bytes(self) -> int:
        return max(1, self._bytes_left)

    @property
    def _bytes_left(self) -> int:
        read = self.bytes_in_flight - self.grown_bytes
        return min(self.max_bytes - self.bytes_in_flight, self.max_input_bytes - read)

    def charge(self, rows: int, nbytes: int = 0) -> None:
        """Rows have come in."""
        self.rows_in_flight += rows
        self.bytes_in_flight += nbytes
        self.peak_rows = max(self.peak_rows, self.rows_in_flight)
        self.peak_bytes = max(self.peak_bytes, self.bytes_in_flight)

    def release(self, rows: int, nbytes: int = 0) -> None:
        """Rows are settled."""
        self.rows_in_flight -= rows
        self.bytes_in_flight -= nbytes
        if self._waiting:
            self._wake()
        if self._holding:
            self._tell_soon()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def wait(self) -> None:
        """Until credit may have come back; tasks are woken in turn."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._wake()  # the wake-up was meant for someone; hand it on
            raise

    def wake_all(self) -> None:
        """Everyone looks again: a task was paused, resumed, drained."""
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # --- what nodes made of them ----------------------------------------------------------------------

    @property
    def overdrawn(self) -> bool:
        """More bytes are in flight than allowed: stages begin only the oldest work."""
        return self.bytes_in_flight > self.max_bytes

    def grow(self, nbytes: int) -> None:
        """Values in flight have become larger, or smaller."""
        self.bytes_in_flight += nbytes
        self.grown_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.bytes_in_flight)

    def hold(self, look_again: Callable[[], None]) -> None:
        """A stage holds work back: call `look_again`, once and soon, when rows have been released."""
        self._holding[look_again] = None

    def forget(self, look_again: Callable[[], None]) -> None:
        """Whoever held work back has gone."""
        self._holding.pop(look_again, None)

    def _tell_soon(self) -> None:
        """Not at once: settling never pushes rows."""
        if not self._tell_due:
            self._tell_due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._tell_due = False
        holding, self._holding = self._holding, {}
        for look_again in holding:
            look_again()

    def statistics(self) -> dict[str, int]:
        return {
            "capacity": self.max_rows,
            "in_flight": self.rows_in_flight,
            "peak": self.peak_rows,
            "capacity_bytes": self.max_bytes,
            "in_flight_bytes": self.bytes_in_flight,
            "grown_bytes": self.grown_bytes,
            "peak_bytes": self.peak_bytes,
            "waiting": len(self._waiting),
            "holding": len(self._holding),
        }
