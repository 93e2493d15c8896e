"""A test case as plain data: a workflow of palette nodes, its records, its settings; its repr reproduces it.

Owns: `Case`, `NodeDecl`, `Conn`, and turning them into a real workflow.
Does not own: what the nodes do (palette), what must come out (reference), making cases (generate).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flowcore.connection import ConnectionKind
from flowcore.workflow import PortRef, Workflow
from tests.differential.palette import PALETTE

SOURCE = "src"


class NodeDecl(NamedTuple):
    """One node: its palette kind, and how often it fails (every `fail`-th hash; 0 never)."""

    id: str
    kind: str
    fail: int = 0
    on_error: str | None = None


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

    def node(self, node_id: str) -> NodeDecl:
        return next(node for node in self.nodes if node.id == node_id)

    def stops(self, node_id: str) -> bool:
        """A failure of this node that no error connection takes ends the run."""
        return (self.node(node_id).on_error or self.on_error) == "stop_workflow"

    def handled(self, node_id: str) -> bool:
        return any(conn.from_node == node_id and conn.kind == "error" for conn in self.conns)


def workflow_of(case: Case) -> Workflow:
    """The workflow a user would have written."""
    workflow = Workflow("case", settings={"on_error": case.on_error, **dict(case.settings)})
    handles: dict[str, Any] = {}
    for node in case.nodes:
        kind = PALETTE[node.kind]
        config: dict[str, object] = {"tag": node.id, "fail": node.fail} if kind.tagged else {}
        policies: Any = dict(kind.policies)
        if node.on_error is not None:
            policies["on_error"] = node.on_error
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
