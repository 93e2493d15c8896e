"""The retry budget: how many retries all calls of a resource may make together.

Owns: `RetryBudget`. Does not own: which error is worth a retry and after what wait (retry).

Pure: time is passed in. Nested retries (a node in a workflow that is a node, a whole workflow tried again)
draw from the budget of the resource they call, so their numbers cannot multiply: over any time the retries of
a resource are at most `RESERVE` + `RESERVE` per minute + `ratio` x its first attempts.
"""

from __future__ import annotations

from typing import Final

RESERVE: Final = 10.0
"""Retries a quiet resource may make before any first attempt has paid for them."""
MOST_SAVED: Final = 100.0
"""Good times do not pay for an endless burst of retries."""
_REFILL_PER_S: Final = RESERVE / 60.0


class RetryBudget:
    """Tokens: a first attempt pays `ratio` in, a retry takes 1 out."""

    __slots__ = ("_at", "ratio", "refused", "tokens")

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        """Retries per first attempt; may be made stricter."""
        self._at: float | None = None
        self.tokens = RESERVE
        self.refused = 0
        """Retries there was no token for."""

    def first_attempt(self) -> None:
        """A call is made for the first time."""
        self.tokens = min(MOST_SAVED, self.tokens + self.ratio)

    def take(self, now: float) -> bool:
        """Whether one retry may be made; takes its token."""
        if self._at is not None and self.tokens < RESERVE:
            self.tokens = min(RESERVE, self.tokens + (now - self._at) * _REFILL_PER_S)
        self._at = now
        if self.tokens < 1.0:
            self.refused += 1
            return False
        self.tokens -= 1.0
        return True
