"""Budgets of tokens and money: what was spent, what is reserved, and when a window begins anew.

Owns: `Spending`, the account of one budget of one spender, and `Held`, what a call under way has reserved.
Does not own: whose account it is (budgets), prices (pricing), what becomes of a call beyond it (budgets).

Pure: time is passed in. Always holds: a call begins only where spent + reserved + its own estimate stay
within the budget, so that it is exceeded by no more than the calls under way took beyond their estimates. A
window begins with its first call; what a call turned out to cost counts in the window it began in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flowcore.llm.policy import BudgetPolicy


class Cost(NamedTuple):
    """Of one call."""

    tokens: int
    usd: float | None
    """None: the price is not known."""


class Refusal(NamedTuple):
    """Why a call may not begin."""

    unit: str
    """`tokens` or `usd`."""
    limit: float
    spent: float
    """What is reserved included."""
    resets_in_s: float | None
    """Until the window ends; None: it does not."""
    may_fit: bool = False
    """It would fit if the calls under way took less than they have reserved: they may."""


class Held:
    """A reservation; hand it back once."""

    __slots__ = ("cost", "era")

    def __init__(self, era: int, cost: Cost) -> None:
        self.era = era
        self.cost = cost


class Spending:
    """One account.

    Args:
        policy: of the budget.
    """

    __slots__ = ("_ends", "_era", "held", "held_usd", "policy", "tokens", "usd", "waiting")

    def __init__(self, policy: BudgetPolicy) -> None:
        self.policy = policy
        self._era = 0
        self._ends: float | None = None
        """Of the window under way."""
        self.tokens = 0
        self.usd = 0.0
        self.held = 0
        """Tokens reserved by calls under way."""
        self.held_usd = 0.0
        self.waiting: list[Callable[[], None]] = []
        """Called once each, when a call under way is over."""

    def refusal(self, cost: Cost, now: float) -> Refusal | None:
        """Why a call of that estimate may not begin; None: it may."""
        self._turn(now)
        policy = self.policy
        resets_in_s = None if self._ends is None else self._ends - now
        if policy.tokens is not None and self.tokens + self.held + cost.tokens > policy.tokens:
            return Refusal("tokens", policy.tokens, self.tokens + self.held, resets_in_s, self._may_fit(cost))
        if policy.usd is not None:
            spent = self.usd + self.held_usd
            if spent + (cost.usd or 0.0) > policy.usd or (cost.usd == 0.0 and spent >= policy.usd):
                return Refusal("usd", policy.usd, spent, resets_in_s, self._may_fit(cost))
        return None

    def _may_fit(self, cost: Cost) -> bool:
        """Whether nothing but what is reserved is in the way."""
        policy = self.policy
        tokens = policy.tokens is None or self.tokens + cost.tokens <= policy.tokens
        usd = policy.usd is None or (self.usd < policy.usd and self.usd + (cost.usd or 0.0) <= policy.usd)
        return tokens and usd and (self.held > 0 or self.held_usd > 0)

    def never(self, cost: Cost) -> bool:
        """Whether a call of that estimate is more than the whole budget."""
        policy = self.policy
        return (policy.tokens is not None and cost.tokens > policy.tokens) or (
            policy.usd is not None and (cost.usd or 0.0) > policy.usd
        )

    def hold(self, cost: Cost, now: float) -> Held:
        """Reserve the estimate; `refusal` was None."""
        self._turn(now)
        if self._ends is None and self.policy.window is not None:
            self._ends = now + self.policy.window.total_seconds()
        self.held += cost.tokens
        self.held_usd += cost.usd or 0.0
        return Held(self._era, cost)

    def settle(self, held: Held, actual: Cost, now: float) -> None:
        """The call is over, and this is what it took: nothing, where it was never made."""
        self._turn(now)
        if held.era != self._era:
            return  # its window is over, and its reservation went with it
        self.held -= held.cost.tokens
        self.held_usd -= held.cost.usd or 0.0
        self.tokens += actual.tokens
        self.usd += actual.usd or 0.0
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()

    def is_over(self, now: float) -> bool:
        """Whether the account can be forgotten: its window has ended."""
        return self._ends is not None and now >= self._ends

    def _turn(self, now: float) -> None:
        if self._ends is not None and now >= self._ends:
            self._era += 1
            self._ends = None
            self.tokens = self.held = 0
            self.usd = self.held_usd = 0.0
