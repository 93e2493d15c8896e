"""`runtime.models`: calls of models outside of workflows.

Owns: `RuntimeModels`. Does not own: calls (bound), limits (gateway).

Always holds: its calls share limits, circuits, caches and budgets of scope `all` with every node of the
runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flowcore.llm.calls import Prompt
from flowruntime.models.bound import BoundModels
from flowruntime.models.budgets import Spender
from flowruntime.models.gateway import Gateway
from flowruntime.models.origin import Origin
from flowruntime.models.report import Operation, Report


class RuntimeModels(BoundModels):
    """The `Models` of a client, for as long as its runtime is open.

    Args:
        gateway: of the runtime.
        check_open: raises when the runtime is closed, or used on another loop.
    """

    __slots__ = ("_check_open", "gateway")

    def __init__(self, gateway: Gateway, check_open: Callable[[], None]) -> None:
        super().__init__(gateway, Origin())
        self.gateway: Final = gateway
        self._check_open: Final = check_open

    def _report(self, operation: Operation, prompt: Prompt | None) -> Report:
        self._check_open()
        return super()._report(operation, prompt)

    def for_key(self, key: object) -> BoundModels:
        """Calls on behalf of one tenant: its own share of the line, its own budgets of scope `key`."""
        self._check_open()
        return BoundModels(self.gateway, Origin(spender=Spender(key=key)))

    def set_limit(self, name: str, capacity: int) -> int:
        """Change what a model may be asked while calls are under way; see `FlowRuntime.set_limit`.

        Returns:
            What the limit was, 0 for none.

        Raises:
            ControlError: no such model was called yet, there is no such limit, or the capacity is none.
        """
        return self.gateway.set_limit(name, capacity)

    def statistics(self) -> dict[str, Any]:
        """How each model is doing, as plain data; `resources` by name.

        Of each: calls in flight, waiting in each lane, limit, requests and tokens of the last minute, latency
        (p50, p95), circuit, cool-down, retry budget.
        """
        return self.gateway.statistics()
