"""Lowering: from a resolved graph to the stages of a plan.

Owns: which nodes are fused, where joins and merges stand, which scope each edge lives in.
Does not own: validation of names, types and expressions (validate), what is left over (trim), code (fuse).

The rule: a node whose inputs all come from one stage, and which does not wait, joins that stage; inputs from
several stages meet in a join first; everything that waits, changes the number of rows or leaves the process
is a stage of its own, followed by a fused stage for what depends on it alone. Linear in nodes and
connections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from flowcore.definition import Port
from flowcore.errors import Problem, ValidationFailedError
from flowcore.policies import NodePolicies
from flowruntime.compile.exclusive import Guards
from flowruntime.compile.plan import (
    Argument,
    Call,
    Coalesce,
    Collected,
    Const,
    Edge,
    Given,
    Item,
    Out,
    Plan,
    Scope,
    Slot,
    Stage,
    StageKind,
    Wire,
)
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode
from flowruntime.compile.trim import FAILED_ROWS, trimmed

MAX_FUSED = 256
"""Nodes in one generated function; longer chains go on in a further stage, at the price of one call per
frame."""

_ROWS_CHANGE = ("expand", "collect", "batch", "operator")
_NEEDS_SAME_ROWS = (
    "join rows that stem from one record; turn the rows of one record into a list first (control.collect). "
    "Joining different streams (by window, or as enrichment) is not there yet"
)


def lower(
    graph: ResolvedGraph,
    *,
    mode: Literal["stream", "request"],
    sources: Collection[str] | None = None,
    given: Collection[str] = (),
) -> Plan:
    """Stages of the whole workflow, or of what is reachable from some of its sources.

    Args:
        graph: validated.
        mode: `request` replaces all sources by one stage that opens one row per request.
        sources: for `stream`: the chain of these sources only; None: all of them, for showing and checking.
        given: for `request`: open optional ports (`node.port`) of connected nodes that the request fills.

    Raises:
        ValidationFailedError: rows of unrelated scopes meet in a join, or a collect has nothing to close.
    """
    return _Lowering(graph, mode, sources, given).run()


class ScopeFault(NamedTuple):
    """A node whose inputs, or whose place, do not fit the rows that reach it."""

    node: ResolvedNode
    message: str
    remedy: str


def scope_faults(
    graph: ResolvedGraph,
    *,
    mode: Literal["stream", "request"],
    holes: Collection[str] = (),
    sources: Collection[str] | None = None,
) -> list[ScopeFault]:
    """Where rows that do not belong together would meet.

    Args:
        graph: in topological order; need not be whole.
        mode: as for `lower`.
        holes: nodes of which not every input is known: they, and those behind them, are left alone.
        sources: as for `lower`.
    """
    lowering = _Lowering(graph, mode, sources, (), holes)
    lowering.place()
    return lowering.faults


class _Lowering:
    def __init__(
        self,
        graph: ResolvedGraph,
        mode: Literal["stream", "request"],
        sources: Collection[str] | None,
        given: Collection[str],
        holes: Collection[str] = (),
    ) -> None:
        self.graph = graph
        self.mode: Literal["stream", "request"] = mode
        self.given = frozenset(given)
        self.stages: list[Stage] = []
        self.scopes: list[Scope] = []
        self.home: dict[str, Stage] = {}
        self.faults: list[ScopeFault] = []
        self.holes = holes
        self.entries: list[Stage] = []
        self.expands: dict[Scope, Stage] = {}
        self.incoming: dict[str, list[ResolvedConnection]] = defaultdict(list)
        self.nodes = self._reachable(sources)
        for connection in graph.connections:
            if connection.from_node in self.nodes and connection.to_node in self.nodes:
                self.incoming[connection.to_node].append(connection)
        self.declared = {connection.index: connection for connection in graph.connections}
        self.guards = Guards(graph)
        self.request: Stage | None = None

    def run(self) -> Plan:
        self.place()
        if self.faults:
            raise ValidationFailedError([_as_problem(fault) for fault in self.faults])
        return Plan(self.graph, self.mode, trimmed(self.stages), self.scopes, self.entries)

    def place(self) -> None:
        """Give every node its stage and scope; those that fit none are faults."""
        if self.mode == "request":
            scope = self._scope("$request", None)
            entry = self._stage("$request", "request", "the request's inputs", scope)
            self.entries.append(entry)
            self.request = self._root(entry, scope, None)
        for node_id, node in self.graph.nodes.items():
            if node_id in self.nodes and node_id not in self.holes:
                self._place(node)

    # --- nodes ----------------------------------------------------------------------------------------

    def _place(self, node: ResolvedNode) -> None:
        if node.role == "source":
            self._place_source(node)
            return
        if node.role == "sink":
            self._place_sink(node)
            return
        inputs = self._inputs(node)
        if inputs is None:
            return
        arguments, controls = inputs
        homes = self._homes(arguments, controls)
        if len(homes) > 1:
            stage = self._join(node, arguments, controls, homes)
            if stage is not None:
                self._place_behind_join(node, stage, len(arguments))
            return
        home = homes[0]
        if self._fusable(node) and len(home.calls) >= MAX_FUSED:
            self._place_in_next(node, home, arguments, controls)
            return
        if self._fusable(node):
            home.calls.append(
                Call(node, tuple(argument for argument, _ in arguments), tuple(wire for wire, _ in controls))
            )
            self.home[node.id] = home
            return
        single = len(arguments) == 1
        out = Out(
            tuple(argument for argument, _ in arguments),
            tuple(wire for wire, _ in controls),
            single=single,
            target=Edge(home, 0),
        )
        home.outs.append(out)
        self._own_stage(node, home, unpack=not single, out=out)

    def _place_behind_join(self, node: ResolvedNode, join: Stage, arguments: int) -> None:
        if self._fusable(node):
            fused = self._root(join, join.scope, None)
            fused.calls.append(Call(node, _items(arguments)))
            self.home[node.id] = fused
        else:
            self._own_stage(node, join, unpack=arguments != 1)

    def _place_in_next(
        self,
        node: ResolvedNode,
        home: Stage,
        arguments: Sequence[tuple[Argument, tuple[Stage, ...]]],
        controls: Sequence[tuple[Wire, Stage]],
    ) -> None:
        """Begin a further fused stage behind one that is full."""
        single = len(arguments) == 1
        stage = self._stage(f"{node.id}+", "fused", f"the stage before has {MAX_FUSED} nodes", home.scope)
        values = tuple(argument for argument, _ in arguments)
        home.outs.append(
            Out(values, tuple(wire for wire, _ in controls), single=single, target=Edge(stage, 0))
        )
        stage.calls.append(Call(node, _items(len(arguments))))
        self.home[node.id] = stage

    def _place_source(self, node: ResolvedNode) -> None:
        if self.request is not None:
            # A request stands in for the source: its value is the request's input `node.out`.
            self.request.calls.append(Call(node, (Given(f"{node.id}.out", required=False, default=None),)))
            self.home[node.id] = self.request
            return
        scope = self._scope(node.id, None)
        stage = self._stage(node.id, "source", "rows come in here", scope, node=node)
        self.entries.append(stage)
        self.home[node.id] = self._root(stage, scope, node)

    def _place_sink(self, node: ResolvedNode) -> None:
        stage = self._stage(node.id, "sink", "rows leave here", self.scopes[0], node=node)
        for connection in self._incoming(node):
            home = self.home.get(connection.from_node)
            if home is None:
                continue
            edge = Edge(stage, len(stage.slots), connection)
            stage.slots.append(Slot(0, home.scope))
            self._wire_out(home, Wire(connection), connection, edge)

    def _own_stage(self, node: ResolvedNode, before: Stage, *, unpack: bool, out: Out | None = None) -> None:
        kind, reason = _stage_kind(node)
        scope = self._scope_after(node, kind, before.scope)
        if scope is None:
            return
        stage = self._stage(node.id, kind, reason, scope, node=node)
        stage.input_scope = before.scope
        stage.unpack = unpack
        edge = Edge(stage, 0)
        if out is None:
            before.edges.append(edge)
        else:
            out.target = edge
        if kind == "expand":
            self.expands[scope] = stage
        if kind == "collect":
            self.expands[before.scope].parent_collects.append(stage)
        self.home[node.id] = self._root(stage, scope, node)

    def _scope_after(self, node: ResolvedNode, kind: StageKind, scope: Scope) -> Scope | None:
        if kind == "expand":
            return self._scope(node.id, scope)
        if kind in ("batch", "operator"):
            return self._scope(node.id, None)
        if kind == "collect":
            if scope.parent is None:
                self._fault(
                    node,
                    "has nothing to collect: its rows do not stem from a node that yields several rows for "
                    "one",
                    "put it after a node that expands rows (for example transform.split), or use "
                    "control.batch",
                )
                return None
            return scope.parent
        return scope

    # --- inputs ---------------------------------------------------------------------------------------

    def _inputs(
        self, node: ResolvedNode
    ) -> tuple[list[tuple[Argument, tuple[Stage, ...]]], list[tuple[Wire, Stage]]] | None:
        """Each port's argument and the stages it needs; the control wires.

        Returns:
            None when an earlier problem left a hole.
        """
        by_port: dict[str | None, list[ResolvedConnection]] = defaultdict(list)
        for connection in self._incoming(node):
            if connection.from_node not in self.home:
                return None
            by_port[connection.to_port].append(connection)
        arguments = [
            self._argument(node, port, by_port.get(port.name, [])) for port in node.definition.inputs
        ]
        controls = [
            (Wire(connection), self.home[connection.from_node]) for connection in by_port.get(None, [])
        ]
        return arguments, controls

    def _incoming(self, node: ResolvedNode) -> list[ResolvedConnection]:
        """The connections of a node; those of an error port begin at the stage of failed rows."""
        return [
            self._from_failed(connection) if connection.kind == "error" else connection
            for connection in self.incoming[node.id]
        ]

    def _from_failed(self, connection: ResolvedConnection) -> ResolvedConnection:
        """The connection as plain data from a stage whose rows are the sender's failed ones."""
        sender = connection.from_node
        name = f"{sender}.error"
        home = self.home.get(sender)
        if home is None:
            return connection
        if name not in self.home:
            stage = self._stage(name, "fused", f"rows {sender!r} failed on", home.scope)
            stage.root = ResolvedNode(name, FAILED_ROWS, None, {}, NodePolicies())
            edge = Edge(stage, 0, connection)
            home.outs.append(Out((Wire(connection),), (), single=True, target=edge))
            self.home[name] = stage
        return replace(connection, kind="data", from_node=name, from_port="out")

    def _argument(
        self, node: ResolvedNode, port: Port, connections: Sequence[ResolvedConnection]
    ) -> tuple[Argument, tuple[Stage, ...]]:
        if not connections:
            return self._open(node, port)
        if port.gather:
            wires = tuple(Wire(connection) for connection in connections)
            return Collected(wires), tuple(self.home[connection.from_node] for connection in connections)
        if len(connections) == 1:
            return Wire(connections[0]), (self.home[connections[0].from_node],)
        homes = {self.home[connection.from_node] for connection in connections}
        declared = [self.declared[connection.index] for connection in connections]
        exclusive = len({home.scope for home in homes}) == 1 and self.guards.exclusive(declared)
        if exclusive and len(homes) == 1:
            return Coalesce(tuple(Wire(connection) for connection in connections)), (next(iter(homes)),)
        merged = self._merge(node, port, connections, exclusive=exclusive)
        return Item(None), (merged,)

    def _open(self, node: ResolvedNode, port: Port) -> tuple[Argument, tuple[Stage, ...]]:
        name = f"{node.id}.{port.name}"
        if self.request is not None and (port.required or not self.incoming[node.id] or name in self.given):
            default: Any = [] if port.gather else port.default
            return Given(name, port.required and not port.gather, default), (self.request,)
        return Const([] if port.gather else port.default), ()

    def _homes(
        self, arguments: Sequence[tuple[Argument, tuple[Stage, ...]]], controls: Sequence[tuple[Wire, Stage]]
    ) -> list[Stage]:
        homes: dict[Stage, None] = {}
        for _, stages in arguments:
            homes.update(dict.fromkeys(stages))
        homes.update(dict.fromkeys(stage for _, stage in controls))
        if not homes:
            # Nothing is connected: the node runs once per row of the entry (per request, per record).
            homes[self.request if self.request is not None else self.stages[1]] = None
        return list(homes)

    def _join(
        self,
        node: ResolvedNode,
        arguments: Sequence[tuple[Argument, tuple[Stage, ...]]],
        controls: Sequence[tuple[Wire, Stage]],
        homes: Sequence[Stage],
    ) -> Stage | None:
        deepest = max((home.scope for home in homes), key=lambda scope: scope.depth)
        strangers = [home for home in homes if not deepest.descends_from(home.scope)]
        if strangers:
            names = ", ".join(
                repr(home.scope.id) for home in (*strangers, homes[0]) if home.scope is not deepest
            )
            self._fault(
                node,
                f"joins rows of {deepest.id!r} with rows of {names}, which do not belong together",
                _NEEDS_SAME_ROWS,
            )
            return None
        stage = self._stage(
            node.id + ".join", "join", f"inputs of {node.id!r} come from {len(homes)} stages", deepest
        )
        stage.receiver = node.id
        constants: list[Any] = [None] * len(arguments)
        for index, (argument, stages) in enumerate(arguments):
            if isinstance(argument, Const):
                constants[index] = argument.value
            elif isinstance(argument, Collected):
                for part, home in zip(argument.parts, stages, strict=True):
                    self._slot(stage, home, part, index, gather=True)
            else:
                self._slot(stage, stages[0], argument, index)
        for wire, home in controls:
            self._slot(stage, home, wire, -1)
        stage.constants = tuple(constants)
        return stage

    def _slot(
        self, stage: Stage, home: Stage, argument: Argument, port: int, *, gather: bool = False
    ) -> None:
        edge = Edge(stage, len(stage.slots), argument.connection if isinstance(argument, Wire) else None)
        stage.slots.append(Slot(port, home.scope, gather))
        self._wire_out(home, argument, edge.connection, edge)

    def _wire_out(
        self, home: Stage, argument: Argument, connection: ResolvedConnection | None, edge: Edge
    ) -> None:
        edge.connection = connection
        home.outs.append(Out((argument,), (), single=True, target=edge))

    def _merge(
        self, node: ResolvedNode, port: Port, connections: Sequence[ResolvedConnection], *, exclusive: bool
    ) -> Stage:
        homes = [self.home[connection.from_node] for connection in connections]
        scopes = {home.scope for home in homes}
        name = f"{node.id}.{port.name}"
        if exclusive:
            scope = homes[0].scope
            stage = self._stage(name, "merge", f"{len(connections)} exclusive branches meet", scope)
        else:
            scope = self._scope(name, scopes.pop() if len(scopes) == 1 else None)
            stage = self._stage(
                name, "reopen", f"{len(connections)} connections meet; each value is a row", scope
            )
            self.expands[scope] = stage
        stage.receiver = node.id
        for connection, home in zip(connections, homes, strict=True):
            self._slot(stage, home, Wire(connection), 0)
        return self._root(stage, scope, None)

    # --- pieces ---------------------------------------------------------------------------------------

    def _stage(
        self, name: str, kind: StageKind, reason: str, scope: Scope, node: ResolvedNode | None = None
    ) -> Stage:
        stage = Stage(len(self.stages), name, kind, reason, scope, node=node)
        self.stages.append(stage)
        return stage

    def _root(self, before: Stage, scope: Scope, root: ResolvedNode | None) -> Stage:
        """The fused stage for everything that depends on `before` alone."""
        stage = self._stage(before.id + "+", "fused", f"follows {before.id!r} without waiting", scope)
        stage.root = root
        before.edges.append(Edge(stage, 0))
        return stage

    def _scope(self, name: str, parent: Scope | None) -> Scope:
        scope = Scope(name, parent)
        self.scopes.append(scope)
        return scope

    def _fusable(self, node: ResolvedNode) -> bool:
        definition = node.node
        return (
            definition.kind in ("map", "filter", "merge")
            and not definition.is_async
            and definition.offload is None
        )

    def _fault(self, node: ResolvedNode, message: str, remedy: str) -> None:
        self.faults.append(ScopeFault(node, f"node {node.id!r} {message}", remedy))

    def _reachable(self, sources: Collection[str] | None) -> set[str]:
        if self.mode == "request":
            return set(self.graph.nodes)
        following: dict[str, list[str]] = defaultdict(list)
        for connection in self.graph.connections:
            following[connection.from_node].append(connection.to_node)
        roots = [
            node_id
            for node_id, node in self.graph.nodes.items()
            if node.role == "source" and (sources is None or node_id in sources)
        ]
        seen = set(roots)
        while roots:
            for node_id in following[roots.pop()]:
                if node_id not in seen:
                    seen.add(node_id)
                    roots.append(node_id)
        return seen


