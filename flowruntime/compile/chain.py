"""The chain: a plan's stages as reactive operators, connected and ready to be pushed into.

Owns: making an operator per stage, compiling the generated code, connecting edges to inlets.
Does not own: driving it (flowruntime.execute).

Always holds: every edge is connected before the first item; each inlet is subscribed through reactivex once;
whatever depends on the plan alone (code objects) is made once per plan.
"""

from __future__ import annotations

import functools
import inspect
import linecache
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from flowcore.errors import EngineError
from flowcore.frame import Opened
from flowruntime.compile.bounds import concurrency_of
from flowruntime.compile.fuse import Fused, fuse
from flowruntime.compile.plan import Plan, Stage
from flowruntime.flowcontrol.calls import config_of
from flowruntime.middleware import nodes as around
from flowruntime.middleware.nodes import Place
from flowruntime.operators.base import StageOperator, node_of
from flowruntime.operators.batch import BatchOperator
from flowruntime.operators.batching import BatchingOperator
from flowruntime.operators.collect import CollectOperator, Reduce
from flowruntime.operators.dripping import DrippingOperator
from flowruntime.operators.edge import Edge
from flowruntime.operators.expand import ExpandOperator, Start
from flowruntime.operators.fused import FusedOperator
from flowruntime.operators.join import JoinOperator
from flowruntime.operators.merge import MergeOperator
from flowruntime.operators.opaque import OpaqueOperator
from flowruntime.operators.outcome import OUTCOME, OutcomeOperator
from flowruntime.operators.reopen import ReopenOperator
from flowruntime.operators.sink import CaptureOperator, SinkOperator
from flowruntime.operators.waiting import WaitingOperator

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowruntime.execute.worker import Worker
    from flowruntime.operators.kernel import Kernel


