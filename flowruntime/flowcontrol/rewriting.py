"""Whether a write that raised is made again, and when.

Owns: `Rewriting`, for the writer of one sink. Does not own: writing and waiting (writer), the rules
(resilience).

Always holds: the same rows in the same order, so that a sink sees no other batch than the one it refused; a
write that is made again is one write to whoever counts. A write that said which rows failed is not repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowruntime.resilience.retry import next_delay_s

if TYPE_CHECKING:
    from flowcore.policies import RetryPolicy
    from flowruntime.resilience.breaker import Ticket
    from flowruntime.resilience.guard import Guard


@dataclass(slots=True)
class WriteCall:
    """One write and how often it was tried, as a `Guard` asks for it."""

    attempt: int = 1
    cancelled: bool = False
    error: BaseException | None = None
    ticket: Ticket | None = None
    deadline: float | None = None


class Rewriting:
    """The retry policy of one sink.

    Args:
        policy: which errors are worth another write, and how many.
        guard: keeps the budget.
        rng: for jitter.
    """

    def __init__(self, policy: RetryPolicy, guard: Guard, rng: random.Random) -> None:
        self._policy = policy
        self._guard = guard
        self._rng = rng

    def begin(self, now: float) -> WriteCall:
        """A batch is written for the first time."""
        call = WriteCall()
        self._guard.begin(call, 1, now)
        return call

    def delay_s(self, call: WriteCall, error: Exception, now: float) -> float | None:
        """Seconds until the batch is to be written again; None: its rows have failed."""
        delay_s = next_delay_s(self._policy, call.attempt, self._rng, error)
        return delay_s if self._guard.repeats(call, error, delay_s, now) else None
