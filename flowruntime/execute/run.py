"""A continuous run: sources are read and pushed through chains until they end or someone says so.

Owns: `Run`: its state, its tasks, pausing, draining, stopping, cancelling, its one terminal event and result.
Does not own: pumping a partition (task), nodes and pools (worker), progress figures (progress).

Always holds: exactly one terminal event; nothing runs after `wait` has returned; a run with a failed row is
never
completed; positions are committed only for settled rows, after the sinks that settle at the end have
finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from flowcore.errors import FlowError, RuntimeClosedError, SourceError, describe_error
from flowcore.events import (
    ErrorInfo,
    RowCounts,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowStarted,
)
from flowcore.frame import Failure, Opened
from flowcore.states import (
    Cancelled,
    Completed,
    Failed,
    Partial,
    Paused,
    Pending,
    Running,
    WorkflowState,
    step,
)
from flowruntime.execute.context import ConnectorContext
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.partitions import Partitions
from flowruntime.execute.progress import ProgressReporter
from flowruntime.execute.result import MAX_ERRORS, RunResult
from flowruntime.execute.task import SourceTask

if TYPE_CHECKING:
    from flowruntime.compile.chain import Program
    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.execute.worker import Worker
    from flowruntime.state.positions import PositionStore


class Run:
    """One continuous run of a workflow. Made by `FlowRuntime.start`.

    Args:
        run_id: its execution id.
        worker: not started yet.
        programs: by source node.
        positions: for sources whose system keeps none; None: they begin where their configuration says.
        limit: stop after this many records.
        sources: stand-ins for source instances, by node id (an iterable behind `rt.stream`, a scripted
            source).
        on_settled: told of settled root records, with what reached the ends of the workflow.
    """

    def __init__(
        self,
        run_id: str,
        worker: Worker,
        programs: Mapping[str, Program],
        *,
        positions: PositionStore | None = None,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        on_settled: Callable[[Opened, Sequence[int]], None] | None = None,
    ) -> None:
        self.id = run_id
        self.worker = worker
        self.state: WorkflowState = Pending()
        self.tasks: dict[str, SourceTask] = {}
        self.errors: dict[str, list[BaseException]] = {}
        self._programs = programs
        self._store = positions
        self._remaining = limit
        self._stand_ins = dict(sources or {})
        self._on_settled = on_settled
        self._sources: list[Any] = []
        self._partitions: list[Partitions] = []
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._paused_at = 0.0
        self._draining = False
        self._deadline: float | None = None
        self._cause: BaseException | None = None
        self._failed_node: str | None = None
        self._cancel_reason: str | None = None
        self._interrupt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failed_rows = 0
        self._handled_rows = 0
        self._records = 0
        self._read = 0
        self._abandoned = 0
        self._counts: dict[str, NodeCounts] = {}
        self._down: set[SourceTask] = set()
        """Tasks taken down: their rows are in `_counts`."""
        self._started_at = 0.0
        self._main: asyncio.Task[RunResult] | None = None
        self._result: RunResult | None = None

    # --- starting -------------------------------------------------------------------------------------

    async def start(self) -> Run:
        """Start nodes, open sinks, begin to read.

        Raises:
            NodeFailedError, ConnectorError: something could not be started; nothing is left running.
        """
        self._started_at = self.worker.services.clock()
        self._go(Running())
        self._publish_started()
        try:
            await self.worker.start()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._cancel_reason = "its start was cancelled"
            else:
                self._cause = error
                self._failed_node = getattr(error, "node", None)
            self._result = self._conclude()
            raise
        self._main = asyncio.create_task(self._supervise(), name=f"flow run {self.worker.workflow_id}")
        return self

    async def _supervise(self) -> RunResult:
        """Everything from reading to the result, whatever happens in between."""
        progress = ProgressReporter(self)
        drivers = [
            asyncio.create_task(self._drive(node), name=f"flow source {node.id}")
            for node in self.worker.graph.nodes.values()
            if node.role == "source"
        ]
        committer = asyncio.create_task(self._commit_regularly(), name="flow commits")
        reporter = asyncio.create_task(progress.run(), name="flow progress")
        try:
            await self._until_done(drivers)
            if self._cause is None and self._cancel_reason is None:
                await self._finish()
        except asyncio.CancelledError:
            self._cancel_reason = self._cancel_reason or "the run's task was cancelled"
            raise
        except Exception as error:
            self._fail(error, getattr(error, "node", None))
        finally:
            await self._close([*drivers, committer, reporter])
            progress.report()
            self._result = self._conclude()
        return self._result

    async def _until_done(self, drivers: list[asyncio.Task[None]]) -> None:
        pending: set[Any] = {*drivers}
        while pending:
            timeout = None
            if self._deadline is not None:
                timeout = max(0.0, self._deadline - asyncio.get_running_loop().time())
            done, pending = await asyncio.wait(
                {*pending, self._interrupt}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            pending.discard(self._interrupt)
            if self._interrupt in done:
                if self._cause is not None or self._cancel_reason is not None:
                    return
                self._interrupt = asyncio.get_running_loop().create_future()  # only the deadline has changed
                continue
            for driver in done:
                if driver.exception() is not None:
                    raise driver.exception()  # pyright: ignore[reportGeneralTypeIssues] - tested in the line above
            if (
                not done
                and self._deadline is not None
                and asyncio.get_running_loop().time() >= self._deadline
            ):
                left = sum(task.in_flight for task in self.tasks.values())
                self._cancel_reason = f"{left} records were not finished at the deadline of the stop"
                return

    async def _drive(self, node: ResolvedNode) -> None:
        """Follow the assignments of one source."""
        services, graph = self.worker.services, self.worker.graph
        source = self._stand_ins.get(node.id)
        if source is None:
            source = node.definition.implementation(node.config)
        self._sources.append(source)
        context = ConnectorContext(
            services,
            self.worker.workflow_id,
            node.id,
            delivery=graph.settings.delivery,
            stopping=lambda: self._draining,
        )
        partitions = Partitions(
            source.assignments(context),
            lambda partition: self._open(node, source, partition, context),
            self._run_task,
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
            place = (self.worker.graph.name, node.id, partition)
            resume = await store.load(*place)
            save = partial(store.save, *place)

        try:
            reader = await source.open(partition, resume, context)
        except FlowError:
            raise
        except Exception as error:
            raise SourceError(
                f"source {node.id!r} partition {partition!r} cannot be opened: {type(error).__name__}: {error}",
                node=node.id,
                partition=partition,
            ) from error
        task = SourceTask(
            self,
            self.worker,
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

    async def _run_task(self, task: SourceTask) -> None:
        try:
            await task.run()
        except (asyncio.CancelledError, FlowError):
            raise
        except Exception as error:
            raise SourceError(
                f"source {task.node.id!r} partition {task.partition!r} failed: {type(error).__name__}: {error}",
                node=task.node.id,
                partition=task.partition,
            ) from error

    async def _commit_regularly(self) -> None:
        if self._settles_at_end:
            return
        interval = self.worker.graph.settings.commit_interval.total_seconds()
        while True:
            await asyncio.sleep(interval)
            for task in list(self.tasks.values()):
                try:
                    await task.commit()
                except Exception as error:
                    self.crashed(error)

    @property
    def _settles_at_end(self) -> bool:
        return any(writer.sink.settles == "at_end" for writer in self.worker.writers.values())

    async def _finish(self) -> None:
        """All rows are settled: make sinks final, then commit."""
        for writer in self.worker.writers.values():
            await writer.finish()
        for task in self.tasks.values():
            await task.commit()

    async def _close(self, helpers: list[asyncio.Task[None]]) -> None:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        cut_short = self._cause is not None or self._cancel_reason is not None
        for task in self.tasks.values():
            await self._take_down(task, commit=cut_short)
        await self.worker.aclose()
        for source in self._sources:
            await self._closing(type(source).__name__, source.shutdown())

    async def _retire(self, task: SourceTask) -> None:
        """The partition of a task was taken away, and its rows are settled."""
        await self._take_down(task, commit=True)
        del self.tasks[task.name]

    async def _take_down(self, task: SourceTask, *, commit: bool) -> None:
        self._abandoned += task.in_flight
        self._records += task.tracker.rows_settled
        self._read += task.read
        if commit and not self._settles_at_end:
            await self._closing(task.name, task.commit())
        await self._closing(task.name, task.close())
        self._down.add(task)
        for node_id, counts in task.kernel.counts.items():
            self._counts.setdefault(node_id, NodeCounts()).add(counts)

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far."""
        total = {node_id: NodeCounts() for node_id in self.worker.graph.nodes}
        parts = [
            self._counts,
            *(task.kernel.counts for task in self.tasks.values() if task not in self._down),
        ]
        for part in parts:
            for node_id, counts in part.items():
                total[node_id].add(counts)
        return total

    async def _closing(self, name: str, awaitable: Any) -> None:
        try:
            await awaitable
        except Exception as error:
            self.worker.services.log(f"{name}: {type(error).__name__}: {error}", "error", {"run": self.id})

    # --- what tasks tell ------------------------------------------------------------------------------

    def note_failure(self, failure: Failure) -> None:
        """Keep the first errors of each node for the result."""
        found = self.errors.setdefault(failure.node, [])
        if len(found) < MAX_ERRORS:
            found.append(failure.error)

    def row_failed(self, failure: Failure) -> None:
        self._fail(failure.error, failure.node)

    def crashed(self, error: BaseException) -> None:
        self._fail(error, None)

    def _fail(self, error: BaseException, node: str | None) -> None:
        if self._cause is None and self._cancel_reason is None:
            self._cause = error
            self._failed_node = node
        for task in self.tasks.values():
            task.freeze()
        self._wake()

    def _wake(self) -> None:
        if not self._interrupt.done():
            self._interrupt.set_result(None)

    def take(self, rows: int) -> int:
        """Reserve up to `rows` of what `limit` leaves; 0 when it is used up."""
        if self._remaining is None:
            return rows
        granted = min(rows, self._remaining)
        self._remaining -= granted
        return granted

    def give_back(self, rows: int) -> None:
        """Rows reserved and not read."""
        if self._remaining is not None:
            self._remaining += rows

    async def may_read(self) -> None:
        """Returns when the run is not paused."""
        if not self._may_read.is_set():
            await self._may_read.wait()

    # --- control --------------------------------------------------------------------------------------

    async def pause(self, reason: str = "asked to") -> None:
        """Read nothing until `resume`; what is in flight goes on."""
        self._check_live("pause")
        self._go(Paused(reason))
        self._paused_at = self.worker.services.clock()
        self._may_read.clear()
        self._publish(
            WorkflowPaused(workflow_id=self.worker.workflow_id, execution_id=self.id, reason=reason)
        )

    async def resume(self) -> None:
        """Read again."""
        self._check_live("resume")
        self._go(Running())
        self._may_read.set()
        self.worker.budget.wake_all()
        paused_s = self.worker.services.clock() - self._paused_at
        self._publish(
            WorkflowResumed(workflow_id=self.worker.workflow_id, execution_id=self.id, paused_s=paused_s)
        )

    async def drain(self) -> RunResult:
        """Read nothing more, finish what is in flight however long it takes, and end."""
        self._begin_drain()
        return await self.wait()

    async def stop(self, drain: timedelta | None = None) -> RunResult:
        """Drain, but for no longer than `drain` (default: the setting `drain_timeout`); then abandon the
        rest.

        Abandoned records are not committed and emit nothing any more; the result says how many there were.
        """
        timeout = self.worker.graph.settings.drain_timeout if drain is None else drain
        self._deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
        self._begin_drain()
        self._wake()
        return await self.wait()

    async def cancel(self, reason: str = "asked to") -> RunResult:
        """End now: running calls are cancelled, nothing more is emitted."""
        if self._result is None and self._cause is None:
            self._cancel_reason = self._cancel_reason or reason
            for task in self.tasks.values():
                task.freeze()
            self._wake()
        return await self.wait()

    def _begin_drain(self) -> None:
        self._draining = True
        self._may_read.set()
        for partitions in self._partitions:
            partitions.drain()
        for task in self.tasks.values():
            task.drain()

    def on_end(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the run has ended, at once when it has already."""
        if self._main is None or self._main.done():
            tell()
        else:
            self._main.add_done_callback(lambda _: tell())

    def plan_of(self, source: str) -> Plan:
        """The plan of the chain behind one source."""
        return self._programs[source].plan

    async def wait(self) -> RunResult:
        """The result, when the run has ended."""
        if self._main is None:
            if self._result is None:
                raise RuntimeClosedError(f"run {self.id} was not started")
            return self._result
        try:
            return await asyncio.shield(self._main)
        except asyncio.CancelledError:
            if self._main.cancelled() and self._result is not None:
                return self._result
            raise

    def _check_live(self, what: str) -> None:
        if self._result is not None:
            raise RuntimeClosedError(f"run {self.id} has ended ({self.state.name}); it cannot {what}")

    def _go(self, state: WorkflowState) -> None:
        self.state = step(self.state, state)

    # --- the end --------------------------------------------------------------------------------------

    def _conclude(self) -> RunResult:
        """The final state, its event, the result: once."""
        failed = {node_id: counts for node_id, counts in self._counts.items() if counts.failed}
        failures = sum(counts.failed for counts in failed.values())
        handled = sum(counts.handled for counts in failed.values())
        if self._cause is not None:
            state: WorkflowState = Failed(describe_error(self._cause))
        elif self._cancel_reason is not None:
            state = Cancelled(self._cancel_reason)
        else:
            state = Partial() if failures else Completed()
        self._go(state)
        ended = self.worker.services.clock()
        if self._cause is not None and self._failed_node is not None:
            found = self.errors.setdefault(self._failed_node, [])
            if self._cause not in found:
                found.insert(0, self._cause)
        result = RunResult(
            workflow_id=self.worker.workflow_id,
            execution_id=self.id,
            state=state,
            errors={node: found[:MAX_ERRORS] for node, found in self.errors.items()},
            counts={node_id: self._counts.get(node_id, NodeCounts()) for node_id in self.worker.graph.nodes},
            records=self._records,
            handled=failures > 0 and handled == failures and self._cause is None,
            abandoned=self._abandoned,
            started_at=self._started_at,
            ended_at=ended,
            cause=self._cause,
        )
        self._publish_ended(result, tuple(failed))
        return result

    def _publish(self, event: Any) -> None:
        self.worker.services.bus.publish(event)

    def _publish_started(self) -> None:
        graph = self.worker.graph
        self._publish(
            WorkflowStarted(
                workflow_id=self.worker.workflow_id,
                execution_id=self.id,
                name=graph.name,
                mode="stream",
                nodes=len(graph.nodes),
            )
        )

    def _publish_ended(self, result: RunResult, failed: tuple[str, ...]) -> None:
        common: dict[str, Any] = {
            "workflow_id": self.worker.workflow_id,
            "execution_id": self.id,
            "started_at": result.started_at,
            "ended_at": result.ended_at,
            "counts": RowCounts(
                received=self._read,
                completed=result.records,
                failed=sum(counts.failed for counts in result.counts.values()),
                dropped=sum(counts.dropped for counts in result.counts.values()),
                cancelled=result.abandoned,
            ),
        }
        state = result.state
        if isinstance(state, Completed):
            self._publish(WorkflowCompleted(**common))
        elif isinstance(state, Partial):
            self._publish(WorkflowPartial(**common, failed_nodes=failed))
        elif isinstance(state, Cancelled):
            self._publish(WorkflowCancelled(**common, reason=state.reason))
        elif self._cause is not None:
            self._publish(WorkflowFailed(**common, error=ErrorInfo.of(self._cause), node=self._failed_node))

    def statistics(self) -> dict[str, Any]:
        """Live figures: tasks with their stages, limits, budget, sinks."""
        return {
            "state": self.state.name,
            "tasks": {name: task.statistics() for name, task in self.tasks.items()},
            **self.worker.statistics(),
        }
