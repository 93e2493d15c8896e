"""What repeats come to: medians, ratios of pairs, bars.

Owns: the arithmetic of a comparison.
Does not own: measuring (benchmarks.harness) or showing (benchmarks.report).

Pure: values in, values out.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Comparison = Literal["<=", ">=", "=="]

_HOLDS: Mapping[Comparison, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Summary:
    """Repeats of one figure of one contender."""

    median: float
    min: float
    max: float
    quartiles: tuple[float, float]
    repeats: int


def summarize(figures: Sequence[float]) -> Summary:
    """The repeats in five numbers; quartiles by linear interpolation, inclusive.

    Raises:
        ValueError: no figure was given.
    """
    if not figures:
        message = "nothing was measured: a summary needs at least one figure"
        raise ValueError(message)
    return Summary(statistics.median(figures), min(figures), max(figures), quartiles(figures), len(figures))


def quartiles(figures: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; a single figure is both."""
    if len(figures) == 1:
        return figures[0], figures[0]
    first, _, third = statistics.quantiles(figures, n=4, method="inclusive")
    return first, third


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round: what disturbs the machine for a while disturbs both of a pair.

    Raises:
        ValueError: not one figure each per round, or one of theirs is 0.
    """
    if 0 in theirs:
        message = f"a figure of 0 has no ratio: {list(theirs)!r}"
        raise ValueError(message)
    return [mine / other for mine, other in _pairs(ours, theirs)]


def paired_differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours less theirs, round by round.

    Raises:
        ValueError: not one figure each per round.
    """
    return [mine - other for mine, other in _pairs(ours, theirs)]


def _pairs(ours: Sequence[float], theirs: Sequence[float]) -> list[tuple[float, float]]:
    if len(ours) != len(theirs):
        message = f"{len(ours)} figures of ours and {len(theirs)} of theirs make no pairs"
        raise ValueError(message)
    return list(zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Bar:
    """A promise about a row: `limit` for our median or, with `against`, for the ratio to that contender.

    With `beyond` it is for our median less that contender's, in the row's unit.
    """

    comparison: Comparison
    limit: float
    against: str | None = None
    beyond: str | None = None

    def holds(self, figure: float) -> bool:
        """True when `figure` keeps the promise."""
        return _HOLDS[self.comparison](figure, self.limit)

    def text(self, unit: str) -> str:
        """The bar as a person reads it: `>= 0.85x plain loop`, `<= 30 us/node`, `<= plain loop + 5 us`."""
        if self.beyond is not None:
            return f"{self.comparison} {self.beyond} + {self.limit:g} {unit}"
        if self.against is None:
            return f"{self.comparison} {self.limit:g} {unit}"
        return f"{self.comparison} {self.limit:g}x {self.against}"
