"""Who spends from which account, and what becomes of a call that a budget does not cover.

Owns: `Budgets`, the accounts of one runtime; `Spender`, on whose behalf a call is made; reserving for all the
budgets of a call at once.
Does not own: the account's rule (spending), prices (pricing), the durable hold of a row
(flowruntime.durable).

Always holds: a call has reserved with all of its budgets or with none. Accounts of a window are forgotten
when it is over, those of a run or request with it.

A worker keeps its own accounts: with several workers each has the whole budget.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowcore.llm.errors import BudgetExceededError
from flowcore.llm.policy import BudgetPolicy
from flowruntime.models.spending import Cost, Held, Refusal, Spending

_TIDY_AT: Final = 1_000
"""Accounts, before those whose window is over are looked for."""


class Life:
    """Something that ends: accounts without a window last as long as it does."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True, eq=False)
class Spender:
    """On whose behalf a call is made."""

    workflow: str = ""
    """Its id; empty for a client."""
    key: Any = None
    """The tenant: the key of the row."""
    life: object = field(default_factory=Life)
    """What accounts without a window last as long as: the run, the request, the client."""
    stop: Callable[[BudgetExceededError], None] | None = None
    """Drains the run; None: there is none."""


class Budgets:
    """All accounts.

    Args:
        unpriced: a budget in money met a model whose price is not known.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[Any, ...], Spending] = {}
        self._lives: WeakKeyDictionary[Any, dict[tuple[Any, ...], Spending]] = WeakKeyDictionary()
        self._whole: dict[tuple[Any, ...], Spending] = {}
        """Without a window, of all of this worker."""
        self._tidy_at = _TIDY_AT

    def account(self, policy: BudgetPolicy, spender: Spender, now: float) -> Spending:
        """Where a call of `spender` is booked."""
        name: tuple[Any, ...] = (policy.name, policy.scope)
        if policy.scope != "all":
            name = (*name, spender.workflow)
        if policy.scope == "key":
            name = (*name, _hashable(spender.key))
        if policy.window is not None:
            accounts = self._windows
            self._tidy(now)
        elif policy.scope == "all":
            accounts = self._whole
        else:
            accounts = self._lives.setdefault(spender.life, {})
        found = accounts.get(name)
        if found is None or found.policy != policy:
            # Another declaration of the same budget is another budget, with an account of its own.
            name = (*name, policy)
            found = accounts.get(name)
            if found is None:
                found = accounts[name] = Spending(policy)
        return found

    def _tidy(self, now: float) -> None:
        if len(self._windows) < self._tidy_at:
            return
        self._windows = {name: each for name, each in self._windows.items() if not each.is_over(now)}
        self._tidy_at = max(_TIDY_AT, 2 * len(self._windows))

    def try_hold(
        self, policies: Sequence[BudgetPolicy], spender: Spender, cost: Cost, now: float
    ) -> Reserved | BudgetShort:
        """Reserve with every budget, or say which one is short."""
        accounts = [self.account(policy, spender, now) for policy in policies]
        for account in accounts:
            if account.policy.usd is not None and cost.usd is None:
                return BudgetShort(
                    account, Refusal("usd", account.policy.usd, account.usd, None), unpriced=True
                )
            refusal = account.refusal(cost, now)
            if refusal is not None:
                return BudgetShort(account, refusal)
        return Reserved([(account, account.hold(cost, now)) for account in accounts])

    @property
    def held(self) -> int:
        """Tokens reserved over all accounts."""
        lives = [account for accounts in self._lives.values() for account in accounts.values()]
        return sum(each.held for each in (*self._windows.values(), *self._whole.values(), *lives))

    def statistics(self) -> list[dict[str, Any]]:
        """Each account that lasts longer than a request."""
        return [
            {
                "budget": account.policy.name,
                "scope": account.policy.scope,
                "of": [str(part) for part in name[2:] if not isinstance(part, BudgetPolicy)],
                "tokens": account.tokens,
                "usd": account.usd,
                "reserved_tokens": account.held,
                "limit_tokens": account.policy.tokens,
                "limit_usd": account.policy.usd,
            }
            for name, account in (*self._windows.items(), *self._whole.items())
        ]


class Reserved:
    """What one call has reserved."""

    __slots__ = ("_held",)

    def __init__(self, held: list[tuple[Spending, Held]]) -> None:
        self._held = held

    def settle(self, actual: Cost, now: float) -> None:
        """The call is over; idempotent."""
        held, self._held = self._held, []
        for account, reservation in held:
            account.settle(reservation, actual, now)


def put_off_s(error: BudgetExceededError) -> float | None:
    """Seconds until the next window, where the budget lets calls wait and they cannot in memory."""
    found: float | None = error.__dict__.get("_put_off_s")
    return found


class BudgetShort:
    """A budget that does not cover a call."""

    __slots__ = ("_account", "_refusal", "unpriced")

    def __init__(self, account: Spending, refusal: Refusal, *, unpriced: bool = False) -> None:
        self._account = account
        self._refusal = refusal
        self.unpriced = unpriced

    @property
    def policy(self) -> BudgetPolicy:
        return self._account.policy

    def error(self, model: str, cost: Cost) -> BudgetExceededError:
        """What the call fails with."""
        policy, refusal = self.policy, self._refusal
        if self.unpriced:
            why = f"the price of model {model!r} is not known, so no money can be reserved for it"
            remedy = "give its price (FlowRuntime(prices=...)), or count tokens"
        else:
            asked = cost.tokens if refusal.unit == "tokens" else cost.usd or 0.0
            why = (
                f"{refusal.spent:,.6g} of {refusal.limit:,.6g} {refusal.unit} are spent or reserved, and the "
                f"call would take about {asked:,.6g}"
            )
            remedy = "raise it"
            if refusal.resets_in_s is not None:
                remedy = f"its window ends in {refusal.resets_in_s:,.0f} s; wait, or raise it"
        error = BudgetExceededError(
            f"budget {policy.name!r} of {policy.scope}: {why}; {remedy}",
            budget=policy.name,
            limit=refusal.limit,
            spent=refusal.spent,
            unit=refusal.unit,
            resets_in_s=refusal.resets_in_s,
            reaction=policy.reaction,
        )
        if policy.reaction == "dead_letter":
            error.__dict__["_then"] = "dead_letter"  # whatever on_error of the node says
        return error

    @property
    def may_fit(self) -> bool:
        """Only what calls under way have reserved is in the way: when one is over there may be room."""
        return self._refusal.may_fit and not self.unpriced

    async def until_one_is_over(self, until: float) -> None:
        """Wait for the end of a call under way, of the window, or until then on the loop's clock."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._account.waiting.append(lambda: None if over.done() else over.set_result(None))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until), asyncio.timeout(self._refusal.resets_in_s):
                await over

    async def until_next_window(self, model: str, cost: Cost, max_hold_s: float) -> None:
        """Wait for the next window, where it is near enough to wait in memory.

        Raises:
            BudgetExceededError: it is not (see `put_off_s`), or the call is more than any window covers.
        """
        wait_s = self._refusal.resets_in_s
        if self.unpriced or self._account.never(cost):
            raise self.error(model, cost)
        if wait_s is not None and wait_s > max_hold_s:
            error = self.error(model, cost)
            error.__dict__["_put_off_s"] = wait_s
            raise error
        # Without a window under way everything is reserved by calls that have not ended yet.
        await asyncio.sleep(max(0.001, wait_s if wait_s is not None else 0.05))


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key
