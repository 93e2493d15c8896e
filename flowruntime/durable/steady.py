"""A clock for what is due in a running run. Owns: `SteadyClock`. Pure: the clocks it reads are given."""

from __future__ import annotations

from collections.abc import Callable


class SteadyClock:
    """Wall-clock time that goes on although the wall clock is set back: for what is due in a running run.

        wall     12:00  12:30  11:35 (set back by an hour)  12:05
        steady   12:00  12:30  12:35                        13:05

    Args:
        wall: Unix seconds.
        steady: seconds that never go back.
    """

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead = wall() - steady()

    def __call__(self) -> float:
        """Never less than the wall clock, and never less than before."""
        self._ahead = max(self._ahead, self._wall() - self._steady())
        return self._steady() + self._ahead
