"""A continuous run: sources are read and pushed through chains until they end or someone says so.

Owns: `Run`: its state, pausing, draining, stopping, cancelling, its one terminal event and result.
Does not own: sources and their tasks (sources), how a run concludes (conclusion), nodes and pools (worker),
progress figures (progress).

Always holds: exactly one terminal event; nothing runs after `wait` has returned; a run with a failed row is
never completed; positions are committed only after the sinks that settle at the end have finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flowcore.errors import RuntimeClosedError
from flowcore.events import ExecutionEvent, WorkflowPaused, WorkflowResumed, WorkflowStarted
from flowcore.frame import Failure, Opened
from flowcore.states import Paused, Pending, Running, WorkflowState, step
from flowruntime.execute.conclusion import Ending, are_handled, state_of, terminal_event
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.progress import ProgressReporter
from flowruntime.execute.result import MAX_ERRORS, RunResult
from flowruntime.execute.sources import Sources

if TYPE_CHECKING:
    from flowruntime.compile.chain import Program
    from flowruntime.compile.plan import Plan
    from flowruntime.execute.task import SourceTask
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
        self.errors: dict[str, list[BaseException]] = {}
        self._programs = programs
        self._sources = Sources(
            self,
            worker,
            programs,
            positions=positions,
            stand_ins=sources or {},
            on_settled=on_settled,
        )
        self._remaining = limit
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._paused_at = 0.0
        self._deadline: float | None = None
        self._ending = Ending()
        self._interrupt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started_at = 0.0
        self._main: asyncio.Task[RunResult] | None = None
        self._result: RunResult | None = None

    @property
    def tasks(self) -> Mapping[str, SourceTask]:
        """One per partition being read, by name."""
        return self._sources.tasks

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
                self._ending.cancelled = "its start was cancelled"
            else:
                self._ending.cause, self._ending.node = error, getattr(error, "node", None)
            self._result = self._conclude()
            raise
        self._main = asyncio.create_task(self._supervise(), name=f"flow run {self.worker.workflow_id}")
        return self

    async def _supervise(self) -> RunResult:
        """Everything from reading to the result, whatever happens in between."""
        progress = ProgressReporter(self)
        drivers = self._sources.drivers()
        committer = asyncio.create_task(self._sources.commit_regularly(), name="flow commits")
        reporter = asyncio.create_task(progress.run(), name="flow progress")
        try:
            await self._until_done(drivers)
            if not self._ending.is_cut_short:
                await self._finish()
        except asyncio.CancelledError:
            self._ending.cancel("the run's task was cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the run ends with it
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
                if self._ending.is_cut_short:
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
                left = self._sources.in_flight
                self._ending.cancel(f"{left} records were not finished at the deadline of the stop")
                return

    async def _finish(self) -> None:
        """All rows are settled: make sinks final, then commit."""
        for writer in self.worker.writers.values():
            await writer.finish()
        await self._sources.commit()

    async def _close(self, helpers: list[asyncio.Task[None]]) -> None:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await self._sources.take_down(commit=self._ending.is_cut_short)
        await self.worker.aclose()
        await self._sources.shut_down()

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far."""
        return self._sources.live_counts()

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
        self._ending.fail(error, node)
        self._sources.freeze()
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
        """Drain for at most `drain` (default: the setting `drain_timeout`), then abandon the rest.

        Abandoned records are not committed and emit nothing any more; the result says how many there were.
        """
        timeout = self.worker.graph.settings.drain_timeout if drain is None else drain
        self._deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
        self._begin_drain()
        self._wake()
        return await self.wait()

    async def cancel(self, reason: str = "asked to") -> RunResult:
        """End now: running calls are cancelled, nothing more is emitted."""
        if self._result is None and self._ending.cause is None:
            self._ending.cancel(reason)
            self._sources.freeze()
            self._wake()
        return await self.wait()

    def _begin_drain(self) -> None:
        self._may_read.set()
        self._sources.drain()

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
        sources, ending = self._sources, self._ending
        self._go(state_of(ending, sources.counts))
        result = RunResult(
            workflow_id=self.worker.workflow_id,
            execution_id=self.id,
            state=self.state,
            errors=ending.errors(self.errors),
            counts={
                node_id: sources.counts.get(node_id, NodeCounts()) for node_id in self.worker.graph.nodes
            },
            records=sources.settled,
            handled=are_handled(ending, sources.counts),
            abandoned=sources.abandoned,
            started_at=self._started_at,
            ended_at=self.worker.services.clock(),
            cause=ending.cause,
        )
        self._publish(terminal_event(result, ending, read=sources.read))
        return result

    def _publish(self, event: ExecutionEvent) -> None:
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

    def statistics(self) -> dict[str, Any]:
        """Live figures: tasks with their stages, limits, budget, sinks."""
        return {
            "state": self.state.name,
            "tasks": {name: task.statistics() for name, task in self.tasks.items()},
            **self.worker.statistics(),
        }
