"""FlowRuntime: the entry point. Owns the registry, the event bus, limits, warm chains and runs.

Owns: validating and lowering workflows once, requests, continuous runs, streams over iterables, closing
    everything.
Does not own: what each of them does (compile, execute, events).

Always holds: after `aclose` nothing of this runtime is running; a workflow is compiled once and kept warm.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self

from flowcore.errors import RuntimeClosedError
from flowcore.ids import new_uuid7
from flowruntime.events.bus import EventBus
from flowruntime.execute.context import Services
from flowruntime.execute.paths import PathGuard
from flowruntime.execute.secrets import SecretStore
from flowruntime.execute.totals import RowTotals
from flowruntime.flowcontrol.permits import Limit
from flowruntime.telemetry.metrics import Metrics
from flowruntime.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from flowcore.context import HttpClient, LogLevel
    from flowcore.frame import Opened
    from flowcore.registry import NodeRegistry
    from flowcore.workflow import Workflow
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.result import RunResult, StreamOutcome
    from flowruntime.execute.run import Run
    from flowruntime.execute.warm import WarmChains
    from flowruntime.execute.watchdog import Watchdog
    from flowruntime.execute.worker import Worker
    from flowruntime.http.client import GuardedHttpClient
    from flowruntime.state.positions import PositionStore


class FlowRuntime:
    """Runs workflows: `async with FlowRuntime(nodes=[my_module]) as rt: await rt.execute(wf, inputs)`.

    Args:
        nodes: functions, classes or modules to know beside the installed ones.
        max_parallel: rows in work at once over all nodes of all workflows; None: no such limit.
        limits: further limits shared by all workflows: `{"type:http.request": 8, "resource:gpu": 1}`.
        secrets: by name; they win over the environment and secret files.
        roots: folders connectors may touch; none: any.
        state_dir: where committed positions are kept; None keeps none.
        history: events kept for late subscribers.
        allow_private_networks: outbound HTTP may reach private addresses.
        http: stands in for the HTTP client, in tests.
        clock: wall clock, Unix seconds.
        watchdog: how long code may block the loop before it is named; None turns it off.
        seed: for the jitter of backoffs; None: random.
    """

    def __init__(  # noqa: PLR0913 - one keyword per setting
        self,
        nodes: Iterable[object] = (),
        *,
        max_parallel: int | None = None,
        limits: Mapping[str, int] | None = None,
        secrets: Mapping[str, str] | None = None,
        roots: Iterable[str] = (),
        state_dir: str | None = ".flow",
        history: int = 0,
        allow_private_networks: bool = False,
        allowed_hosts: Iterable[str] = (),
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.time,
        watchdog: timedelta | None = timedelta(milliseconds=100),
        seed: int | None = None,
    ) -> None:
        self._nodes = tuple(nodes)
        self._registry: NodeRegistry | None = None
        self._redactor = Redactor()
        self.events = EventBus(clock=clock, history=history, scrub=self._redactor.event)
        self.metrics = Metrics()
        """Rows by node and outcome, rows in flight; read by `export_telemetry` or `metrics.snapshot()`."""
        self._totals = RowTotals(self.metrics, self._in_flight)
        self._stop_export: Callable[[], None] | None = None
        self._clock = clock
        self._rng = random.Random(seed)
        self._seed = seed
        self._limits: dict[str, Limit] = {
            name: Limit(name, capacity) for name, capacity in (limits or {}).items()
        }
        if max_parallel is not None:
            self._limits["runtime:*"] = Limit("runtime:*", max_parallel)
        self._http = http
        self._own_http: GuardedHttpClient | None = None
        self._http_options = (allow_private_networks, tuple(allowed_hosts))
        self._state_dir = state_dir
        self._services = Services(
            bus=self.events,
            clock=clock,
            http=self._client,
            secrets=SecretStore(secrets, seen=self._redactor.add),
            paths=PathGuard(tuple(roots)),
            log=self._log,
        )
        self._watchdog_s = None if watchdog is None else watchdog.total_seconds()
        self._watchdog: Watchdog | None = None
        self._warm: WarmChains | None = None
        self._runs: set[Run] = set()
        self._positions: PositionStore | None = None
        self._logger: Any = None
        self._closed = False

    # --- life cycle -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what runs, shut every node down, flush the bus. Idempotent.

        Raises:
            SinkError: a sink of a request could not make its rows durable; everything else is closed all the
                same.
        """
        if self._closed:
            return
        self._closed = True
        # Last in, first out; each is closed whatever another does.
        async with contextlib.AsyncExitStack() as closing:
            if self._stop_export is not None:
                closing.callback(self._stop_export)
            closing.push_async_callback(self.events.aclose)
            if self._watchdog is not None:
                closing.callback(self._watchdog.stop)
            if self._own_http is not None:
                closing.push_async_callback(self._own_http.close)
            if self._positions is not None:
                closing.push_async_callback(self._positions.aclose)
            for close in self._warm.closers() if self._warm is not None else ():
                closing.push_async_callback(close)
            for run in list(self._runs):
                await run.cancel("the runtime was closed")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeClosedError("this FlowRuntime is closed; make a new one")
        if self._watchdog is None and self._watchdog_s is not None:
            from flowruntime.execute.watchdog import Watchdog

            self._watchdog = Watchdog(self.events, self._log, threshold_s=self._watchdog_s)
            self._watchdog.start()

    @property
    def registry(self) -> NodeRegistry:
        """Node types this runtime knows, installed ones included."""
        if self._registry is None:
            from flowruntime.registry import Registry

            self._registry = Registry(self._nodes)
        return self._registry

    # --- compiling ------------------------------------------------------------------------------------

    def validate(self, workflow: Workflow, *, mode: Literal["stream", "request"] = "stream") -> ResolvedGraph:
        """Check a workflow as a whole.

        Raises:
            ValidationFailedError: with every problem.
        """
        from flowruntime.compile.validate import validate

        return validate(workflow, self.registry, mode=mode)

    def make_worker(self, graph: ResolvedGraph, workflow: Workflow, *, captures: bool) -> Worker:
        """What the chains of one workflow share, not started yet.

        Args:
            graph: validated.
            workflow: it was made of.
            captures: sinks are not opened, because their values are kept in results.
        """
        from flowruntime.execute.worker import Worker

        self._watch(graph)
        workflow_id = self._workflow_id(workflow)
        return Worker(graph, self._services, self._limits, workflow_id, captures=captures, seed=self._seed)

    def _warm_chains(self) -> WarmChains:
        if self._warm is None:
            from flowruntime.execute.warm import WarmChains

            self._warm = WarmChains(self, self._totals)
        return self._warm

    # --- requests -------------------------------------------------------------------------------------

    async def execute(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any] | None = None,
        *,
        replace: Mapping[str, Any] | None = None,
        write: bool = False,
        timeout: timedelta | None = None,
    ) -> RunResult:
        """Push one record through and return what became of it.

        Args:
            workflow: compiled at its first use and kept warm.
            inputs: by node id (`{"fetch": {"url": ...}}`), or one flat object where that has one reading.
            replace: functions or values in the place of nodes, by id.
            write: sinks write although the source's value was given.
            timeout: for the whole request; default: the workflow's setting.

        Raises:
            ValidationFailedError: the workflow, or the inputs.

        A failing node does not raise here: see `RunResult.state` and `raise_for_state()`.
        """
        self._check_open()
        chain, given, record = await self._warm_chains().request(
            workflow, inputs or {}, replace or {}, write=write
        )
        deadline = timeout if timeout is not None else chain.worker.graph.settings.timeout
        try:
            return await chain.execute(given, record=record, timeout=deadline)
        finally:
            chain.release()

    # --- runs -----------------------------------------------------------------------------------------

    async def start(
        self,
        workflow: Workflow,
        *,
        fresh: bool = False,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        replace: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a continuous run: sources are read until they end or the run is stopped.

        Args:
            workflow: has at least one source.
            fresh: begin sources anew instead of at their committed positions.
            limit: stop after this many records.
            sources: Source instances in the place of declared ones, by node id (scripted ones in tests).
            replace: functions or values in the place of nodes, by id.

        Raises:
            ValidationFailedError: the workflow cannot run as a stream.
            NodeFailedError, ConnectorError: something could not be started.
        """
        from flowruntime.execute.replace import replaced

        self._check_open()
        graph = replaced(self._warm_chains().resolved(workflow, "stream"), replace or {})
        return await self.start_prepared(graph, workflow, fresh=fresh, limit=limit, sources=sources)

    async def start_prepared(
        self,
        graph: ResolvedGraph,
        workflow: Workflow,
        *,
        fresh: bool = False,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        captures: bool = False,
        on_settled: Callable[[Opened, Sequence[int]], None] | None = None,
    ) -> Run:
        """Start a run of a graph that is validated already; `on_settled` is told of settled records."""
        from flowruntime.execute.run import Run

        programs = self._warm_chains().programs(graph)
        worker = self.make_worker(graph, workflow, captures=captures)
        positions = self._position_store() if on_settled is None else None
        if fresh and positions is not None:
            from flowruntime.state.positions import position_name

            for node_id in programs:
                name = position_name(node_id, graph.nodes[node_id].definition.type)
                await positions.forget(graph.name, name)
        run = Run(
            self.new_id(),
            worker,
            programs,
            positions=positions,
            limit=limit,
            sources=sources,
            on_settled=on_settled,
        )
        self._runs.add(run)
        try:
            await run.start()
        except BaseException:
            self._runs.discard(run)
            raise
        self._totals.begin(run, worker.workflow_id, run.live_counts)
        run.on_end(lambda: self._run_ended(run))
        return run

    def _run_ended(self, run: Run) -> None:
        self._runs.discard(run)
        self._totals.end(run)

    def _position_store(self) -> PositionStore | None:
        if self._state_dir is None:
            return None
        if self._positions is None:
            from flowruntime.state.positions import PositionStore

            self._positions = PositionStore(self._state_dir)
        return self._positions

    async def stream(
        self,
        workflow: Workflow,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        order: Literal["input", "completion"] = "input",
        replace: Mapping[str, Any] | None = None,
        write: bool = False,
    ) -> AsyncGenerator[StreamOutcome]:
        """Push every item through as a record of one continuous run; one outcome per item, nothing left out.

        Args:
            workflow: has one source, or none: then each item is a request.
            items: records for the workflow's one source, or, without a source, what a request's inputs would
                be.
            order: `input`, or as they complete.
            replace: functions or values in the place of nodes.
            write: sinks write; else their values are part of the outcome.

        Items are taken only as fast as outcomes are consumed: at most `max_in_flight` are on their way.
        """
        from flowruntime.execute.streams import stream_items

        self._check_open()
        found = stream_items(self, workflow, items, order=order, replace=replace or {}, write=write)
        async with contextlib.aclosing(found):
            async for outcome in found:
                yield outcome

    # --- services -------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A UUIDv7 from the runtime's clock."""
        return str(
            new_uuid7(
                int(self._clock() * 1000),
                self._rng.randbytes(10) if self._seed is not None else os.urandom(10),
            )
        )

    def _workflow_id(self, workflow: Workflow) -> str:
        return str(workflow.id) if workflow.id is not None else workflow.name

    def _client(self) -> HttpClient:
        if self._http is None:
            from flowruntime.http.client import GuardedHttpClient
            from flowruntime.http.guard import HttpSettings

            allow_private, hosts = self._http_options
            self._http = self._own_http = GuardedHttpClient(
                HttpSettings(allow_private=allow_private, allowed_hosts=hosts)
            )
        return self._http

    def _log(self, message: str, level: LogLevel, fields: Mapping[str, object]) -> None:
        if self._logger is None:
            import structlog

            self._logger = structlog.get_logger("flow")
        getattr(self._logger, level)(
            self._redactor.text(message), **{k: self._redactor.value(v) for k, v in fields.items()}
        )

    def _watch(self, graph: ResolvedGraph) -> None:
        """Know whose code is whose, and load now what a node's first call would load while the loop waits."""
        if any(
            node.role not in ("source", "sink") and node.node.context is not None
            for node in graph.nodes.values()
        ):
            import_module("structlog")
        if any(node.definition.category == "http" for node in graph.nodes.values()):
            import_module("flowruntime.http.client")
        if self._watchdog is None:
            return
        for node in graph.nodes.values():
            if node.role in ("source", "sink"):
                continue
            implementation = node.node.implementation
            target = implementation.execute if node.node.is_class else implementation
            self._watchdog.watch(node.id, getattr(target, "__code__", None))

    def export_telemetry(self, *, meter_provider: Any = None, tracer_provider: Any = None) -> None:
        """Give metrics and spans to OpenTelemetry; off until called, and no cost per row then either.

        Args:
            meter_provider: the application's; None takes the global one.
            tracer_provider: likewise.
        """
        from flowruntime.telemetry.otel import export_telemetry

        if self._stop_export is None:
            self._stop_export = export_telemetry(
                self.events, self.metrics, meter_provider=meter_provider, tracer_provider=tracer_provider
            )

    def _in_flight(self, workflow: str) -> int:
        runs = (run for run in self._runs if run.worker.workflow_id == workflow)
        return sum(run.worker.budget.rows_in_flight for run in runs)

    def statistics(self) -> dict[str, Any]:
        """Limits, warm chains and runs, live."""
        return {
            "limits": {name: limit.statistics() for name, limit in self._limits.items()},
            "warm_chains": len(self._warm) if self._warm is not None else 0,
            "runs": {run.id: run.statistics() for run in self._runs},
            "events": self.events.statistics(),
        }


def run(workflow: Workflow, *, nodes: Iterable[object] = (), **inputs: Any) -> RunResult:
    """Execute a workflow synchronously, in scripts and notebooks.

        flowruntime.run(wf, text="my card was stolen")

    Raises:
        RuntimeError: called on a thread whose event loop is running; use `FlowRuntime.execute` there.
    """
    import asyncio

    async def once() -> RunResult:
        async with FlowRuntime(nodes=nodes) as runtime:
            return await runtime.execute(workflow, inputs)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(once())
    # A notebook's loop is running on this thread: run on another one.
    import threading

    found: list[RunResult | BaseException] = []

    def elsewhere() -> None:
        try:
            found.append(asyncio.run(once()))
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            found.append(error)

    thread = threading.Thread(target=elsewhere, name="flow run")
    thread.start()
    thread.join()
    outcome = found[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
