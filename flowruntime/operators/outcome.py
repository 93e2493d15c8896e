"""The outcome stage: keeps with each root record what reached one end of the workflow.

Emits when      never: rows end here.
Backpressures   by itself never: what it keeps goes with the record when that is settled.
Completes when  all inputs have ended.
Fails when      never.
Holds           the values of unsettled records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowcore.definition import ConnectorDefinition
from flowcore.frame import Frame, Signal
from flowruntime.operators.base import StageOperator, node_of

if TYPE_CHECKING:
    from flowruntime.compile.plan import Stage
    from flowruntime.operators.kernel import Kernel


class Reached:
    """What of one record reached the ends: (end, port, frame, row, value); `many`: it became several rows."""

    __slots__ = ("items", "many")

    def __init__(self) -> None:
        self.items: list[tuple[str, str, int, int, Any]] = []
        self.many = False

    def by_end(self) -> dict[str, Any]:
        """By end: its value; a mapping by port when it has several, a list when there are several rows."""
        if len(self.items) == 1 and not self.many:
            end, port, _, _, value = self.items[0]
            return {end: value if port == "out" else {port: value}}
        ports: dict[tuple[str, str], list[tuple[int, int, Any]]] = {}
        for end, port, seq, row, value in self.items:
            ports.setdefault((end, port), []).append((seq, row, value))
        found: dict[str, Any] = {}
        for (end, port), values in ports.items():
            values.sort(key=lambda item: item[:2])
            plain: Any = [value for *_, value in values] if self.many else values[-1][2]
            if port == "out":
                found[end] = plain
            else:
                found.setdefault(end, {})[port] = plain
        return found


class OutcomeOperator(StageOperator):
    """One end of the workflow, or a sink whose values are kept instead of written."""

    def __init__(self, kernel: Kernel, stage: Stage, ports: list[str]) -> None:
        super().__init__(kernel, stage)
        self._end = node_of(stage).id.removeprefix("$end.")
        self._ports = ports
        """By input: the port of the end that feeds it."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        if self.kernel.closed:
            return
        opened = frame.opened
        end, port, seq = self._end, self._ports[slot], opened.seq
        inner = opened.parents is not None
        for row, value in zip(frame.present, frame.values, strict=True):
            for root, root_row in opened.roots(row) if inner else ((opened, row),):
                if root.outcomes is None:
                    root.outcomes = {}
                reached = root.outcomes.get(root_row)
                if reached is None:
                    reached = root.outcomes[root_row] = Reached()
                reached.items.append((end, port, seq, row, value))
                reached.many = reached.many or inner
        opened.ledger.cover(frame.covers)

    def signal(self, signal: Signal) -> None:
        """Nothing follows."""


OUTCOME = ConnectorDefinition(
    type="flow.outcome", role="sink", implementation=OutcomeOperator, config_type=None, category="flow"
)
"""The definition of outcome stages: sinks to the planner, never opened or written."""
