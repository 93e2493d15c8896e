"""FlowRuntime: the entry point. Owns the registry, the event bus, limits, warm chains and runs.

Owns: validating and lowering workflows once, requests, continuous runs, streams over iterables, closing
    everything.
Does not own: what each of them does (compile, execute, events).

Always holds: after `aclose` nothing of this runtime is running; a workflow is compiled once and kept warm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from msgspec import UNSET

from flowcore.errors import FlowError, RuntimeClosedError
from flowruntime.equipment import Equipment
from flowruntime.execute.runs import Runs
from flowruntime.execute.tally import Tally
from flowruntime.flowcontrol.permits import Limit
from flowruntime.options import (
    check_has_source,
    checked,
    choice,
    duration,
    node_list,
    record_limit,
    stand_ins,
    workflow_of,
)
from flowruntime.options import secrets as checked_secrets

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from flowcore.context import HttpClient
    from flowcore.dead_letters import DeadLetterStore, LetterFilter
    from flowcore.frame import Opened
    from flowcore.health import HealthCheck, HealthReport
    from flowcore.llm.provider import ProviderFactory
    from flowcore.llm.tools import BoundTool, ToolSpec
    from flowcore.middleware import Middleware, RunCall
    from flowcore.profiles import ProfileName
    from flowcore.registry import NodeRegistry
    from flowcore.settings import DeadLetterPlace
    from flowcore.workflow import Workflow
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.durable.keeper import Claim, Keeper
    from flowruntime.durable.resuming import Resuming
    from flowruntime.execute.redrive import Redrive
    from flowruntime.execute.result import RunResult, StreamOutcome
    from flowruntime.execute.run import Run
    from flowruntime.execute.warm import WarmChains
    from flowruntime.execute.worker import Worker
    from flowruntime.health.asking import Ask
    from flowruntime.middleware.coverage import Middlewares
    from flowruntime.middleware.runs import RunHooks
    from flowruntime.models.client import RuntimeModels
    from flowruntime.models.gateway import Gateway
    from flowruntime.models.pricing import Price
    from flowruntime.operators.host import Host
    from flowruntime.resilience.resources import Resources
    from flowruntime.state.store.protocol import Store
    from flowruntime.state.store.url import StoreUrl
    from flowruntime.tools.binder import ToolBinder


class FlowRuntime:
    """Runs workflows: `async with FlowRuntime(nodes=[my_module]) as rt: await rt.execute(wf, inputs)`.

    Args:
        nodes: functions, classes or modules to know beside the installed ones.
        max_parallel: rows in work at once over all nodes of all workflows; None: no such limit.
        limits: further limits shared by all workflows: `{"type:http.request": 8, "resource:gpu": 1}`.
        secrets: by name; they win over the environment and secret files.
        roots: folders connectors may touch; none: any.
        state_dir: where committed positions are kept; None keeps none.
        store: of workflows, executions, waits and journals: a url (`sqlite:PATH`, `postgresql://...`), which
            is opened at its first use and closed with the runtime, or a Store, which stays yours to close.
            None keeps them in memory.
        history: events kept for late subscribers.
        allow_private_networks: outbound HTTP may reach private addresses.
        allowed_hosts: names and networks outbound HTTP may reach whatever their addresses, `10.1.0.0/16` too;
            with a port, such as `127.0.0.1:11434`, on that port only.
        http: stands in for the HTTP client, in tests.
        clock: wall clock, Unix seconds.
        watchdog: how long code may block the loop before it is named; None turns it off.
        seed: for the jitter of backoffs; None: random.
        middleware: code around every run and node call, outermost first.
        profile: what workflows are to be good at that name no profile themselves.
        llm_providers: classes of providers by name, before those of installed packages.
        prices: of models, US dollars per million tokens, by `model` or `provider/model`; they win over those
            of the package `genai-prices`.
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
        store: str | StoreUrl | Store | None = None,
        history: int = 0,
        allow_private_networks: bool = False,
        allowed_hosts: Iterable[str] = (),
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.time,
        watchdog: timedelta | str | None = timedelta(milliseconds=100),
        seed: int | None = None,
        middleware: Iterable[Middleware] = (),
        profile: ProfileName | None = None,
        llm_providers: Mapping[str, ProviderFactory] | None = None,
        prices: Mapping[str, Price | Mapping[str, float]] | None = None,
    ) -> None:
        options = checked(
            max_parallel=max_parallel, limits=limits or {}, history=history, watchdog=watchdog, seed=seed
        )
        self._nodes = node_list(nodes)
        self._registry: NodeRegistry | None = None
        self._profile: ProfileName | None = None if profile is None else _known(profile)
        self._equipment = Equipment(
            clock=clock,
            history=history,
            secrets=checked_secrets(secrets),
            roots=roots,
            http=http,
            http_options=(allow_private_networks, tuple(allowed_hosts)),
            models=self._model_gateway,
            watchdog=options["watchdog"],
            seed=seed,
        )
        self._services = self._equipment.services
        self._services.tools = self._tools_of
        self._tool_binder: ToolBinder | None = None
        self.events = self._equipment.events
        self.metrics = self._equipment.metrics
        """Rows by node and outcome, rows in flight; read by `export_telemetry` or `metrics.snapshot()`."""
        self._tally = Tally()
        self._runs = Runs(self, self._services, self.metrics, self._tally, state_dir=state_dir)
        self._began_at = clock()
        self._limits: dict[str, Limit] = {
            name: Limit(name, capacity) for name, capacity in options["limits"].items()
        }
        if max_parallel is not None:
            self._limits["runtime:*"] = Limit("runtime:*", max_parallel)
        self._state_dir = state_dir
        self._store: Store | None = None
        self._own_store: Store | None = None
        self._memory: Store | None = None
        """The store of a runtime that was told of none: lost with the process."""
        if store is not None:
            self._take_store(store)
        self._resuming: Resuming | None = None
        self._warm: WarmChains | None = None
        self._resources: Resources | None = None
        self._llm_providers = dict(llm_providers or {})
        self._prices = _prices(prices) if prices else {}
        self._models: RuntimeModels | None = None
        self._stores: list[DeadLetterStore] = []
        self._health_checks: dict[str, HealthCheck] = {}
        self._closed = False
        self._loop: AbstractEventLoop | None = None
        self._middlewares: Middlewares | None = None
        self.run_hooks: RunHooks | None = None
        """Of the middleware around runs and requests."""
        self._use(tuple(middleware))

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
            self._equipment.close_with(closing)
            if self._runs.kept_positions is not None:
                closing.push_async_callback(self._runs.kept_positions.aclose)
            if self._models is not None:
                closing.push_async_callback(self._models.gateway.aclose)
            for store in self._stores:
                closing.push_async_callback(store.close)
            if self._own_store is not None:
                closing.push_async_callback(self._own_store.aclose)
            if self._resuming is not None:
                self._resuming.stop()
                closing.push_async_callback(self._resuming.aclose)
            for close in self._warm.closers() if self._warm is not None else ():
                closing.push_async_callback(close)
            for run in list(self._runs):
                closing.push_async_callback(run.cancel, "the runtime was closed")

    def _check_open(self) -> None:
        """Refuse what cannot work: nodes, pools and limits live on the loop they were first used on."""
        from asyncio import get_running_loop

        if self._closed:
            raise RuntimeClosedError("this FlowRuntime is closed; make a new one")
        loop = get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeClosedError(
                "this FlowRuntime was used on another event loop, where all it keeps warm lives; make one "
                "for each asyncio.run: async with FlowRuntime(...) as runtime"
            )
        self._equipment.watch_loop()

    @property
    def registry(self) -> NodeRegistry:
        """Node types this runtime knows, installed ones included."""
        if self._registry is None:
            from flowruntime.registry import Registry

            self._registry = Registry(self._nodes)
        return self._registry

    @property
    def store(self) -> Store:
        """Workflows, executions, waits and journals: `await rt.store.workflows.put(workflow)`."""
        if self._store is None:
            from flowruntime.state.store.memory import MemoryStore

            self._check_open()
            self._store = self._own_store = self._memory = MemoryStore()
        return self._store

    @property
    def durable_store(self) -> Store | None:
        """The store this runtime was told of; None: it keeps things in memory, lost with the process."""
        return None if self._store is self._memory else self._store

    def _take_store(self, store: str | StoreUrl | Store) -> None:
        """A store that is there already stays its maker's to close; one made of a url is ours."""
        from flowruntime.state.store.opening import open_store
        from flowruntime.state.store.protocol import Store

        if isinstance(store, Store):
            self._store = store
        else:
            self._store = self._own_store = open_store(store)

    @property
    def models(self) -> RuntimeModels:
        """Calls of models outside of workflows, within the limits all nodes share.

        `statistics()` says how each model is doing, `set_limit` changes what it may be asked.
        """
        if self._models is None:
            from flowruntime.models.client import RuntimeModels
            from flowruntime.models.gateway import Gateway

            gateway = Gateway(
                self._services,
                folder=self._state_dir,
                factories=self._llm_providers,
                prices=self._prices,
                seed=self._equipment.seed,
            )
            self._models = RuntimeModels(gateway, self._check_open)
            self._equipment.forgive()
        return self._models

    def _model_gateway(self) -> Gateway:
        return self.models.gateway

    # --- compiling ------------------------------------------------------------------------------------

    def validate(self, workflow: Workflow, *, mode: Literal["stream", "request"] = "stream") -> ResolvedGraph:
        """Check a workflow as a whole.

        Raises:
            ValidationFailedError: with every problem.
        """
        from flowruntime.compile.validate import validate

        graph = validate(workflow, self.registry, mode=mode, profile=self._profile)
        self._equipment.forgive()
        return graph

    def make_worker(self, graph: ResolvedGraph, workflow: Workflow, *, captures: bool) -> Worker:
        """What the chains of one workflow share, not started yet.

        Args:
            graph: validated.
            workflow: it was made of.
            captures: sinks are not opened, because their values are kept in results.
        """
        from flowruntime.execute.worker import Worker

        equipment = self._equipment
        equipment.watch(graph)
        return Worker(
            graph,
            self._services,
            self._limits,
            self._shared_resources(),
            workflow.known_as,
            captures=captures,
            seed=equipment.seed,
            workflow=workflow,
            exempt=frozenset() if self._tool_binder is None else self._tool_binder.exempt(workflow),
        )

    def _tools_of(self, worker: Host, node_id: str, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        if self._tool_binder is None:
            from flowruntime.tools.binder import ToolBinder

            self._tool_binder = ToolBinder(self, self._services.paths.allowed)
        return self._tool_binder.tools(worker, node_id, specs)

    def _shared_resources(self) -> Resources:
        if self._resources is None:
            from flowruntime.resilience.resources import Resources

            self._resources = Resources(self.events)
        return self._resources

    def _warm_chains(self) -> WarmChains:
        if self._warm is None:
            from flowruntime.execute.warm import WarmChains

            self._warm = WarmChains(self, self._runs.totals)
        return self._warm

    def _use(self, middleware: tuple[Middleware, ...]) -> None:
        """Check the middleware; a runtime without any imports nothing for it."""
        if not middleware:
            return
        from flowruntime.middleware.coverage import Middlewares
        from flowruntime.middleware.runs import RunHooks

        self._middlewares = Middlewares(middleware)
        if self._middlewares.around_runs:
            self.run_hooks = RunHooks(self._middlewares.around_runs)

    def covered(self, graph: ResolvedGraph, workflow: Workflow) -> ResolvedGraph:
        """The graph with its nodes' secrets, and this runtime's middleware around them; else itself.

        Raises:
            SecretNotFoundError: a secret a node names is not set.
            DefinitionError: a hook that waits covers a node that works at once.
            MiddlewareError: `covers` of a middleware raised.
        """
        from flowruntime.execute.revealed import revealed

        graph = revealed(graph, self._services.secrets.resolve)
        if self._middlewares is None:
            return graph
        return self._middlewares.covered(graph, workflow.known_as)

    # --- requests -------------------------------------------------------------------------------------

    async def execute(
        self,
        workflow: Workflow,
        inputs: Any = None,
        *,
        replace: Mapping[str, Any] | None = None,
        write: bool = False,
        timeout: timedelta | str | None = None,
        attributes: Mapping[str, Any] | None = None,
        execution_id: str | None = None,
    ) -> RunResult:
        """Push one record through and return what became of it.

        A workflow whose nodes wait for an answer is paused when all that is left waits; `resume` goes on.

        Args:
            workflow: compiled at its first use and kept warm.
            inputs: by node id (`{"fetch": {"url": ...}}`), or one flat object where that has one reading; any
                other value is the record of the workflow's one source.
            replace: functions or values in the place of nodes, by id.
            write: sinks write although the source's value was given.
            timeout: for the whole request; default: the workflow's setting.
            attributes: what middleware is told of the request: who asks, for example.
            execution_id: yours; None: a new one is made.

        Raises:
            ValidationFailedError: the workflow, the inputs, or an option.
            NodeFailedError: a node or sink could not be started.
            RequestTimeoutError: not within the time the request has.
            AlreadyStoredError: an execution that is kept has that id.
            StoreError: an execution that has to be kept cannot be; nothing has run.

        A failing node does not raise here: see `RunResult.state` and `raise_for_state()`.
        """
        self._check_open()
        return await self._counted(
            self._request(
                workflow_of(workflow),
                {} if inputs is None else inputs,
                replace or {},
                attributes or {},
                write=write,
                timeout=duration(timeout, "timeout"),
                execution_id=execution_id or self.new_id(),
            )
        )

    async def _counted(self, request: Awaitable[RunResult]) -> RunResult:
        tally = self._tally
        tally.in_progress += 1
        try:
            result = await request
        except BaseException as error:
            if not isinstance(error, Exception):
                tally.cancelled()
            raise
        finally:
            tally.in_progress -= 1
        tally.request(result)
        return result

    async def _request(
        self,
        workflow: Workflow,
        inputs: Any,
        replace: Mapping[str, Any],
        attributes: Mapping[str, Any],
        *,
        write: bool,
        timeout: timedelta | None,
        execution_id: str,
        claim: Claim | None = None,
    ) -> RunResult:
        chains = self._warm_chains()
        if self.run_hooks is not None:
            from flowruntime.middleware.requests import GovernedRequests

            call = self.run_call(workflow, "request", inputs, attributes, execution_id)
            requests = GovernedRequests(self.run_hooks, self.events, self._equipment.clock)
            return await requests.execute(chains, call, replace, write=write, timeout=timeout, claim=claim)
        chain, given, record = await chains.request(workflow, inputs, replace, write=write, within=timeout)
        deadline = timeout if timeout is not None else chain.worker.graph.settings.timeout
        try:
            return await chain.execute(
                given,
                record=record,
                timeout=deadline,
                attributes=attributes,
                execution_id=execution_id,
                claim=claim,
            )
        finally:
            chain.release()

    def run_call(
        self,
        workflow: Workflow,
        mode: Literal["request", "stream"],
        inputs: Any,
        attributes: Mapping[str, Any],
        execution_id: str,
    ) -> RunCall:
        """What middleware is told of a run or request."""
        from flowcore.middleware import RunCall

        return RunCall(
            workflow=workflow,
            workflow_id=workflow.known_as,
            execution_id=execution_id,
            mode=mode,
            inputs=inputs,
            attributes=attributes,
        )

    # --- executions that wait -------------------------------------------------------------------------

    async def resume(
        self,
        execution_id: str,
        answer: Any = UNSET,
        *,
        wait: str | None = None,
        by: str = "",
        replace: Mapping[str, Any] | None = None,
        take_over: bool = False,
    ) -> RunResult:
        """Answer what an execution waits for, and go on with it; or go on where a process died.

        Nodes that were called to their end are not called again. With further waits it is paused anew.

        A row of a continuous run (its id is the execution's) is answered, and goes on in a run of its
        workflow: in one of this runtime at once, in one of another process within a second, else in the next
        one. The result is paused then.

        Args:
            execution_id: of the result that was paused.
            answer: by the schema of the wait; left out: nothing is answered, the execution goes on with the
                answers it has.
            wait: which one is answered; needed only where there are several.
            by: who answers.
            replace: stand-ins, where the execution began with some in another process.
            take_over: also from a process that is not known to be gone (on another machine). Make sure it
                is: what it is at work on would run twice.

        Raises:
            ValidationFailedError: the answer is not what was asked for, and the wait stays open; or the
                workflow cannot be resumed here, because this runtime does not know its node types.
            WaitClosedError: somebody else answered, or time is up.
            AmbiguousWaitError: it waits for several answers.
            ExecutionEndedError, ExecutionBusyError, NotStoredError: as they say.
            StoreError: the store failed.
        """
        self._check_open()
        return await self._waiting_executions().resume(
            execution_id, answer, wait=wait, by=by, replace=replace or {}, take_over=take_over
        )

    async def cancel_execution(self, execution_id: str, *, reason: str = "given up") -> RunResult:
        """Give up an execution that waits, or a row of a continuous run that does; it ends cancelled.

        Its waits are closed, and nothing of it runs any more. Doing so twice is as good as once.

        Args:
            execution_id: of the paused result, or the row; `flow waits` lists them.
            reason: kept with it, and told by its one terminal event.

        Raises:
            NotStoredError: there is none of that id.
            ExecutionEndedError: it has ended otherwise.
            ExecutionBusyError: it is at work.
            StoreError: the store failed.
        """
        self._check_open()
        return await self._waiting_executions().cancel(execution_id, reason)

    async def expire_waits(self) -> list[RunResult | FlowError]:
        """Go on with every execution of the store that can: time was up, or its process died.

        A runtime does this by itself for waits of executions it put down, as long as it is open.

        Returns:
            What each came to; the error where one could not go on.
        """
        self._check_open()
        return await self._waiting_executions().expire_waits()

    def _waiting_executions(self) -> Resuming:
        if self._resuming is None:
            from flowruntime.durable.resuming import Resuming

            self._resuming = Resuming(self, self._equipment.clock, self._services.log)
        return self._resuming

    def make_keeper(self, workflow: Workflow, replace: Mapping[str, Any], *, captures: bool) -> Keeper:
        """What stores the executions of a workflow whose nodes may wait."""
        from flowruntime.durable.keeper import Keeper

        watch = self._waiting_executions()
        return Keeper(self.store, workflow, self._equipment.clock, watch, write=not captures, replace=replace)

    async def pass_through(self, workflow: Workflow, claim: Claim, replace: Mapping[str, Any]) -> RunResult:
        """One pass of an execution that goes on."""
        stored = claim.stored
        return await self._counted(
            self._request(
                workflow,
                stored.inputs(),
                replace,
                stored.attributes,
                write=stored.write,
                timeout=None,
                execution_id=claim.head.id,
                claim=claim,
            )
        )

    # --- runs -----------------------------------------------------------------------------------------

    async def start(
        self,
        workflow: Workflow,
        *,
        fresh: bool = False,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        replace: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        profile: ProfileName | None = None,
    ) -> Run:
        """Start a continuous run: sources are read until they end or the run is stopped.

        Args:
            workflow: has at least one source.
            fresh: begin sources anew instead of at their committed positions.
            limit: stop after this many records.
            sources: Source instances in the place of declared ones, by node id (scripted ones in tests).
            replace: functions or values in the place of nodes, by id.
            attributes: what middleware is told of the run: who started it, for example.
            profile: for this run, whatever the workflow names.

        Raises:
            ValidationFailedError: the workflow cannot run as a stream.
            NodeFailedError, ConnectorError: something could not be started.
            MiddlewareError, RefusedError: a middleware did not let it start.
        """
        from flowruntime.execute.replace import replaced

        self._check_open()
        resolved = self._warm_chains().resolved(workflow_of(workflow), "stream")
        given = stand_ins(sources, resolved.sources)
        check_has_source(resolved)
        graph = replaced(resolved, replace or {})
        if profile is not None:
            graph = dataclasses.replace(graph, chosen_profile=_known(profile))
        return await self.start_prepared(
            graph, workflow, fresh=fresh, limit=record_limit(limit), sources=given, attributes=attributes
        )

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
        attributes: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run of a graph that is validated already; `on_settled` is told of settled records."""
        return await self._runs.start(
            self._warm_chains(),
            graph,
            workflow,
            fresh=fresh,
            limit=limit,
            sources=sources or {},
            captures=captures,
            on_settled=on_settled,
            attributes=attributes or {},
        )

    def row_may_go_on(self, workflow_id: str) -> None:
        """A row of a workflow was answered: runs of it look at once."""
        self._runs.row_may_go_on(workflow_id)

    async def stream(
        self,
        workflow: Workflow,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        order: Literal["input", "completion"] = "input",
        replace: Mapping[str, Any] | None = None,
        write: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[StreamOutcome]:
        """Push every item through as a record of one continuous run; one outcome per item, nothing left out.

        Args:
            workflow: has one source, or none: then each item is a request.
            items: records for the workflow's one source; without a source, what a request's inputs would be:
                the value of its one open port, or an object with one value by port.
            order: `input`, or as they complete.
            replace: functions or values in the place of nodes.
            write: sinks write; else their values are part of the outcome.
            attributes: what middleware is told of the run.

        Items are taken only as fast as outcomes are consumed: at most `max_in_flight` are on their way.

        Raises:
            ValidationFailedError: the workflow, or an option.
            RunFailedError: the stream was cut short: by an item that failed where the policy is
                `stop_workflow`, by the iterable, or because the runtime was closed. Before that every item
                taken has its outcome: a failed one its error, an unfinished one a CancelledRowError.
        """
        from flowruntime.execute.streams import stream_items

        self._check_open()
        choice(order, "order", ("input", "completion"))
        found = stream_items(
            self,
            workflow_of(workflow),
            items,
            order=order,
            replace=replace or {},
            write=write,
            attributes=attributes,
        )
        async with contextlib.aclosing(found):
            async for outcome in found:
                yield outcome

    # --- dead letters ---------------------------------------------------------------------------------

    async def letters(self, place: Workflow | DeadLetterPlace) -> DeadLetterStore:
        """The dead letters kept at a place, or where a workflow keeps its own; closed with the runtime.

        Raises:
            ValidationFailedError: nothing can be kept there, or the workflow names no place.
            ConnectorError: the place cannot be reached.
        """
        from flowcore.settings import DeadLetterPlace
        from flowruntime.compile.dead_letter import place_for
        from flowruntime.execute.context import ConnectorContext

        self._check_open()
        asked = place if isinstance(place, DeadLetterPlace) else place.settings.dead_letter
        store = place_for(asked, self.registry).make()
        self._stores.append(store)
        await store.open(ConnectorContext(self._services, "", "dead_letter", delivery="at_least_once"))
        return store

    def redrive(
        self,
        workflow: Workflow,
        store: DeadLetterStore,
        wanted: LetterFilter | None = None,
        *,
        limit: int | None = None,
        parallel: int = 8,
        incomplete: bool = False,
        dry_run: bool = False,
    ) -> Redrive:
        """Run the records of dead letters again, each as a request whose sinks write; iterate the answer.

            letters = await runtime.letters(workflow)
            async for done in runtime.redrive(workflow, letters):
                print(done.fate, done.letters, done.why)

        Args:
            workflow: the one that made the letters, or a changed one.
            store: from `letters`.
            wanted: which of the pending letters; None: all.
            limit: letters looked at, at most.
            parallel: records in work at once; their order is kept only with 1.
            incomplete: run letters whose key or headers were not kept, without those.
            dry_run: run and mark nothing, and tell what would be.
        """
        from flowcore.dead_letters import EVERY_LETTER
        from flowruntime.execute.redrive import Redrive, RedriveOptions

        self._check_open()
        options = RedriveOptions(limit=limit, parallel=parallel, incomplete=incomplete, dry_run=dry_run)
        chains, chosen = self._warm_chains(), wanted or EVERY_LETTER
        return Redrive(chains, self._services, workflow, store, chosen, options)

    # --- services -------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A UUIDv7 from the runtime's clock."""
        return self._equipment.new_id()

    def export_telemetry(self, *, meter_provider: Any = None, tracer_provider: Any = None) -> None:
        """Give metrics and spans to OpenTelemetry; off until called, and no cost per row then either.

        Args:
            meter_provider: the application's; None takes the global one.
            tracer_provider: likewise.
        """
        self._equipment.export_telemetry(meter_provider=meter_provider, tracer_provider=tracer_provider)

    def set_limit(self, name: str, capacity: int, *, workflow: Workflow | None = None) -> None:
        """Change a limit while rows are in work; a smaller one takes effect as they finish.

        Args:
            name: of this runtime's (`FlowRuntime(limits=...)`; `max_parallel` is `runtime:*`), of the
                workflow's, or of a model (`model:openai/default/gpt-4o:concurrency`, or
                `...:requests_per_minute`, `...:tokens_per_minute`; the names are those of
                `models.statistics()`).
            capacity: rows at once, calls or tokens, at least 1.
            workflow: change the limit for its requests; for a continuous run see `Run.set_limit`.

        Raises:
            ControlError: there is no limit of that name, `capacity` is less than 1, or the workflow has
                answered no request yet.
        """
        from flowruntime.execute.control import set_shared_limit

        if name.startswith("model:") and workflow is None:
            self.models.set_limit(name, capacity)
            return
        workers = None
        if workflow is not None:
            workers = [] if self._warm is None else self._warm.workers_of(workflow)
        set_shared_limit(self._limits, workers, name, capacity, self.events.publish)

    def add_health_check(self, name: str, check: HealthCheck) -> None:
        """Ask something more at each health check: a database of the application's, a model server.

        Raises:
            DefinitionError: it has no coroutine `health`, or the name is taken.
        """
        from flowruntime.health.subjects import check_added

        self._health_checks[name] = check_added(name, check, self._health_checks)

    async def health_check(
        self, *, timeout: timedelta = timedelta(seconds=5), workflow: Workflow | None = None
    ) -> HealthReport:
        """Ask everything this runtime is connected to whether it can work now, all at once.

        Asked are the process itself (memory, event loop), the positions, the store, what `add_health_check`
        named, and of every workflow at work the sources, sinks, nodes and providers that implement it.

        Args:
            timeout: for each check; one that hangs is its own failed result.
            workflow: asked, too, though it may not be at work.

        Raises:
            ValidationFailedError: the workflow.
        """
        from flowruntime.health.asking import ask_all

        self._check_open()
        equipment = self._equipment
        return await ask_all(
            self._checks(workflow), timeout=timeout, clock=equipment.clock, scrub=equipment.redactor.text
        )

    def _checks(self, workflow: Workflow | None) -> dict[str, Ask]:
        from flowruntime.health.subjects import Subjects

        subjects = Subjects(self._services)
        subjects.add_process()
        if self._runs.kept_positions is not None:
            subjects.add("positions", self._runs.kept_positions)
        if self._store is not None:
            subjects.add_store(self._store)
        for name, check in self._health_checks.items():
            subjects.add(name, check)
        for run in self._runs:
            subjects.add_graph(run.worker.graph, run.worker.workflow_id, run.components())
        for chain in () if self._warm is None else self._warm.chains():
            worker = chain.worker
            subjects.add_graph(worker.graph, worker.workflow_id, worker.components())
        if workflow is not None:
            graph = self._warm_chains().resolved(workflow, "request")
            subjects.add_graph(graph, workflow.known_as, {})
        self._equipment.forgive()
        return subjects.checks

    def statistics(self) -> dict[str, Any]:
        """What this runtime has done and is doing, live, as plain data.

        `requests` and `ended_runs` by their ends; `limits` with permits taken, waits, peaks and failures;
        `workflows` (those that answer requests) and `runs` with their limits, pools, budget and sinks;
        `events` of the bus.
        """
        chains = [] if self._warm is None else list(self._warm.chains())
        return {
            "uptime_s": self._equipment.clock() - self._began_at,
            **self._tally.statistics(),
            "limits": {name: limit.statistics() for name, limit in self._limits.items()},
            "warm_chains": len(chains),
            "workflows": [chain.statistics() for chain in chains],
            "runs": {run.id: run.statistics() for run in self._runs},
            "models": None if self._models is None else self._models.statistics(),
            "events": self.events.statistics(),
        }


def _prices(given: Mapping[str, Price | Mapping[str, float]]) -> dict[str, Price]:
    from flowcore.findings import Findings
    from flowruntime.models.pricing import read_prices

    findings = Findings()
    found = read_prices(given, findings)
    findings.raise_if_any("FlowRuntime")
    return found


def _known(profile: ProfileName) -> ProfileName:
    from flowcore.profiles import check_profile

    return check_profile(profile)
