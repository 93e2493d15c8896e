"""The event bus: numbers events and hands each to everyone who asked for its kind, without ever waiting.

Owns: who is subscribed and since when, publishing from other threads, closing.
Does not own: what events mean (flowcore.events), numbering and isolation (delivery), buffers and policies
(subscription), files (record).

Always holds: `publish` neither waits nor raises; per subscriber delivered + missed = published, exactly;
everyone gets events in ascending `seq`. All but `publish_threadsafe` belongs to the loop thread; no running
loop is needed to publish or to call back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from flowcore.errors import ConfigError, RuntimeClosedError
from flowcore.events import ExecutionEvent, Gap
from flowruntime.events.delivery import Delivery
from flowruntime.events.history import History
from flowruntime.events.inbox import Inbox
from flowruntime.events.listener import Listener
from flowruntime.events.pressure import Pressure
from flowruntime.events.subscriber import (
    Policy,
    Subscriber,
    SubscriptionStatistics,
    checked_kinds,
)
from flowruntime.events.subscription import Subscription
from flowruntime.telemetry.facts import EventsRefused, FactReporter, Report
from flowruntime.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import asyncio

    from reactivex import Observable

E = TypeVar("E", bound=ExecutionEvent)


class BusStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The bus at one moment."""

    published: int
    """Also the newest `seq`."""
    history: int
    history_capacity: int
    refused: int
    """Events that got no number, because the bus was closed."""
    subscribers: tuple[SubscriptionStatistics, ...]