def _as_problem(fault: ScopeFault) -> Problem:
    path = f"nodes.{fault.node.id}"
    return Problem(path=path, message=fault.message, remedy=fault.remedy, line=fault.node.line)


def _items(ports: int) -> tuple[Item, ...]:
    """The arguments of a node whose inputs come as one row: the value itself for one port, else a tuple."""
    return (Item(None),) if ports == 1 else tuple(Item(index) for index in range(ports))


def _stage_kind(node: ResolvedNode) -> tuple[StageKind, str]:
    definition = node.node
    if definition.kind in _ROWS_CHANGE:
        kind: StageKind = definition.kind
        reasons = {
            "expand": f"{node.id!r} yields several rows for one",
            "collect": f"{node.id!r} turns the rows of one record into one list",
            "batch": f"{node.id!r} turns rows of any records into one list",
            "operator": f"{node.id!r} is a raw operator, opaque to the engine",
        }
        return kind, reasons[kind]
    if definition.offload is not None:
        return "offload", f"{node.id!r} runs in a {definition.offload}"
    if definition.batched:
        return "async", f"{node.id!r} works on batches of rows"
    if node.hooks is not None and node.hooks.waits and not node.hooks.facts.waits:
        return "async", f"middleware around {node.id!r} waits"
    return "async", f"{node.id!r} waits"
