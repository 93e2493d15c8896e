"""Events of other threads on their way to the loop.

Owns: the bounded hand-over between threads.
Does not own: publishing (bus).

Always holds: at most `capacity` events wait; of those beyond, the number is kept. One wake-up is under way
at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowcore.events import ExecutionEvent

if TYPE_CHECKING:
    import asyncio


class Inbox:
    """Put from any thread, taken on the loop's.

    Args:
        capacity: most events that wait.
        take: called on the loop's thread when something waits.
    """

    def __init__(self, capacity: int, take: Callable[[], None]) -> None:
        self.capacity = capacity
        self._take = take
        self._waiting: list[ExecutionEvent] = []
        self._lost = 0
        self._lock = threading.Lock()

    def put(self, event: ExecutionEvent, loop: asyncio.AbstractEventLoop) -> bool:
        """Keep `event` for the loop's next turn; False when the loop is closed and nobody will take it."""
        with self._lock:
            first = not self._waiting and not self._lost
            if len(self._waiting) < self.capacity:
                self._waiting.append(event)
            else:
                self._lost += 1
        if not first:
            return True
        try:
            loop.call_soon_threadsafe(self._take)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def drain(self) -> tuple[list[ExecutionEvent], int]:
        """What waits, oldest first, and how many events came after it and were not kept."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        return waiting, lost
