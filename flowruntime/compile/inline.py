"""Inlining: nested workflows become part of the one around them.

Owns: `Flat`, the ids of inner nodes (`outer/inner`), which inner port stands for a port of the outer node,
the refusal of workflows that contain themselves.
Does not own: params (flowcore.binding fills them first), whether ports and types fit (wiring).

Always holds: no node of type `workflow` is left; every node and connection knows the workflow it was
declared in, so that a problem is told with the path and line the user wrote.

An input port of a nested workflow is an unconnected input port inside it, named by the port where that is
unique, by the inner node where it has only one open port, or `node.port`. An output is an inner node
(`outer.node.port`); `out` is the one node that nothing inside follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flowcore.connection import DEFAULT_OUT, Connection
from flowcore.definition import Definition, NodeDefinition, Port
from flowcore.errors import Problem
from flowcore.findings import Findings, Path, did_you_mean
from flowcore.policies import NodePolicies
from flowcore.settings import Settings
from flowcore.workflow import MAX_NODES, NodeSpec, Workflow

MAX_DEPTH: Final = 32
"""Workflows inside workflows, the outermost included."""

Lookup = Callable[[NodeSpec], Definition | None]
"""The definition of a node's type; None when it is not known, which is reported elsewhere."""


@dataclass(slots=True, eq=False)
class Origin:
    """One workflow of the nest: where it stands, and what the nodes around it say for those inside."""

    workflow: Workflow
    prefix: Path
    findings: Findings
    defaults: tuple[NodePolicies, ...] = ()
    """Policies of the nodes around, the innermost first."""


@dataclass(slots=True, eq=False)
class FlatNode:
    """A node that is no workflow."""

    id: str
    spec: NodeSpec
    origin: Origin

    @property
    def path(self) -> Path:
        """Where it stands in its own workflow."""
        return ("nodes", self.spec.id)


@dataclass(slots=True, eq=False)
class FlatConnection:
    """A connection between nodes that are no workflows; fields as in `flowcore.connection.Connection`."""

    from_node: str
    from_port: str
    path: tuple[str, ...]
    to_node: str
    to_port: str | None
    declared: Connection
    origin: Origin
    at: Path


@dataclass(slots=True, eq=False)
class Flat:
    """A workflow without nested ones."""

    settings: Settings
    origins: list[Origin] = field(default_factory=list[Origin])
    nodes: dict[str, FlatNode] = field(default_factory=dict[str, FlatNode])
    connections: list[FlatConnection] = field(default_factory=list[FlatConnection])
    dangling: set[str] = field(default_factory=set[str])
    """Nodes a refused connection would have reached; they are not reported as unconnected, too."""

    def problems(self) -> list[Problem]:
        """Everything found so far, paths from the outermost workflow, errors first."""
        everything = Findings()
        for origin in self.origins:
            everything.include(origin.findings.problems, origin.prefix)
        return sorted(everything.problems, key=lambda problem: problem.severity != "error")


@dataclass(slots=True, eq=False)
class _Boundary:
    """What a nested workflow shows to the one around it; names are relative to it."""

    inputs: list[tuple[str, str, Port]]
    """Relative node name, flat id, open port."""
    nodes: dict[str, str]
    """Flat id by relative name; sinks and sources left out."""
    entries: list[str]
    terminals: list[str]
    incomplete: bool = False
    """A type inside is unknown, which is reported; what cannot be found may be that node's."""


def nesting_problem(workflow: Workflow) -> Problem | None:
    """Why the nest cannot be inlined: a workflow contains itself, or it is too deep; None when it can be."""
    done: set[int] = set()
    stack: list[tuple[Workflow, tuple[Workflow, ...], Path]] = [(workflow, (), ())]
    while stack:
        here, around, path = stack.pop()
        if any(here is outer for outer in around):
            start = next(index for index, outer in enumerate(around) if outer is here)
            names = " -> ".join(repr(each.name) for each in (*around[start:], here))
            return _nesting(path, f"workflow {here.name!r} contains itself: {names}", "take it out of itself")
        if len(around) >= MAX_DEPTH:
            return _nesting(path, f"workflows nest at most {MAX_DEPTH} deep", "flatten some of them")
        if id(here) in done and not around:
            continue
        done.add(id(here))
        for spec in here.nodes.values():
            if spec.workflow is not None:
                inner = (*path, "nodes", spec.id, "config", "workflow")
                stack.append((spec.workflow, (*around, here), inner))
    return None


