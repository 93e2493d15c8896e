"""A worker: what all chains of one workflow in one process share.

Owns: node instances and their life cycle, stage pools, limits, the row budget, sink writers, contexts.
Does not own: chains (flowruntime.compile.chain), reading sources (task), requests (requests).

Always holds: `initialize` ran once for every instance that serves, `shutdown` runs for each of them,
whatever happened; nothing is running after `aclose`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowcore.definition import NodeDefinition
from flowcore.errors import FlowError, NodeFailedError
from flowcore.frame import Opened
from flowcore.policies import NodePolicies
from flowruntime.compile.bounds import budget_of, concurrency_of, limits_of
from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode
from flowruntime.execute.context import (
    BatchCallContext,
    CallContext,
    ConnectorContext,
    Services,
    SetupContext,
)
from flowruntime.execute.telemetry import RunTelemetry
from flowruntime.flowcontrol.budget import Budget
from flowruntime.flowcontrol.calls import make_call
from flowruntime.flowcontrol.offload import Offloader
from flowruntime.flowcontrol.permits import Limit, Permits
from flowruntime.flowcontrol.pool import StagePool
from flowruntime.flowcontrol.writer import SinkWriter
from flowruntime.operators.outcome import OUTCOME

if TYPE_CHECKING:
    from flowruntime.flowcontrol.pool import Job
    from flowruntime.operators.kernel import Kernel


class Worker:
    """Everything shared by the chains of one workflow.

    Args:
        graph: validated.
        services: what contexts hand on.
        limits: shared by all workers of the runtime: `*` for all nodes, `type:NAME`, `resource:NAME`.
        workflow_id: for events and contexts.
        captures: sinks are not opened, because their values are kept in results.
        seed: for the jitter of backoffs.
    """

    def __init__(
        self,
        graph: ResolvedGraph,
        services: Services,
        limits: Mapping[str, Limit],
        workflow_id: str,
        *,
        captures: bool,
        seed: int | None = None,
    ) -> None:
        self.graph = graph
        self.services = services
        self.workflow_id = workflow_id
        self.captures = captures
        self.telemetry = RunTelemetry(
            services.bus, services.clock, workflow_id, capture=graph.settings.capture
        )
        settings = graph.settings
        self.budget = Budget(budget_of(graph), settings.max_bytes)
        self.current: Any = None
        """The fused stage being run, for the watchdog."""
        self.instances: dict[str, Any] = {}
        self.pools: dict[str, StagePool] = {}
        self.writers: dict[str, SinkWriter] = {}
        self._shared = limits
        self.limits: dict[str, Limit] = {}
        """The workflow's own, by name."""
        self._offloaders: dict[str, Offloader] = {}
        self._initialized: list[tuple[str, Any]] = []
        self._rng = random.Random(seed)
        self._kernels: dict[str, Kernel] = {}
        self._stops = {
            node_id: (node.policies.on_error or settings.on_error) == "stop_workflow"
            for node_id, node in graph.nodes.items()
        }

    # --- life cycle -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make and initialise every node, open every sink.

        Raises:
            NodeFailedError: one could not be initialised; those that could are shut down again.
        """
        try:
            for node in self.graph.nodes.values():
                await self._start_node(node)
        except BaseException:
            await self.aclose()
            raise

    async def _start_node(self, node: ResolvedNode) -> None:
        definition = node.definition
        if node.role == "source":
            return
        if node.role == "sink":
            if not self.captures and definition is not OUTCOME:
                await self._open_sink(node)
            return
        if not isinstance(definition, NodeDefinition) or definition.kind == "operator":
            return
        instance: Any = definition.implementation
        if definition.is_class:
            instance = definition.implementation(node.config)
            self._initialized.append((node.id, instance))
            await self._guarded(
                node,
                "initialize",
                instance.initialize(SetupContext(self.services, self.workflow_id, node.id)),
            )
        self.instances[node.id] = instance
        if definition.offload is not None:
            workers = concurrency_of(node)
            self._offloaders[node.id] = Offloader(instance, definition.offload, workers, name=node.id)
        if definition.kind in ("map", "filter", "merge") and (
            definition.is_async or definition.offload is not None
        ):
            self.pools[node.id] = self._pool(node, instance)

    async def _open_sink(self, node: ResolvedNode) -> None:
        sink = node.definition.implementation(node.config)
        writer = SinkWriter(node.id, sink)
        self.writers[node.id] = writer
        context = ConnectorContext(
            self.services, self.workflow_id, node.id, delivery=self.graph.settings.delivery
        )
        await self._guarded(node, "open", sink.open(context))

    async def _guarded(self, node: ResolvedNode, what: str, awaitable: Any) -> None:
        try:
            if inspect.isawaitable(awaitable):
                await awaitable
        except FlowError:
            raise
        except Exception as error:
            where = f"node {node.id!r} ({node.definition.type})"
            raise NodeFailedError(
                f"{where} failed to {what}: {type(error).__name__}: {error}",
                node=node.id,
            ) from error

    async def aclose(self) -> None:
        """Stop everything: pools, processes, sinks, nodes. Idempotent; its errors are logged, not raised."""
        pools, self.pools = self.pools, {}
        for node_id, stuck in zip(
            pools, await asyncio.gather(*(pool.aclose() for pool in pools.values())), strict=True
        ):
            if stuck:
                self.services.log(
                    f"node {node_id!r} does not end: {stuck} of its calls still run and swallow cancellation",
                    "error",
                    {"node": node_id, "workflow": self.workflow_id},
                )
        offloaders, self._offloaders = self._offloaders, {}
        await asyncio.gather(*(offloader.aclose() for offloader in offloaders.values()))
        writers, self.writers = self.writers, {}
        for node_id, writer in writers.items():
            await self._closing(node_id, "close", writer.aclose())
        initialized, self._initialized = self._initialized, []
        for node_id, instance in reversed(initialized):
            await self._closing(node_id, "shut down", instance.shutdown())

    async def _closing(self, node_id: str, what: str, awaitable: Any) -> None:
        try:
            await awaitable
        except Exception as error:  # noqa: BLE001 - user code; the others are still to be closed
            self.services.log(
                f"node {node_id!r} failed to {what}: {type(error).__name__}: {error}",
                "error",
                {"node": node_id, "workflow": self.workflow_id},
            )

    # --- limits ---------------------------------------------------------------------------------------

    def _limit(self, name: str, capacity: int) -> Limit:
        if name not in self.limits:
            self.limits[name] = Limit(name, capacity)
        return self.limits[name]

    def _pool(self, node: ResolvedNode, instance: Any) -> StagePool:
        limits = [self._limit(limit.name, limit.rows) for limit in limits_of(self.graph, node)]
        names = ("runtime:*", f"type:{node.definition.type}", f"resource:{node.policies.resource}")
        limits += [self._shared[name] for name in names if name in self._shared]
        batched = node.node.batched

        def context(job: Job) -> Any:
            owner: Any = job.lane.owner
            deadline = (
                None if node.policies.timeout is None else job.started + node.policies.timeout.total_seconds()
            )
            if batched:
                return BatchCallContext(
                    self.services, owner.kernel, node.id, job.extra, job.attempt, deadline
                )
            return CallContext(
                self.services, owner.kernel, node.id, job.opened, job.row, job.attempt, deadline
            )

        call = make_call(
            node, instance, self._offloaders.get(node.id), context, unpack=len(node.definition.inputs) != 1
        )
        return StagePool(node.id, call, Permits(limits), node.policies, self._rng)

    # --- asked by operators ---------------------------------------------------------------------------

    def stops_workflow(self, node_id: str) -> bool:
        """Whether a failed row of this node ends the run."""
        return self._stops[node_id]

    def context(self, kernel: Kernel, node_id: str, opened: Opened, row: int) -> CallContext:
        """The context of a fused node for one row."""
        return CallContext(self.services, kernel, node_id, opened, row)

    def policies(self, node_id: str) -> NodePolicies:
        return self.graph.nodes[node_id].policies

    def statistics(self) -> dict[str, Any]:
        return {
            "budget": self.budget.statistics(),
            "limits": {name: limit.statistics() for name, limit in self.limits.items()},
            "shared_limits": {name: limit.statistics() for name, limit in self._shared.items()},
            "pools": {name: pool.statistics() for name, pool in self.pools.items()},
            "sinks": {name: writer.statistics() for name, writer in self.writers.items()},
        }
