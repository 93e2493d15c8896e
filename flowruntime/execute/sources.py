"""The sources of one continuous run: their partitions as tasks, what is committed, what was counted.

Owns: `Sources`: opening partitions, committing at intervals, taking tasks down, counting over all of them.
Does not own: following assignments (partitions), pumping one partition (task), when a run ends (run).

Always holds: every task is taken down once; sources are shut down after all of their tasks; positions are
committed only for settled rows, after the sinks that settle at the end have finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flowcore.errors import FlowError, SourceError
from flowruntime.execute.context import ConnectorContext
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.partitions import Partitions
from flowruntime.execute.task import Control, SourceTask
from flowruntime.state.positions import position_name

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.compile.chain import Program
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.execute.worker import Worker
    from flowruntime.state.positions import PositionStore


class Sources:
    """All sources of one run.

    Args:
        control: the run, as its tasks know it.
        worker: of the run.
        programs: by source node.
        positions: for sources whose system keeps none; None: they begin where their configuration says.
        stand_ins: for source instances, by node id.
        on_settled: told of settled root records, with what reached the ends of the workflow.
    """

    def __init__(
        self,
        control: Control,
        worker: Worker,
        programs: Mapping[str, Program],
        *,
        positions: PositionStore | None,
        stand_ins: Mapping[str, Any],
        on_settled: Callable[[Opened, Sequence[int]], None] | None,
    ) -> None:
        self.tasks: dict[str, SourceTask] = {}
        self.counts: dict[str, NodeCounts] = {}
        """Rows by node, of the tasks that are down; as the next three."""
        self.settled = 0
        self.read = 0
        self.abandoned = 0
        self._control = control
        self._worker = worker
        self._programs = programs
        self._store = positions
        self._stand_ins = dict(stand_ins)
        self._on_settled = on_settled
        self._instances: list[Any] = []
        self._partitions: list[Partitions] = []
        self._down: set[SourceTask] = set()
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Rows read and not settled, over all tasks."""
        return sum(task.in_flight for task in self.tasks.values())

    def drivers(self) -> list[asyncio.Task[None]]:
        """Begin to follow the assignments of every source, each in a task of its own."""
        return [
            asyncio.create_task(self._drive(node), name=f"flow source {node.id}")
            for node in self._worker.graph.nodes.values()
            if node.role == "source"
        ]

    def drain(self) -> None:
        """Read nothing more; tasks end when what they have read is settled."""
        self._draining = True
        for partitions in self._partitions:
            partitions.drain()
        for task in self.tasks.values():
            task.drain()

    def freeze(self) -> None:
        """Emit and settle nothing more."""
        for task in self.tasks.values():
            task.freeze()

    # --- partitions -----------------------------------------------------------------------------------

    async def _drive(self, node: ResolvedNode) -> None:
        """Follow the assignments of one source."""
        worker = self._worker
        source = self._stand_ins.get(node.id)
        if source is None:
            source = node.definition.implementation(node.config)
        self._instances.append(source)
        context = ConnectorContext(
            worker.services,
            worker.workflow_id,
            node.id,
            delivery=worker.graph.settings.delivery,
            stopping=lambda: self._draining,
        )
        partitions = Partitions(
            source.assignments(context),
            lambda partition: self._open(node, source, partition, context),
            _run_task,
            self._retire,
        )
        self._partitions.append(partitions)
        if self._draining:
            partitions.drain()
        await partitions.follow()

    async def _open(
        self, node: ResolvedNode, source: Any, partition: str, context: ConnectorContext
    ) -> SourceTask:
        resume: Any = None
        save: Callable[[Any], Any] | None = None
        store = self._store
        if store is not None and source.positions == "runtime":
            place = (self._worker.graph.name, position_name(node.id, node.definition.type), partition)
            resume = await store.load(*place)
            save = partial(store.save, *place)

        try:
            reader = await source.open(partition, resume, context)
        except FlowError:
            raise
        except Exception as error:
            raise _source_error("cannot be opened", node, partition, error) from error
        task = SourceTask(
            self._control,
            self._worker,
            node,
            partition,
            reader,
            self._programs[node.id],
            on_settled=self._on_settled,
            save=save,
        )
        self.tasks[task.name] = task
        if self._draining:
            task.drain()
        return task

    async def _retire(self, task: SourceTask) -> None:
        """The partition of a task was taken away, and its rows are settled."""
        await self._take_down(task, commit=True)
        del self.tasks[task.name]

    # --- committing -----------------------------------------------------------------------------------

    async def commit_regularly(self) -> None:
        """Until cancelled; at once over when some sink settles its rows only at the end."""
        if self._settles_at_end:
            return
        interval = self._worker.graph.settings.commit_interval.total_seconds()
        while True:
            await asyncio.sleep(interval)
            for task in list(self.tasks.values()):
                try:
                    await task.commit()
                except Exception as error:  # noqa: BLE001 - whatever it is, the run ends with it
                    self._control.crashed(error)

    async def commit(self) -> None:
        """The last time, with every sink final."""
        for task in self.tasks.values():
            await task.commit()

    @property
    def _settles_at_end(self) -> bool:
        return any(writer.sink.settles == "at_end" for writer in self._worker.writers.values())

    # --- taking down ----------------------------------------------------------------------------------

    async def take_down(self, *, commit: bool) -> None:
        """Close all tasks; with `commit`, what is settled is committed before."""
        for task in self.tasks.values():
            await self._take_down(task, commit=commit)

    async def _take_down(self, task: SourceTask, *, commit: bool) -> None:
        self.abandoned += task.in_flight
        self.settled += task.tracker.rows_settled
        self.read += task.read
        if commit and not self._settles_at_end:
            await self._closing(task.name, task.commit())
        await self._closing(task.name, task.close())
        self._down.add(task)
        for node_id, counts in task.kernel.counts.items():
            self.counts.setdefault(node_id, NodeCounts()).add(counts)

    async def shut_down(self) -> None:
        """The instances themselves, when nothing reads from them any more."""
        for source in self._instances:
            await self._closing(type(source).__name__, source.shutdown())

    async def _closing(self, name: str, awaitable: Awaitable[Any]) -> None:
        try:
            await awaitable
        except Exception as error:  # noqa: BLE001 - a source's code; the others are still to be closed
            fault = f"{name}: {type(error).__name__}: {error}"
            self._worker.services.log(fault, "error", {"run": self._control.id})

    # --- figures --------------------------------------------------------------------------------------

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far."""
        total = {node_id: NodeCounts() for node_id in self._worker.graph.nodes}
        up = (task.kernel.counts for task in self.tasks.values() if task not in self._down)
        for part in (self.counts, *up):
            for node_id, counts in part.items():
                total[node_id].add(counts)
        return total


async def _run_task(task: SourceTask) -> None:
    try:
        await task.run()
    except (asyncio.CancelledError, FlowError):
        raise
    except Exception as error:
        raise _source_error("failed", task.node, task.partition, error) from error


def _source_error(what: str, node: ResolvedNode, partition: str, error: Exception) -> SourceError:
    return SourceError(
        f"source {node.id!r} partition {partition!r} {what}: {type(error).__name__}: {error}",
        node=node.id,
        partition=partition,
    )
