"""Retry: whether a failed attempt is worth another, and after what wait.

Owns: the rules, pure. Does not own: waiting or counting (flowruntime.flowcontrol.pool).

Always holds: a wait is never longer than `max_delay`, except that a server's own `retry_after_s` is honoured
in full.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from flowcore.errors import FlowError
from flowcore.policies import RetryPolicy

_TOO_MANY: Final = 429
_RETRIABLE: Final = frozenset({"ConnectionError", "TimeoutError"})


def should_retry(policy: RetryPolicy, error: BaseException, *, idempotent: bool = True) -> bool:
    """Whether the class of `error` is one the policy repeats.

    With `retry_on` empty: errors of ours that say `retriable`, and any ConnectionError or TimeoutError; of a
    node that is not idempotent only errors that say the call had no effect. An error that came from elsewhere
    and could not be made again says in `kinds` what it was there.
    """
    elsewhere: tuple[str, ...] = getattr(error, "kinds", ())
    if policy.retry_on:
        return any(name in policy.retry_on for name in (*_names(error), *elsewhere))
    if not idempotent:
        return had_no_effect(error)
    if isinstance(error, FlowError):
        return error.retriable or not _RETRIABLE.isdisjoint(elsewhere)
    return isinstance(error, ConnectionError | TimeoutError)


def _names(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def had_no_effect(error: BaseException) -> bool:
    """Whether the error means that the other side never began: refused connections, 429."""
    return isinstance(error, ConnectionRefusedError) or getattr(error, "status", None) == _TOO_MANY


def next_delay_s(
    policy: RetryPolicy, attempt: int, rng: random.Random, error: BaseException | None = None
) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) has failed.

    Exponential, then jitter, then the cap; at least what the error's `retry_after_s` asks for.
    """
    exponent = min(attempt - 1, 64)
    delay_s = policy.initial.total_seconds() * policy.multiplier**exponent
    delay_s *= 1 + policy.jitter * (2 * rng.random() - 1)
    delay_s = min(delay_s, policy.max_delay.total_seconds())
    asked = getattr(error, "retry_after_s", None)
    return max(delay_s, float(asked)) if isinstance(asked, int | float) else max(0.0, delay_s)
