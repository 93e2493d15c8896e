"""From neighbours to one label and how sure it is.

Owns: the weighted vote.
Does not own: finding the neighbours (index) or what to do when a vote is unsure (the workflow's routes).

Always holds: the shares of all labels add up to 1; equal shares go to the label of the nearer neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from flowcore.errors import RunError

SOFTNESS: Final = 0.03
"""A neighbour whose cosine is this much lower counts 1/e of the nearest."""


class NoNeighboursError(RunError, ValueError):
    """A vote needs at least one neighbour, one label for each score, and finite scores."""


class Vote(NamedTuple):
    """The winner."""

    label: str
    confidence: float
    """Its share of all weights, above 0 and at most 1: a measure to order by, not a probability."""


def vote(labels: Sequence[str], scores: Sequence[float], *, softness: float = SOFTNESS) -> Vote:
    """The label with the largest share, each neighbour weighing exp((score - best) / softness).

    Args:
        labels: of the neighbours, best first.
        scores: their cosines.
        softness: above 0; towards 0 only the nearest counts, towards infinity all count the same.

    Raises:
        NoNeighboursError: nothing to vote on, lengths differ, a score is not finite, softness is not above 0.
    """
    if not labels or len(labels) != len(scores) or not all(map(math.isfinite, scores)) or not softness > 0:
        raise NoNeighboursError(
            f"cannot vote with {len(labels)} labels, {len(scores)} scores, softness {softness!r}; "
            "give the same number of both, at least one, finite scores and a softness above 0"
        )
    best = max(scores)
    shares: dict[str, float] = {}
    for label, score in zip(labels, scores, strict=True):
        shares[label] = shares.get(label, 0.0) + math.exp((score - best) / softness)
    winner = max(shares, key=shares.__getitem__)
    return Vote(winner, shares[winner] / math.fsum(shares.values()))
