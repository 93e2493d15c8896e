"""Whether the next call of a node may begin, beside permits, and whether a failed one is made again.

Owns: `Guard`, one per stage pool; `SharedCircuit` and `SharedRate`, what pools of one resource share: their
waiting lines and timers. Does not own: the rules (breaker, budget, rate, retry, verdict), permits
(flowcontrol.permits), the call (flowcontrol.pool).

Always holds: nothing is reserved before the call begins; whoever has to wait is woken in turn, so that one
busy pool starves no other; a call counts once at its circuit, however often it was tried. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from flowcore.errors import CircuitOpenError, FlowError
from flowcore.events import CircuitState
from flowcore.policies import Breaker, NodePolicies
from flowruntime.resilience.breaker import Circuit, Ticket
from flowruntime.resilience.budget import RetryBudget
from flowruntime.resilience.rate import RateLimit
from flowruntime.resilience.retry import should_retry
from flowruntime.resilience.verdict import verdict

Wake = Callable[[], None]
Changed = Callable[["SharedCircuit", CircuitState], None]
"""Told of a circuit and the state it was in before."""


class Call(Protocol):
    """What a guard needs to know of a job."""

    attempt: int
    cancelled: bool
    error: BaseException | None
    ticket: Ticket | None
    deadline: float | None


class SharedCircuit:
    """A circuit with those who wait for it."""

    def __init__(self, name: str, policy: Breaker) -> None:
        self.name = name
        self.rule = Circuit(policy)
        self.waits: Final = policy.when_open == "wait"
        self._waiting: deque[Wake] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def may_begin(self, now: float) -> bool:
        """Whether a call would be let through now."""
        rule = self.rule
        if rule.state == "closed":
            return True
        return rule.wait_s(now) <= 0.0 and not rule.probing

    def refusal(self, now: float, node: str) -> CircuitOpenError:
        """The error of a call that is not made."""
        wait_s = self.rule.wait_s(now)
        tried = f"it is tried again in {wait_s:.1f} s" if wait_s > 0 else "one call is trying it now"
        return CircuitOpenError(
            f"node {node!r} was not called: {self.name!r} has failed too often, and {tried}; "
            "say breaker.when_open: wait to let rows wait instead",
            resource=self.name,
            node=node,
            retry_after_s=wait_s,
        )

    def wait(self, wake: Wake, now: float) -> None:
        """Call `wake` when asking again makes sense."""
        if wake not in self._waiting:
            self._waiting.append(wake)
        wait_s = self.rule.wait_s(now)
        if wait_s > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        self.wake_all()

    def wake_all(self) -> None:
        """Everyone asks again; those who may not begin line up anew."""
        waiting, self._waiting = self._waiting, deque()
        for wake in waiting:
            wake()

    def forget(self, wake: Wake) -> None:
        """`wake` has gone."""
        if wake in self._waiting:
            self._waiting.remove(wake)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ended(self, ticket: Ticket, error: BaseException | None, now: float, *, cancelled: bool) -> None:
        """A call is over, its attempts included."""
        rule = self.rule
        said = "none" if cancelled else verdict(error)
        if said == "up":
            rule.succeeded(ticket, now)
        elif said == "down":
            asked = getattr(error, "retry_after_s", None)
            rule.failed(ticket, now, retry_after_s=asked if isinstance(asked, int | float) else None)
        else:
            rule.given_up(ticket)


class SharedRate:
    """A rate limit with the line of those who wait for it: first come, first served."""

    def __init__(self, rule: RateLimit) -> None:
        self.rule = rule
        self._line: deque[tuple[Wake, int]] = deque()
        self._served: Wake | None = None
        self._timer: asyncio.TimerHandle | None = None

    def may_begin(self, wake: Wake, calls: int, now: float) -> bool:
        """Whether `calls` may begin now; if not, `wake` is called when it is their turn.

        Raises:
            LimitExceededError: more calls than may ever begin at once.
        """
        wait_s = self.rule.wait_s(now, calls)
        if wait_s <= 0.0 and (not self._line or self._served is wake):
            return True
        if all(waiting is not wake for waiting, _ in self._line):
            self.rule.waits += 1
            self._line.append((wake, calls))
        self._arm(now)
        return False

    def _arm(self, now: float) -> None:
        if self._timer is None and self._line and self._served is None:
            wait_s = self.rule.wait_s(now, self._line[0][1])
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._serve)

    def _serve(self) -> None:
        """The first in the line has its turn; it lines up anew for what it has beyond that."""
        self._timer = None
        if self._line:
            self._served, _ = self._line.popleft()
            try:
                self._served()
            finally:
                self._served = None
        self._arm(asyncio.get_running_loop().time())

    def changed(self) -> None:
        """The rate was set anew: those who wait find out what that means for them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm(asyncio.get_running_loop().time())

    def forget(self, wake: Wake) -> None:
        """`wake` has gone."""
        self._line = deque(entry for entry in self._line if entry[0] is not wake)
        if not self._line and self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Guard:
    """What stands before the calls of one node.

    Args:
        node: its id.
        policies: its retry policy counts here.
        idempotent: calling twice with one input does no harm.
        circuit: of its resource; None: it has no breaker.
        rates: it is subject to.
        budget: of retries; None: made from the policy, for this node alone.
        changed: told when a call of this node changes the state of the circuit.
    """

    def __init__(
        self,
        node: str,
        policies: NodePolicies,
        *,
        idempotent: bool = True,
        circuit: SharedCircuit | None = None,
        rates: Sequence[SharedRate] = (),
        budget: RetryBudget | None = None,
        changed: Changed | None = None,
    ) -> None:
        self._node = node
        self._changed = changed
        self._retry = policies.retry
        self._idempotent = idempotent
        self._circuit = circuit
        self._rates = tuple(rates)
        if budget is None and policies.retry is not None:
            budget = RetryBudget(policies.retry.budget)
        self._budget = budget

    def refusal(self, call: Call, now: float) -> CircuitOpenError | None:
        """Why the call is not to be made at all; None: it may be, now or later."""
        circuit = self._circuit
        if circuit is None or circuit.waits or circuit.may_begin(now) or self._is_under_way(call):
            return None
        return circuit.refusal(now, self._node)

    def may_begin(self, call: Call, weight: int, wake: Wake, now: float) -> bool:
        """Whether the call may begin now; if not, `wake` is called when asking again makes sense.

        Raises:
            LimitExceededError: the batch is larger than a rate lets begin at once.
        """
        circuit = self._circuit
        if (
            circuit is not None
            and circuit.waits
            and not self._is_under_way(call)
            and not circuit.may_begin(now)
        ):
            circuit.wait(wake, now)
            return False
        return all(rate.may_begin(wake, weight, now) for rate in self._rates)

    def _is_under_way(self, call: Call) -> bool:
        """A further attempt of a call that was let through, and whose circuit is as it was then."""
        circuit = self._circuit
        return call.ticket is not None and circuit is not None and circuit.rule.is_current(call.ticket)

    def begin(self, call: Call, weight: int, now: float) -> None:
        """The call begins; every answer of `may_begin` was yes."""
        if call.attempt == 1 and self._budget is not None:
            self._budget.first_attempt()
        if self._circuit is not None and not self._is_under_way(call):
            before = self._circuit.rule.state
            call.ticket = self._circuit.rule.admit(now)
            self._tell(self._circuit, before)
        for rate in self._rates:
            rate.rule.begin(now, weight)

    def ended(self, call: Call, now: float) -> None:
        """The call is over, whatever became of it."""
        ticket, circuit = call.ticket, self._circuit
        if ticket is not None and circuit is not None:
            call.ticket = None
            before = circuit.rule.state
            circuit.ended(ticket, call.error, now, cancelled=call.cancelled)
            self._tell(circuit, before)
            if ticket.probe:
                circuit.wake_all()

    def _tell(self, circuit: SharedCircuit, before: CircuitState) -> None:
        if self._changed is not None and circuit.rule.state != before:
            self._changed(circuit, before)

    def repeats(self, call: Call, error: BaseException, delay_s: float, now: float) -> bool:
        """Whether a failed attempt is made again after `delay_s`; takes a token of the budget."""
        policy = self._retry
        if (
            policy is None
            or call.attempt >= policy.max_attempts
            or not should_retry(policy, error, idempotent=self._idempotent)
            or (call.deadline is not None and now + delay_s >= call.deadline)
        ):
            return False
        # Whoever failed has retried from a budget all its callers share: this retry is one more of those.
        budget: RetryBudget | None = getattr(error, "_retry_budget", self._budget)
        if budget is not None and not budget.take(now):
            _say(error, "the retry budget is spent: too many calls are being repeated already")
            return False
        return True

    def forget(self, wake: Wake) -> None:
        """The pool has gone."""
        if self._circuit is not None:
            self._circuit.forget(wake)
        for rate in self._rates:
            rate.forget(wake)

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._circuit is not None:
            found["circuit"] = {
                "name": self._circuit.name,
                "state": self._circuit.rule.state,
                "opened": self._circuit.rule.opened,
            }
        if self._budget is not None:
            found["retry_budget"] = {
                "tokens": round(self._budget.tokens, 2),
                "refused": self._budget.refused,
            }
        if self._rates:
            found["rates"] = {
                rate.rule.name: {"begun": rate.rule.begun, "waits": rate.rule.waits} for rate in self._rates
            }
        return found


def _say(error: BaseException, why: str) -> None:
    """Let the error tell why it was not retried."""
    if isinstance(error, FlowError):
        error.__dict__["not_retried"] = why
    else:
        error.add_note(f"not retried: {why}")
