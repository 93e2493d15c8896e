"""The chain: a plan's stages as reactive operators, connected and ready to be pushed into.

Owns: making an operator per stage, compiling the generated code, connecting edges to inlets.
Does not own: driving it (flowruntime.execute).

Always holds: every edge is connected before the first item; each inlet is subscribed through reactivex once;
whatever depends on the plan alone (code objects) is made once per plan.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from flowcore.errors import EngineError
from flowcore.frame import Opened
from flowruntime.compile.fuse import Fused, fuse
from flowruntime.compile.plan import Plan, Stage
from flowruntime.flowcontrol.calls import config_of
from flowruntime.operators.base import StageOperator, node_of
from flowruntime.operators.batch import BatchOperator
from flowruntime.operators.batching import BatchingOperator
from flowruntime.operators.collect import CollectOperator
from flowruntime.operators.edge import Edge
from flowruntime.operators.expand import ExpandOperator
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


def _compiled(source: str, filename: str) -> CodeType:
    """Compile, and let tracebacks show the generated lines."""
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
        return FusedOperator(
            self.kernel, fused, self._function(fused, lean), self._function(fused, recording)
        )

    def _opaque(self, stage: Stage) -> StageOperator:
        node = node_of(stage)
        make = node.node.implementation
        takes_config = len(inspect.signature(make).parameters) == 1
        return OpaqueOperator(self.kernel, stage, make(node.config) if takes_config else make())

    def _sink(self, stage: Stage) -> StageOperator:
        node = node_of(stage)
        if node.definition is OUTCOME:
            connections = self.program.plan.graph.connections
            ports = [connection.from_port for connection in connections if connection.to_node == node.id]
            return OutcomeOperator(self.kernel, stage, ports)
        if self._worker.captures:
            return CaptureOperator(self.kernel, stage)
        return SinkOperator(self.kernel, stage, self._worker.writers[node.id])

    def _function(self, fused: Fused, code: CodeType) -> Any:
        """Bind the generated code to the worker's instances."""
        namespace: dict[str, Any] = dict(fused.constants)
        for index, name in fused.call_names.items():
            call = fused.steps[index].call
            if call is None or call.node.role == "source":
                continue
            instance = self._worker.instances[call.node.id]
            namespace[name] = instance.execute if call.node.node.is_class else instance
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
        policies = node.policies
        concurrency = policies.concurrency.max if policies.concurrency is not None else None
        return ExpandOperator(
            kernel,
            stage,
            self._start(stage),
            max_children=policies.max_children or kernel.plan.graph.settings.max_children,
            concurrency=concurrency or 16,
        )

    def _start(self, stage: Stage) -> Callable[[Opened, int, Any], Any]:
        """Calls an expanding node and returns its iterator."""
        kernel, node = self.kernel, node_of(stage)
        definition, instance = node.node, self._worker.instances[node.id]
        keywords = config_of(node)
        names = [port.name for port in definition.inputs]

        def start(opened: Opened, row: int, value: Any) -> Any:
            values = value if stage.unpack else (value,)
            if definition.is_class:
                inputs = definition.input_type(**dict(zip(names, values, strict=True)))
                return instance.execute(inputs, kernel.worker.context(kernel, node.id, opened, row))
            extra = keywords
            if definition.context_name is not None:
                extra = {
                    **keywords,
                    definition.context_name: kernel.worker.context(kernel, node.id, opened, row),
                }
            return instance(*values, **extra)

        return start

    def _reduce(self, stage: Stage) -> Callable[[list[Any]], Any]:
        node = node_of(stage)
        function = self._worker.instances[node.id]
        if node.config is None:
            return function
        keywords = config_of(node)
        return lambda items: function(items, **keywords)

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

    async def aclose(self) -> None:
        """Take the chain down and wait until nothing of it runs any more."""
        self.close()
        for operator in self.operators.values():
            await operator.until_quiet()

    def statistics(self) -> dict[str, Any]:
        stages = self.program.plan.stages
        return {
            stages[index].id: {"kind": stages[index].kind, **operator.statistics()}
            for index, operator in self.operators.items()
        }


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
