"""Progress of a continuous run, as events: rates, latencies, queues, credit per stage.

Owns: `ProgressReporter`. Does not own: drawing it (cli, monitor).

Nothing is measured or published while nobody listens for StageProgress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.events import RowCounts, StageProgress
from flowruntime.execute.counts import NodeCounts

if TYPE_CHECKING:
    from flowruntime.execute.task import SourceTask
    from flowruntime.execute.worker import Worker

INTERVAL_S = 0.5


class Watched(Protocol):
    """A run, as far as its progress goes."""

    @property
    def id(self) -> str: ...
    @property
    def worker(self) -> Worker: ...
    @property
    def tasks(self) -> Mapping[str, SourceTask]: ...


class ProgressReporter:
    """Publishes one StageProgress per stage every half second."""

    def __init__(self, run: Watched) -> None:
        self._run = run
        self._before: dict[str, int] = {}
        self._last = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.report()

    def report(self) -> None:
        """Publish where every stage stands now."""
        run = self._run
        telemetry = run.worker.telemetry
        now = asyncio.get_running_loop().time()
        interval_s = max(1e-9, now - self._last)
        if not telemetry.metered:
            self._last = now
            return
        self._last = now
        totals = self._totals()
        queues = self._queues()
        for node_id, node in run.worker.graph.nodes.items():
            if node_id in run.worker.graph.returns:
                continue
            counts = totals[node_id]
            done = counts.completed + counts.failed
            meter = telemetry.meters.get(node_id)
            figures = queues.get(node_id, {})
            budget = run.worker.budget
            pool = run.worker.pools.get(node_id)
            telemetry.bus.publish(
                StageProgress(
                    workflow_id=run.worker.workflow_id,
                    execution_id=run.id,
                    stage=node_id,
                    nodes=(node_id,),
                    counts=RowCounts(
                        received=done,
                        completed=counts.completed,
                        failed=counts.failed,
                        dropped=counts.dropped,
                        cancelled=counts.cancelled,
                    ),
                    rate_per_s=(done - self._before.get(node_id, 0)) / interval_s,
                    interval_s=interval_s,
                    p50_s=meter.percentile(0.5) if meter is not None else None,
                    p99_s=meter.percentile(0.99) if meter is not None else None,
                    queued=int(figures.get("queued", 0)),
                    in_flight=int(figures.get("in_flight", 0)),
                    capacity=pool.capacity if pool is not None else None,
                    credit=budget.max_rows - budget.rows_in_flight if node.role == "source" else None,
                )
            )
            self._before[node_id] = done
            if meter is not None:
                meter.durations.clear()

    def _totals(self) -> dict[str, NodeCounts]:
        totals = {node_id: NodeCounts() for node_id in self._run.worker.graph.nodes}
        for task in self._run.tasks.values():
            for node_id, counts in task.kernel.counts.items():
                totals[node_id].add(counts)
        return totals

    def _queues(self) -> dict[str, dict[str, Any]]:
        """In flight and queued per node, over all tasks."""
        found: dict[str, dict[str, Any]] = {}
        for task in self._run.tasks.values():
            source = found.setdefault(task.node.id, {"in_flight": 0, "queued": 0})
            source["in_flight"] += task.in_flight
            for index, operator in task.chain.operators.items():
                stage = task.chain.program.plan.stages[index]
                if stage.node is None:
                    continue
                figures = operator.statistics()
                into = found.setdefault(stage.node.id, {"in_flight": 0, "queued": 0})
                into["in_flight"] += figures.get("in_flight", 0)
                into["queued"] += figures.get("queued", 0) + figures.get("gathering", 0)
        for node_id, writer in self._run.worker.writers.items():
            into = found.setdefault(node_id, {"in_flight": 0, "queued": 0})
            into["queued"] += writer.statistics()["queued"]
        return found
