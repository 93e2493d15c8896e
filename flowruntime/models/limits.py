"""What holds for one model, of all that was declared for it: the strictest of each.

Owns: `Declared`. Does not own: keeping to it (resource).

Pure.
"""

from __future__ import annotations

from typing import Final

from flowcore.llm.policy import ModelLimits
from flowcore.policies import Breaker, RetryPolicy

_MOST_SEEN: Final = 1_000
"""Declarations that are known at once."""

Change = tuple[str, int, int]
"""Which limit, what it was (0: none), what it is."""


class Declared:
    """The limits of one resource so far."""

    __slots__ = ("breaker", "concurrency", "most", "ratio", "requests", "seen", "tokens")

    def __init__(self) -> None:
        self.concurrency: int | None = None
        """Calls at once; None: found out."""
        self.most: int = ModelLimits().most
        self.requests: int | None = None
        self.tokens: int | None = None
        self.breaker: Breaker | None = None
        self.ratio: float | None = None
        """Retries per first attempt."""
        self.seen: set[tuple[ModelLimits, Breaker | None, float]] = set()
        """Declarations that were taken in: at most one for each node and client."""

    def add(self, limits: ModelLimits, breaker: Breaker | None, retry: RetryPolicy) -> list[Change] | None:
        """Take a declaration in; None: it was known. Else what was made stricter for those before."""
        declaration = (limits, breaker, retry.budget)
        if declaration in self.seen:
            return None
        first = self.ratio is None
        if len(self.seen) >= _MOST_SEEN:
            self.seen.clear()  # taken in again, they change nothing
        self.seen.add(declaration)
        before = (self.concurrency, self.requests, self.tokens)
        self.concurrency = _least(self.concurrency, limits.concurrency)
        self.requests = _least(self.requests, limits.requests_per_minute)
        self.tokens = _least(self.tokens, limits.tokens_per_minute)
        self.most = limits.most if first else min(self.most, limits.most)
        self.ratio = retry.budget if self.ratio is None else min(self.ratio, retry.budget)
        if breaker is not None:
            self.breaker = breaker if self.breaker is None else stricter(self.breaker, breaker)
        after = (self.concurrency, self.requests, self.tokens)
        if first:
            return []
        names = (CONCURRENCY, REQUESTS, TOKENS)
        return [
            (name, old or 0, new)
            for name, old, new in zip(names, before, after, strict=True)
            if new is not None and new != old
        ]


CONCURRENCY: Final = "concurrency"
REQUESTS: Final = "requests_per_minute"
TOKENS: Final = "tokens_per_minute"


def stricter(one: Breaker, other: Breaker) -> Breaker:
    """The breaker that opens when either would, and stays open as long as either would."""
    failures = min(one.failures, other.failures)
    return Breaker(
        failures=failures,
        window=max(failures, one.window, other.window),
        period=max(one.period, other.period),
        open_for=max(one.open_for, other.open_for),
        when_open=one.when_open,
    )


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
