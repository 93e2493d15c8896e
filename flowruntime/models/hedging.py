"""When a slow call is made a second time.

Owns: `Hedging`, of one resource. Does not own: making the calls (call).

Pure. Always holds: of the calls of a resource at most the declared share is hedged, beside the first
`_RESERVE`.
"""

from __future__ import annotations

from flowcore.llm.policy import Hedge
from flowruntime.models.estimate import Quantile

SEEN_ENOUGH = 20
"""Calls before their 95th percentile means anything."""
_RESERVE = 1.0


class Hedging:
    """The share that was used, and how slow is slow."""

    __slots__ = ("_calls", "hedged", "won")

    def __init__(self) -> None:
        self._calls = 0
        self.hedged = 0
        self.won = 0
        """Of the hedged: those where the second call was faster."""

    def called(self) -> None:
        """A call that may be hedged begins."""
        self._calls += 1

    def delay_s(self, hedge: Hedge, p95: Quantile) -> float | None:
        """How long to wait before a second call; None: none is made."""
        if hedge.after is not None:
            return hedge.after.total_seconds()
        return p95.value if p95.seen >= SEEN_ENOUGH else None

    def take(self, hedge: Hedge) -> bool:
        """Whether one more call may be hedged, now that it is slow; counts it."""
        if self.hedged + 1 > _RESERVE + hedge.budget * self._calls:
            return False
        self.hedged += 1
        return True
