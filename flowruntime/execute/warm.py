"""What is made once per workflow and kept: validated graphs, compiled chains, started request chains.

Owns: `WarmChains`: finding them again, letting go of those not used for longest.
Does not own: making workers (the runtime), running requests (requests) and continuous runs (run).

Always holds: a workflow is known by the object and its size, so that finding it costs no hashing of its
content; nodes or connections added since make it a new one. The workflow is kept with what was made of it, so
its id means it alone. A chain is closed only when no request is in it or waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flowcore.workflow import Workflow
from flowruntime.compile.chain import Program
from flowruntime.compile.lower import lower
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.execute.inputs import request_inputs
from flowruntime.execute.replace import replaced
from flowruntime.execute.requests import RequestChain

if TYPE_CHECKING:
    from flowruntime.execute.totals import RowTotals
    from flowruntime.execute.worker import Worker

MOST_KEPT = 64
"""Workflows, and request chains, beyond which the one not used for longest is let go."""

Mode = Literal["stream", "request"]
Key = tuple[Any, ...]


class Maker(Protocol):
    """What the runtime makes for a workflow."""

    def validate(self, workflow: Workflow, *, mode: Mode) -> ResolvedGraph: ...
    def make_worker(self, graph: ResolvedGraph, workflow: Workflow, *, captures: bool) -> Worker: ...
    def new_id(self) -> str: ...


class WarmChains:
    """The compiled workflows of one runtime."""

    def __init__(self, maker: Maker, totals: RowTotals) -> None:
        self._maker = maker
        self._totals = totals
        self._graphs: OrderedDict[Key, tuple[Workflow, ResolvedGraph]] = OrderedDict()
        self._programs: OrderedDict[ResolvedGraph, dict[str, Program]] = OrderedDict()
        self._optional: dict[ResolvedGraph, frozenset[str]] = {}
        self._chains: OrderedDict[Key, tuple[Workflow, RequestChain]] = OrderedDict()
        self._starting: dict[Key, asyncio.Lock] = {}

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

    def programs(self, graph: ResolvedGraph) -> dict[str, Program]:
        """The compiled chains behind each source.

        Raises:
            ValidationFailedError: rows that do not belong together meet.
        """
        found = self._programs.get(graph)
        if found is None:
            lower(graph, mode="stream")  # the scopes of all sources together are checked
            found = self._programs[graph] = {
                node_id: Program(lower(graph, mode="stream", sources=[node_id]))
                for node_id, node in graph.nodes.items()
                if node.role == "source"
            }
            while len(self._programs) > MOST_KEPT:
                self._programs.popitem(last=False)
        return found

    async def request(
        self, workflow: Workflow, inputs: Mapping[str, Any], replace: Mapping[str, Any], *, write: bool
    ) -> tuple[RequestChain, dict[str, Any], Any]:
        """A started chain for a request; its inputs by `node.port`; its record, when it feeds the one source.

        The chain is reserved: the caller releases it when the request has ended.
        """
        graph = self.resolved(workflow, "request")
        given = request_inputs(graph, inputs)
        sources = [
            node_id
            for node_id, node in graph.nodes.items()
            if node.role == "source" and f"{node_id}.out" in given
        ]
        extra = tuple(sorted(self._optional_ports(graph).intersection(given)))
        captures = bool(sources) and not write
        stand_ins = tuple(sorted((name, id(thing)) for name, thing in replace.items()))
        key = (*_identity(workflow), stand_ins, extra, captures)
        chain = await self._chain(key, graph, workflow, replace, extra, captures=captures)
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
    ) -> RequestChain:
        found = self._chains.get(key)
        if found is not None:
            self._chains.move_to_end(key)
            return found[1]
        async with self._starting.setdefault(key, asyncio.Lock()):
            found = self._chains.get(key)
            if found is None:
                chain = await self._start(replaced(graph, replace), workflow, extra, captures=captures)
                found = self._chains[key] = (workflow, chain)
        self._starting.pop(key, None)
        return found[1]

    async def _start(
        self, graph: ResolvedGraph, workflow: Workflow, extra: tuple[str, ...], *, captures: bool
    ) -> RequestChain:
        program = Program(lower(graph, mode="request", given=extra))
        worker = self._maker.make_worker(graph, workflow, captures=captures)
        await worker.start()
        chain = RequestChain(program, worker, self._maker.new_id)
        self._totals.begin(chain, worker.workflow_id, chain.live_counts)
        return chain

    async def _let_go(self) -> None:
        """Close the chains not used for longest, but for those in use."""
        if len(self._chains) <= MOST_KEPT:
            return
        idle = [key for key, (_, chain) in self._chains.items() if not chain.busy]
        for key in idle[: len(self._chains) - MOST_KEPT]:
            _, chain = self._chains.pop(key)
            self._totals.end(chain)
            await chain.aclose()

    def closers(self) -> list[Callable[[], Any]]:
        """What closes each started chain; they are not found any more."""
        chains = [chain for _, chain in self._chains.values()]
        self._chains.clear()
        return [chain.aclose for chain in chains]


def _identity(workflow: Workflow) -> Key:
    return (id(workflow), len(workflow.nodes), len(workflow.connections))
