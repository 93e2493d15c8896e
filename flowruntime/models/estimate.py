"""What a call will take, learned from what calls took: tokens, and how long an answer takes.

Owns: `TokenEstimate`, `Quantile`. Does not own: the provider's own count of a prompt (providers), limits.

Pure. Holds one number, and five markers for each quantile, however many calls are seen.
"""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.1
"""Of the newest call: the memory is of the last twenty or so."""
_LEAST: Final = 0.01
_MOST: Final = 20.0
ANSWER_TOKENS: Final = 256
"""Expected of an answer without `max_tokens`, before anything was learned."""


class TokenEstimate:
    """How many tokens a call will be counted, prompt and answer: a rough count, corrected by experience."""

    __slots__ = ("ratio",)

    def __init__(self) -> None:
        self.ratio = 1.0
        """Actual over rough, an exponentially weighted mean."""

    def of(self, rough: int, *, most: int | None = None) -> int:
        """Tokens to reserve for a call roughly counted `rough`; at least 1, at most `most`."""
        estimated = max(1, round(rough * self.ratio))
        return estimated if most is None else min(estimated, most)

    def learn(self, rough: int, actual: int) -> None:
        """A call roughly counted `rough` took `actual`."""
        if rough > 0 and actual > 0:
            seen = min(_MOST, max(_LEAST, actual / rough))
            self.ratio += _WEIGHT * (seen - self.ratio)


class Quantile:
    """A quantile of a stream of numbers in constant memory.

    Args:
        share: 0.95 for the value that 95 % of the numbers are below.

    Source: R. Jain, I. Chlamtac, "The P-square algorithm for dynamic calculation of quantiles and histograms
    without storing observations", CACM 28(10), 1985.
    """

    __slots__ = ("_heights", "_places", "_share", "_steps", "_wanted", "seen")

    def __init__(self, share: float) -> None:
        self._share: Final = share
        self._heights: list[float] = []
        self._places: list[int] = [1, 2, 3, 4, 5]
        self._wanted = [1.0, 1 + 2 * share, 1 + 4 * share, 3 + 2 * share, 5.0]
        """Of the first and the last marker it is always their place."""
        self._steps: Final = ((1, share / 2), (2, share), (3, (1 + share) / 2))
        self.seen = 0

    def add(self, number: float) -> None:
        """The next number."""
        self.seen += 1
        heights, places = self._heights, self._places
        if len(heights) < len(places):
            heights.append(number)
            heights.sort()
            return
        if number < heights[0]:
            heights[0] = number
        elif number > heights[4]:
            heights[4] = number
        places[4] += 1
        wanted = self._wanted
        for index, step in self._steps:
            if number < heights[index]:
                places[index] += 1
            wanted[index] += step
        for index, _ in self._steps:  # loops over three markers: this is called for every answer
            off = wanted[index] - places[index]
            if off >= 1 or off <= -1:
                self._move(index, off)

    def _move(self, index: int, off: float) -> None:
        """Let a marker in the middle follow the place it should have."""
        heights, places = self._heights, self._places
        ahead, behind = places[index + 1] - places[index], places[index] - places[index - 1]
        if (off >= 1 and ahead > 1) or (off <= -1 and behind > 1):
            step = 1 if off > 0 else -1
            curved = self._curved(index, step)
            if not heights[index - 1] < curved < heights[index + 1]:
                other = index + step
                run = places[other] - places[index]
                curved = heights[index] + step * (heights[other] - heights[index]) / run
            heights[index] = curved
            places[index] += step

    def _curved(self, index: int, step: int) -> float:
        """The height one place further on the parabola through the marker and its neighbours."""
        heights, places = self._heights, self._places
        low, here, high = places[index - 1], places[index], places[index + 1]
        rise = (here - low + step) * (heights[index + 1] - heights[index]) / (high - here)
        fall = (high - here - step) * (heights[index] - heights[index - 1]) / (here - low)
        return heights[index] + step / (high - low) * (rise + fall)

    @property
    def value(self) -> float | None:
        """The quantile as far as it is known; None before the first number."""
        heights = self._heights
        if not heights:
            return None
        if len(heights) < len(self._places):
            return heights[min(len(heights) - 1, int(self._share * len(heights)))]
        return heights[2]