def inline(workflow: Workflow, lookup: Lookup, findings: Findings) -> Flat:
    """The workflow with every nested one inlined.

    Args:
        workflow: bound (no params left), its nesting checked by `nesting_problem`.
        lookup: definitions, for the ports of inner nodes.
        findings: for the outermost workflow; inner ones get findings of their own in `Flat.origins`.
    """
    flat = Flat(workflow.settings)
    _Inliner(flat, lookup).add(workflow, Origin(workflow, (), findings), "")
    return flat


def default_input(definition: Definition) -> Port | None:
    """The port a connection means that names none: the only one, or the only required one."""
    if len(definition.inputs) == 1:
        return definition.inputs[0]
    required = [port for port in definition.inputs if port.required]
    return required[0] if len(required) == 1 else None


class _Inliner:
    def __init__(self, flat: Flat, lookup: Lookup) -> None:
        self._flat = flat
        self._lookup = lookup

    def add(self, workflow: Workflow, origin: Origin, prefix: str) -> _Boundary | None:
        flat = self._flat
        flat.origins.append(origin)
        first_node, first_connection = len(flat.nodes), len(flat.connections)
        inner: dict[str, _Boundary] = {}
        for spec in workflow.nodes.values():
            if len(flat.nodes) >= MAX_NODES:
                message = f"more than {MAX_NODES} nodes with the nested workflows inlined"
                origin.findings.add(("nodes",), message, remedy="run some of them as workflows of their own")
                return None
            if spec.workflow is None:
                flat.nodes[prefix + spec.id] = FlatNode(prefix + spec.id, spec, origin)
                continue
            boundary = self._nested(spec, spec.workflow, origin, f"{prefix}{spec.id}/")
            if boundary is None:
                return None
            inner[spec.id] = boundary
        for index, connection in enumerate(workflow.connections):
            self._connect(connection, ("connections", index), origin, prefix, inner)
        ids = list(flat.nodes)[first_node:]
        return self._boundary(ids, flat.connections[first_connection:], prefix)

    def _nested(self, spec: NodeSpec, workflow: Workflow, origin: Origin, prefix: str) -> _Boundary | None:
        path = ("nodes", spec.id, "config", "workflow")
        inside = Origin(
            workflow,
            (*origin.prefix, *path),
            Findings(marks=workflow.marks, file=origin.findings.mark_of(path).file),
            (spec.policies, _said(workflow.settings), *origin.defaults),
        )
        _report_ignored(workflow.settings, inside.findings)
        return self.add(workflow, inside, prefix)

    def _boundary(self, ids: list[str], connections: list[FlatConnection], prefix: str) -> _Boundary:
        taken: set[tuple[str, str | None]] = set()
        entered: set[str] = set()
        left: set[str] = set()
        for connection in connections:
            entered.add(connection.to_node)
            taken.add((connection.to_node, self._target_port(connection)))
            followed = connection.declared.kind != "error"
            if followed and isinstance(self._definition(connection.to_node), NodeDefinition):
                left.add(connection.from_node)
        boundary = _Boundary([], {}, [], [])
        for node_id in ids:
            definition = self._definition(node_id)
            relative = node_id[len(prefix) :]
            if definition is None:
                boundary.incomplete = True
                continue
            open_ports = [port for port in definition.inputs if (node_id, port.name) not in taken]
            boundary.inputs += [(relative, node_id, port) for port in open_ports]
            if not isinstance(definition, NodeDefinition):
                continue
            boundary.nodes[relative] = node_id
            if node_id not in entered:
                boundary.entries.append(node_id)
            if node_id not in left:
                boundary.terminals.append(node_id)
        return boundary

    def _definition(self, node_id: str) -> Definition | None:
        node = self._flat.nodes.get(node_id)
        return None if node is None else self._lookup(node.spec)

    def _target_port(self, connection: FlatConnection) -> str | None:
        if connection.to_port is not None or connection.declared.kind == "control":
            return connection.to_port
        definition = self._definition(connection.to_node)
        port = None if definition is None else default_input(definition)
        return None if port is None else port.name

    # --- connections ---

    def _connect(
        self, connection: Connection, at: Path, origin: Origin, prefix: str, inner: dict[str, _Boundary]
    ) -> None:
        sources = [(prefix + connection.from_node, connection.from_port, connection.from_path)]
        targets: list[tuple[str, str | None]] = [(prefix + connection.to_node, connection.to_port)]
        if connection.from_node in inner:
            found = self._sources(connection, inner[connection.from_node], origin, at)
            if not found:
                self._flat.dangling.update(
                    [node for node, _ in targets]
                    if connection.to_node not in inner
                    else inner[connection.to_node].nodes.values()
                )
                return
            sources = found
        if connection.to_node in inner:
            targets = self._targets(connection, inner[connection.to_node], origin, at)
            if not targets:
                self._flat.dangling.update(inner[connection.to_node].nodes.values())
        self._flat.connections += [
            FlatConnection(node, port, path, to_node, to_port, connection, origin, at)
            for node, port, path in sources
            for to_node, to_port in targets
        ]

    def _sources(
        self, connection: Connection, boundary: _Boundary, origin: Origin, at: Path
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        port, path = connection.from_port, connection.from_path
        if connection.kind == "error":
            return [(node_id, port, path) for node_id in boundary.nodes.values()]
        if connection.kind == "control" and port == DEFAULT_OUT:
            return [(node_id, DEFAULT_OUT, ()) for node_id in boundary.terminals]
        return self._value_sources(connection, boundary, origin, at)

    def _value_sources(
        self, connection: Connection, boundary: _Boundary, origin: Origin, at: Path
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        outer, port, path = connection.from_node, connection.from_port, connection.from_path
        if port in boundary.nodes:
            node_id = boundary.nodes[port]
            definition = self._definition(node_id)
            if path and definition is not None and definition.output(path[0]) is not None:
                return [(node_id, path[0], path[1:])]
            return [(node_id, DEFAULT_OUT, path)]
        if port == DEFAULT_OUT and len(boundary.terminals) == 1:
            return [(boundary.terminals[0], DEFAULT_OUT, path)]
        if boundary.incomplete:
            return []
        if port == DEFAULT_OUT:
            names = ", ".join(name for name, each in boundary.nodes.items() if each in boundary.terminals)
            origin.findings.add(
                at,
                f"workflow node {outer!r} has {len(boundary.terminals)} last nodes, so 'out' names none",
                remedy=f"name the inner node: {outer}.NODE.PORT, last are: {names}",
                value=str(connection),
            )
        else:
            origin.findings.add(
                at,
                f"workflow node {outer!r} has no inner node {port!r}",
                remedy=did_you_mean(port, boundary.nodes),
                value=str(connection),
            )
        return []

    def _targets(
        self, connection: Connection, boundary: _Boundary, origin: Origin, at: Path
    ) -> list[tuple[str, str | None]]:
        outer, wanted = connection.to_node, connection.to_port
        if connection.kind == "control":
            return [(node_id, None) for node_id in boundary.entries]
        found = _choose(wanted, boundary.inputs)
        if len(found) == 1:
            return [(found[0][1], found[0][2].name)]
        if boundary.incomplete:
            return []
        names = [f"{node}.{port.name}" for node, _, port in boundary.inputs]
        if wanted is None:
            message = f"workflow node {outer!r} has {len(names)} open input ports; name the one meant"
        elif found:
            message = f"workflow node {outer!r} has {len(found)} open input ports {wanted!r}; name one"
        else:
            message = f"workflow node {outer!r} has no open input port {wanted!r}"
        remedy = f"its open input ports: {', '.join(names) or 'none'}"
        origin.findings.add(at, message, remedy=remedy, value=str(connection))
        return []


def _choose(wanted: str | None, inputs: list[tuple[str, str, Port]]) -> list[tuple[str, str, Port]]:
    """The open ports a name may mean; one when it is clear."""
    if wanted is None:
        required = [each for each in inputs if each[2].required]
        return inputs if len(inputs) == 1 else required if len(required) == 1 else []
    exact = [each for each in inputs if f"{each[0]}.{each[2].name}" == wanted]
    named = [each for each in inputs if each[2].name == wanted]
    of_node = [each for each in inputs if each[0] == wanted]
    return exact or named or (of_node if len(of_node) == 1 else [])


def _said(settings: Settings) -> NodePolicies:
    """Policies an inner workflow's settings speak for its nodes: those that differ from the defaults."""
    said = {name: getattr(settings, name) for name in _AS_POLICY if name in settings.plain()}
    return NodePolicies(**said)


def _report_ignored(settings: Settings, findings: Findings) -> None:
    for name in settings.plain():
        if name not in _AS_POLICY:
            findings.add(
                ("settings", name),
                "has no effect: the settings of the outermost workflow hold",
                remedy="set it there",
                severity="warning",
            )


def _nesting(path: Path, message: str, remedy: str) -> Problem:
    findings = Findings()
    findings.add(path, message, remedy=remedy)
    return findings.problems[0]


_AS_POLICY: Final = ("on_error", "max_children", "max_output_bytes")
