"""Credit: how many rows and bytes a worker may have in flight, shared by its tasks.

Owns: `Budget`: charge, release, waiting for credit in turn with a floor of one row per task.
Does not own: reading (tasks) or when a row is settled (flowcore.settlement).

Always holds: a source waits while the budget is spent, but for a task with nothing in flight, which may read
one row;
growth inside the chain is charged without waiting and only makes sources wait longer. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """Rows and bytes in flight on one worker."""

    __slots__ = (
        "_waiting",
        "bytes_in_flight",
        "max_bytes",
        "max_rows",
        "peak_bytes",
        "peak_rows",
        "rows_in_flight",
    )

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows_in_flight = 0
        self.bytes_in_flight = 0
        self.peak_rows = 0
        self.peak_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def available(self, in_flight: int) -> int:
        """Rows a task may read now.

        Args:
            in_flight: rows of that task not settled; with none it may always read one.
        """
        rows = self.max_rows - self.rows_in_flight
        if rows <= 0 or self.bytes_in_flight >= self.max_bytes:
            return 1 if in_flight == 0 else 0
        return rows

    @property
    def available_bytes(self) -> int:
        return max(1, self.max_bytes - self.bytes_in_flight)

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

    def statistics(self) -> dict[str, int]:
        return {
            "capacity": self.max_rows,
            "in_flight": self.rows_in_flight,
            "peak": self.peak_rows,
            "capacity_bytes": self.max_bytes,
            "in_flight_bytes": self.bytes_in_flight,
            "peak_bytes": self.peak_bytes,
            "waiting": len(self._waiting),
        }
