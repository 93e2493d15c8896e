"""What calls of one outside thing share, whichever node, run or workflow makes them.

Owns: `Resources`, one per runtime: circuits, retry budgets and rates by name, and the guard of a node.
Does not own: the rules, concurrency limits (flowcontrol.permits).

Always holds: nodes that name the same `resource` share its circuit, budget and rate; a node without one has
its own, shared by all runs of its workflow. Kept for the life of the runtime: one entry per name and policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowcore.events import BreakerChanged
from flowruntime.resilience.budget import RetryBudget
from flowruntime.resilience.guard import Guard, SharedCircuit, SharedRate
from flowruntime.resilience.rate import RateLimit

if TYPE_CHECKING:
    from flowcore.events import CircuitState
    from flowcore.policies import Breaker, Rate
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode
    from flowruntime.events.bus import EventBus


class Resources:
    """The circuits, budgets and rates of one runtime.

    Args:
        bus: told of circuits that change.
    """

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._circuits: dict[tuple[str, Breaker], SharedCircuit] = {}
        self._budgets: dict[tuple[str, float], RetryBudget] = {}
        self._rates: dict[str, SharedRate] = {}

    def guard(self, graph: ResolvedGraph, node: ResolvedNode, workflow_id: str) -> Guard | None:
        """What stands before the calls of a node; None: nothing does."""
        policies = node.policies
        name = (
            f"resource:{policies.resource}"
            if policies.resource is not None
            else f"node:{workflow_id}/{node.id}"
        )
        rates = [
            self._rate(key, rate)
            for key, rate in (
                (f"node:{workflow_id}/{node.id}", policies.rate),
                (name, graph.settings.limits.rates.get(policies.resource or "")),
            )
            if rate is not None
        ]
        if policies.retry is None and policies.breaker is None and not rates:
            return None
        return Guard(
            node.id,
            policies,
            idempotent=node.role == "sink" or node.node.idempotent,  # SNK-5: a batch may be written again
            circuit=None if policies.breaker is None else self._circuit(name, policies.breaker),
            rates=rates,
            budget=None if policies.retry is None else self._budget(name, policies.retry.budget),
            changed=self._changes_of(workflow_id, node.id),
        )

    def _circuit(self, name: str, policy: Breaker) -> SharedCircuit:
        key = (name, policy)
        if key not in self._circuits:
            self._circuits[key] = SharedCircuit(name, policy)
        return self._circuits[key]

    def _budget(self, name: str, ratio: float) -> RetryBudget:
        return self._budgets.setdefault((name, ratio), RetryBudget(ratio))

    def _rate(self, name: str, rate: Rate) -> SharedRate:
        found = self._rates.get(name)
        if found is None:
            found = self._rates[name] = SharedRate(RateLimit(name, rate))
        return found

    def _changes_of(self, workflow_id: str, node: str) -> Callable[[SharedCircuit, CircuitState], None]:
        def changed(circuit: SharedCircuit, before: CircuitState) -> None:
            if self._bus.active and self._bus.wants(BreakerChanged):
                self._bus.publish(
                    BreakerChanged(
                        workflow_id=workflow_id,
                        node=node,
                        resource=circuit.name,
                        before=before,
                        state=circuit.rule.state,
                        opened=circuit.rule.opened,
                    )
                )

        return changed

    def set_rate(self, name: str, rate: Rate) -> bool:
        """Change a rate from now on; False: nobody is subject to one of that name."""
        found = self._rates.get(name)
        if found is None:
            return False
        found.rule.set(rate)
        found.changed()
        return True

    def statistics(self) -> dict[str, dict[str, object]]:
        """By name: circuits and rates."""
        return {
            "circuits": {
                name: {"state": circuit.rule.state, "opened": circuit.rule.opened}
                for (name, _), circuit in self._circuits.items()
            },
            "rates": {
                name: {"begun": rate.rule.begun, "waits": rate.rule.waits}
                for name, rate in self._rates.items()
            },
        }
