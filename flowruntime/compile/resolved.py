"""A workflow after validation: every type known, every configuration decoded, every expression compiled.

Owns: `ResolvedNode`, `ResolvedConnection`, `ResolvedGraph`, the input of planning.
Does not own: how they are made (validate) or what becomes of them (plan).

Always holds: nested workflows are inlined (inner ids are `outer/inner`); the graph is acyclic; `nodes` is in
a topological order that keeps the order of declaration where it can.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition
from flowcore.errors import EngineError, Problem
from flowcore.on_error import Fallback, OnError, word_of
from flowcore.policies import NodePolicies
from flowcore.profiles import ProfileName, Tuning
from flowcore.workflow import Settings
from flowruntime.compile.expressions.api import CompiledExpression

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetterStore
    from flowruntime.durable.holder import Holder


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedFallback:
    """What takes the place of the output of a row that failed."""

    value: Any
    """As it leaves the node: by port where it has several."""
    said: Any
    """As it was declared."""
    otherwise: OnError
    """For what is no row of the node: one that failed on its way in, or after its first child had left."""
    nbytes: int

    def make(self) -> Any:
        """The output of one row: a copy, so that a node may change what it is given."""
        return _copied(self.value)


def _copied(value: Any) -> Any:
    """The value with lists, mappings and structs of its own; what cannot change is shared."""
    if isinstance(value, list):
        return [_copied(item) for item in value]  # pyright: ignore[reportUnknownVariableType] - a user's value
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType] - likewise
    if isinstance(value, msgspec.Struct):
        made = copy.copy(value)
        for name in value.__struct_fields__:
            msgspec.structs.force_setattr(made, name, _copied(getattr(value, name)))
        return made
    return value


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
    said_by: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who says each policy: `the node`, `the node around it`, `the settings around it`, `its type`,
    `settings`, `default`."""
    key: CompiledExpression | None = None
    line: int | None = None
    attempts: int = 1
    """How often a record goes through the workflow at most, when it fails here."""
    fallback: ResolvedFallback | None = None
    """What takes the place of its output where a row fails for good."""
    hooks: Any = None
    """The runtime's middleware around the node's calls (`NodeHooks`); None: nothing stands around them."""

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


def on_error_of(node: ResolvedNode, settings: Settings) -> OnError:
    """What a row does that failed at a node for good, and has no fallback to go on with."""
    if node.fallback is not None:
        return node.fallback.otherwise
    said = node.policies.on_error
    return word_of(settings.on_error if said is None or isinstance(said, Fallback) else said)


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
class ResolvedPlace:
    """Where dead letters go."""

    type: str
    """Of the sink that can hold them."""
    raw_config: dict[str, Any]
    make: Callable[[], DeadLetterStore]
    """A store there, not opened."""

    def __str__(self) -> str:
        shown = ", ".join(f"{name}: {value}" for name, value in self.raw_config.items())
        return f"{self.type} {{{shown}}}"


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
    dead_letter: ResolvedPlace | None = None
    """None: the workflow names no place, and so no node's rows go to one."""
    default_profile: ProfileName | None = None
    """The runtime's, for a workflow that names none."""
    chosen_profile: ProfileName | None = None
    """The run's, whatever the workflow names."""
    sources: tuple[str, ...] = field(init=False)
    """Ids of its sources: every request asks for them."""

    def __post_init__(self) -> None:
        found = tuple(node_id for node_id, node in self.nodes.items() if node.role == "source")
        object.__setattr__(self, "sources", found)

    returns: Mapping[str, Holder] = field(default_factory=dict[str, "Holder"])
    """Of a continuous run that holds rows: by hidden source the node its rows come back to
    (flowruntime.durable.returning)."""
    keeps: bool = False
    """What its calls give is stored before anything follows from it (flowruntime.durable)."""

    @property
    def waits(self) -> bool:
        """Some node may wait for an answer."""
        return any(
            isinstance(node.definition, NodeDefinition) and node.definition.waits
            for node in self.nodes.values()
        )

    @property
    def tuning(self) -> Tuning:
        """What is in effect of the settings a profile may decide; worked out anew each time."""
        return self.settings.tuned(self.default_profile, self.chosen_profile)
