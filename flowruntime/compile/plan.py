"""The plan: which nodes share a stage, where the boundaries are and why, and which edges join the stages.

Owns: the data types of a plan; `flowruntime.compile.lower` makes them, `chain` and the code generator read
    them.
Does not own: running anything, or the text of `flow plan` (flowruntime.compile.explain).

Always holds: a non-fused stage's rows feed either plain edges or exactly one fused stage; every edge has one
scope; a
scope's `leaves` is the number of edges on which its rows end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode

StageKind = Literal[
    "source", "request", "fused", "async", "offload", "expand", "collect", "join", "merge", "reopen", "batch",
    "operator", "sink",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Scope:
    """A row space: who opened it and, for rows that descend from one row each, the scope it descends from."""

    id: str
    parent: Scope | None
    leaves: int = 0
    linear: bool = True
    """No stage sends its rows more than one way: a row has one value at a time."""

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    def descends_from(self, other: Scope) -> bool:
        """True for the scope itself, too."""
        scope: Scope | None = self
        while scope is not None:
            if scope is other:
                return True
            scope = scope.parent
        return False

    def __repr__(self) -> str:
        return f"<Scope {self.id}>"


# --- what a fused function computes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A default: the port is not connected."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """An open port of a request: looked up in the request's inputs by `node.port`."""

    name: str
    required: bool
    default: Any


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Position `index` of the stage's input tuple (a join came before); None: the input itself."""

    index: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """The value a connection carries, its sender being in the same stage."""

    connection: ResolvedConnection


@dataclass(frozen=True, slots=True, eq=False)
class Coalesce:
    """The one value of several exclusive connections."""

    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """A Gather port: the values that are there, in order of declaration."""

    parts: tuple[Wire | Item | Given, ...]


Argument = Const | Given | Item | Wire | Coalesce | Collected


@dataclass(slots=True, eq=False)
class Call:
    """One node inside a fused stage."""

    node: ResolvedNode
    arguments: tuple[Argument, ...]
    """One per input port."""
    controls: tuple[Wire, ...] = ()
    """Must be there; their values are not used."""


@dataclass(slots=True, eq=False)
class Out:
    """One edge leaving a fused stage: a tuple of arguments, or one of them alone."""

    arguments: tuple[Argument, ...]
    controls: tuple[Wire, ...]
    single: bool
    """The value is the argument itself, not a tuple of one."""
    target: Edge

    @property
    def is_plain(self) -> bool:
        """Nothing to compute: the stage's input goes on as it is."""
        if self.controls or not self.single:
            return False
        argument = self.arguments[0]
        if isinstance(argument, Item):
            return argument.index is None
        if isinstance(argument, Wire):
            connection = argument.connection
            return (
                connection.when is None
                and not connection.otherwise
                and not connection.path
                and connection.kind != "error"
            )
        return False


@dataclass(slots=True, eq=False)
class Edge:
    """From a stage to an input of another."""

    target: Stage
    slot: int
    """Which input of the target."""
    connection: ResolvedConnection | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """One input of a join or merge."""

    port: int
    """Index of the input port it feeds; -1 for control."""
    scope: Scope
    gather: bool = False


@dataclass(slots=True, eq=False)
class Stage:
    """One operator of the chain."""

    index: int
    id: str
    kind: StageKind
    reason: str
    """Why there is a boundary in front of it."""
    scope: Scope
    """Of the rows it emits."""
    input_scope: Scope | None = None
    node: ResolvedNode | None = None
    calls: list[Call] = field(default_factory=list[Call])
    """For fused stages, in order."""
    outs: list[Out] = field(default_factory=list[Out])
    """For fused stages."""
    edges: list[Edge] = field(default_factory=list[Edge])
    """For all other stages: every row goes to each of them."""
    slots: list[Slot] = field(default_factory=list[Slot])
    """For join, merge, reopen."""
    constants: tuple[Any, ...] = ()
    """For joins: the tuple before the slots fill it; defaults where no slot feeds a port."""
    root: ResolvedNode | None = None
    """For fused stages: the node whose output the input is; None for a join's or the request's."""
    parent_collects: list[Stage] = field(default_factory=list["Stage"])
    """For expand stages: the collect stages that close its scope."""
    receiver: str = ""
    """For joins, merges and reopens: the node whose inputs meet."""
    unpack: bool = False
    """The input is a tuple with one value per input port of the node."""
    follows_code: bool = False
    """Plain functions stand between it and the stage before, and may have changed the size of a row."""

    @property
    def is_leaf(self) -> bool:
        """Rows end here: nothing leaves."""
        return not self.outs and not self.edges

    @property
    def node_ids(self) -> list[str]:
        """The nodes this stage runs."""
        if self.calls:
            return [call.node.id for call in self.calls]
        return [self.node.id] if self.node is not None else []

    def __repr__(self) -> str:
        return f"<Stage {self.index} {self.kind} {self.id}>"


@dataclass(slots=True, eq=False)
class Plan:
    """All stages, in topological order, and the scopes their rows live in."""

    graph: ResolvedGraph
    mode: Literal["stream", "request"]
    stages: list[Stage]
    scopes: list[Scope]
    entries: list[Stage]
    """Where rows enter: sources, or the one request stage."""

    def stage_of(self, node_id: str) -> Stage | None:
        """The stage that runs a node."""
        return next((stage for stage in self.stages if node_id in stage.node_ids), None)

    @property
    def fused(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.kind == "fused"]
