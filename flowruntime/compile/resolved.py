"""A workflow after validation: every type known, every configuration decoded, every expression compiled.

Owns: `ResolvedNode`, `ResolvedConnection`, `ResolvedGraph`, the input of planning.
Does not own: how they are made (validate) or what becomes of them (plan).

Always holds: nested workflows are inlined (inner ids are `outer/inner`); the graph is acyclic; `nodes` is in
a
topological order that keeps the order of declaration where it can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition
from flowcore.errors import EngineError, Problem
from flowcore.policies import NodePolicies
from flowcore.workflow import Settings
from flowruntime.compile.expressions.api import CompiledExpression


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedNode:
    """One node, ready to be placed in a stage."""

    id: str
    definition: Definition
    config: Any
    """The decoded configuration struct, or None when the type takes none."""
    raw_config: dict[str, Any]
    """As written, after params and substitution; secrets unresolved."""
    policies: NodePolicies
    """Effective: file over wf.add over @node over settings; every default filled in by the precedence
    rules."""
    key: CompiledExpression | None = None
    line: int | None = None

    @property
    def role(self) -> str:
        """`source`, `sink`, or the node's kind."""
        if isinstance(self.definition, ConnectorDefinition):
            return self.definition.role
        return self.definition.kind

    @property
    def node(self) -> NodeDefinition:
        """The definition of a node that is no connector."""
        if not isinstance(self.definition, NodeDefinition):
            raise EngineError(f"node {self.id!r} is a {self.role}: it has no definition of a node")
        return self.definition


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedConnection:
    """One connection, its ends resolved and its condition compiled."""

    index: int
    """Order of declaration."""
    from_node: str
    from_port: str
    """`error` for kind error."""
    path: tuple[str, ...]
    """Fields to follow from the port's value."""
    to_node: str
    to_port: str | None
    """None for kind control."""
    kind: str
    when: CompiledExpression | None = None
    otherwise: bool = False
    when_error: bool = True
    """False: a condition that cannot be evaluated drops the row on this edge instead of failing it."""
    line: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedGraph:
    """The whole workflow, ready to be planned."""

    name: str
    id: str
    settings: Settings
    nodes: dict[str, ResolvedNode]
    connections: tuple[ResolvedConnection, ...]
    open_ports: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Unconnected input ports by node: what a request may fill. Required ones must be."""
    warnings: tuple[Problem, ...] = ()
