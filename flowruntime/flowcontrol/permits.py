"""Permits: how many rows may be worked on at once, globally, per node type, per node and per resource.

Owns: `Limit` and `Permits`, the set one stage needs.
Does not own: who waits for work (flowruntime.flowcontrol.pool).

Always holds: permits are taken all or none, synchronously, and never while waiting for another; whoever is
refused is woken, in turn, when a permit of the limit that refused comes back. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from flowcore.errors import EngineError


class Limit:
    """A named bound on concurrent work."""

    __slots__ = ("_waiting", "capacity", "failures", "in_use", "name", "peak", "taken", "waits")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.in_use = 0
        self.peak = 0
        self.taken = 0
        """Permits given so far."""
        self.failures = 0
        """Of these: attempts that failed."""
        self.waits = 0
        """How often a stage was refused."""
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when a permit may be free."""
        self.waits += 1
        if wake not in self._waiting:
            self._waiting.append(wake)

    def forget(self, wake: Callable[[], None]) -> None:
        """`wake` has gone."""
        if wake in self._waiting:
            self._waiting.remove(wake)

    def returned(self) -> None:
        """A permit came back."""
        self.in_use -= 1
        if self.in_use < 0:
            raise EngineError(f"limit {self.name!r} got back more permits than it gave")
        if self._waiting:
            self._wake()

    def set_capacity(self, capacity: int) -> None:
        """Change the bound while running; what is in use above a smaller one runs out by itself."""
        self.capacity = capacity
        self._wake()

    def _wake(self) -> None:
        """Wake whoever waits while there is room; one without work, or that waits elsewhere, takes none."""
        while self._waiting and self.in_use < self.capacity:
            self._waiting.popleft()()

    def statistics(self) -> dict[str, int | str]:
        return {
            "name": self.name,
            "capacity": self.capacity,
            "in_use": self.in_use,
            "peak": self.peak,
            "taken": self.taken,
            "failures": self.failures,
            "waits": self.waits,
            "waiting": len(self._waiting),
        }


class Permits:
    """The limits one stage is subject to."""

    __slots__ = ("limits",)

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)

    def take(self, wake: Callable[[], None]) -> bool:
        """One permit of each limit, or none.

        When refused, `wake` is called as soon as trying again makes sense.
        """
        for limit in self.limits:
            if limit.in_use >= limit.capacity:
                limit.wait(wake)
                return False
        for limit in self.limits:
            limit.in_use += 1
            limit.taken += 1
            if limit.in_use > limit.peak:  # noqa: PLR1730 - for every row: max() costs a call
                limit.peak = limit.in_use
        return True

    def give_back(self, *, failed: bool = False) -> None:
        """Return one permit of each; `failed`: the attempt it was taken for did."""
        for limit in self.limits:
            limit.failures += failed
            limit.returned()
