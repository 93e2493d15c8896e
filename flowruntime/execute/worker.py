"""A worker: what all chains of one workflow in one process share.

Owns: node instances and their life cycle, stage pools, limits, the row budget, sink writers, contexts.
Does not own: chains (flowruntime.compile.chain), reading sources (task), requests (requests).

Always holds: `initialize` ran once for every instance that serves, `shutdown` runs for each of them,
whatever happened; nothing is running after `aclose`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowcore.definition import NodeDefinition
from flowcore.errors import FlowError, NodeFailedError, describe_error
from flowcore.frame import Opened
from flowcore.policies import NodePolicies
from flowruntime.compile.bounds import budget_of, concurrency_of, input_bytes_of, limits_of
from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode, ResolvedPlace, on_error_of
from flowruntime.execute.context import (
    BatchCallContext,
    CallContext,
    ConnectorContext,
    Services,
    SetupContext,
)
from flowruntime.execute.release import is_cancelled, released
from flowruntime.execute.revealed import config_of
from flowruntime.execute.telemetry import RunTelemetry
from flowruntime.flowcontrol.budget import Budget
from flowruntime.flowcontrol.calls import make_call
from flowruntime.flowcontrol.offload import Offloader
from flowruntime.flowcontrol.permits import Limit, Permits
from flowruntime.flowcontrol.pool import StagePool
from flowruntime.flowcontrol.rewriting import Rewriting
from flowruntime.flowcontrol.turnstile import Turnstile
from flowruntime.flowcontrol.writer import SinkWriter
from flowruntime.middleware import nodes as around
from flowruntime.operators.outcome import OUTCOME

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetterStore
    from flowcore.on_error import OnError
    from flowcore.workflow import Workflow
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.flowcontrol.letters import LetterWriter
    from flowruntime.operators.kernel import Kernel
    from flowruntime.resilience.resources import Resources


DEAD_LETTER: Final = "dead_letter"
"""As what the store of dead letters is known in contexts, logs and errors: the name of its setting."""


class Worker:
    """Everything shared by the chains of one workflow.

    Args:
        graph: validated.
        services: what contexts hand on.
        limits: shared by all workers of the runtime: `*` for all nodes, `type:NAME`, `resource:NAME`.
        resources: breakers, rates and retry budgets, likewise.
        workflow_id: for events and contexts.
        captures: sinks are not opened, because their values are kept in results.
        seed: for the jitter of backoffs.
        workflow: as declared, for the version and hash in dead letters.
        exempt: names of `limits` it is not subject to, because who uses it holds a permit of them already.
    """

    def __init__(  # noqa: PLR0913 - what all chains of a workflow share
        self,
        graph: ResolvedGraph,
        services: Services,
        limits: Mapping[str, Limit],
        resources: Resources,
        workflow_id: str,
        *,
        captures: bool,
        seed: int | None = None,
        workflow: Workflow | None = None,
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        self.services = services
        self.workflow_id = workflow_id
        self.captures = captures
        self.telemetry = RunTelemetry(
            services.bus, services.clock, workflow_id, capture=graph.settings.capture
        )
        self.budget = Budget(budget_of(graph), graph.tuning.max_bytes, input_bytes_of(graph))
        self.current: Any = None
        """The fused stage being run, for the watchdog."""
        self.instances: dict[str, Any] = {}
        self.pools: dict[str, StagePool] = {}
        self.turnstiles: dict[str, Turnstile] = {}
        """Of nodes that expand asynchronously."""
        self.writers: dict[str, SinkWriter] = {}
        self._shared = {name: limit for name, limit in limits.items() if name not in exempt}
        self._exempt = exempt
        self._resources = resources
        self.limits: dict[str, Limit] = {}
        """The workflow's own, by name."""
        self._offloaders: dict[str, Offloader] = {}
        self._initialized: list[tuple[str, Any]] = []
        self.rng = random.Random(seed)
        """For jitter."""
        self._kernels: dict[str, Kernel] = {}
        self.on_error: Mapping[str, OnError] = {
            node_id: on_error_of(node, graph.settings) for node_id, node in graph.nodes.items()
        }
        """What a row of each node does that failed for good and has no fallback."""
        self._lettered = frozenset(
            node_id for node_id, word in self.on_error.items() if word == "dead_letter"
        )
        self._workflow = workflow
        self.letters: LetterWriter | None = None
        """Where some node's failed rows go; None: none says so."""

    # --- life cycle -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make and initialise every node, open every sink.

        Raises:
            NodeFailedError: one could not be initialised; those that could are shut down again.
        """
        try:
            for node in self.graph.nodes.values():
                await self._start_node(node)
            await self._open_letters()
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
            workers = concurrency_of(node, self.graph.tuning)
            self._offloaders[node.id] = Offloader(instance, definition.offload, workers, name=node.id)
        if definition.kind in ("map", "filter", "merge") and (
            definition.is_async or definition.offload is not None
        ):
            self.pools[node.id] = self._pool(node, instance)
        elif definition.kind == "expand" and definition.is_async:
            guard = self._resources.guard(self.graph, node, self.workflow_id)
            self.turnstiles[node.id] = Turnstile(self._permits(node), guard)

    async def _open_sink(self, node: ResolvedNode) -> None:
        sink = node.definition.implementation(config_of(node, self.services.secrets.resolve))
        writer = SinkWriter(node.id, sink, self._rewriting(node))
        self.writers[node.id] = writer
        context = ConnectorContext(
            self.services, self.workflow_id, node.id, delivery=self.graph.settings.delivery
        )
        await self._guarded(node, "open", sink.open(context))

    def _rewriting(self, node: ResolvedNode) -> Rewriting | None:
        guard = self._resources.guard(self.graph, node, self.workflow_id)
        policy = node.policies.retry
        return None if policy is None or guard is None else Rewriting(policy, guard, self.rng)

    async def _open_letters(self) -> None:
        """The dead letters, if some node's rows go there; fails now when they cannot be written."""
        place = self.graph.dead_letter
        if place is None or not (self._lettered or self._may_ask_for_letters()):
            return
        self.letters = await self.letter_writer(place)

    def _may_ask_for_letters(self) -> bool:
        """Whether failures of some node may ask for a letter themselves: a budget of its calls says so."""
        calling = [
            node.config
            for node in self.graph.nodes.values()
            if isinstance(node.definition, NodeDefinition) and node.definition.is_async
        ]
        if not calling:
            return False
        from flowruntime.models.wishes import asks_for_letters

        return any(map(asks_for_letters, calling))

    async def letter_writer(self, place: ResolvedPlace) -> LetterWriter:
        """A writer of letters to a place, which is opened unless sinks are captured."""
        from flowruntime.execute.letters import LetterMaker
        from flowruntime.flowcontrol.letters import LetterWriter

        store: DeadLetterStore | None = None
        if not self.captures:
            store = place.make()
            context = ConnectorContext(
                self.services, self.workflow_id, DEAD_LETTER, delivery=self.graph.settings.delivery
            )
            try:
                await store.open(context)
                await store.write(())
            except BaseException:
                await self._closing(DEAD_LETTER, "close", store.close)
                raise
        services = self.services
        maker = LetterMaker(
            self._workflow,
            self.graph.name,
            new_id=services.new_id,
            clock=services.clock,
            redact=services.redact,
        )
        return LetterWriter(store, maker, str(place))

    async def _guarded(self, node: ResolvedNode, what: str, awaitable: Any) -> None:
        try:
            if inspect.isawaitable(awaitable):
                await awaitable
        except (FlowError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if is_cancelled(error):
                raise
            where = f"node {node.id!r} ({node.definition.type})"
            told = describe_error(error)
            raise NodeFailedError(
                f"{where} failed to {what}: {told['kind']}: {told['message']}",
                node=node.id,
            ) from error

    async def aclose(self) -> None:
        """Stop everything: pools, processes, sinks, nodes. Idempotent; its errors are logged, not raised.

        What does not end by itself is left after `drain_timeout`. When the caller is cancelled meanwhile, the
        rest is released all the same.
        """
        pools, self.pools = self.pools, {}
        offloaders, self._offloaders = self._offloaders, {}
        writers, self.writers = self.writers, {}
        letters, self.letters = self.letters, None
        initialized, self._initialized = self._initialized, []
        async with contextlib.AsyncExitStack() as closing:  # last in, first out
            for node_id, instance in initialized:
                closing.push_async_callback(self._closing, node_id, "shut down", instance.shutdown)
            if letters is not None:
                closing.push_async_callback(self._closing, DEAD_LETTER, "close", letters.aclose)
            for node_id, writer in reversed(writers.items()):
                closing.push_async_callback(self._closing, node_id, "close", writer.aclose)
            for offloader in offloaders.values():
                closing.push_async_callback(offloader.aclose)
            closing.push_async_callback(self._close_pools, pools)

    async def _close_pools(self, pools: Mapping[str, StagePool]) -> None:
        left = await asyncio.gather(*(pool.aclose() for pool in pools.values()))
        for node_id, stuck in zip(pools, left, strict=True):
            if stuck:
                self.report(node_id, f"does not end: {stuck} of its calls still run and swallow cancellation")

    async def _closing(self, node_id: str, what: str, close: Callable[[], Awaitable[None]]) -> None:

        await released(
            close,
            within=self.graph.settings.drain_timeout,
            report=lambda fault: self.report(node_id, f"failed to {what}: {fault}"),
        )

    # --- limits ---------------------------------------------------------------------------------------

    def _limit(self, name: str, capacity: int) -> Limit:
        if name not in self.limits:
            self.limits[name] = Limit(name, capacity)
        return self.limits[name]

    def _permits(self, node: ResolvedNode) -> Permits:
        """Every limit a node is subject to, the runtime's included."""
        limits = [self._limit(limit.name, limit.rows) for limit in limits_of(self.graph, node)]
        names = _shared_names(node)
        return Permits([*limits, *(self._shared[name] for name in names if name in self._shared)])

    def limits_held_by(self, node_id: str) -> frozenset[str]:
        """Names of the runtime's limits a row at work there holds, by itself or by who uses this worker."""
        return self._exempt.union(_shared_names(self.graph.nodes[node_id]))

    def _pool(self, node: ResolvedNode, instance: Any) -> StagePool:
        batched = node.node.batched

        def context(job: Job) -> Any:
            owner: Any = job.lane.owner
            deadline = (
                None if node.policies.timeout is None else job.started + node.policies.timeout.total_seconds()
            )
            if batched:
                return BatchCallContext(
                    self.services, owner.kernel, node.id, job.members, job.attempt, deadline
                )
            return CallContext(
                self.services, owner.kernel, node.id, job.opened, job.row, job.attempt, deadline
            )

        call = make_call(
            node, instance, self._offloaders.get(node.id), context, unpack=len(node.definition.inputs) != 1
        )
        if node.hooks is not None:
            call = around.job(node, call)
        elif self.graph.keeps:
            call = _awaited(call)
        offloader = self._offloaders.get(node.id)
        return StagePool(
            node.id,
            call,
            self._permits(node),
            node.policies,
            self.rng,
            guard=self._resources.guard(self.graph, node, self.workflow_id),
            weigh=(lambda job: len(job.value)) if batched else None,
            prepare=offloader.prepare if offloader is not None and offloader.kind == "process" else None,
        )

    # --- asked by operators ---------------------------------------------------------------------------

    def report(self, node_id: str, fault: str) -> None:
        """Log what a node did wrong where no row can fail for it."""
        facts = {"node": node_id, "workflow": self.workflow_id}
        self.services.log(f"node {node_id!r} {fault}", "error", facts)

    def letters_of(self, node_id: str, *, asked: bool = False) -> LetterWriter | None:
        """Where a row goes that failed for good at this node; None: its policy says otherwise.

        Args:
            node_id: of the node.
            asked: the failure itself asks for a letter, whatever the policy says.
        """
        return self.letters if asked or node_id in self._lettered else None

    def context(
        self, kernel: Kernel, node_id: str, opened: Opened, row: int, attempt: int = 1
    ) -> CallContext:
        """The context of a fused or expanding node for one row."""
        return CallContext(self.services, kernel, node_id, opened, row, attempt)

    def components(self) -> dict[str, Any]:
        """What is at work by node: objects of class nodes, and sinks."""
        sinks = {node_id: writer.sink for node_id, writer in self.writers.items()}
        return {**dict(self._initialized), **sinks}

    def policies(self, node_id: str) -> NodePolicies:
        return self.graph.nodes[node_id].policies

    def statistics(self) -> dict[str, Any]:
        return {
            "budget": self.budget.statistics(),
            "limits": {name: limit.statistics() for name, limit in self.limits.items()},
            "shared_limits": {name: limit.statistics() for name, limit in self._shared.items()},
            "pools": {name: pool.statistics() for name, pool in {**self.pools, **self.turnstiles}.items()},
            "sinks": {name: writer.statistics() for name, writer in self.writers.items()},
            "dead_letters": None if self.letters is None else self.letters.statistics(),
        }


def _awaited(call: Callable[[Job], Any]) -> Callable[[Job], Awaitable[Any]]:
    """The call of a node that may be a plain function, in a stage that awaits what it gives."""

    async def answer(job: Job) -> Any:
        given = call(job)
        return await given if inspect.isawaitable(given) else given

    return answer


def _shared_names(node: ResolvedNode) -> tuple[str, ...]:
    """The runtime's limits a node is subject to, where they are set."""
    return ("runtime:*", f"type:{node.definition.type}", f"resource:{node.policies.resource}")
