"""A test case as plain data: a workflow of palette nodes, its records, its settings; its repr reproduces it.

Owns: `Case`, `NodeDecl`, `Conn`, and turning them into a real workflow.
Does not own: what the nodes do (palette), what must come out (reference), making cases (generate).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flowcore.connection import ConnectionKind
from flowcore.workflow import PortRef, Workflow
from tests.differential.palette import PALETTE, mixed

SOURCE = "src"


class NodeDecl(NamedTuple):
    """One node: its palette kind, and how often it fails (every `fail`-th hash; 0 never)."""

    id: str
    kind: str
    fail: int = 0
    on_error: str | None = None
    """`fallback`: its value is `fallback_of` the node."""


class Conn(NamedTuple):
    """One connection; `to_port` is "" for control and for the default port of a sink."""

    from_node: str
    from_port: str
    to_node: str
    to_port: str
    kind: ConnectionKind = "data"
    path: tuple[str, ...] = ()
    when: str | None = None
    otherwise: bool = False
    when_error: bool = True


class Case(NamedTuple):
    """A workflow and what is pushed through it. Nodes are in topological order, the source first."""

    nodes: tuple[NodeDecl, ...]
    conns: tuple[Conn, ...]
    records: tuple[int, ...]
    on_error: str = "continue"
    undecodable: frozenset[int] = frozenset()
    """Indexes of records the source cannot decode (streams only)."""
    settings: tuple[tuple[str, Any], ...] = ()
    letters: bool = False
    """What would only be counted becomes a dead letter, of a place of type `case.letters`."""

    def node(self, node_id: str) -> NodeDecl:
        return next(node for node in self.nodes if node.id == node_id)

    def stops(self, node_id: str) -> bool:
        """A failure of this node that nothing takes ends the run."""
        said = self.node(node_id).on_error
        return (self.on_error if said in (None, "fallback") else said) == "stop_workflow"

    def ported(self, node_id: str) -> bool:
        """An error connection takes its failures."""
        return any(conn.from_node == node_id and conn.kind == "error" for conn in self.conns)

    def lettered(self, node_id: str) -> bool:
        """Its failures become dead letters, but for those it has a fallback for."""
        said = self.node(node_id).on_error in (None, "fallback") and self.on_error == "continue"
        return self.letters and said and not self.ported(node_id)

    def handled(self, node_id: str) -> bool:
        return self.ported(node_id) or self.lettered(node_id)


def fallback_of(node: NodeDecl) -> Any:
    """What a row goes on with that failed at a node which has a fallback."""
    value = {"n": mixed("fallback", node.id), "m": {"k": 2}}
    ports = PALETTE[node.kind].outputs
    return value if ports == ("out",) else {ports[0]: value}


def workflow_of(case: Case) -> Workflow:
    """The workflow a user would have written."""
    settings = {"on_error": case.on_error, **dict(case.settings)}
    if case.letters:
        settings["dead_letter"] = {"type": "case.letters"}
        settings["on_error"] = "dead_letter" if case.on_error == "continue" else case.on_error
    workflow = Workflow("case", settings=settings)
    handles: dict[str, Any] = {}
    for node in case.nodes:
        kind = PALETTE[node.kind]
        config: dict[str, object] = {"tag": node.id, "fail": node.fail} if kind.tagged else {}
        policies: Any = dict(kind.policies)
        if node.on_error is not None:
            policies["on_error"] = node.on_error
        if node.on_error == "fallback":
            policies["on_error"] = {"fallback": fallback_of(node)}
        handles[node.id] = workflow.add(kind.node, id=node.id, config=config, **policies)
    for conn in case.conns:
        source: Any = handles[conn.from_node]
        if conn.kind not in ("control", "error"):
            source = PortRef(workflow, source.id, conn.from_port, conn.path)
        target = handles[conn.to_node]
        workflow.connect(
            source,
            target[conn.to_port] if conn.to_port else target,
            when=conn.when,
            kind=conn.kind,
            when_error=conn.when_error,
            otherwise=conn.otherwise,
        )
    return workflow
