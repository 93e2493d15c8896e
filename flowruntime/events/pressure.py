"""Who holds publishers up, and for how long they may.

Owns: waiting for subscribers of policy `block`, and cutting off one that does not move.
Does not own: buffers (subscription). Publishing itself never waits: the publisher asks `EventBus.ready`.

Always holds: a subscriber is cut off only if it took nothing during a whole timeout of waiting.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from flowruntime.events.subscriber import Subscriber

if TYPE_CHECKING:
    import asyncio


class Pressure:
    """The subscribers whose buffer is half full or more.

    Args:
        timeout: how long one of them may take nothing while a publisher waits.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout
        self._stalled: dict[Subscriber, None] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._stalled)

    def add(self, subscriber: Subscriber) -> None:
        """It holds publishers up."""
        self._stalled[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """It has room again, or ended."""
        self._stalled.pop(subscriber, None)
        if not self._stalled:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def gone(self) -> None:
        """Return when nobody holds publishers up."""
        import asyncio

        loop = asyncio.get_running_loop()
        while self._stalled:
            before = {subscriber: subscriber.takes for subscriber in self._stalled}
            waiter = loop.create_future()
            self._waiting.append(waiter)
            try:
                await asyncio.wait((waiter,), timeout=self._timeout.total_seconds())
            finally:
                self._waiting.remove(waiter)
            if waiter.done():
                continue
            for subscriber in tuple(self._stalled):
                if before.get(subscriber) == subscriber.takes:
                    reason = f"it took nothing for {self._timeout} while publishers waited"
                    subscriber.lose("stalled", reason)
