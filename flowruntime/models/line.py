"""Whose turn it is among calls that wait for one model: three lanes, and within a lane every key its share.

Owns: `Line`, a fair queue. Does not own: waiting itself, when somebody may begin (resource).

Pure. Always holds: whoever waits is first after a bounded number of others, whatever lane it is in and
whoever else comes; who has left is forgotten at once. Holds one entry per waiter: a row that waits keeps its
credit, so there are never more of them than rows in flight and calls of clients.

Lanes are served in proportion to `WEIGHTS` while several have waiters (stride scheduling), the keys of a lane
in turn, the waiters of a key as they came.

Source: C. Waldspurger, W. Weihl, "Stride Scheduling: Deterministic Proportional-Share Resource Management",
MIT/LCS/TM-528, 1995.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from flowcore.llm.policy import Lane

W = TypeVar("W", bound=Hashable)

WEIGHTS: Final[Mapping[Lane, int]] = {"interactive": 16, "normal": 4, "background": 1}


class _LaneOf(Generic[W]):
    __slots__ = ("keys", "passed", "size", "stride")

    def __init__(self, weight: int) -> None:
        self.stride: Final = 1.0 / weight
        self.passed = 0.0
        """Where it stands in virtual time: the lane that is furthest behind is next."""
        self.keys: dict[Hashable, dict[W, None]] = {}
        """By key, in the order of their turns."""
        self.size = 0


class Line(Generic[W]):
    """Those who wait."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _LaneOf[W]] = {lane: _LaneOf(weight) for lane, weight in WEIGHTS.items()}
        self._where: dict[W, tuple[Lane, Hashable]] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._where)

    def __iter__(self) -> Iterator[W]:
        """All of them, in no particular order; the line may be changed meanwhile."""
        return iter(list(self._where))

    def add(self, waiter: W, lane: Lane, key: Hashable) -> None:
        """Line up, once."""
        found = self._lanes[lane]
        if not found.size:
            found.passed = max(found.passed, self._now)  # a lane that was empty has saved nothing up
        found.keys.setdefault(key, {})[waiter] = None
        found.size += 1
        self._where[waiter] = (lane, key)

    def first(self) -> W | None:
        """Whose turn it is; the same one until it is taken, leaves, or a lane with more weight comes by."""
        waiting = [lane for lane in self._lanes.values() if lane.size]
        if not waiting:
            return None
        lane = min(waiting, key=lambda each: each.passed)
        return next(iter(next(iter(lane.keys.values()))))

    def take(self, waiter: W) -> None:
        """It had its turn: the next key of its lane is first then."""
        lane, key = self._where[waiter]
        found = self._lanes[lane]
        self._now = max(self._now, found.passed)
        found.passed += found.stride
        self.remove(waiter)
        if key in found.keys:
            found.keys[key] = found.keys.pop(key)

    def remove(self, waiter: W) -> None:
        """It waits no more; nothing happens when it does not."""
        place = self._where.pop(waiter, None)
        if place is None:
            return
        lane, key = place
        found = self._lanes[lane]
        found.size -= 1
        del found.keys[key][waiter]
        if not found.keys[key]:
            del found.keys[key]

    def waiting(self) -> dict[str, int]:
        """How many wait in each lane."""
        return {lane: found.size for lane, found in self._lanes.items()}
