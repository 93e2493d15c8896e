"""Equal requests under way at once are one call.

Owns: `Flights`. Does not own: the call, which requests are equal (gateway).

Always holds: the call runs in a task of its own; a waiter that is cancelled leaves the others alone, and the
last one to leave cancels the call. Holds one entry per call under way. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiters = 0


class Flights(Generic[T]):
    """Calls under way by content hash."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}
        self._leaving: set[asyncio.Task[T]] = set()
        self.joined = 0
        """Waiters that found their call under way."""

    def __len__(self) -> int:
        return len(self._flights) + len(self._leaving)

    async def join(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the call under way gives; without one it is made."""
        flight = self._flights.get(name)
        if flight is None:
            task = asyncio.get_running_loop().create_task(make(), name=f"flow model call {name[:12]}")
            flight = self._flights[name] = _Flight(task)
            task.add_done_callback(lambda done: self._landed(name, done))
        else:
            self.joined += 1
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._flights.pop(name, None)  # whoever comes now makes the call anew
                self._leaving.add(flight.task)
                flight.task.cancel()

    def _landed(self, name: str, task: asyncio.Task[T]) -> None:
        self._leaving.discard(task)
        found = self._flights.get(name)
        if found is not None and found.task is task:
            del self._flights[name]
        if not task.cancelled():
            task.exception()  # those who waited for it have it; where all have left nobody asks

    async def aclose(self) -> None:
        """Cancel every call."""
        tasks = [*(flight.task for flight in self._flights.values()), *self._leaving]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
