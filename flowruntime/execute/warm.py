"""What is made once per workflow and kept: validated graphs, compiled chains, started request chains.

Owns: `WarmChains`: finding them again, letting go of those not used for longest.
Does not own: making workers (the runtime), running requests (requests) and continuous runs (run).

Always holds: a workflow is known by the object and its size, so that finding it costs no hashing of its
content; nodes or connections added since make it a new one. The workflow is kept with what was made of it, so
its id means it alone. A chain is closed only when no request is in it or waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakValueDictionary

from flowcore.errors import RequestTimeoutError, RuntimeClosedError
from flowcore.workflow import Workflow
from flowruntime.compile.chain import Program
from flowruntime.compile.lower import lower
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.durable.graph import kept
from flowruntime.durable.returning import holding
from flowruntime.execute.inputs import request_inputs
from flowruntime.execute.replace import replaced
from flowruntime.execute.requests import RequestChain

if TYPE_CHECKING:
    from flowruntime.durable.keeper import Keeper
    from flowruntime.execute.totals import RowTotals
    from flowruntime.execute.worker import Worker

MOST_KEPT = 64
"""Workflows, and request chains, beyond which the one not used for longest is let go."""

_CLOSED_MEANWHILE = "this FlowRuntime was closed while the request was starting"

Mode = Literal["stream", "request"]
Key = tuple[Any, ...]


class Maker(Protocol):
    """What the runtime makes for a workflow."""

    def validate(self, workflow: Workflow, *, mode: Mode) -> ResolvedGraph: ...
    def covered(self, graph: ResolvedGraph, workflow: Workflow) -> ResolvedGraph: ...
    def make_worker(self, graph: ResolvedGraph, workflow: Workflow, *, captures: bool) -> Worker: ...
    def make_keeper(self, workflow: Workflow, replace: Mapping[str, Any], *, captures: bool) -> Keeper: ...
    def new_id(self) -> str: ...


class WarmChains:
    """The compiled workflows of one runtime."""

    def __init__(self, maker: Maker, totals: RowTotals) -> None:
        self._maker = maker
        self._totals = totals
        self._graphs: OrderedDict[Key, tuple[Workflow, ResolvedGraph]] = OrderedDict()
        self._programs: OrderedDict[ResolvedGraph, dict[str, Program]] = OrderedDict()
        self._covered: OrderedDict[ResolvedGraph, ResolvedGraph] = OrderedDict()
        self._holding: OrderedDict[ResolvedGraph, ResolvedGraph] = OrderedDict()
        self._optional: dict[ResolvedGraph, frozenset[str]] = {}
        self._chains: OrderedDict[Key, tuple[Workflow, RequestChain]] = OrderedDict()
        self._starting: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._starts: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        """Request chains that are started."""
        return len(self._chains)

    def resolved(self, workflow: Workflow, mode: Mode) -> ResolvedGraph:
        """Validated once.

        Raises:
            ValidationFailedError: with every problem.
        """
        key = (*_identity(workflow), mode)
        found = self._graphs.get(key)
        if found is None:
            found = self._graphs[key] = (workflow, self._maker.validate(workflow, mode=mode))
            while len(self._graphs) > MOST_KEPT:
                _, (_, forgotten) = self._graphs.popitem(last=False)
                self._optional.pop(forgotten, None)
        return found[1]

    def covered(self, graph: ResolvedGraph, workflow: Workflow) -> ResolvedGraph:
        """The graph with the runtime's middleware around its nodes, the same one each time."""
        found = self._covered.get(graph)
        if found is None:
            found = self._covered[graph] = self._maker.covered(graph, workflow)
            while len(self._covered) > MOST_KEPT:
                self._covered.popitem(last=False)
        return found

    def holding(self, graph: ResolvedGraph) -> ResolvedGraph:
        """The graph of a run that holds rows, the same one each time; itself where no node holds any.

        Raises:
            ValidationFailedError: rows that come back could not go on.
        """
        found = self._holding.get(graph)
        if found is None:
            found = self._holding[graph] = holding(graph)
            while len(self._holding) > MOST_KEPT:
                self._holding.popitem(last=False)
        return found

    def programs(self, graph: ResolvedGraph) -> dict[str, Program]:
        """The compiled chains behind each source.

        Raises:
            ValidationFailedError: rows that do not belong together meet.
        """
        found = self._programs.get(graph)
        if found is None:
            declared = [node_id for node_id in graph.sources if node_id not in graph.returns]
            lower(graph, mode="stream", sources=declared)  # the scopes of all of them together are checked
            found = self._programs[graph] = {
                node_id: Program(lower(graph, mode="stream", sources=[node_id])) for node_id in graph.sources
            }
            while len(self._programs) > MOST_KEPT:
                self._programs.popitem(last=False)
        return found

    async def request(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any],
        replace: Mapping[str, Any],
        *,
        write: bool,
        within: timedelta | None = None,
    ) -> tuple[RequestChain, dict[str, Any], Any]:
        """A started chain for a request; its inputs by `node.port`; its record, when it feeds the one source.

        The chain is reserved: the caller releases it when the request has ended.

        Args:
            workflow: found or compiled.
            inputs: as the user gave them.
            replace: stand-ins by node id.
            write: sinks write although the source's value was given.
            within: how long starting the chain may take; None: what the workflow gives a whole request.

        Raises:
            RequestTimeoutError: it took longer.
            RuntimeClosedError: the runtime was closed meanwhile.
        """
        graph = self.resolved(workflow, "request")
        given = request_inputs(graph, inputs)
        sources = [node_id for node_id in graph.sources if f"{node_id}.out" in given]
        extra = tuple(sorted(self._optional_ports(graph).intersection(given)))
        captures = bool(sources) and not write
        stand_ins = tuple(sorted((name, id(thing)) for name, thing in replace.items()))
        key = (*_identity(workflow), stand_ins, extra, captures)
        limit = graph.settings.timeout if within is None else within
        chain = await self._chain(key, graph, workflow, replace, extra, captures=captures, within=limit)
        chain.reserve()
        try:
            await self._let_go()
        except BaseException:
            chain.release()
            raise
        return chain, given, given[f"{sources[0]}.out"] if len(sources) == 1 else None

    def _optional_ports(self, graph: ResolvedGraph) -> frozenset[str]:
        """Open optional ports of nodes that have connections: filling one changes the plan."""
        found = self._optional.get(graph)
        if found is None:
            connected = {connection.to_node for connection in graph.connections}
            found = self._optional[graph] = frozenset(
                f"{node_id}.{port.name}"
                for node_id in connected
                for port in graph.nodes[node_id].definition.inputs
                if not port.required
            )
        return found

    async def _chain(
        self,
        key: Key,
        graph: ResolvedGraph,
        workflow: Workflow,
        replace: Mapping[str, Any],
        extra: tuple[str, ...],
        *,
        captures: bool,
        within: timedelta | None,
    ) -> RequestChain:
        found = self._chains.get(key)
        if found is not None:
            self._chains.move_to_end(key)
            return found[1]
        lock = self._starting.setdefault(key, asyncio.Lock())
        async with _in_time(within, graph.name):
            await lock.acquire()
        try:
            found = self._chains.get(key)
            if found is None:
                graph = replaced(graph, replace)
                chain = await self._start(graph, workflow, replace, extra, captures=captures, within=within)
                found = self._chains[key] = (workflow, chain)
        finally:
            lock.release()
        return found[1]

    async def _start(
        self,
        graph: ResolvedGraph,
        workflow: Workflow,
        replace: Mapping[str, Any],
        extra: tuple[str, ...],
        *,
        captures: bool,
        within: timedelta | None,
    ) -> RequestChain:
        graph = kept(self._maker.covered(graph, workflow))
        program = Program(lower(graph, mode="request", given=extra))
        worker = self._maker.make_worker(graph, workflow, captures=captures)
        async with _in_time(within, graph.name):
            await self._start_worker(worker)
        keeper = self._maker.make_keeper(workflow, replace, captures=captures) if graph.keeps else None
        chain = RequestChain(program, worker, self._maker.new_id, keeper)
        self._totals.begin(chain, worker.workflow_id, chain.live_counts)
        return chain

    async def _start_worker(self, worker: Worker) -> None:
        """In a task of its own, so that closing the runtime cancels it and waits for its end.

        Raises:
            RuntimeClosedError: the runtime was closed meanwhile.
        """
        if self._closed:
            raise RuntimeClosedError("this FlowRuntime was closed before the request had begun")
        start = asyncio.create_task(worker.start(), name=f"flow start {worker.workflow_id}")
        self._starts.add(start)
        try:
            await start
        except asyncio.CancelledError:
            if self._closed and start.cancelled():
                raise RuntimeClosedError(_CLOSED_MEANWHILE) from None
            raise
        finally:
            self._starts.discard(start)
        if self._closed:
            await worker.aclose()
            raise RuntimeClosedError(_CLOSED_MEANWHILE)

    async def _stop_starts(self) -> None:
        starts = list(self._starts)
        for start in starts:
            start.cancel()
        if starts:
            await asyncio.wait(starts)

    async def _let_go(self) -> None:
        """Close the chains not used for longest, but for those in use."""
        if len(self._chains) <= MOST_KEPT:
            return
        idle = [key for key, (_, chain) in self._chains.items() if not chain.busy]
        for key in idle[: len(self._chains) - MOST_KEPT]:
            _, chain = self._chains.pop(key)
            self._totals.end(chain)
            await chain.aclose()

    def chains(self) -> list[RequestChain]:
        """Those that are started."""
        return [chain for _, chain in self._chains.values()]

    def workers_of(self, workflow: Workflow) -> list[Worker]:
        """Of its started request chains."""
        return [chain.worker for known, chain in self._chains.values() if known is workflow]

    def closers(self) -> list[Callable[[], Any]]:
        """What closes each started chain, and each that is starting; none is found or started any more."""
        self._closed = True
        chains = [chain for _, chain in self._chains.values()]
        self._chains.clear()
        return [*(chain.aclose for chain in chains), self._stop_starts]


def _identity(workflow: Workflow) -> Key:
    return (id(workflow), len(workflow.nodes), len(workflow.connections))


@contextlib.asynccontextmanager
async def _in_time(within: timedelta | None, name: str) -> AsyncGenerator[None]:
    """What a request waits for until its chain has started; compiling is not counted.

    Raises:
        RequestTimeoutError: it took longer than `within`.
    """
    limit = asyncio.timeout(None if within is None else within.total_seconds())
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if within is None or not limit.expired():
            raise
        raise RequestTimeoutError(
            f"nodes of workflow {name!r} were not initialised within {within.total_seconds()} s, the time "
            "the request has",
            timeout_s=within.total_seconds(),
        ) from error
