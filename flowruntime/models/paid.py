"""Making a call that has to be paid: its budgets, then whoever answers.

Owns: `Payment`, what a call has reserved, and what becomes of it where a budget is short.
Does not own: accounts (budgets), carrying the call out (carrying).

Always holds: what was reserved is settled once, with what all attempts took, whatever became of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from flowcore.llm.calls import Target
from flowcore.llm.policy import BudgetPolicy
from flowruntime.models.attempt import Place
from flowruntime.models.budgets import BudgetShort, Reserved
from flowruntime.models.report import Report
from flowruntime.models.spending import Cost

if TYPE_CHECKING:
    from flowruntime.models.gateway import Gateway, Request


@dataclass(slots=True)
class Payment:
    """A call whose budgets cover it."""

    request: Request
    """As it is made: perhaps of a cheaper model."""
    target: Target
    places: list[Place]
    reserved: Reserved | None
    """None: it has no budget."""
    report: Report

    def settle(self) -> None:
        """The call is over. Idempotent."""
        if self.reserved is not None:
            self.reserved.settle(self.report.cost, asyncio.get_running_loop().time())


async def paid(gateway: Gateway, request: Request, target: Target, report: Report) -> Payment:
    """Reserve what the call is expected to take, with all its budgets.

    Raises:
        BudgetExceededError: one of them does not cover it, and says fail, stop or dead_letter, or its next
            window is too far away to wait for in memory.
        ConfigError: see `Gateway.places`.
    """
    budgets: tuple[BudgetPolicy, ...] = target.policy.budgets
    places = gateway.places(request, target, report.origin)
    await gateway.prices.ready(endpoint.provider for endpoint in target.endpoints)
    if not budgets:
        return Payment(request, target, places, None, report)
    # No longer than a call may take: what is in the way may be a stream whose reader waits for this call.
    patient_until = asyncio.get_running_loop().time() + max(place.total_s for place in places)
    while True:
        cost = expected(places, priced=any(budget.usd is not None for budget in budgets))
        now = asyncio.get_running_loop().time()
        got = gateway.budgets.try_hold(budgets, report.origin.spender, cost, now)
        if isinstance(got, Reserved):
            return Payment(request, target, places, got, report)
        if got.may_fit and now < patient_until:
            await got.until_one_is_over(patient_until)
            continue
        policy = got.policy
        if policy.reaction == "cheaper" and policy.cheaper_model is not None:
            # This budget covers the model that was asked for; the cheaper one is for the others to bound.
            budgets = tuple(each for each in budgets if each != policy)
            request = msgspec.structs.replace(request, model=policy.cheaper_model)
            target = msgspec.structs.replace(target, models=())
            places = gateway.places(request, target, report.origin)
        elif policy.reaction == "defer":
            await got.until_next_window(places[0].model, cost, report.origin.max_hold_s)
        else:
            raise _refused(got, places[0], cost, report)


def _refused(short: BudgetShort, place: Place, cost: Cost, report: Report) -> Exception:
    error = short.error(place.model, cost)
    stop: Callable[..., None] | None = report.origin.spender.stop
    if short.policy.reaction == "stop" and stop is not None:
        error.__dict__["_then"] = "leave"  # the run is drained, and its record comes again in the next one
        stop(error)
    return error


def expected(places: list[Place], *, priced: bool) -> Cost:
    """What one attempt will take at the endpoint that costs most; in money only where a budget asks."""
    usages = [(place, place.estimated()) for place in places]
    prices = [place.cost(usage) if priced else 0.0 for place, usage in usages]
    known = [price for price in prices if price is not None]
    return Cost(
        max(usage.total_tokens for _, usage in usages),
        max(known) if len(known) == len(prices) else None,
    )