class EventBus(Delivery):
    """Publish and subscribe.

    Args:
        clock: wall clock, Unix seconds; stamps events that do not say yet when they were published.
        history: how many events are kept for `since`. 0 keeps none, and lets the engine skip building events
            nobody asked for: these are never published, so they are in nobody's count.
        block_timeout: how long `ready` waits for a subscriber of policy `block` that takes nothing.
        thread_buffer: how many events of other threads may wait for the loop.
        report: told what operators should know (disconnected subscribers, refused events).
        scrub: takes secrets out of an event before anyone sees it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        history: int = 0,
        block_timeout: timedelta = timedelta(seconds=30),
        thread_buffer: int = 10_000,
        report: Report | None = None,
        scrub: Callable[[ExecutionEvent], ExecutionEvent] | None = None,
    ) -> None:
        super().__init__(
            clock=clock,
            history=History(history) if history > 0 else None,
            report=report or FactReporter(Metrics()),
            scrub=scrub,
        )
        self._pressure = Pressure(block_timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox = Inbox(thread_buffer, self._take_inbox)

    # --- publishing -----------------------------------------------------------------------------------

    def publish_threadsafe(self, event: ExecutionEvent) -> None:
        """Publish from any thread; the loop does it at its next turn.

        Beyond `thread_buffer` waiting events the newest are not kept: they become a Gap for every subscriber.

        Raises:
            RuntimeClosedError: no loop is known yet (`bind`, or any subscription made on the loop, tells it).
        """
        loop = self._loop
        if loop is None:
            raise RuntimeClosedError(
                "the event bus knows no loop yet; call bus.bind() on the loop's thread first"
            )
        if not self._inbox.put(event, loop):
            waiting, lost = self._inbox.drain()
            self._refuse(len(waiting) + lost, "the loop of the event bus is closed")

    def bind(self) -> None:
        """Remember the running loop for `publish_threadsafe`.

        Raises:
            RuntimeError: no loop is running.
        """
        import asyncio

        self._loop = asyncio.get_running_loop()

    @property
    def held_up(self) -> bool:
        """A subscriber of policy `block` is behind: who can wait asks `ready` before it publishes more."""
        return bool(self._pressure)

    @property
    def spare(self) -> int | None:
        """How many events may follow `ready` without loss to any subscriber of policy `block`.

        None: any number, as nobody asked for that.
        """
        rooms = [room for subscriber in self._subscribers if (room := subscriber.spare) is not None]
        return min(rooms, default=None)

    async def ready(self) -> None:
        """Return when every subscriber of policy `block` has room for at least half its buffer.

        One that takes nothing for `block_timeout` is disconnected, so this ends. A publisher that publishes
        at most half of the smallest buffer after each `ready` loses nothing to a `block` subscriber.
        """
        if self._pressure:
            await self._pressure.gone()

    # --- subscribing ----------------------------------------------------------------------------------

    @overload
    def subscribe(
        self,
        kinds: None = None,
        *,
        buffer: int = ...,
        policy: Policy = ...,
        since: int | None = ...,
        where: Callable[[ExecutionEvent], bool] | None = ...,
        name: str | None = ...,
    ) -> Subscription[ExecutionEvent]: ...
    @overload
    def subscribe(
        self,
        kinds: Collection[type[E]],
        *,
        buffer: int = ...,
        policy: Policy = ...,
        since: int | None = ...,
        where: Callable[[E], bool] | None = ...,
        name: str | None = ...,
    ) -> Subscription[E]: ...
    def subscribe(
        self,
        kinds: Collection[type[Any]] | None = None,
        *,
        buffer: int = 1024,
        policy: Policy = "drop_oldest",
        since: int | None = None,
        where: Callable[[Any], bool] | None = None,
        name: str | None = None,
    ) -> Subscription[Any]:
        """Events from this call on (not from entering it), as an async iterator of `E | Gap`.

        Args:
            kinds: classes of events, base classes included; None means all.
            buffer: most events held for this subscriber; at least 1.
            policy: what happens beyond; see `Subscription`.
            since: begin after this `seq`: a Gap for what the history has lost, then what it holds (beside
                `buffer`), then live, without hole or duplicate.
            where: further condition, run inside `publish`; one that raises disconnects the subscriber.
            name: for logs and statistics.

        Raises:
            ConfigError: an argument is out of range.
            RuntimeClosedError: the bus is closed.
        """
        name = self._name(name, where)
        subscription = Subscription[Any](
            self, kinds=checked_kinds(kinds, name), where=where, policy=policy, capacity=buffer, name=name
        )
        self._admit(subscription, since, filtered=kinds is not None or where is not None)
        return subscription

    def listen(
        self,
        callback: Callable[[Any], object],
        kinds: Collection[type[ExecutionEvent]] | None = None,
        *,
        since: int | None = None,
        where: Callable[[Any], bool] | None = None,
        name: str | None = None,
        on_end: Callable[[BaseException | None], object] | None = None,
    ) -> Listener:
        """Call `callback` with each event (or Gap), inside `publish`, on the loop thread.

        Args:
            callback: must be quick, the publisher waits for it. One that raises is unsubscribed.
            kinds: as for `subscribe`.
            since: as for `subscribe`; the callback is called for the history before this returns.
            where: as for `subscribe`.
            name: for logs and statistics; the callback's own when left out.
            on_end: called once if the bus ends it, with what the callback raised or None.
        """
        name = self._name(name, callback)
        listener = Listener(
            self, callback, kinds=checked_kinds(kinds, name), where=where, name=name, on_end=on_end
        )
        self._admit(listener, since, filtered=kinds is not None or where is not None)
        return listener

    def observable(
        self, kinds: Collection[type[E]] | None = None, *, since: int | None = None
    ) -> Observable[E | Gap]:
        """Events as a reactivex Observable: hot, each subscribe begins at the moment it is made.

        Pushed inside `publish` on the loop thread, so there is no buffer. It completes when the bus closes;
        an observer that raises is disposed, the publisher and the others never notice.
        """
        from flowruntime.events.observable import observe

        def listen(
            on_next: Callable[[Any], None], on_end: Callable[[BaseException | None], None]
        ) -> Callable[[], None]:
            return self.listen(on_next, kinds, since=since, name="observable", on_end=on_end).close

        return observe(listen)

    # --- life -----------------------------------------------------------------------------------------

    def statistics(self) -> BusStatistics:
        """Its numbers and those of every living subscriber, now."""
        history = History(0) if self._history is None else self._history
        return BusStatistics(
            published=self._seq,
            history=len(history),
            history_capacity=history.capacity,
            refused=self._refused,
            subscribers=tuple(subscriber.statistics() for subscriber in self._subscribers),
        )

    async def aclose(self, timeout: timedelta = timedelta(seconds=5)) -> None:
        """Take no more events, let subscribers take what is buffered, then end them.

        What is not taken within `timeout` counts as missed and is reported. Closing twice does nothing.
        """
        import asyncio

        if self._closed:
            return
        self._take_inbox()
        self._closed = True
        ending = tuple(self._subscribers)
        for subscriber in ending:
            subscriber.finish("the bus was closed")
        flushing = [asyncio.ensure_future(subscriber.flushed()) for subscriber in ending]
        if flushing:
            _, late = await asyncio.wait(flushing, timeout=timeout.total_seconds())
            for waiting in late:
                waiting.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for subscriber in ending:
            left = subscriber.give_up()
            if left:
                reason = f"{left} event(s) were not taken within {timeout} of closing"
                self.fell(subscriber, "unflushed", reason)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "active" if self.active else "idle"
        return f"<EventBus {state}, {self._seq} published, {len(self._subscribers)} subscriber(s)>"

    # --- for subscribers ------------------------------------------------------------------------------

    def stalled(self, subscriber: Subscriber) -> None:
        """Make publishers wait for it in `ready`."""
        self._pressure.add(subscriber)

    def moving(self, subscriber: Subscriber) -> None:
        """Let publishers go on."""
        self._pressure.remove(subscriber)

    # --- inside ---------------------------------------------------------------------------------------

    def _admit(self, subscriber: Subscriber, since: int | None, *, filtered: bool) -> None:
        if self._closed:
            raise RuntimeClosedError(f"event subscriber {subscriber.name!r} came after the bus was closed")
        if since is not None and not 0 <= since <= self._seq:
            raise ConfigError(
                f"event subscriber {subscriber.name!r} asks for events since {since!r}, but the newest is "
                f"{self._seq}; numbers begin anew with each bus, so read older ones from a recording",
                since=since,
                newest=self._seq,
            )
        self._remember_loop()
        self._subscribers[subscriber] = None
        self._reroute()
        if since is not None:
            self._replay(subscriber, since, filtered=filtered)

    def _replay(self, subscriber: Subscriber, since: int, *, filtered: bool) -> None:
        kinds = subscriber.kinds
        history = History(0) if self._history is None else self._history
        entries: list[ExecutionEvent | Gap] = []
        for entry in history.after(since, self._seq):
            if isinstance(entry, Gap):
                entries.append(msgspec.structs.replace(entry, exact=entry.exact and not filtered))
            elif kinds is None or isinstance(entry, kinds):
                entries.append(entry)
        was_busy = self._busy
        self._busy = True  # what a callback publishes now comes after what it is told now
        try:
            subscriber.replay(entries)
            if not was_busy:
                self._deliver_nested()
        except BaseException:
            subscriber.close()
            raise
        finally:
            self._busy = was_busy

    def _remember_loop(self) -> None:
        if self._loop is None or self._loop.is_closed():
            import asyncio

            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self._loop = None

    def _name(self, name: str | None, function: object) -> str:
        return name or getattr(function, "__qualname__", None) or f"subscriber {len(self._subscribers) + 1}"

    def _take_inbox(self) -> None:
        waiting, lost = self._inbox.drain()
        for event in waiting:
            self.publish(event)
        if lost and self._closed:
            self._refuse(lost, "the bus is closed")
        elif lost:
            self._lose(lost)

    def _lose(self, lost: int) -> None:
        gap = Gap(missed=lost, first_seq=self._seq + 1, last_seq=self._seq + lost, exact=False)
        self._seq += lost
        detail = f"threads published faster than the loop turned (at most {self._inbox.capacity} may wait)"
        self._report(EventsRefused(count=lost, cause="thread_overflow", detail=detail))
        self._skip(gap)
