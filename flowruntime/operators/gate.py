"""The passing rule of signals at a stage that finishes rows out of order.

Owns: `Gate`: a signal passes only when every row that came before it has left; a barrier also holds back
    rows that came
after it. Does not own: the rows.

Pure. Holds one entry per signal that has not passed.
"""

from __future__ import annotations

from collections import deque

from flowcore.frame import Barrier, Signal


class Generation:
    """Rows between two signals."""

    __slots__ = ("outstanding", "signal")

    def __init__(self) -> None:
        self.outstanding = 0
        self.signal: Signal | None = None


class Gate:
    """Generations of rows, oldest first."""

    __slots__ = ("_generations",)

    def __init__(self) -> None:
        self._generations: deque[Generation] = deque([Generation()])

    @property
    def current(self) -> Generation:
        """Where rows that come in now belong."""
        return self._generations[-1]

    @property
    def idle(self) -> bool:
        """No row is inside."""
        return not any(generation.outstanding for generation in self._generations)

    def signal(self, signal: Signal) -> None:
        """A signal came in; it waits for the rows before it."""
        self._generations[-1].signal = signal
        self._generations.append(Generation())

    def may_leave(self, generation: Generation) -> bool:
        """Whether a finished row of `generation` may leave now: no barrier stands before it."""
        if generation is self._generations[0]:
            return True
        for earlier in self._generations:
            if earlier is generation:
                return True
            if isinstance(earlier.signal, Barrier):
                return False
        return True

    def passed(self) -> list[Signal]:
        """Signals that may pass now, in order."""
        found: list[Signal] = []
        generations = self._generations
        while len(generations) > 1 and generations[0].outstanding == 0:
            signal = generations.popleft().signal
            if signal is not None:
                found.append(signal)
        return found
