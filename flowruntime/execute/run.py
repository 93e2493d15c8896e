"""A continuous run: sources are read and pushed through chains until they end or someone says so.

Owns: `Run`: its state, pausing, draining, stopping, cancelling, its one terminal event and result.
Does not own: sources and their tasks (sources), how a run concludes (conclusion), nodes and pools (worker),
progress figures (progress).

Always holds: exactly one terminal event; nothing runs after `wait` has returned; a run with a failed row is
never completed; positions are committed only after the sinks that settle at the end have finished.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowcore.errors import RuntimeClosedError
from flowcore.events import ExecutionEvent, WorkflowPaused, WorkflowResumed, WorkflowStarted
from flowcore.frame import Failure, Opened
from flowcore.states import Paused, Pending, Running, WorkflowState, step
from flowruntime.execute.conclusion import Ending, are_handled, state_of, terminal_event
from flowruntime.execute.control import LiveControl
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.progress import ProgressReporter
from flowruntime.execute.result import MAX_ERRORS, RunResult
from flowruntime.execute.sources import Sources
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.options import seconds_of

if TYPE_CHECKING:
    from flowcore.middleware import RunCall
    from flowruntime.compile.chain import Program
    from flowruntime.compile.plan import Plan
    from flowruntime.durable.holds import Holds
    from flowruntime.execute.careful import Careful
    from flowruntime.execute.task import SourceTask
    from flowruntime.execute.worker import Worker
    from flowruntime.middleware.runs import RunHooks
    from flowruntime.state.positions import PositionStore

_NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


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
        attributes: what the caller says of the run, for middleware.
        governed: the hooks around it, and what they are asked about; None: there are none.
        vigil: notes when the process dies; None: nobody does.
        holds: rows that wait; None: no node holds any.
    """

    def __init__(  # noqa: PLR0913 - one keyword per part
        self,
        run_id: str,
        worker: Worker,
        programs: Mapping[str, Program],
        *,
        positions: PositionStore | None = None,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        on_settled: Callable[[Opened, Sequence[int]], None] | None = None,
        attributes: Mapping[str, Any] = _NO_ATTRIBUTES,
        governed: tuple[RunHooks, RunCall] | None = None,
        vigil: Careful | None = None,
        holds: Holds | None = None,
    ) -> None:
        self._vigil = vigil
        self.holds = holds
        self.id = run_id
        self.attributes = attributes
        self._governed = governed
        self.worker = worker
        self.state: WorkflowState = Pending()
        self.errors: dict[str, list[BaseException]] = {}
        self._programs = programs
        self._control = LiveControl(worker, run_id, self._publish)
        self._sources = Sources(
            self,
            worker,
            programs,
            positions=positions,
            stand_ins=sources or {},
            on_settled=on_settled,
            holds=holds,
        )
        self._remaining = limit
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._paused_at = 0.0
        self._deadline: float | None = None
        self._ending = Ending()
        self._interrupt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started_at = 0.0
        self._starting: asyncio.Task[None] | None = None
        self._up: asyncio.Future[None] | None = None
        """Done when nodes and sinks of a run inside hooks have started."""
        self._driven = False
        """Nothing but hooks is left of it."""
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
        if self._governed is not None:
            await self._start_governed(*self._governed)
            return self
        self._starting = asyncio.create_task(
            self._start_worker(), name=f"flow start {self.worker.workflow_id}"
        )
        await self._started(self._starting)
        self._main = asyncio.create_task(self._supervise(), name=f"flow run {self.worker.workflow_id}")
        return self

    async def _started(self, starting: asyncio.Future[Any]) -> None:
        """Wait for a start.

        Raises:
            RuntimeClosedError: the run was cancelled meanwhile.
        """
        try:
            await starting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if starting.cancelled() and (task is None or not task.cancelling()):
                raise RuntimeClosedError(
                    f"run {self.id} was cancelled while it started: {self._ending.cancelled}"
                ) from None
            raise

    async def _start_worker(self) -> None:
        """Start what the chains share; when that fails or is cancelled, the run ends with it."""
        try:
            await self.worker.start()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._ending.cancel("its start was cancelled")
            else:
                self._ending.fail(error, getattr(error, "node", None))
            self._result = self._conclude()
            raise

    async def _start_governed(self, hooks: RunHooks, call: RunCall) -> None:
        """Start within the hooks, in the run's own task; returns when nodes and sinks are up."""
        up = self._up = asyncio.get_running_loop().create_future()
        main = self._main = asyncio.create_task(
            self._within(hooks, call, up), name=f"flow run {self.worker.workflow_id}"
        )
        try:
            await asyncio.wait({main, up}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._ending.cancel("its start was cancelled")
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
            raise
        if not up.done():
            up.cancel()
            await self._started(main)  # raises what kept it from starting

    async def _within(self, hooks: RunHooks, call: RunCall, up: asyncio.Future[None]) -> RunResult:
        """The run with its hooks around it; they have their say before the terminal event."""

        async def perform(changed: RunCall) -> RunResult:
            self.attributes = changed.attributes
            await self.worker.start()
            up.set_result(None)
            await self._drive()
            self._driven = True
            return self._outcome()

        answer: RunResult | None = None
        try:
            answer = await hooks.through(call, perform)
        except asyncio.CancelledError:
            self._ending.cancel("the run's task was cancelled")
            raise
        except Exception as error:
            self._ending.cause, self._ending.node = error, getattr(error, "node", None)
            if not up.done():
                raise
        finally:
            self._result = self._conclude(answer)
        return self._result

    async def _supervise(self) -> RunResult:
        """Everything from reading to the result, whatever happens in between."""
        try:
            await self._drive()
        finally:
            self._result = self._conclude()
        return self._result

    async def _drive(self) -> None:
        """Do the work, under a mark that is found when the process dies meanwhile."""
        vigil = self._vigil
        if vigil is None:
            await self._work()
            return
        try:
            await vigil.deaths.begin(self.id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run ends with it
            self._fail(error, None)
            await self._close([])
            return
        self._sources.careful = vigil if vigil.deaths.suspicious else None
        self._sources.deaths = vigil.deaths if vigil.deaths.in_a_row else None
        try:
            await self._work()
        finally:
            await vigil.end()

    async def _work(self) -> None:
        """Read, work, settle and take everything down."""
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
        """All rows are settled: make sinks final, then commit.

        A run that went on where another one stopped, and found nothing new, leaves alone what that one wrote.
        """
        if self._sources.resumed and not self._sources.rows_read:
            return
        for writer in self.worker.writers.values():
            await writer.finish()
        await self._sources.commit()

    async def _close(self, helpers: list[asyncio.Task[None]]) -> None:
        async with contextlib.AsyncExitStack() as closing:  # last in, first out; whatever another one does
            closing.push_async_callback(self._sources.shut_down)
            closing.push_async_callback(self.worker.aclose)
            if self.holds is not None:
                closing.push_async_callback(self.holds.close)
            closing.push_async_callback(self._sources.take_down, commit=self._ending.is_cut_short)
            for helper in helpers:
                helper.cancel()
            _, stuck = await asyncio.wait(helpers, timeout=PATIENCE_S)
            for helper in stuck:
                fault = f"{helper.get_name()} does not end: it swallows its cancellation"
                self.worker.services.log(fault, "error", {"run": self.id})

    def components(self) -> dict[str, Any]:
        """What is at work by node: sources, objects of class nodes, sinks."""
        return {**self._sources.instances, **self.worker.components()}

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
        self._fail(error, getattr(error, "node", None))

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

    async def pause(self, reason: str = "asked to", *, node: str | None = None) -> None:
        """Read nothing until `resume`; what is in flight goes on.

        Args:
            reason: for the event.
            node: only this one takes no further rows: a coroutine, or one that is offloaded. The others go
                on for as long as there is credit; sources are read until it is used up. `drain` and `stop`
                resume it, because what is inside is to be finished.

        Raises:
            ControlError: there is no such node, or it cannot be paused by itself.
            RuntimeClosedError: the run has ended.
        """
        self._check_live("pause")
        if node is not None:
            self._control.pause_node(node, reason)
            return
        self._go(Paused(reason))
        self._paused_at = self.worker.services.clock()
        self._may_read.clear()
        self._publish(
            WorkflowPaused(workflow_id=self.worker.workflow_id, execution_id=self.id, reason=reason)
        )

    async def resume(self, *, node: str | None = None) -> None:
        """Read again; with `node`, that one takes rows again.

        Raises:
            ControlError: there is no such node, or it cannot be paused by itself.
            RuntimeClosedError: the run has ended.
        """
        self._check_live("resume")
        if node is not None:
            self._control.resume_node(node)
            return
        self._go(Running())
        self._may_read.set()
        self.worker.budget.wake_all()
        paused_s = self.worker.services.clock() - self._paused_at
        self._publish(
            WorkflowResumed(workflow_id=self.worker.workflow_id, execution_id=self.id, paused_s=paused_s)
        )

    def set_limit(self, name: str, capacity: int) -> None:
        """Change a limit of this run's workflow while it works; see `statistics()["limits"]` for the names.

        Rows in work above a smaller bound run out by themselves. How many rows are inside at all is not
        changed: that is `max_in_flight`.

        Raises:
            ControlError: there is no limit of that name, or `capacity` is less than 1.
            RuntimeClosedError: the run has ended.
        """
        self._check_live("change its limits")
        self._control.set_limit(name, capacity)

    async def drain(self) -> RunResult:
        """Read nothing more, finish what is in flight however long it takes, and end."""
        self.begin_drain()
        return await self.wait()

    async def stop(self, drain: timedelta | None = None) -> RunResult:
        """Drain for at most `drain` (default: the setting `drain_timeout`), then abandon the rest.

        Abandoned records are not committed and emit nothing any more; the result says how many there were.
        """
        timeout = self.worker.graph.settings.drain_timeout if drain is None else drain
        self._deadline = asyncio.get_running_loop().time() + seconds_of(timeout, "drain")
        self.begin_drain()
        self._wake()
        return await self.wait()

    async def cancel(self, reason: str = "asked to") -> RunResult:
        """End now: running calls are cancelled, nothing more is emitted."""
        if self._result is None and self._ending.cause is None:
            self._ending.cancel(reason)
            self._sources.freeze()
            self._wake()
            held_up = self._held_up()
            if held_up is not None:
                held_up.cancel()
                await asyncio.wait({held_up})
        return await self.wait()

    def _held_up(self) -> asyncio.Task[Any] | None:
        """What waits where no row is at work: the start of nodes and sinks, or a hook around the run."""
        if self._main is None:
            return self._starting if self._starting is not None and not self._starting.done() else None
        in_hooks = self._up is not None and (self._driven or not self._up.done())
        return self._main if in_hooks and not self._main.done() else None

    def begin_drain(self) -> None:
        """Read nothing more; what is in flight goes on, and then the run ends."""
        self._may_read.set()
        self._control.resume_all()
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

    def _conclude(self, answer: RunResult | None = None) -> RunResult:
        """The final state, its event, the result: once. `answer` is what hooks made of the result."""
        result = self._outcome()
        if answer is not None:
            result = result.with_outputs(answer.outputs, answer.captured)
        self._go(result.state)
        self._publish(terminal_event(result, self._ending, read=self._sources.read))
        return result

    def _outcome(self) -> RunResult:
        """What the run has come to."""
        sources, ending, holds = self._sources, self._ending, self.holds
        counts = {node_id: sources.counts.get(node_id, NodeCounts()) for node_id in self.worker.graph.nodes}
        return RunResult(
            workflow_id=self.worker.workflow_id,
            execution_id=self.id,
            state=state_of(ending, sources.counts),
            errors=ending.errors(self.errors),
            counts=sources.declared(counts),
            records=sources.settled,
            handled=are_handled(ending, sources.counts),
            dead_letters=sum(counts.dead_lettered for counts in sources.counts.values()),
            abandoned=sources.abandoned,
            held=0 if holds is None else holds.left,
            returned=0 if holds is None else holds.returned,
            started_at=self._started_at,
            ended_at=self.worker.services.clock(),
            cause=ending.cause,
        )

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
                nodes=len(graph.nodes) - len(graph.returns),
            )
        )

    def statistics(self) -> dict[str, Any]:
        """Live figures: tasks with their stages, limits, budget, sinks."""
        return {
            "state": self.state.name,
            "paused_nodes": self._control.paused,
            **({} if self.holds is None else {"holds": self.holds.statistics()}),
            "tasks": {name: task.statistics() for name, task in self.tasks.items()},
            **self.worker.statistics(),
        }
