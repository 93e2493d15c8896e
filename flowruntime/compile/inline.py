"""Inlining: nested workflows become part of the one around them.

Owns: `Flat`, the ids of inner nodes (`outer/inner`), which inner port stands for a port of the outer node,
the refusal of workflows that contain themselves.
Does not own: params (flowcore.binding fills them first), whether ports and types fit (wiring).

Always holds: no node of type `workflow` is left; every node and connection knows the workflow it was
declared in, so that a problem is told with the path and line the user wrote; a connection of a draft that was
refused is not in the graph, and the nodes it was meant for are remembered.

An input port of a nested workflow is an unconnected input port inside it, named by the port where that is
unique, by the inner node where it has only one open port, or `node.port`. An output is an inner node
(`outer.node.port`); `out` is the one node that nothing inside follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from flowcore.connection import DEFAULT_OUT, Connection
from flowcore.definition import Definition, NodeDefinition, Port
from flowcore.draft import UNREADABLE
from flowcore.errors import Problem
from flowcore.findings import Findings, Path, did_you_mean, near_words
from flowcore.on_error import Fallback
from flowcore.policies import POLICY_NAMES, NodePolicies
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
    doubtful: frozenset[str] = frozenset()
    """Names of policies that could not be read at a node around."""


@dataclass(slots=True, eq=False)
class FlatNode:
    """A node that is no workflow."""

    id: str
    spec: NodeSpec
    origin: Origin
    ports_known: bool = True
    """Its output ports do not follow from a configuration that is wrong."""

    @property
    def path(self) -> Path:
        """Where it stands in its own workflow."""
        return ("nodes", self.spec.id)

    def doubts(self, policy: str) -> bool:
        """Whether the policy of that name could not be read, here or at a node around."""
        refused = self.origin.workflow.refused
        return policy in self.origin.doubtful or refused.touches((*self.path, policy))


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
class Broken:
    """What the connections that were refused would have joined: that it is not joined follows from that."""

    receivers: set[str] = field(default_factory=set[str])
    """Nodes one of them would have reached."""
    senders: set[str] = field(default_factory=set[str])
    """Nodes one of them would have left."""
    lost_receivers: list[str] = field(default_factory=list[str])
    """Names of nodes that are not there, one per connection; empty where none could be read."""
    lost_senders: list[str] = field(default_factory=list[str])


@dataclass(slots=True, eq=False)
class Flat:
    """A workflow without nested ones."""

    settings: Settings
    origins: list[Origin] = field(default_factory=list[Origin])
    nodes: dict[str, FlatNode] = field(default_factory=dict[str, FlatNode])
    connections: list[FlatConnection] = field(default_factory=list[FlatConnection])
    broken: Broken = field(default_factory=Broken)

    def refuses(self, *path: str) -> bool:
        """Whether that place of the outermost workflow could not be read."""
        return self.origins[0].workflow.refused.touches(path)

    def problems(self) -> list[Problem]:
        """Everything found so far, paths from the outermost workflow, in order of discovery."""
        everything = Findings()
        for origin in self.origins:
            everything.include(origin.findings.problems, origin.prefix)
        return everything.problems


@dataclass(slots=True, eq=False)
class _Boundary:
    """What a nested workflow shows to the one around it; names are relative to it."""

    inputs: list[tuple[str, str, Port]]
    """Relative node name, flat id, open port."""
    nodes: dict[str, str]
    """Flat id by relative name; sinks and sources left out."""
    entries: list[str]
    terminals: list[str]
    all_nodes: list[str]
    """Flat ids."""
    incomplete: bool = False
    """Something inside could not be read or found, which is reported; what is missing may be that."""


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
            at = ("connections", index)
            if workflow.refused.covers(at):
                self._break(connection, prefix, inner)
            else:
                self._connect(connection, at, origin, prefix, inner)
        ids = list(flat.nodes)[first_node:]
        boundary = self._boundary(ids, flat.connections[first_connection:], prefix)
        boundary.incomplete |= workflow.refused.touches(("connections",)) or workflow.refused.covers(
            ("nodes",)
        )
        return boundary

    def _break(self, connection: Connection, prefix: str, inner: dict[str, _Boundary]) -> None:
        """Remember what a refused connection would have joined."""
        broken = self._flat.broken
        for node, known, lost in (
            (connection.from_node, broken.senders, broken.lost_senders),
            (connection.to_node, broken.receivers, broken.lost_receivers),
        ):
            if node in inner:
                known.update(inner[node].all_nodes)
            elif prefix + node in self._flat.nodes:
                known.add(prefix + node)
            elif near := near_words(node, inner):  # the others are told apart by what is connected
                known.update(inner[near[0]].all_nodes)
            else:
                lost.append(prefix + node if node else UNREADABLE)

    def _nested(self, spec: NodeSpec, workflow: Workflow, origin: Origin, prefix: str) -> _Boundary | None:
        path = ("nodes", spec.id, "config", "workflow")
        around = spec.policies
        if isinstance(around.on_error, Fallback):
            origin.findings.add(
                ("nodes", spec.id, "on_error"),
                "a fallback is the output of one node, and a workflow has many inside",
                remedy="say it at the inner node whose output it takes the place of",
            )
            around = msgspec.structs.replace(around, on_error=None)
        inside = Origin(
            workflow,
            (*origin.prefix, *path),
            Findings(
                marks=workflow.marks,
                file=origin.findings.mark_of(path).file,
                refused=workflow.refused,
            ),
            (around, _said(workflow.settings), *origin.defaults),
            origin.doubtful | _doubtful(spec, origin.workflow, workflow),
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
        boundary = _Boundary([], {}, [], [], ids)
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
            sources = self._sources(connection, inner[connection.from_node], origin, at)
        if connection.to_node in inner:
            targets = self._targets(connection, inner[connection.to_node], origin, at)
        if not sources or not targets:
            self._break(connection, prefix, inner)
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
        if boundary.incomplete:
            return []
        if port == DEFAULT_OUT and len(boundary.terminals) == 1:
            return [(boundary.terminals[0], DEFAULT_OUT, path)]
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
        if len(found) == 1 and not (boundary.incomplete and wanted is None):
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


def _doubtful(spec: NodeSpec, around: Workflow, inner: Workflow) -> frozenset[str]:
    """Policies a nested workflow's node, or its settings, may say for the nodes inside, but could not."""
    at_node = (name for name in POLICY_NAMES if around.refused.touches(("nodes", spec.id, name)))
    in_settings = (name for name in _AS_POLICY if inner.refused.touches(("settings", name)))
    return frozenset((*at_node, *in_settings))


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
