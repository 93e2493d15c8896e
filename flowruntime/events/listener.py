"""A subscriber that is a callback.

Owns: calling it, and what a raise means.
Does not own: buffers (it has none), routing and isolation (bus).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flowcore.events import ExecutionEvent, Gap
from flowruntime.events.subscriber import FallCause, Owner, Subscriber, SubscriptionStatistics


class Listener(Subscriber):
    """Called inside `publish` on the loop thread; it holds nothing and misses nothing while it lives.

    One that raises is unsubscribed, because what it does with the next event cannot be trusted: the raise is
    logged and counted and kept in `error`. A callback that can go on catches its own exceptions.
    """

    def __init__(
        self,
        owner: Owner,
        callback: Callable[[Any], object],
        *,
        kinds: tuple[type[ExecutionEvent], ...] | None,
        where: Callable[[Any], bool] | None,
        name: str,
        on_end: Callable[[BaseException | None], object] | None = None,
    ) -> None:
        super().__init__(owner, kinds=kinds, name=name)
        self.error: BaseException | None = None
        """What it raised; None while it lives, when it left, and when the bus ended."""
        self._callback = callback
        self._where = where
        self._on_end = on_end
        self._delivered = 0
        self._missed = 0

    def replay(self, entries: Iterable[ExecutionEvent | Gap]) -> None:
        """Call back for what was published before, now."""
        for entry in entries:
            if isinstance(entry, Gap):
                self.skip(entry)
            else:
                self.deliver(entry)

    def deliver(self, event: ExecutionEvent) -> None:
        """Call back."""
        if self.ended is not None:
            return
        try:
            if self._where is not None and not self._where(event):
                return
            self._callback(event)
        except BaseException:
            self._missed += 1
            raise
        self._delivered += 1

    def skip(self, gap: Gap) -> None:
        """Call back with the gap."""
        if self.ended is None:
            self._missed += gap.missed
            self._callback(gap)

    async def flushed(self) -> None:
        """Return: nothing is buffered."""

    def give_up(self) -> int:
        """Nothing is buffered."""
        return 0

    def finish(self, reason: str) -> None:
        """Call it no more, and tell `on_end`."""
        if self.ended is None:
            self._end(reason, None)

    def lose(self, cause: FallCause, reason: str, error: BaseException | None = None) -> None:
        """Take it off the bus, and tell `on_end` what it raised."""
        if self.ended is None:
            self.error = error
            self._owner.fell(self, cause, reason)
            self._end(reason, error)

    def close(self) -> None:
        """Leave, without a call of `on_end`; safe inside the callback."""
        if self.ended is None:
            self._on_end = None
            self._end("left", None)

    def statistics(self) -> SubscriptionStatistics:
        """Its numbers; nothing is ever buffered."""
        return SubscriptionStatistics(
            name=self.name,
            policy="callback",
            buffered=0,
            capacity=0,
            delivered=self._delivered,
            missed=self._missed,
            ended=self.ended,
        )

    def __repr__(self) -> str:
        state = f"ended: {self.ended}" if self.ended else "live"
        return f"<Listener {self.name!r} {state}, {self._delivered} delivered, {self._missed} missed>"

    def _end(self, reason: str, error: BaseException | None) -> None:
        self.ended = reason
        self._owner.forget(self)
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        try:
            on_end(error)
        except Exception as broken:  # noqa: BLE001 - a subscriber's code: it alone falls
            self._owner.fell(self, "raised", f"its on_end raised {type(broken).__name__}: {broken}")
