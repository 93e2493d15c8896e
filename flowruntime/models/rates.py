"""Requests and tokens per minute of one model: what was declared, and what its provider says is left.

Owns: `Rates`. Does not own: the ledgers (window), who waits (resource).

Pure: time is passed in. Always holds: what providers say can only hold back what the declared limits let
through.
"""

from __future__ import annotations

from typing import Any

from flowcore.llm.answers import RateLimits
from flowruntime.models.window import Ceiling, Reservation, Window


class Rates:
    """Of one resource.

    Args:
        name: in errors.
    """

    __slots__ = ("_requests_left", "_tokens_left", "_under_way", "requests", "tokens")

    def __init__(self, name: str) -> None:
        self.requests = Window(f"requests of {name} per minute", None)
        self.tokens = Window(f"tokens of {name} per minute", None)
        self._requests_left = Ceiling()
        self._tokens_left = Ceiling()
        self._under_way = 0
        """Tokens reserved by calls that have not ended."""

    def tighten(self, requests: int | None, tokens: int | None) -> None:
        """Keep to the smaller limits from now on."""
        self.requests.tighten(requests)
        self.tokens.tighten(tokens)

    def wait_s(self, now: float, tokens: int) -> float:
        """Seconds until a call of so many tokens may begin; 0: now.

        Raises:
            LimitExceededError: it takes more tokens than a minute has.
        """
        return max(
            self.requests.wait_s(now, 1),
            self.tokens.wait_s(now, tokens),
            self._requests_left.wait_s(now, 1),
            self._tokens_left.wait_s(now, tokens),
        )

    def begin(self, now: float, tokens: int) -> Reservation:
        """A call begins; hand the reservation to `end`."""
        self._requests_left.begin(now, 1)
        self._tokens_left.begin(now, tokens)
        self._under_way += tokens
        self.requests.reserve(now, 1)
        return self.tokens.reserve(now, tokens)

    def end(self, reservation: Reservation, actual: int | None, now: float) -> None:
        """It took so many tokens; None: nobody knows, and the reservation stands."""
        self._under_way -= reservation.amount
        if actual is not None:
            self.tokens.true_up(reservation, actual, now)

    def hear(self, limits: RateLimits, now: float, in_flight: int) -> None:
        """What an answer said; calls under way may not be counted in it yet."""
        self._requests_left.heard(
            now,
            left=limits.requests_left,
            reset_s=limits.requests_reset_s,
            full=limits.requests,
            under_way=in_flight,
        )
        self._tokens_left.heard(
            now,
            left=limits.tokens_left,
            reset_s=limits.tokens_reset_s,
            full=limits.tokens,
            under_way=self._under_way,
        )

    def is_quiet(self, now: float) -> bool:
        """Whether nothing was taken within the last minute, and nothing is owed."""
        return not (self.requests.used(now) or self.tokens.used(now) or self.tokens.debt)

    @property
    def reserved(self) -> int:
        """Tokens reserved by calls that have not ended."""
        return self._under_way

    def statistics(self, now: float) -> dict[str, Any]:
        """Plain data."""
        requests, tokens = self.requests, self.tokens
        return {
            "requests_per_minute": {"used": requests.used(now), "limit": requests.limit},
            "tokens_per_minute": {"used": tokens.used(now), "limit": tokens.limit, "owed": tokens.debt},
            "tokens": tokens.total,
            "reserved_tokens": self._under_way,
        }
