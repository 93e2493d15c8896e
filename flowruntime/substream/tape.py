"""What a producer is ahead of its readers: items in order, and where each reader stands.

Owns: `Tape`, the rule of who may take what, and when a further item may be produced.
Does not own: waiting and waking (flowruntime.substream.production).

Pure: no asyncio, no clock. Always holds: a reader gets every item from the first one on, in order, or is
refused; nothing is let go that a reader who is not parked has yet to take.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Tape(Generic[T]):
    """Items produced and not passed by the slowest reader.

    With `replays` the newest `capacity` items are kept though everybody has passed them, so that a reader may
    join late as long as the first item is among them.

    Holds: at most `capacity` items.
    """

    __slots__ = ("_first", "_items", "_parked", "_places", "_replays", "capacity")

    def __init__(self, capacity: int, *, replays: bool) -> None:
        self.capacity = capacity
        self._replays = replays
        self._items: deque[T] = deque()
        self._first = 0
        """Number of the oldest item kept."""
        self._places: dict[object, int] = {}
        """By reader: the number of the item it takes next."""
        self._parked: dict[object, int] = {}
        """The same of readers nobody waits for."""

    @property
    def produced(self) -> int:
        """Items put so far."""
        return self._first + len(self._items)

    @property
    def ready(self) -> int:
        """Items kept."""
        return len(self._items)

    @property
    def wants_more(self) -> bool:
        """Somebody reads, and the slowest reader lags by less than `capacity`."""
        return bool(self._places) and self.produced - min(self._places.values()) < self.capacity

    def put(self, item: T) -> None:
        """The next item was produced."""
        self._items.append(item)
        if len(self._items) > self.capacity:
            self._items.popleft()
            self._first += 1

    def join(self, reader: object) -> bool:
        """A reader begins at the first item. False: that item is gone."""
        if self._first > 0:
            return False
        self._places[reader] = 0
        return True

    def park(self, reader: object) -> None:
        """Wait for a reader no longer: it may never take anything again."""
        place = self._places.pop(reader, None)
        if place is not None:
            self._parked[reader] = place

    def resume(self, reader: object) -> bool:
        """A parked reader goes on. False: the item it would take next is gone."""
        if self._parked[reader] < self._first:
            return False
        self._places[reader] = self._parked.pop(reader)
        return True

    def leave(self, reader: object) -> None:
        """A reader wants nothing more; nothing when it is not there."""
        self._places.pop(reader, None)
        self._parked.pop(reader, None)

    def has_next(self, reader: object) -> bool:
        """Whether there is an item `reader` has not taken."""
        return self._places[reader] < self.produced

    def take(self, reader: object) -> T:
        """The next item of `reader`; there must be one."""
        number = self._places[reader]
        self._places[reader] = number + 1
        if self._replays:
            return self._items[number - self._first]
        self._first += 1
        return self._items.popleft()

    def clear(self) -> None:
        """Let go of every item: nobody will take them."""
        self._first = self.produced
        self._items.clear()
