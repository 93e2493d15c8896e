"""The outcome stage: keeps with each root record what reached one end of the workflow.

Emits when      never: rows end here.
Backpressures   by itself never: what it keeps goes with the record when that is settled.
Completes when  all inputs have ended.
Fails when      never: a row whose Stream fails, or is too long to be kept as a list, fails at its end.
Holds           the values of unsettled records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.definition import ConnectorDefinition
from flowcore.frame import Frame, Opened, Signal
from flowruntime.compile.sentinels import ABSENT
from flowruntime.operators.base import StageOperator, node_of
from flowruntime.substream.ends import rows_with_streams, without_rows, without_streams

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
        found: dict[str, dict[str, Any]] = {}
        for (end, port), values in ports.items():
            values.sort(key=lambda item: item[:2])
            found.setdefault(end, {})[port] = [value for *_, value in values] if self.many else values[-1][2]
        return {
            end: by_port["out"] if by_port.keys() == {"out"} else by_port for end, by_port in found.items()
        }


class OutcomeOperator(StageOperator):
    """One end of the workflow, or a sink whose values are kept instead of written."""

    def __init__(self, kernel: Kernel, stage: Stage, ports: list[str]) -> None:
        super().__init__(kernel, stage)
        name = node_of(stage).id
        self._end = name.removeprefix("$end.")
        self._stands_in = name == self._end
        """For a sink, which could not take a Stream either."""
        self._ports = ports
        """By input: the port of the end that feeds it."""

    def rows(self, slot: int, frame: Frame[Any]) -> None:
        if self.kernel.closed:
            return
        if self.kernel.streams is not None:
            frame = self._without_streams(slot, frame)
        self._keep(self._ports[slot], frame.opened, frame.present, frame.values)
        frame.opened.ledger.cover(frame.covers)

    def _keep(self, port: str, opened: Opened, rows: Sequence[int], values: Sequence[Any]) -> None:
        """With each root record, what of it has come to this end."""
        end, seq = self._end, opened.seq
        inner = opened.parents is not None
        for row, value in zip(rows, values, strict=True):
            for root, root_row in opened.roots(row) if inner else ((opened, row),):
                if root.outcomes is None:
                    root.outcomes = {}
                reached = root.outcomes.get(root_row)
                if reached is None:
                    reached = root.outcomes[root_row] = Reached()
                reached.items.append((end, port, seq, row, value))
                reached.many = reached.many or (inner and opened.scope != root.scope)

    def _keeper(self, slot: int, opened: Opened, row: int) -> Callable[[Any], None]:
        def keep(value: Any) -> None:
            if value is not ABSENT:
                self._keep(self._ports[slot], opened, (row,), (value,))

        return keep

    def _without_streams(self, slot: int, frame: Frame[Any]) -> Frame[Any]:
        """The frame without the rows whose streams are gathered first; these settle once they are."""
        if self._stands_in:
            return without_streams(self.kernel, self._end, frame)
        assert self.kernel.streams is not None  # noqa: S101 - asked before
        opened, late = frame.opened, rows_with_streams(frame)
        for row, value in late.items():
            self.kernel.streams.ends.gather(value, self._end, opened, row, self._keeper(slot, opened, row))
        return without_rows(frame, late, covered=True) if late else frame

    def signal(self, signal: Signal) -> None:
        """Nothing follows."""


OUTCOME = ConnectorDefinition(
    type="flow.outcome", role="sink", implementation=OutcomeOperator, config_type=None, category="flow"
)
"""The definition of outcome stages: sinks to the planner, never opened or written."""
