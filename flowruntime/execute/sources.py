"""The sources of one continuous run: their partitions as tasks, what is committed, what was counted.

Owns: `Sources`: opening partitions, committing at intervals, taking tasks down, counting over all of them.
Does not own: following assignments (partitions), pumping one partition (task), when a run ends (run).

Always holds: every task is taken down once; sources are shut down after all of their tasks; positions are
committed only for settled rows, after the sinks that settle at the end have finished.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flowruntime.execute.context import ConnectorContext
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.partitions import Partitions
from flowruntime.execute.release import released
from flowruntime.execute.revealed import config_of
from flowruntime.execute.source_errors import as_source_error
from flowruntime.execute.task import Control, SourceTask
from flowruntime.state.positions import partition_name, position_name

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.compile.chain import Program
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.durable.holding import RowHolds
    from flowruntime.durable.holds import Holds
    from flowruntime.execute.careful import Careful
    from flowruntime.execute.worker import Worker
    from flowruntime.state.positions import PositionStore
    from flowruntime.state.quarantine import Deaths


class Sources:
    """All sources of one run.

    Args:
        control: the run, as its tasks know it.
        worker: of the run.
        programs: by source node.
        positions: for sources whose system keeps none; None: they begin where their configuration says.
        stand_ins: for source instances, by node id.
        on_settled: told of settled root records, with what reached the ends of the workflow.
        holds: rows that wait; None: no node holds any.
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
        holds: Holds | None = None,
    ) -> None:
        self.tasks: dict[str, SourceTask] = {}
        self.counts: dict[str, NodeCounts] = {}
        """Rows by node, of the tasks that are down; as the next three."""
        self.settled = 0
        self.read = 0
        self.abandoned = 0
        self._back = 0
        """Rows that came back, of the tasks that are down."""
        self._control = control
        self._worker = worker
        self._programs = programs
        self._store = positions
        self._stand_ins = dict(stand_ins)
        self._on_settled = on_settled
        self._holds = holds
        self.instances: dict[str, Any] = {}
        """By node."""
        self._partitions: list[Partitions] = []
        self._down: set[SourceTask] = set()
        self._draining = False
        self._commit_due = asyncio.Event()
        if holds is not None:
            holds.many_done = self._commit_due.set
        self.careful: Careful | None = None
        self.deaths: Deaths | None = None
        """To be told of progress after a process has died."""
        """A process died in the run before."""
        self.resumed = False
        """Some source goes on where an earlier run stopped."""

    @property
    def in_flight(self) -> int:
        """Rows read and not settled, over all tasks."""
        return sum(task.in_flight for task in self.tasks.values())

    @property
    def rows_read(self) -> int:
        """Rows read so far, over all tasks."""
        return (
            self.read + self._back + sum(task.read for task in self.tasks.values() if task not in self._down)
        )

    def drivers(self) -> list[asyncio.Task[None]]:
        """Begin to follow the assignments of every source, each in a task of its own."""
        graph = self._worker.graph
        drivers = {
            node.id: asyncio.create_task(self._drive(node), name=f"flow source {node.id}")
            for node in graph.nodes.values()
            if node.role == "source"
        }
        started = list(drivers.values())
        if self._holds is not None:
            declared = [driver for node_id, driver in drivers.items() if node_id not in graph.returns]
            started.append(asyncio.create_task(self._holds.watch(declared), name="flow holds"))
        return started

    def drain(self) -> None:
        """Read nothing more; tasks end when what they have read is settled."""
        self._draining = True
        if self._holds is not None:
            self._holds.end()
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
            source = node.definition.implementation(config_of(node, worker.services.secrets.resolve))
        self.instances[node.id] = source
        context = ConnectorContext(
            worker.services,
            worker.workflow_id,
            node.id,
            delivery=worker.graph.settings.delivery,
            stopping=lambda: self._draining,
        )
        partitions = Partitions(
            _assigned(node, source, context),
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
        with as_source_error("cannot be opened", node, partition):
            if store is not None and source.positions == "runtime":
                name = position_name(node.id, node.definition.type)
                place = (self._worker.graph.name, name, partition_name(partition))
                save = partial(store.save, *place)
                resume = await store.load(*place)
                self.resumed = self.resumed or resume is not None
                if resume is None and (resume := await source.begin(partition, context)) is not None:
                    await save(resume)
            if node.id in self._worker.graph.returns:
                return self._returning(node)
            reader = await source.open(partition, resume, context)
        task = SourceTask(
            self._control,
            self._worker,
            node,
            partition,
            reader,
            self._programs[node.id],
            on_settled=self._on_settled,
            save=save,
            commit_due=self._commit_due if self._is_committed_on_the_way(source, save) else None,
            careful=self.careful if save is not None else None,
        )
        if self._holds is not None:
            replayable = save is not None or source.positions == "own"
            task.kernel.holds = self._rows_of(task, keeps_positions=replayable)
        return self._begun(task)

    def _begun(self, task: SourceTask) -> SourceTask:
        self.tasks[task.name] = task
        if self._draining:
            task.drain()
        return task

    def _rows_of(self, task: SourceTask, *, keeps_positions: bool) -> RowHolds:
        from flowruntime.durable.holding import RowHolds

        holds = self._holds
        assert holds is not None  # noqa: S101 - asked only where there are some
        return RowHolds(
            task.kernel, holds, holds.holders, task.node, task.partition, keeps_positions=keeps_positions
        )

    def _returning(self, node: ResolvedNode) -> SourceTask:
        """The task of rows that come back."""
        from flowruntime.execute.returns import ReturnTask

        assert self._holds is not None  # noqa: S101 - its hidden sources are there because of it
        task = ReturnTask(self._control, self._worker, node.id, self._programs[node.id], self._holds)
        task.returns_to(self._rows_of(task, keeps_positions=True))
        return self._begun(task)

    async def _retire(self, task: SourceTask) -> None:
        """The partition of a task was taken away, and its rows are settled."""
        await self._take_down(task, commit=True)
        del self.tasks[task.name]

    # --- committing -----------------------------------------------------------------------------------

    def _is_committed_on_the_way(self, source: Any, save: Callable[[Any], Any] | None) -> bool:
        """Whether positions of a source are committed while the run goes on, so that a crash finds them."""
        return not self._settles_at_end and (save is not None or source.positions == "own")

    async def commit_regularly(self) -> None:
        """At intervals, and when a task asks; at once over when some sink settles rows only at the end."""
        if self._settles_at_end:
            return
        interval = self._worker.graph.tuning.commit_interval.total_seconds()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._commit_due.wait()
            self._commit_due.clear()
            for task in list(self.tasks.values()):
                await self._reported(task.commit())
            if self.deaths is not None and self.tasks and all(task.is_past for task in self.tasks.values()):
                deaths, self.deaths = self.deaths, None
                await self._reported(deaths.progressed())

    async def _reported(self, keeping: Awaitable[None]) -> None:
        try:
            await keeping
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
        async with contextlib.AsyncExitStack() as closing:
            for task in reversed(self.tasks.values()):
                closing.push_async_callback(self._take_down, task, commit=commit)

    async def _take_down(self, task: SourceTask, *, commit: bool) -> None:
        if task.node.id in self._worker.graph.returns:
            self._back += task.read  # they are no records of a source, and stay stored until they are done
        else:
            self.abandoned += task.in_flight
            self.settled += task.tracker.rows_settled
            self.read += task.read
        async with contextlib.AsyncExitStack() as closing:  # last in, first out
            closing.callback(self._down.add, task)
            closing.push_async_callback(self._closing, task.name, task.reader.close)
            closing.push_async_callback(self._closing, task.name, task.close)
            if commit and not self._settles_at_end:
                closing.push_async_callback(self._closing, task.name, task.commit)
        for node_id, counts in task.kernel.counts.items():
            self.counts.setdefault(node_id, NodeCounts()).add(counts)

    async def shut_down(self) -> None:
        """The instances themselves, when nothing reads from them any more."""
        async with contextlib.AsyncExitStack() as closing:
            for source in reversed(list(self.instances.values())):
                closing.push_async_callback(self._closing, type(source).__name__, source.shutdown)

    async def _closing(self, name: str, close: Callable[[], Awaitable[Any]]) -> None:
        await released(
            close,
            within=self._worker.graph.settings.drain_timeout,
            report=lambda fault: self._worker.services.log(
                f"{name}: {fault}", "error", {"run": self._control.id}
            ),
        )

    # --- figures --------------------------------------------------------------------------------------

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far."""
        total = {node_id: NodeCounts() for node_id in self._worker.graph.nodes}
        up = (task.kernel.counts for task in self.tasks.values() if task not in self._down)
        for part in (self.counts, *up):
            for node_id, counts in part.items():
                total[node_id].add(counts)
        return self.declared(total)

    def declared(self, counts: Mapping[str, NodeCounts]) -> dict[str, NodeCounts]:
        """Counts without those of hidden sources, but where rows have failed there."""
        hidden = self._worker.graph.returns
        return {node_id: each for node_id, each in counts.items() if node_id not in hidden or each.failed}


async def _run_task(task: SourceTask) -> None:
    with as_source_error("failed", task.node, task.partition):
        await task.run()


async def _assigned(node: ResolvedNode, source: Any, context: ConnectorContext) -> AsyncIterator[Any]:
    """The changes a source gives, its errors as ours."""
    what = "cannot say what there is to read"
    with as_source_error(what, node):
        changes = aiter(source.assignments(context))
    try:
        while True:
            with as_source_error(what, node):
                change = await anext(changes, None)
            if change is None:
                return
            yield change
    finally:
        if isinstance(changes, AsyncGenerator):
            await changes.aclose()
