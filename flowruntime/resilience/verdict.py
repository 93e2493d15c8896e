"""What an error says of the thing that was called: is it down, is it busy, or was it this one call.

Owns: `verdict`, the one place that decides what trips a breaker.
Does not own: whether a retry helps (retry).
"""

from __future__ import annotations

from typing import Literal

from flowcore.errors import CircuitOpenError, FlowError

Verdict = Literal["up", "down", "none"]

_TOO_MANY = 429
_DOWN = frozenset({"ConnectionError", "TimeoutError"})


def verdict(error: BaseException | None) -> Verdict:
    """`up`: it answered, if only to refuse this call. `down`: it did not, or says it cannot. `none`: neither.

    A server that asks to slow down (429) is neither: a limit must follow it, never a breaker.
    """
    if error is None:
        return "up"
    if getattr(error, "status", None) == _TOO_MANY or isinstance(error, CircuitOpenError):
        return "none"
    elsewhere: tuple[str, ...] = getattr(error, "kinds", ())  # of an error that could not be made again here
    if isinstance(error, ConnectionError | TimeoutError) or not _DOWN.isdisjoint(elsewhere):
        return "down"
    if isinstance(error, FlowError) and error.retriable:
        return "down"
    return "up"
