"""A call that wants to begin, and one that has begun.

Owns: `Ask`, `Admission`. Does not own: when it may begin (resource).

Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable

from flowcore.llm.policy import CallPolicy, Lane
from flowruntime.models.adaptive import Start
from flowruntime.models.window import Reservation
from flowruntime.resilience.breaker import Ticket


class Ask:
    """A call that wants to begin; kept over its attempts on one resource."""

    __slots__ = ("breaker", "key", "lane", "rough", "ticket", "tokens", "waits")

    def __init__(self, policy: CallPolicy, key: Hashable, rough: int) -> None:
        self.lane: Lane = policy.lane
        self.key = key
        self.breaker = policy.breaker is not None
        self.waits = policy.breaker is not None and policy.breaker.when_open == "wait"
        self.rough = rough
        """Tokens, roughly."""
        self.tokens = rough
        self.ticket: Ticket | None = None

    def again(self) -> Ask:
        """The same call a second time, beside the first: its circuit has no say, the first one's has."""
        ask = copy.copy(self)
        ask.breaker, ask.ticket = False, None
        return ask


class Admission:
    """A call that has begun."""

    __slots__ = ("at", "rough", "start", "tokens")

    def __init__(self, at: float, tokens: Reservation, start: Start, rough: int) -> None:
        self.at = at
        self.tokens = tokens
        self.start = start
        self.rough = rough
