"""How long a model is left alone because it asked to be.

Owns: `CoolDown`, `asked_s`. Does not own: who waits for it (resource).

Pure.
"""

from __future__ import annotations

from flowcore.llm.errors import ProviderUnavailableError, RateLimitedError


def asked_s(error: BaseException | None) -> float | None:
    """For how many seconds the provider asked to be left alone; None: it did not."""
    if not isinstance(error, RateLimitedError | ProviderUnavailableError):
        return None
    asked: object = getattr(error, "retry_after_s", None)
    return float(asked) if isinstance(asked, int | float) and asked > 0 else None


class CoolDown:
    """Of one resource; the longest wish counts."""

    __slots__ = ("times", "until")

    def __init__(self) -> None:
        self.until = float("-inf")
        self.times = 0

    def ask(self, now: float, seconds: float) -> bool:
        """Leave it alone for that long; whether it was not being left alone already."""
        fresh = now >= self.until
        self.times += fresh
        self.until = max(self.until, now + seconds)
        return fresh

    def wait_s(self, now: float) -> float:
        """Seconds until it is over; 0: it is."""
        return max(0.0, self.until - now)
