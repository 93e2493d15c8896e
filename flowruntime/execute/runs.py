"""The continuous runs of one runtime: what each is made with, those under way, what becomes of them.

Owns: `Runs`; the store of positions, and what keeps rows that wait.
Does not own: validating and compiling (warm), a run itself (run), requests.

Always holds: a run is in `active` from before it starts until it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from flowruntime.execute.totals import RowTotals

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowcore.middleware import RunCall
    from flowcore.registry import NodeRegistry
    from flowcore.workflow import Workflow
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.durable.holds import Holds
    from flowruntime.execute.context import Services
    from flowruntime.execute.run import Run
    from flowruntime.execute.tally import Tally
    from flowruntime.execute.warm import WarmChains
    from flowruntime.execute.worker import Worker
    from flowruntime.middleware.runs import RunHooks
    from flowruntime.state.positions import PositionStore
    from flowruntime.state.store.protocol import Store
    from flowruntime.telemetry.metrics import Metrics


class Maker(Protocol):
    """What the runtime lends its runs."""

    @property
    def registry(self) -> NodeRegistry: ...
    @property
    def durable_store(self) -> Store | None:
        """The store that outlives the process, where the runtime was told of one."""
        ...

    @property
    def run_hooks(self) -> RunHooks | None: ...
    def make_worker(self, graph: ResolvedGraph, workflow: Workflow, *, captures: bool) -> Worker: ...
    def new_id(self) -> str: ...
    def run_call(
        self,
        workflow: Workflow,
        mode: Literal["request", "stream"],
        inputs: Any,
        attributes: Mapping[str, Any],
        execution_id: str,
    ) -> RunCall: ...


class Runs:
    """See the module.

    Args:
        maker: the runtime.
        services: of it.
        metrics: get the rows of runs and requests.
        tally: counts how runs ended.
        state_dir: where positions are kept; None: nowhere.
    """

    def __init__(
        self, maker: Maker, services: Services, metrics: Metrics, tally: Tally, *, state_dir: str | None
    ) -> None:
        self._maker: Final = maker
        self._services: Final = services
        self.totals: Final = RowTotals(metrics, self.in_flight)
        self._tally: Final = tally
        self._state_dir: Final = state_dir
        self.active: Final[set[Run]] = set()
        self.kept_positions: PositionStore | None = None
        """Once a run has asked for it."""

    def __iter__(self) -> Iterator[Run]:
        return iter(self.active)

    async def start(  # noqa: PLR0913 - one keyword per thing that is decided of a run
        self,
        chains: WarmChains,
        graph: ResolvedGraph,
        workflow: Workflow,
        *,
        fresh: bool,
        limit: int | None,
        sources: Mapping[str, Any],
        captures: bool,
        on_settled: Callable[[Opened, Sequence[int]], None] | None,
        attributes: Mapping[str, Any],
    ) -> Run:
        """Start a run of a graph that is validated already; see `FlowRuntime.start`.

        Args:
            chains: of the runtime.
            graph: as the user wrote it, stand-ins in place.
            workflow: it was made of.
            fresh: begin sources anew.
            limit: records to stop after.
            sources: in the place of declared ones.
            captures: sinks are not opened.
            on_settled: told of settled records; such a run keeps no positions and holds no rows.
            attributes: for middleware.
        """
        from flowruntime.execute.careful import careful_of
        from flowruntime.execute.run import Run

        graph = chains.covered(graph, workflow)
        graph = self._holding(chains, graph, workflow, in_stream=on_settled is not None)
        holds = await self._holds(graph, workflow, fresh=fresh) if graph.returns else None
        programs = chains.programs(graph)
        worker = self._maker.make_worker(graph, workflow, captures=captures)
        positions = self.positions() if on_settled is None else None
        if fresh and positions is not None:
            await _forget(positions, graph, programs)
        run_id, hooks = self._maker.new_id(), self._maker.run_hooks
        run = Run(
            run_id,
            worker,
            programs,
            positions=positions,
            vigil=None
            if positions is None
            else careful_of(worker, positions, sources, self._maker.registry, self._state_dir or "."),
            limit=limit,
            sources=sources,
            on_settled=on_settled,
            attributes=attributes,
            governed=None
            if hooks is None
            else (hooks, self._maker.run_call(workflow, "stream", None, attributes, run_id)),
            holds=holds,
        )
        self.active.add(run)
        try:
            await run.start()
        except BaseException:
            self.active.discard(run)
            if holds is not None:
                await holds.close()
            raise
        self.totals.begin(run, worker.workflow_id, run.live_counts)
        run.on_end(lambda: self._ended(run))
        return run

    def _ended(self, run: Run) -> None:
        self.active.discard(run)
        self._tally.run(run.state.name)
        self.totals.end(run)

    def in_flight(self, workflow: str) -> int:
        """Rows of a workflow's runs that are not settled."""
        return sum(
            run.worker.budget.rows_in_flight for run in self.active if run.worker.workflow_id == workflow
        )

    def positions(self) -> PositionStore | None:
        """The store of positions; None: this runtime keeps none."""
        if self._state_dir is None:
            return None
        if self.kept_positions is None:
            from flowruntime.state.positions import PositionStore

            self.kept_positions = PositionStore(self._state_dir)
        return self.kept_positions

    # --- rows that wait -------------------------------------------------------------------------------

    def row_may_go_on(self, workflow_id: str) -> None:
        """A row of a workflow was answered: runs of it look at once."""
        for run in self.active:
            if run.holds is not None and run.holds.workflow_id == workflow_id:
                run.holds.wake()

    def _holding(
        self, chains: WarmChains, graph: ResolvedGraph, workflow: Workflow, *, in_stream: bool
    ) -> ResolvedGraph:
        """The graph of a run; where its nodes hold rows, with the places those come back to.

        Raises:
            ValidationFailedError: rows that come back could not go on, or there is no store to keep them in.
        """
        from flowcore.errors import ValidationFailedError

        if in_stream:
            if graph.waits:
                from flowruntime.durable.returning import refuse_in_streams

                refuse_in_streams(graph)
            return graph
        try:
            graph = chains.holding(graph)
            if graph.returns and self._maker.durable_store is None:
                from flowruntime.durable.returning import refuse_without_store

                refuse_without_store(graph)
        except ValidationFailedError as error:
            from flowruntime.compile.report import located

            raise located(error, workflow.marks, "workflow in a continuous run") from None
        return graph

    async def _holds(self, graph: ResolvedGraph, workflow: Workflow, *, fresh: bool) -> Holds:
        """What keeps the rows of a run that wait.

        Raises:
            ValidationFailedError: the workflow cannot be stored.
            StoreError: the store cannot be reached.
        """
        from flowruntime.durable.holds import Holds

        store = self._maker.durable_store
        assert store is not None  # noqa: S101 - else `_holding` has refused
        head = await store.workflows.put(workflow, at=self._services.clock())
        holders = {holder.node_id: holder for holder in graph.returns.values()}
        holds = Holds(store, head, holders, self._services, workflow.known_as)
        await holds.begin(fresh=fresh)
        return holds


async def _forget(positions: PositionStore, graph: ResolvedGraph, sources: Mapping[str, object]) -> None:
    """Sources begin anew."""
    from flowruntime.state.positions import position_name

    for node_id in sources:
        name = position_name(node_id, graph.nodes[node_id].definition.type)
        await positions.forget(graph.name, name)
