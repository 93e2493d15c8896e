"""What a subscriber has not taken yet: bounded, and exact about what did not fit.

Owns: the buffers behind the policies and their gap arithmetic.
Does not own: waiting, time, or what happens to a subscriber that lags (subscription).

Always holds, after any order of `offer`, `skip` and `take`: events taken + sum of `missed` of gaps taken +
events still buffered + missed but not yet told = events offered + skipped. At most `capacity` events are
held, and no more gaps than events plus one. Events come out in ascending `seq`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict, deque

from flowcore.events import ExecutionEvent, Gap


class Missing:
    """A gap while it grows: plain integers, because a stuck subscriber pays this for each event."""

    __slots__ = ("count", "exact", "first", "last")

    count: int
    exact: bool

    def __init__(self) -> None:
        self.count = 0
        self.first = 0
        self.last = 0
        self.exact = True

    def add(self, seq: int) -> None:
        """One event more."""
        if self.count:
            if seq > self.last:
                self.last = seq
            elif seq < self.first:
                self.first = seq
        else:
            self.first = self.last = seq
        self.count += 1

    def add_gap(self, gap: Gap) -> None:
        """All that a gap stands for."""
        merged = self.peek().joined(gap) if self.count else gap
        self.count, self.exact = merged.missed, merged.exact
        self.first, self.last = merged.first_seq, merged.last_seq

    def peek(self) -> Gap:
        """The gap so far, still growing."""
        return Gap(missed=self.count, first_seq=self.first, last_seq=self.last, exact=self.exact)

    def take(self) -> Gap:
        """The gap so far; starts a new one."""
        gap = self.peek()
        self.count, self.exact = 0, True
        return gap


class EventBuffer(ABC):
    """Events in order of `seq`, gaps where some are missing.

    Args:
        capacity: how many events it holds at most; at least 1.
    """

    __slots__ = ("capacity", "missed")

    missed: int

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.missed = 0
        """All events that did not fit so far."""

    @abstractmethod
    def __len__(self) -> int:
        """Events held, gaps not counted."""

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether `take` has anything to give."""

    @abstractmethod
    def offer(self, event: ExecutionEvent) -> bool:
        """Take in the next event; False when one, this or another, had to be left out for it."""

    @abstractmethod
    def skip(self, gap: Gap) -> None:
        """Note that the events of `gap` will not come."""

    @abstractmethod
    def take(self) -> ExecutionEvent | Gap | None:
        """The next event or gap; None when there is nothing to tell."""


class _Queue(EventBuffer):
    __slots__ = ("_entries", "_head", "_size", "_tail")

    _size: int

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._entries: deque[ExecutionEvent | Gap] = deque()
        self._size = 0
        self._head = Missing()
        self._tail = Missing()

    def __len__(self) -> int:
        return self._size

    @property
    def pending(self) -> bool:
        """Events or gaps."""
        return bool(self._entries) or self._head.count > 0 or self._tail.count > 0

    def skip(self, gap: Gap) -> None:
        self._tail.add_gap(gap)
        self.missed += gap.missed

    def take(self) -> ExecutionEvent | Gap | None:
        if self._head.count:
            return self._head.take()
        if self._entries:
            entry = self._entries.popleft()
            if type(entry) is not Gap:
                self._size -= 1
            return entry
        return self._tail.take() if self._tail.count else None

    def _push(self, event: ExecutionEvent) -> None:
        if self._tail.count:
            self._entries.append(self._tail.take())
        self._entries.append(event)
        self._size += 1


class NewestKept(_Queue):
    """Full: the oldest event makes room; its gap is told first."""

    __slots__ = ()

    def offer(self, event: ExecutionEvent) -> bool:
        """Always take `event` in; False when the oldest had to go."""
        if self._size < self.capacity:
            self._push(event)
            return True
        # A subscriber that is stuck pays this for every event: no calls on the common way.
        entries, head = self._entries, self._head
        oldest = entries.popleft()
        while isinstance(oldest, Gap):
            head.add_gap(oldest)
            oldest = entries.popleft()
        head.last = oldest.seq
        if not head.count:
            head.first = oldest.seq
        head.count += 1
        self.missed += 1
        if self._tail.count:
            entries.append(self._tail.take())
        entries.append(event)
        return False


class OldestKept(_Queue):
    """Full: the new event is left out; its gap is told where it would have come."""

    __slots__ = ()

    def offer(self, event: ExecutionEvent) -> bool:
        if self._size < self.capacity:
            self._push(event)
            return True
        self._tail.add(event.seq)
        self.missed += 1
        return False


class LatestPerSubject(EventBuffer):
    """Holds the latest event per kind, workflow and node or stage; what it replaced is told as one gap.

    A replacement goes to the end, so that events still come out in ascending `seq`. More subjects than
    `capacity`: the one not heard of for longest makes room.
    """

    __slots__ = ("_latest", "_missing")

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._latest: OrderedDict[tuple[type[ExecutionEvent], str, str | None], ExecutionEvent] = (
            OrderedDict()
        )
        self._missing = Missing()

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def pending(self) -> bool:
        """Events or the gap."""
        return bool(self._latest) or self._missing.count > 0

    def offer(self, event: ExecutionEvent) -> bool:
        key = (type(event), event.workflow_id, event.subject)
        replaced = self._latest.pop(key, None)
        if replaced is None and len(self._latest) >= self.capacity:
            replaced = self._latest.popitem(last=False)[1]
        self._latest[key] = event
        if replaced is None:
            return True
        self._missing.add(replaced.seq)
        self.missed += 1
        return False

    def skip(self, gap: Gap) -> None:
        self._missing.add_gap(gap)
        self.missed += gap.missed

    def take(self) -> ExecutionEvent | Gap | None:
        if self._missing.count:
            return self._missing.take()
        return self._latest.popitem(last=False)[1] if self._latest else None
