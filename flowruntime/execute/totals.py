"""Rows by node and outcome over the life of a runtime, as metrics: nothing is counted twice for it.

Owns: `RowTotals`: the series `flow_rows_total` and `flow_in_flight_rows`, read from the counters that runs
keep anyway.
Does not own: exporting them (flowruntime.telemetry).

Cost: one addition per node when metrics are read; nothing per row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from flowruntime.execute.counts import NodeCounts

if TYPE_CHECKING:
    from flowruntime.telemetry.metrics import Metrics

Counts = Callable[[], Mapping[str, NodeCounts]]

MOST_NODES: Final = 1_000
"""Nodes with series of their own, over all workflows of a runtime; the others of a workflow share one."""

OTHERS: Final = "(others)"

OUTCOMES: Final = (
    "completed",
    "failed",
    "replaced",
    "dropped",
    "unrouted",
    "retried",
    "cancelled",
    "dead_lettered",
    "held",
)


class RowTotals:
    """Sums over what has ended and what is alive.

    Args:
        metrics: of the runtime.
        in_flight: rows in flight of one workflow, over all that is alive.
    """

    def __init__(self, metrics: Metrics, in_flight: Callable[[str], int]) -> None:
        self._metrics = metrics
        self._in_flight = in_flight
        self._ended: dict[tuple[str, str], NodeCounts] = {}
        self._others: dict[str, list[str]] = {}
        self._alive: dict[object, tuple[str, Counts]] = {}

    def begin(self, owner: object, workflow: str, counts: Counts) -> None:
        """A run or request chain has begun; `counts` gives its figures by node, live."""
        self._alive[owner] = (workflow, counts)
        if not any(known == workflow for known, _ in self._ended):
            self._metrics.gauge(
                "flow_in_flight_rows", "Rows in flight", lambda: self._in_flight(workflow), workflow=workflow
            )
        for node in counts():
            if not node.startswith("$") and (workflow, node) not in self._ended:
                self._ended[workflow, node] = NodeCounts()
                if len(self._ended) <= MOST_NODES:
                    self._register(workflow, node, (node,))
                else:
                    self._add_other(workflow, node)

    def end(self, owner: object) -> None:
        """It has ended: its figures stay in the sums."""
        workflow, counts = self._alive.pop(owner)
        for node, final in counts().items():
            if (workflow, node) in self._ended:
                self._ended[workflow, node].add(final)

    def _add_other(self, workflow: str, node: str) -> None:
        """Beyond `MOST_NODES` the nodes of a workflow share a series; their rows are still counted."""
        others = self._others.get(workflow)
        if others is None:
            others = self._others[workflow] = []
            self._register(workflow, OTHERS, others)
        others.append(node)

    def _register(self, workflow: str, node: str, members: Sequence[str]) -> None:
        for outcome in OUTCOMES:

            def read(outcome: str = outcome) -> float:
                return sum(self._total(workflow, member, outcome) for member in members)

            self._metrics.total(
                "flow_rows_total",
                "Rows by node and outcome",
                read,
                workflow=workflow,
                node=node,
                outcome=outcome,
            )

    def _total(self, workflow: str, node: str, outcome: str) -> float:
        total: int = getattr(self._ended[workflow, node], outcome)
        for owner_workflow, counts in self._alive.values():
            if owner_workflow == workflow and (live := counts().get(node)) is not None:
                total += getattr(live, outcome)
        return total
