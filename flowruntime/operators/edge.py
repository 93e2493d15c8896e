"""Edges of a chain: hot observables that keep order, never recurse without bound and never lose an observer.

Owns: `Edge`, and `Depth`, the chain's count of nested emissions.
Does not own: what is emitted (operators).

Instead of `reactivex.Subject`: a subject takes a lock and copies its observers per emission, lets one
raising observer starve those after it and reorders re-entrant emissions. An edge has a fixed set of
observers, is used on the loop thread only, and puts an emission in a queue when the chain is nested too
deeply, so that a chain of any length fits the interpreter's stack. Items of one edge arrive in the order of
emission.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from reactivex import Observable, abc
from reactivex.disposable import Disposable

MAX_NESTING: Final = 48
"""Emissions nested in each other; each takes some four Python frames of the interpreter's 1,000."""


class Depth:
    """How deeply emissions of one chain are nested, and what waits for the nesting to end."""

    __slots__ = ("crash", "level", "waiting")

    def __init__(self, crash: Callable[[BaseException], None]) -> None:
        self.level = 0
        self.waiting: deque[tuple[Edge, Any]] = deque()
        self.crash = crash

    def drain(self) -> None:
        """Deliver what waited; called at nesting level 0."""
        waiting = self.waiting
        while waiting:
            edge, item = waiting.popleft()
            edge.queued -= 1
            edge.deliver(item)


class Edge:
    """One output of a stage."""

    __slots__ = ("_depth", "_next", "observers", "queued")

    def __init__(self, depth: Depth) -> None:
        self._depth = depth
        self._next: Callable[[Any], None] | None = None
        self.observers: list[abc.ObserverBase[Any]] = []
        self.queued = 0

    def observable(self) -> Observable[Any]:
        """The edge as any reactivex operator sees it. Subscribe before the chain runs."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            del scheduler
            self.observers.append(observer)
            self._next = self.observers[0].on_next if len(self.observers) == 1 else None

            def dispose() -> None:
                if observer in self.observers:
                    self.observers.remove(observer)
                self._next = self.observers[0].on_next if len(self.observers) == 1 else None

            return Disposable(dispose)

        return Observable(subscribe)

    def emit(self, item: Any) -> None:
        """Hand `item` to every observer, now or as soon as the nesting allows; never raises."""
        depth = self._depth
        if self.queued or depth.level >= MAX_NESTING:
            self.queued += 1
            depth.waiting.append((self, item))
            return
        self.deliver(item)
        if depth.level == 0 and depth.waiting:
            depth.drain()

    def deliver(self, item: Any) -> None:
        """Hand `item` on at once, one level deeper."""
        depth = self._depth
        depth.level += 1
        try:
            if self._next is not None:
                self._next(item)
            else:
                for observer in self.observers:
                    observer.on_next(item)
        except Exception as error:  # noqa: BLE001 - the engine's own fault; the chain fails, loudly
            depth.crash(error)
        finally:
            depth.level -= 1
