"""Handing one event to many: numbered, stamped, in order, each receiver isolated from the others.

Owns: `seq` and `at`, routing by kind, what a raise in user code does, events published by callbacks.
Does not own: how receivers join and leave (bus), their buffers (subscription).

Always holds: events reach every receiver in ascending `seq`; a receiver that ends is skipped from then on, by
the event being delivered too; nothing that user code raises reaches the publisher.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from flowcore.events import ExecutionEvent, Gap
from flowruntime.events.history import History
from flowruntime.events.subscriber import FallCause, Owner, Subscriber
from flowruntime.telemetry.facts import EventsRefused, Report, SubscriberFell

MAX_NESTING = 64
"""An event published by a callback on an event published by a callback ... beyond this the callback
raises."""


class Delivery(Owner):
    """The publishing half of the bus.

    Args:
        clock: wall clock, Unix seconds.
        history: gets everything first; None keeps nothing.
        report: told what operators should know.
        scrub: takes secrets out of an event before anyone sees it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        history: History | None,
        report: Report,
        scrub: Callable[[ExecutionEvent], ExecutionEvent] | None,
    ) -> None:
        self.active = history is not None
        """False: nobody listens, do not even build events. A plain attribute for the hot path."""
        self._clock = clock
        self._history = history
        self._report = report
        self._scrub = scrub
        self._seq: int = 0
        self._closed = False
        self._refused = 0
        self._subscribers: dict[Subscriber, None] = {}
        self._routes: dict[type[ExecutionEvent], tuple[Subscriber | History, ...]] = {}
        self._busy = False
        self._nested: deque[tuple[ExecutionEvent, int]] = deque()
        self._depth = 0

    def wants(self, kind: type[ExecutionEvent]) -> bool:
        """Whether publishing an event of that kind would reach anyone."""
        route = self._routes.get(kind)
        return bool(self._route(kind) if route is None else route)

    def publish(self, event: ExecutionEvent) -> None:
        """Hand `event` to all who want it, each under its own policy; never waits, never raises.

        The subscribers get a copy with `seq` and, unless it is set already, `at`. Callbacks run before this
        returns. What a callback publishes follows when the event at hand has reached everyone; a chain of
        more than `MAX_NESTING` such answers raises RecursionError in the callback that goes on with it.
        """
        if self._busy or self._closed:
            self._defer(event)
            return
        self._seq += 1
        kind = type(event)
        route = self._routes.get(kind)
        if route is None:
            route = self._route(kind)
        if not route:
            return
        self._busy = True
        try:
            self._deliver(event, route)
            if self._nested:
                self._deliver_nested()
        finally:
            self._busy = False

    def forget(self, subscriber: Subscriber) -> None:
        """Publish nothing more to it."""
        self._subscribers.pop(subscriber, None)
        self._reroute()

    def fell(self, subscriber: Subscriber, cause: FallCause, reason: str) -> None:
        """Report it."""
        self._report(SubscriberFell(cause=cause, subscriber=subscriber.name, reason=reason))

    def _route(self, kind: type[ExecutionEvent]) -> tuple[Subscriber | History, ...]:
        history = () if self._history is None else (self._history,)
        takers = [
            taker for taker in self._subscribers if taker.kinds is None or issubclass(kind, taker.kinds)
        ]
        route = self._routes[kind] = () if self._closed else (*history, *takers)
        return route

    def _reroute(self) -> None:
        self._routes.clear()
        self.active = not self._closed and (self._history is not None or bool(self._subscribers))

    def _deliver(self, event: ExecutionEvent, route: tuple[Subscriber | History, ...]) -> None:
        if self._scrub is not None:
            event = self._scrub(event)
        stamped = msgspec.structs.replace(event, seq=self._seq, at=event.at or self._clock())
        for receiver in route:
            try:
                receiver.deliver(stamped)
            except Exception as error:  # noqa: BLE001 - a subscriber's code: it alone falls
                self._isolate(receiver, f"{type(event).__name__} seq {stamped.seq}", error)

    def _deliver_nested(self) -> None:
        try:
            while self._nested:
                event, self._depth = self._nested.popleft()
                self._seq += 1
                route = self._routes.get(type(event)) or self._route(type(event))
                if route:
                    self._deliver(event, route)
        finally:
            self._depth = 0

    def _defer(self, event: ExecutionEvent) -> None:
        """Publish inside a callback, or after closing."""
        if self._closed:
            first = f"{type(event).__name__} of workflow {event.workflow_id!r}"
            self._refuse(1, f"the bus is closed, the first one was {first}")
        elif self._depth >= MAX_NESTING:
            raise RecursionError(
                f"event callbacks published {MAX_NESTING} events each in answer to the one before, the last "
                f"a {type(event).__name__}; a callback must not publish what it listens to"
            )
        else:
            self._nested.append((event, self._depth + 1))

    def _refuse(self, count: int, detail: str) -> None:
        self._refused += count
        self._report(EventsRefused(count=count, cause="closed", detail=detail))

    def _isolate(self, receiver: Subscriber | History, what: str, error: Exception) -> None:
        if isinstance(receiver, Subscriber):
            receiver.lose("raised", f"it raised {type(error).__name__} on {what}: {error}", error)

    def _skip(self, gap: Gap) -> None:
        """Tell everyone of events that nobody gets."""
        if self._history is not None:
            self._history.skip(gap)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber.skip(gap)
            except Exception as error:  # noqa: BLE001 - a subscriber's code: it alone falls
                self._isolate(subscriber, "a gap", error)
