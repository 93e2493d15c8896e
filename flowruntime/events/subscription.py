"""A subscriber with a bounded buffer, read as an async iterator.

Owns: what each policy does when a subscriber lags, waiting for the next event, how a subscription ends.
Does not own: numbering, routing and isolation (bus), gap arithmetic (buffer).

Always holds: at any moment delivered + missed + buffered events = events published to this subscriber since
it subscribed; at the end buffered is 0. Everything happens on the loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowcore.errors import ConfigError, RunError
from flowcore.events import ExecutionEvent, Gap
from flowruntime.events.buffer import EventBuffer, LatestPerSubject, NewestKept, OldestKept
from flowruntime.events.subscriber import FallCause, Owner, Policy, Subscriber, SubscriptionStatistics

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType
    from typing import Self

E = TypeVar("E", bound=ExecutionEvent)

BUFFERS: Mapping[Policy, type[EventBuffer]] = {
    "drop_oldest": NewestKept,
    "drop_newest": OldestKept,
    "conflate": LatestPerSubject,
    "block": OldestKept,
    "disconnect": OldestKept,
}


class SubscriptionLostError(RunError, ConnectionError):
    """The bus disconnected this subscriber; `cause` and `reason` say why."""


class Subscription(Subscriber, Generic[E]):
    """Events for one subscriber, as an async context manager and iterator of `E | Gap`.

    Made by `EventBus.subscribe`, and live from that call on. One consumer at a time.

    Policies, when `buffer` events wait:
        drop_oldest   the oldest makes room; a Gap comes first
        drop_newest   the new one is left out; a Gap comes in its place
        conflate      only the latest per kind, workflow and node is kept; a Gap counts the others
        block         `EventBus.ready` waits while the buffer is half full, and after `block_timeout` without
        a single
                      take disconnects; who publishes without asking `ready` overflows as drop_newest
        disconnect    the subscriber gets what is buffered, a Gap of one, then SubscriptionLostError
    """

    def __init__(
        self,
        owner: Owner,
        *,
        kinds: tuple[type[ExecutionEvent], ...] | None,
        where: Callable[[Any], bool] | None,
        policy: Policy,
        capacity: int,
        name: str,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"buffer of event subscriber {name!r} must be at least 1, got {capacity!r}")
        if policy not in BUFFERS:
            known = ", ".join(BUFFERS)
            raise ConfigError(f"unknown policy {policy!r} of event subscriber {name!r}; one of {known}")
        super().__init__(owner, kinds=kinds, name=name)
        self._where = where
        self._policy: Policy = policy
        self._buffer = BUFFERS[policy](capacity)
        self._backlog: deque[ExecutionEvent | Gap] = deque()
        self._delivered = 0
        self._lost: SubscriptionLostError | None = None
        self._high_water = max(1, capacity // 2) if policy == "block" else 0
        self._limited = policy in ("block", "disconnect")
        self._is_stalled = False
        self._waiter: asyncio.Future[None] | None = None
        self._flushed: list[asyncio.Future[None]] = []

    # --- for the bus ----------------------------------------------------------------------------------

    @property
    def spare(self) -> int | None:
        """Half of the buffer, for policy `block`."""
        return self._high_water or None

    def replay(self, entries: Iterable[ExecutionEvent | Gap]) -> None:
        """Take in what comes first; kept beside the buffer, since the history bounds it."""
        for entry in entries:
            if isinstance(entry, Gap):
                self._buffer.missed += entry.missed
            elif self._where is not None and not self._where(entry):
                continue
            self._backlog.append(entry)

    def deliver(self, event: ExecutionEvent) -> None:
        """Take in a published event; whatever `where` raises comes out."""
        if self.ended is not None or (self._where is not None and not self._admits(event)):
            return
        kept = self._buffer.offer(event)
        if self._limited:
            self._check_limit(kept=kept)
        if self._waiter is not None:
            self._wake()

    def skip(self, gap: Gap) -> None:
        """Note events that were published but cannot be delivered to anyone."""
        if self.ended is None:
            self._buffer.skip(gap)
            self._wake()

    def lose(self, cause: FallCause, reason: str, error: BaseException | None = None) -> None:
        """Take it off the bus; it still gets what is buffered, then SubscriptionLostError."""
        if self.ended is not None:
            return
        self._lost = SubscriptionLostError(
            f"event subscriber {self.name!r} was disconnected: {reason}", cause=cause, reason=reason
        )
        self._lost.__cause__ = error
        self.finish(reason)
        self._owner.fell(self, cause, reason)

    def finish(self, reason: str) -> None:
        """Publish nothing more to it; iteration ends after what is buffered."""
        if self.ended is not None:
            return
        self.ended = reason
        self._owner.forget(self)
        self._move()
        self._wake()

    def give_up(self) -> int:
        """Turn what is buffered into one Gap, which can still be taken; returns how many events that were."""
        count, told = self._held(), 0
        whole: Gap | None = None
        while (entry := self._pop()) is not None:
            if isinstance(entry, Gap):
                gap, told = entry, told + entry.missed
            else:
                gap = Gap(missed=1, first_seq=entry.seq, last_seq=entry.seq)
            whole = whole.joined(gap) if whole else gap
        if whole is not None:
            self._buffer.missed -= told  # `skip` counts them again
            self._buffer.skip(whole)
        return count

    async def flushed(self) -> None:
        """Return when everything buffered has been taken."""
        if not self._pending():
            return
        import asyncio

        flushed = asyncio.get_running_loop().create_future()
        self._flushed.append(flushed)
        await flushed

    # --- for the subscriber ---------------------------------------------------------------------------

    def close(self) -> None:
        """Leave. What is buffered counts as missed; safe anywhere, any number of times."""
        self.finish("left")
        self._lost = None
        self.give_up()
        self._pop()
        self._tell_flushed()

    def take(self) -> E | Gap | None:
        """The next event or gap if there is one, without waiting."""
        entry: Any = self._pop()
        if entry is None:
            return None
        self.takes += 1
        if type(entry) is not Gap:
            self._delivered += 1
        if self._is_stalled and len(self._buffer) < self._high_water:
            self._move()
        if self._flushed and not self._pending():
            self._tell_flushed()
        return entry

    async def batch(self, limit: int) -> list[E | Gap]:
        """At least one and at most `limit` events and gaps; empty when the subscription has ended.

        Raises:
            SubscriptionLostError: the bus disconnected this subscriber.
        """
        first = await self._next()
        if first is None:
            return []
        entries = [first]
        while len(entries) < limit and (entry := self.take()) is not None:
            entries.append(entry)
        return entries

    def statistics(self) -> SubscriptionStatistics:
        """Its numbers now."""
        return SubscriptionStatistics(
            name=self.name,
            policy=self._policy,
            buffered=self._held(),
            capacity=self._buffer.capacity,
            delivered=self._delivered,
            missed=self._buffer.missed,
            ended=self.ended,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap:
        entry = await self._next()
        if entry is None:
            raise StopAsyncIteration
        return entry

    def __repr__(self) -> str:
        now = self.statistics()
        state = f"ended: {now.ended}" if now.ended else f"{now.buffered}/{now.capacity} buffered"
        counts = f"{now.delivered} delivered, {now.missed} missed"
        return f"<Subscription {now.name!r} {now.policy}, {state}, {counts}>"

    # --- inside ---------------------------------------------------------------------------------------

    async def _next(self) -> E | Gap | None:
        while True:
            entry = self.take()
            if entry is not None:
                return entry
            if self._lost is not None:
                raise self._lost
            if self.ended is not None:
                return None
            await self._wait()

    async def _wait(self) -> None:
        import asyncio

        if self._waiter is not None:
            raise RuntimeError(
                f"event subscription {self.name!r} has two consumers at once; give each a subscription"
            )
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _check_limit(self, *, kept: bool) -> None:
        if self._policy == "disconnect":
            if not kept:
                reason = f"it held {self._buffer.capacity} events and another one came (policy 'disconnect')"
                self.lose("lagged", reason)
        elif not self._is_stalled and len(self._buffer) >= self._high_water:
            self._is_stalled = True
            self._owner.stalled(self)

    def _admits(self, event: ExecutionEvent) -> bool:
        where = self._where
        try:
            return where is None or where(event)
        except BaseException:
            self._buffer.skip(Gap(missed=1, first_seq=event.seq, last_seq=event.seq))
            raise

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _move(self) -> None:
        if self._is_stalled:
            self._is_stalled = False
            self._owner.moving(self)

    def _pop(self) -> ExecutionEvent | Gap | None:
        return self._backlog.popleft() if self._backlog else self._buffer.take()

    def _pending(self) -> bool:
        return bool(self._backlog) or self._buffer.pending

    def _held(self) -> int:
        return len(self._buffer) + sum(type(entry) is not Gap for entry in self._backlog)

    def _tell_flushed(self) -> None:
        for waiter in self._flushed:
            if not waiter.done():
                waiter.set_result(None)
        self._flushed.clear()
