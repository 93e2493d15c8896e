"""What clients give: whole answers, failures as objects, and figures of what was done.

Owns: `Completion`, `Failure`, `ClientStatistics`. Does not own: calls.
"""

from __future__ import annotations

import msgspec

from flowcore.errors import describe_error
from flowcore.llm.answers import Usage


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer."""

    text: str
    finish: str
    model: str
    usage: Usage | None
    """None: the provider told nothing."""
    duration_s: float
    """With everything it waited for."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a batch that failed; the others are not touched by it."""

    index: int
    kind: str
    """The class of the error: `RateLimitedError`, `AuthenticationError`, ..."""
    message: str
    provider: str
    model: str
    status: int | None = None
    retry_after_s: float | None = None

    def __bool__(self) -> bool:
        """False, so that `[answer for answer in answers if answer]` keeps what succeeded."""
        return False


def failure_of(error: Exception, index: int, provider: str, model: str) -> Failure:
    """An error as an item of a batch."""
    status, retry_after = getattr(error, "status", None), getattr(error, "retry_after_s", None)
    told = describe_error(error)
    return Failure(
        index=index,
        kind=str(told["kind"]),
        message=str(told["message"]),
        provider=str(getattr(error, "provider", None) or provider),
        model=str(getattr(error, "model", None) or model),
        status=status if isinstance(status, int) else None,
        retry_after_s=float(retry_after) if isinstance(retry_after, int | float) else None,
    )


class ClientStatistics(msgspec.Struct, kw_only=True):
    """What a client did since it was made, or since `reset_stats`."""

    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    untold: int = 0
    """Answers whose provider told no tokens: they are in no sum."""
    total_duration_s: float = 0.0
    longest_s: float = 0.0

    @property
    def average_s(self) -> float | None:
        """None before the first call is over."""
        over = self.succeeded + self.failed
        return self.total_duration_s / over if over else None
