"""One model at one endpoint, as all calls of this runtime share it: limits, line, circuit, cool-down.

Owns: `Resource`: when a call may begin, and what the end of one means for the others.
Does not own: the rules (window, adaptive, line, cooldown, flowruntime.resilience), attempts and retries
(call), sending (providers).

Always holds: nothing is reserved before a call begins, and everything at once then; what `admit` gives is
given back once, by `ended`; a waiter that is cancelled leaves nothing behind. Nothing queues here beyond the
calls that wait, each with its row's credit or its client. Loop thread only.

    admit     circuit -> cool-down -> requests and tokens of the minute, what the provider says is left
              -> concurrency; whoever may not begin stands in the line
    ended     tokens trued up, the limit adapted, a cool-down begun; then the next in the line
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from flowcore.errors import CircuitOpenError, FlowError, RuntimeClosedError
from flowcore.events import CircuitState
from flowcore.llm.answers import RateLimits
from flowcore.llm.errors import RateLimitedError
from flowcore.llm.policy import CallPolicy
from flowruntime.models.adaptive import AdaptiveLimit
from flowruntime.models.asks import Admission, Ask
from flowruntime.models.cooldown import CoolDown, asked_s
from flowruntime.models.estimate import Quantile, TokenEstimate
from flowruntime.models.hedging import Hedging
from flowruntime.models.limits import CONCURRENCY, REQUESTS, Declared
from flowruntime.models.line import Line
from flowruntime.models.rates import Rates
from flowruntime.resilience.breaker import Circuit
from flowruntime.resilience.budget import RetryBudget
from flowruntime.resilience.verdict import verdict

_NEXT_MOMENT_S: Final = 0.001
"""A timer never waits for less: times that differ by a rounding error would turn the loop for nothing."""
_TOLD_EVERY_S: Final = 5.0
"""Between two events of an adaptive limit that moves."""


class _Waiter:
    __slots__ = ("ask", "future")

    def __init__(self, ask: Ask, future: asyncio.Future[Admission]) -> None:
        self.ask = ask
        self.future = future


class Resource:
    """Shared by everything that calls it.

    Args:
        name: provider, host, model and a tag of the key.
        loop: whose clock counts.
        limit_changed: told which limit changed, from what to what.
        circuit_changed: told of the state before.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        *,
        limit_changed: Callable[[Resource, str, int, int], None],
        circuit_changed: Callable[[Resource, CircuitState], None],
    ) -> None:
        self.name: Final = name
        self._loop: Final = loop
        self._limit_changed: Final = limit_changed
        self._circuit_changed: Final = circuit_changed
        self.declared: Final = Declared()
        self.adaptive: Final = AdaptiveLimit(self.declared.most)
        self.rates: Final = Rates(name)
        self.estimate: Final = TokenEstimate()
        self.cooldown: Final = CoolDown()
        self.circuit: Circuit | None = None
        self.retries: Final = RetryBudget(0.0)
        self.hedging: Final = Hedging()
        self.p50: Final = Quantile(0.5)
        self.p95: Final = Quantile(0.95)
        self._line: Final[Line[_Waiter]] = Line()
        self._timer: asyncio.TimerHandle | None = None
        self._over: asyncio.TimerHandle | None = None
        self.in_flight = 0
        self.peak = 0
        self.calls = self.failures = self.rate_limited = self.hits = 0
        self.usd = 0.0
        """As far as prices are known."""
        self._told_limit = self.limit
        self._told_at = -math.inf

    # --- what is declared -------------------------------------------------------------------------------

    def declare(self, policy: CallPolicy) -> None:
        """Keep to what this policy declares, too; the strictest of each holds."""
        declared, before = self.declared, self.limit
        changes = declared.add(policy.limits, policy.breaker, policy.retry)
        if changes is None:
            return
        self.rates.tighten(declared.requests, declared.tokens)
        self.adaptive.bound(declared.most)
        self.retries.ratio = declared.ratio or 0.0
        if declared.breaker is not None:
            if self.circuit is None:
                self.circuit = Circuit(declared.breaker)
            self.circuit.policy = declared.breaker
        for limit, old, new in changes:
            self._limit_changed(self, limit, before if limit == CONCURRENCY else old, new)
        self._told_limit = self.limit
        self.pump()

    def set_limit(self, limit: str, value: int) -> int:
        """Set a limit anew, stricter or not; what it was, 0 for none."""
        declared = self.declared
        if limit == CONCURRENCY:
            before, declared.concurrency = self.limit, value
        elif limit == REQUESTS:
            before, declared.requests = self.rates.requests.limit or 0, value
            self.rates.requests.limit = value
        else:
            before, declared.tokens = self.rates.tokens.limit or 0, value
            self.rates.tokens.limit = value
        self._limit_changed(self, limit, before, value)
        self._told_limit = self.limit
        self.pump()
        return before

    @property
    def limit(self) -> int:
        """Calls that may be under way at once."""
        fixed = self.declared.concurrency
        return self.adaptive.limit if fixed is None else fixed

    # --- beginning --------------------------------------------------------------------------------------

    async def admit(self, ask: Ask) -> Admission:
        """Wait until the call may begin; hand what it gives to `ended`.

        Raises:
            CircuitOpenError: the circuit is open, and the call does not wait for it.
            LimitExceededError: the call takes more tokens than a minute has.
        """
        begun = self.try_admit(ask)
        if begun is not None:
            return begun
        waiter = _Waiter(ask, self._loop.create_future())
        self._line.add(waiter, ask.lane, ask.key)
        self.pump()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._line.remove(waiter)
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.ended(future.result(), None, tokens=0, cancelled=True)
            self.pump()
            raise

    def try_admit(self, ask: Ask) -> Admission | None:
        """Begin the call, if it need not wait.

        Raises:
            CircuitOpenError, LimitExceededError: see `admit`.
        """
        now = self._loop.time()
        limit = self.rates.tokens.limit
        if limit is None or ask.rough <= limit:
            ask.tokens = self.estimate.of(ask.rough, most=limit)
        wait_s = self._wait_s(ask, now)
        return self._begin(ask, now) if wait_s <= 0 and not self._line else None

    def is_free(self, ask: Ask) -> bool:
        """Whether the call could begin at once.

        Raises:
            LimitExceededError: see `admit`.
        """
        return not self._line and self._wait_s(ask, self._loop.time()) <= 0

    def is_ready(self, now: float) -> bool:
        """Whether a call would not be refused, nor be held back by a cool-down."""
        circuit = self.circuit
        closed = (
            circuit is None or circuit.state == "closed" or (circuit.wait_s(now) <= 0 and not circuit.probing)
        )
        return closed and self.cooldown.wait_s(now) <= 0

    def _wait_s(self, ask: Ask, now: float) -> float:
        """Seconds until asking again makes sense; 0: now; infinite: when something ends."""
        circuit = self.circuit
        if circuit is not None and ask.breaker and not self._is_under_way(ask) and circuit.state != "closed":
            wait_s = circuit.wait_s(now)
            if wait_s > 0 or circuit.probing:
                if not ask.waits:
                    raise self._refusal(wait_s)
                return wait_s or math.inf
        wait_s = max(self.cooldown.wait_s(now), self.rates.wait_s(now, ask.tokens))
        if wait_s <= 0 and self.in_flight >= self.limit:
            return math.inf
        return wait_s

    def _is_under_way(self, ask: Ask) -> bool:
        return ask.ticket is not None and self.circuit is not None and self.circuit.is_current(ask.ticket)

    def _refusal(self, wait_s: float) -> CircuitOpenError:
        tried = f"it is tried again in {wait_s:.1f} s" if wait_s > 0 else "one call is trying it now"
        return CircuitOpenError(
            f"{self.name} was not called: it has failed too often, and {tried}; say breaker.when_open: wait "
            "to let rows wait instead",
            resource=self.name,
            retry_after_s=wait_s,
        )

    def _begin(self, ask: Ask, now: float) -> Admission:
        circuit = self.circuit
        if circuit is not None and ask.breaker and not self._is_under_way(ask):
            before = circuit.state
            ask.ticket = circuit.admit(now)
            self._tell_circuit(before)
        self.in_flight += 1
        self.calls += 1
        self.peak = max(self.peak, self.in_flight)
        return Admission(
            now, self.rates.begin(now, ask.tokens), self.adaptive.began(self.in_flight), ask.rough
        )

    def pump(self) -> None:
        """Let begin who may, in turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (waiter := self._line.first()) is not None:
            if waiter.future.done():
                self._line.remove(waiter)
                continue
            now = self._loop.time()
            try:
                wait_s = self._wait_s(waiter.ask, now)
            except FlowError as refusal:
                self._line.remove(waiter)
                waiter.future.set_exception(refusal)
                continue
            if wait_s > 0:
                if wait_s != math.inf:
                    self._timer = self._loop.call_later(max(wait_s, _NEXT_MOMENT_S), self.pump)
                return
            self._line.take(waiter)
            waiter.future.set_result(self._begin(waiter.ask, now))

    # --- ending -----------------------------------------------------------------------------------------

    def ended(
        self,
        admission: Admission,
        error: BaseException | None,
        *,
        tokens: int | None = None,
        limits: RateLimits | None = None,
        cancelled: bool = False,
    ) -> None:
        """An attempt is over.

        Args:
            admission: of it.
            error: what it failed with.
            tokens: it was counted; None: not known, and the estimate stands.
            limits: what the provider said is left.
            cancelled: by its caller, or because another call was faster.
        """
        now = self._loop.time()
        self.in_flight -= 1
        if tokens is None and isinstance(error, RateLimitedError):
            tokens = 0
        if tokens is not None and error is None and not cancelled:
            self.estimate.learn(admission.rough, tokens)
        self.rates.end(admission.tokens, tokens, now)
        if limits is not None:
            self.rates.hear(limits, now, self.in_flight)
        self._adapt(admission, error, now, cancelled=cancelled)
        wish_s = asked_s(error)
        if wish_s is not None:
            self._cool_down(now, wish_s)
        self.pump()

    def _adapt(
        self, admission: Admission, error: BaseException | None, now: float, *, cancelled: bool
    ) -> None:
        took_s = now - admission.at
        if cancelled:
            return
        if error is None:
            self.p50.add(took_s)
            self.p95.add(took_s)
            self.adaptive.answered(admission.start, took_s)
        else:
            self.failures += 1
            if isinstance(error, RateLimitedError):
                self.rate_limited += 1
                self.adaptive.refused(admission.start)
            elif verdict(error) == "down":
                self.adaptive.failed(admission.start)
        if self.limit != self._told_limit and now - self._told_at >= _TOLD_EVERY_S:
            self._limit_changed(self, CONCURRENCY, self._told_limit, self.limit)
            self._told_limit, self._told_at = self.limit, now

    def _cool_down(self, now: float, wish_s: float) -> None:
        if self.cooldown.ask(now, wish_s):
            self._limit_changed(self, COOL_DOWN, self.limit, 0)
        if self._over is not None:
            self._over.cancel()
        self._over = self._loop.call_at(self.cooldown.until, self._cooled_down)

    def _cooled_down(self) -> None:
        self._over = None
        self._limit_changed(self, COOL_DOWN, 0, self.limit)
        self.pump()

    def done(self, ask: Ask, error: BaseException | None, *, cancelled: bool = False) -> None:
        """The call with all its attempts is over here: it counts once at the circuit."""
        ticket, circuit = ask.ticket, self.circuit
        ask.ticket = None
        if ticket is None or circuit is None:
            return
        now, before = self._loop.time(), circuit.state
        said = "none" if cancelled or isinstance(error, RateLimitedError) else verdict(error)
        if said == "up":
            circuit.succeeded(ticket, now)
        elif said == "down":
            circuit.failed(ticket, now, retry_after_s=asked_s(error))
        else:
            circuit.given_up(ticket)
        self._tell_circuit(before)
        if circuit.state == "open" and before != "open":
            self._refuse_waiters(circuit.wait_s(now))
        self.pump()

    def _refuse_waiters(self, wait_s: float) -> None:
        """The circuit has opened: those who do not wait for it are told now, not when it is their turn."""
        for waiter in self._line:
            ask = waiter.ask
            if ask.breaker and not ask.waits and not waiter.future.done():
                self._line.remove(waiter)
                waiter.future.set_exception(self._refusal(wait_s))

    def _tell_circuit(self, before: CircuitState) -> None:
        if self.circuit is not None and self.circuit.state != before:
            self._circuit_changed(self, before)

    @property
    def busy(self) -> int:
        """Calls under way and waiting."""
        return self.in_flight + len(self._line)

    def is_forgettable(self, now: float) -> bool:
        """Whether nothing need be known of it: idle, well, and nothing taken in the last minute."""
        circuit = self.circuit
        return (
            self.busy == 0
            and (circuit is None or circuit.state == "closed")
            and self._over is None
            and self.rates.is_quiet(now)
        )

    def close(self) -> None:
        """No timer of it is left; those who wait are not let in any more."""
        for timer in (self._timer, self._over):
            if timer is not None:
                timer.cancel()
        self._timer = self._over = None
        for waiter in self._line:
            self._line.remove(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(
                    RuntimeClosedError(f"{self.name} was not called: the runtime closed")
                )

    def statistics(self) -> dict[str, Any]:
        """Plain data; times in seconds."""
        now, circuit = self._loop.time(), self.circuit
        return {
            "in_flight": self.in_flight,
            "peak": self.peak,
            "waiting": self._line.waiting(),
            "limit": self.limit,
            "adaptive": self.declared.concurrency is None,
            "calls": self.calls,
            "failures": self.failures,
            "rate_limited": self.rate_limited,
            "hits": self.hits,
            "cost_usd": self.usd,
            **self.rates.statistics(now),
            "estimate_ratio": self.estimate.ratio,
            "p50_s": self.p50.value,
            "p95_s": self.p95.value,
            "circuit": None if circuit is None else {"state": circuit.state, "opened": circuit.opened},
            "cool_down_s": self.cooldown.wait_s(now),
            "retry_budget": {"tokens": round(self.retries.tokens, 2), "refused": self.retries.refused},
            "hedged": {"calls": self.hedging.hedged, "won": self.hedging.won},
        }


COOL_DOWN: Final = "cool_down"
