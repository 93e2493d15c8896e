"""Carrying a call out: the endpoint that is asked, further attempts, the next endpoint.

Owns: `carried`. Does not own: one attempt (attempt), when it may begin (resource), budgets and caches
(gateway).

Always holds: a call counts once at each circuit it came by; retries draw from the resource's budget, and
their errors carry that budget on, so that a node's own retry draws from it, too; no wait is begun beyond the
deadline.

An endpoint that has failed on the call is asked again only after all others that may answer have been asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

from flowcore.errors import CircuitOpenError, FlowError
from flowcore.llm.errors import NoEndpointError
from flowcore.llm.policy import CallPolicy
from flowruntime.models.attempt import Discard, Place, Run, raced
from flowruntime.models.balancing import Health, is_elsewhere, order
from flowruntime.models.cooldown import asked_s
from flowruntime.models.report import Report
from flowruntime.resilience.retry import next_delay_s, should_retry

T = TypeVar("T")


class Carrier:
    """What all calls of a runtime share beside their resources.

    Args:
        seed: for the jitter of backoffs; None: random.
    """

    def __init__(self, seed: int | None) -> None:
        self.rng = random.Random(seed)
        self.turn = 0

    async def carried(
        self,
        places: Sequence[Place],
        policy: CallPolicy,
        report: Report,
        run: Run[T],
        discard: Discard[T],
    ) -> T:
        """The answer of whichever endpoint gives one.

        Args:
            places: at least one; each is used for this call only.
            policy: of the call.
            report: of the call.
            run: makes an attempt that was let in.
            discard: undoes an answer nobody takes.

        Raises:
            ProviderError: of the one endpoint, or one that no other endpoint would help against.
            NoEndpointError: all of several failed.
            CircuitOpenError, LimitExceededError: see `Resource.admit`.
        """
        self.turn += 1
        loop = asyncio.get_running_loop()
        while True:
            place = self._next(places, policy, loop.time())
            if place is None:
                raise _failure(places)
            if place.tries and not await self._waited(place, policy, report, loop):
                place.given_up = True
                continue
            if not place.tries:
                place.resource.retries.first_attempt()
            place.tries += 1
            try:
                answer = await raced(place, report, policy.hedge, run, discard)
            except asyncio.CancelledError:
                _done(places, cancelled=True)
                raise
            except Exception as error:
                self._failed(place, policy, error)
                if len(places) > 1 and not is_elsewhere(error):
                    _done(places)
                    raise
                continue
            except BaseException:
                _done(places, cancelled=True)
                raise
            place.failed = None
            _done(places)
            return answer

    def _next(self, places: Sequence[Place], policy: CallPolicy, now: float) -> Place | None:
        """Whom to ask: one not asked yet, else one that may be asked again; None: nobody is left."""
        if len(places) == 1:
            return None if places[0].given_up else places[0]
        health = [Health(place.resource.is_ready(now), place.resource.busy) for place in places]
        left = [
            places[index] for index in order(policy.balance, health, self.turn) if not places[index].given_up
        ]
        return next((place for place in left if not place.tries), left[0] if left else None)

    def _failed(self, place: Place, policy: CallPolicy, error: Exception) -> None:
        place.failed = error
        if isinstance(error, FlowError):
            error.__dict__["_retry_budget"] = place.resource.retries
        probe = place.ask.ticket is not None and place.ask.ticket.probe
        if probe:
            place.resource.done(place.ask, error)  # the one call that was to find out has found out
        if (
            probe
            or isinstance(error, CircuitOpenError)
            or place.tries >= policy.retry.max_attempts
            or not should_retry(policy.retry, error)
        ):
            place.given_up = True

    async def _waited(
        self, place: Place, policy: CallPolicy, report: Report, loop: asyncio.AbstractEventLoop
    ) -> bool:
        """Wait before a further attempt; False: none is made."""
        error = place.failed
        delay_s = next_delay_s(policy.retry, place.tries, self.rng, error)
        deadline = report.origin.deadline
        if deadline is not None and loop.time() + delay_s >= deadline:
            return False
        if not place.resource.retries.take(loop.time()):
            if isinstance(error, FlowError):
                error.__dict__["not_retried"] = (
                    f"the retry budget of {place.resource.name} is spent: too many calls are being repeated"
                )
            return False
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            place.resource.done(place.ask, None, cancelled=True)
            raise
        return True


def _done(places: Sequence[Place], *, cancelled: bool = False) -> None:
    """The call is over: it counts at each circuit it came by, as it ended there."""
    for place in places:
        place.resource.done(place.ask, place.failed, cancelled=cancelled)


def _failure(places: Sequence[Place]) -> Exception:
    """What the call fails with when nobody is left."""
    _done(places)
    if len(places) == 1 and isinstance(places[0].failed, Exception):
        return places[0].failed
    tried = [
        {
            "provider": place.endpoint.provider,
            "model": place.model,
            "endpoint": place.host,
            "attempts": place.tries,
            "error": type(place.failed).__name__,
            "message": str(place.failed),
        }
        for place in places
    ]
    waits = [wait for place in places if (wait := asked_s(place.failed)) is not None]
    said = "; ".join(f"{each['provider']} {each['model']!r}: {each['error']}" for each in tried)
    error = NoEndpointError(
        f"none of {len(places)} endpoints answered: {said}; see `tried`, or add an endpoint",
        provider=places[-1].endpoint.provider,
        model=places[-1].model,
        status=None,
        request_id=None,
        tried=tried,
        retry_after_s=min(waits) if len(waits) == len(places) else None,
    )
    error.__cause__ = places[-1].failed
    error.__dict__["_retry_budget"] = places[-1].resource.retries
    return error