class Program:
    """A plan with its generated code compiled; shared by all chains made from it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.fused: dict[int, tuple[Fused, CodeType, CodeType]] = {}
        for stage in plan.fused:
            written = fuse(stage)
            name = f"{plan.graph.name}/{stage.id}"
            self.fused[stage.index] = (
                written,
                _compiled(written.lean, f"<flow {name}>"),
                _compiled(written.recording, f"<flow {name} recording>"),
            )
        self.fresh = any(stage.kind in ("batch", "operator") for stage in plan.stages)
        """Requests need a chain of their own: some stage holds rows across records."""


@functools.lru_cache(maxsize=512)
def _compiled(source: str, filename: str) -> CodeType:
    """Compile, and let tracebacks show the generated lines; the same text is compiled once per process."""
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return compile(source, filename, "exec")


class Chain:
    """The operators of one plan, for one task or for requests."""

    def __init__(self, program: Program, kernel: Kernel, worker: Worker) -> None:
        self.program = program
        self.kernel = kernel
        self._worker = worker
        self._functions: dict[tuple[int, bool], Any] = {}
        self.operators: dict[int, StageOperator] = {}
        self.entries: dict[str, Edge] = {}
        """By entry stage: where its rows are pushed."""
        for stage in program.plan.stages:
            if stage.kind not in ("source", "request"):
                self.operators[stage.index] = self._operator(stage)
        for stage in program.plan.stages:
            self._connect(stage)

    # --- making operators -----------------------------------------------------------------------------

    def _operator(self, stage: Stage) -> StageOperator:
        makers: dict[str, Callable[[Stage], StageOperator]] = {
            "fused": self._fused,
            "async": self._waiting,
            "offload": self._waiting,
            "expand": self._expand,
            "collect": lambda stage: CollectOperator(self.kernel, stage, self._reduce(stage)),
            "batch": lambda stage: BatchOperator(self.kernel, stage, self._reduce(stage)),
            "join": lambda stage: JoinOperator(self.kernel, stage),
            "merge": lambda stage: MergeOperator(self.kernel, stage),
            "reopen": lambda stage: ReopenOperator(self.kernel, stage),
            "operator": self._opaque,
            "sink": self._sink,
        }
        return makers[stage.kind](stage)

    def _fused(self, stage: Stage) -> StageOperator:
        fused, lean, recording = self.program.fused[stage.index]
        place = _place_in(stage)
        operator = FusedOperator(
            self.kernel, fused, self._function(fused, lean, place), self._function(fused, recording, place)
        )
        operator.place = place
        return operator

    def _opaque(self, stage: Stage) -> StageOperator:
        node = node_of(stage)
        make = node.node.implementation
        takes_config = len(inspect.signature(make).parameters) == 1
        return OpaqueOperator(self.kernel, stage, lambda: make(node.config) if takes_config else make())

    def _sink(self, stage: Stage) -> StageOperator:
        node = node_of(stage)
        if node.definition is OUTCOME:
            connections = self.program.plan.graph.connections
            ports = [connection.from_port for connection in connections if connection.to_node == node.id]
            return OutcomeOperator(self.kernel, stage, ports)
        if self._worker.captures:
            return CaptureOperator(self.kernel, stage)
        return SinkOperator(self.kernel, stage, self._worker.writers[node.id])

    def _function(self, fused: Fused, code: CodeType, place: Place | None) -> Any:
        """Bind the generated code to the worker's instances, and to the middleware around them."""
        namespace: dict[str, Any] = dict(fused.constants)
        for index, name in fused.call_names.items():
            call = fused.steps[index].call
            if call is None or call.node.role == "source":
                continue
            instance = self._worker.instances[call.node.id]
            function = instance.execute if call.node.node.is_class else instance
            if place is not None and call.node.hooks is not None:
                function = around.fused(call.node, function, self.kernel, place)
            namespace[name] = function
        exec(code, namespace)  # noqa: S102 - text of our own (fuse), in which users' values are names only
        return next(
            value for name, value in namespace.items() if name.startswith("stage_") and callable(value)
        )

    def _waiting(self, stage: Stage) -> StageOperator:
        kernel, node = self.kernel, node_of(stage)
        policy = node.policies.concurrency
        order: Order = "ordered" if policy is None or policy.order is None else policy.order
        if self.program.plan.mode == "request":
            # Requests never wait for each other; children are put in order where collected.
            order = "unordered"
        pool = self._worker.pools[node.id]
        make = BatchingOperator if node.node.batched else WaitingOperator
        return make(kernel, stage, pool, order)

    def _expand(self, stage: Stage) -> StageOperator:
        kernel, node = self.kernel, node_of(stage)
        most = node.policies.max_children or kernel.plan.graph.settings.max_children
        if not node.node.is_async:
            return ExpandOperator(kernel, stage, self._start(stage), max_children=most)
        return DrippingOperator(
            kernel,
            stage,
            self._start(stage),
            max_children=most,
            turnstile=self._worker.turnstiles[node.id],
            concurrency=concurrency_of(node, kernel.plan.graph.tuning),
            rng=self._worker.rng,
        )

    def _start(self, stage: Stage) -> Start:
        """Calls an expanding node and returns its iterator."""
        kernel, node = self.kernel, node_of(stage)
        definition, instance = node.node, self._worker.instances[node.id]
        keywords = config_of(node)
        names = [port.name for port in definition.inputs]

        def start(opened: Opened, row: int, value: Any, attempt: int) -> Any:
            values = value if stage.unpack else (value,)
            if definition.is_class:
                inputs = definition.input_type(**dict(zip(names, values, strict=True)))
                return instance.execute(inputs, kernel.worker.context(kernel, node.id, opened, row, attempt))
            extra = keywords
            if definition.context_name is not None:
                extra = {
                    **keywords,
                    definition.context_name: kernel.worker.context(kernel, node.id, opened, row, attempt),
                }
            return instance(*values, **extra)

        begin: Start = start if node.hooks is None else around.start(node, start, kernel, unpack=stage.unpack)
        if kernel.journal is None:
            return begin
        most = node.policies.max_children or kernel.plan.graph.settings.max_children
        return kernel.journal.children(node.id, begin, most)

    def _reduce(self, stage: Stage) -> Reduce:
        node = node_of(stage)
        function = self._worker.instances[node.id]
        keywords = config_of(node)
        if node.hooks is not None:
            return around.reduce(node, lambda items: function(items, **keywords), self.kernel)
        return lambda items, _: function(items, **keywords)

    # --- connecting -----------------------------------------------------------------------------------

    def _connect(self, stage: Stage) -> None:
        depth = self.kernel.depth
        if stage.kind == "fused":
            operator = self.operators[stage.index]
            for out in stage.outs:
                edge = Edge(depth)
                operator.edges.append(edge)
                self._subscribe(edge, out.target.target, out.target.slot)
            return
        edges: list[Edge] = []
        for target in stage.edges:
            edge = Edge(depth)
            edges.append(edge)
            self._subscribe(edge, target.target, target.slot)
        if stage.kind in ("source", "request"):
            self.entries[stage.id] = _Fan(depth, edges, self.kernel)
            return
        operator = self.operators[stage.index]
        operator.edges.extend(edges)
        if isinstance(operator, ExpandOperator | ReopenOperator):
            operator.collects = [self._collect(collect) for collect in stage.parent_collects]

    def _collect(self, stage: Stage) -> CollectOperator:
        operator = self.operators[stage.index]
        if not isinstance(operator, CollectOperator):
            raise EngineError(f"stage {stage.id!r} collects children but has a {type(operator).__name__}")
        return operator

    def _subscribe(self, edge: Edge, target: Stage, slot: int) -> None:
        edge.observable().subscribe(self.operators[target.index].inlet(slot), self.kernel.crash)

    def close(self) -> None:
        """Take the chain down; nothing that comes in later is worked on."""
        self.kernel.closed = True
        for operator in self.operators.values():
            operator.close()
        if self.kernel.streams is not None:
            self.kernel.streams.close()

    def cancel_execution(self, root: Opened, row: int) -> None:
        """Take out whatever waits or runs for one root record."""
        for operator in self.operators.values():
            operator.cancel_execution(root, row)
        if self.kernel.streams is not None:
            self.kernel.streams.cancel_execution(root, row)

    async def aclose(self) -> None:
        """Take the chain down and wait until nothing of it runs any more."""
        self.close()
        for operator in self.operators.values():
            await operator.until_quiet()
        if self.kernel.streams is not None:
            await self.kernel.streams.until_quiet()

    def statistics(self) -> dict[str, Any]:
        stages = self.program.plan.stages
        return {
            stages[index].id: {"kind": stages[index].kind, **operator.statistics()}
            for index, operator in self.operators.items()
        }


def _place_in(stage: Stage) -> Place | None:
    """Where a fused stage tells middleware which row it is at; None when none of its nodes has any."""
    return Place() if any(call.node.hooks is not None for call in stage.calls) else None


class _Fan(Edge):
    """An entry with any number of edges: none (rows end at once), one, several."""

    __slots__ = ("_edges", "_kernel")

    def __init__(self, depth: Any, edges: list[Edge], kernel: Kernel) -> None:
        super().__init__(depth)
        self._edges = edges
        self._kernel = kernel

    def emit(self, item: Any) -> None:
        if not self._edges and hasattr(item, "opened"):
            item.opened.ledger.cover(item.covers)
        for edge in self._edges:
            edge.emit(item)
