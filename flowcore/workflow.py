"""The workflow model: what the user declares, as plain data behind a small builder.

Owns: `Workflow`, `NodeSpec`, `Connection`, `Settings`, and the builder (`add`, `connect`, `chain`).
Does not own: whether types, ports and expressions exist (flowruntime.compile), files (flowcore.document).

Always holds: ids are unique and well formed, connections join nodes that exist, policies and settings are
valid; a wrong call raises at once and leaves the workflow as it was. Two workflows are equal when their
content is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, Unpack, cast, runtime_checkable

import msgspec

from flowcore.connection import Connection, ConnectionKind, make_connection, parse_endpoint
from flowcore.errors import BuildError, Problem
from flowcore.findings import (
    NOTHING_REFUSED,
    Findings,
    Mark,
    Path,
    Refused,
    did_you_mean,
    path_text,
    shown,
)
from flowcore.ids import NodeId, WorkflowId, check_node_id, node_id_fault, suggest_node_id
from flowcore.policies import NO_POLICIES, NodePolicies, PolicyFields
from flowcore.references import parse_params
from flowcore.settings import ParamSpec, Settings, param_name_fault
from flowcore.shapes import read_declared
from flowcore.values import MAX_DEPTH, same_value

WORKFLOW_TYPE: Final = "workflow"
"""Type of a node that is a workflow itself."""

MAX_NODES: Final = 10_000
MAX_NESTING: Final = 8


class WorkflowError(BuildError, ValueError):
    """A builder call cannot be carried out; the message says what to write instead."""


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One declared node. `config` may hold `SecretRef` and `ParamText` beside plain values."""

    id: NodeId
    type: str
    config: Mapping[str, Any] = {}
    policies: NodePolicies = NO_POLICIES
    description: str = ""
    workflow: Workflow | None = None
    """The inner workflow of a node of type `workflow`; its params are `config["params"]`."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NodeSpec):
            return NotImplemented
        mine, theirs = _identity(self), _identity(other)
        return mine == theirs and same_value(dict(self.config), dict(other.config))

    __hash__ = None  # type: ignore[assignment] - the configuration is mutable data


@runtime_checkable
class HasType(Protocol):
    """A node, source, sink or operator definition, as far as the model needs it."""

    @property
    def type(self) -> str: ...


class PortRef:
    """One port of a node, and optionally a field of what leaves it."""

    __slots__ = ("node", "path", "port", "workflow")

    def __init__(self, workflow: Workflow, node: NodeId, port: str, path: tuple[str, ...] = ()) -> None:
        self.workflow: Final = workflow
        self.node: Final = node
        self.port: Final = port
        self.path: Final = path

    def __getitem__(self, field: str) -> PortRef:
        """A field inside: the name is taken as it is, dots included."""
        return PortRef(self.workflow, self.node, self.port, (*self.path, field))

    def __repr__(self) -> str:
        return f"PortRef({'.'.join((self.node, self.port, *self.path))})"


class NodeHandle:
    """What `add` returns: name the node in `connect` and `chain`, its ports by subscript."""

    __slots__ = ("id", "workflow")

    def __init__(self, workflow: Workflow, id: NodeId) -> None:
        self.workflow: Final = workflow
        self.id: Final = id

    def __getitem__(self, port: str) -> PortRef:
        """A port, or with dots a field of what leaves it: `a["out.user.name"]`."""
        name, *path = port.split(".")
        return PortRef(self.workflow, self.id, name, tuple(path))

    def __repr__(self) -> str:
        return f"NodeHandle({self.id})"


Endpoint: TypeAlias = NodeHandle | PortRef | str


_MADE_WITH: Final = frozenset({"name", "id", "version", "description", "params", "settings"})


class Workflow:
    """A graph of nodes under a name: build it with `add`, `connect` and `chain`, or load it from a file.

    Args:
        name: what people call it.
        id: given, or assigned by the runtime.
        version: of the definition, as text.
        params: what `${params.x}` may refer to: a `ParamSpec`, or just the default value.
        settings: a `Settings`, or a mapping of its fields.

    Raises:
        WorkflowError: a name is empty or a param's name malformed.
        ValidationFailedError: settings are wrong.
    """

    def __init__(
        self,
        name: str,
        *,
        id: str | None = None,
        version: str = "1",
        description: str = "",
        params: Mapping[str, object] | None = None,
        settings: Settings | Mapping[str, object] | None = None,
    ) -> None:
        for what, text in (("name", name), ("version", version)):
            if not isinstance(text, str) or not text.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
                raise WorkflowError(
                    f"a workflow's {what} must be text and not empty, got {shown(text)}", value=text
                )
        self.name: Final = name
        self.id: WorkflowId | None = None if id is None else WorkflowId(id)
        self.version: Final = version
        self.description: Final = description
        self.params: Final = MappingProxyType(
            {key: _param(key, value) for key, value in (params or {}).items()}
        )
        self.settings: Final = _settings(settings)
        self.local_types: Final[dict[str, object]] = {}
        """Functions and classes given to `add`, by type name; found before the registry's."""
        self.marks: Mapping[Path, Mark] = {}
        """Where each path was written, when the workflow was loaded from a file; no part of equality."""
        self.problems: Sequence[Problem] = ()
        """What is known to be wrong with it; only a draft (flowcore.draft) has any."""
        self.refused: Refused = NOTHING_REFUSED
        """Where its content is a guess, because what stands there was refused; only in a draft."""
        self._nodes: Final[dict[NodeId, NodeSpec]] = {}
        self._connections: Final[list[Connection]] = []
        self._known: Final[set[Connection]] = set()

    def __setattr__(self, name: str, value: object) -> None:
        """What a workflow is made with stays: what is kept warm of it would not follow."""
        if name in _MADE_WITH and name in self.__dict__:
            raise WorkflowError(
                f"{name} of a workflow cannot be changed; say it where it is made: Workflow(..., {name}=...)"
            )
        super().__setattr__(name, value)

    @property
    def known_as(self) -> str:
        """What its runs, requests and rows that wait are known by: its id, else its name."""
        return self.name if self.id is None else str(self.id)

    @property
    def nodes(self) -> Mapping[NodeId, NodeSpec]:
        """Nodes by id, in order of declaration; read-only."""
        return MappingProxyType(self._nodes)

    @property
    def connections(self) -> Sequence[Connection]:
        """Connections in order of declaration; read-only."""
        return tuple(self._connections)

    def add(
        self,
        type: object,
        *,
        id: str | None = None,
        config: Mapping[str, object] | None = None,
        description: str = "",
        **policies: Unpack[PolicyFields],
    ) -> NodeHandle:
        """Declare a node.

        Args:
            type: a registered type's name, a function or class declared as a node, or a Workflow.
            id: readable name, unique in the workflow; None: from the type's last part (`clean`, `clean_2`).
            config: configuration; may hold `SecretRef` and `${params.x}`.
            description: for people who read the plan.
            policies: flat fields as in a file: `concurrency=8`, `timeout="2s"`, `retry=RetryPolicy(...)`.

        Raises:
            InvalidIdError: the id is malformed.
            WorkflowError: the id is taken, or `type` is nothing that can be a node.
            ValidationFailedError: policies are wrong; every one is listed.
        """
        name, local, inner = _type_of(type)
        node_id = check_node_id(id) if id is not None else self._free_id(name, inner)
        findings = Findings()
        read = read_declared(NodePolicies, dict(policies), (), findings)
        findings.raise_if_any(f"node {str(node_id)!r}")
        spec = NodeSpec(
            id=node_id,
            type=name,
            config=_config(node_id, config or {}),
            policies=NO_POLICIES if read is msgspec.UNSET else read,
            description=description,
            workflow=inner,
        )
        if local is not None and self.local_types.get(name, local) is not local:
            raise WorkflowError(
                f"node {str(node_id)!r}: {shown(local)} and {shown(self.local_types[name])} both claim"
                f" the type {name!r}; give one of them another type name",
                node=node_id,
                type=name,
            )
        handle = self.add_node(spec)
        if local is not None:
            self.local_types[name] = local
        return handle

    def add_node(self, spec: NodeSpec) -> NodeHandle:
        """Declare a node from its finished specification.

        Raises:
            WorkflowError: the id is taken, the workflow is full, or nested workflows are too deep.
        """
        check_node_id(spec.id)
        if spec.id in self._nodes:
            other = self._nodes[spec.id].type
            raise WorkflowError(
                f"node {str(spec.id)!r} is already there (type {other!r}); give this one another id",
                node=spec.id,
            )
        if len(self._nodes) >= MAX_NODES:
            raise WorkflowError(f"a workflow has at most {MAX_NODES} nodes; split it into nested workflows")
        if (spec.workflow is not None) != (spec.type == WORKFLOW_TYPE):
            raise WorkflowError(f"node {str(spec.id)!r}: type 'workflow' and an inner workflow go together")
        if spec.workflow is not None and not _is_inner_config(spec.config):
            raise WorkflowError(
                f"node {str(spec.id)!r}: a workflow as node takes config={{'params': ...}} and nothing else,"
                f" got {shown(spec.config)}"
            )
        if spec.workflow is not None and nesting(spec.workflow) >= MAX_NESTING:
            raise WorkflowError(f"node {str(spec.id)!r}: workflows nest at most {MAX_NESTING} deep")
        self._nodes[spec.id] = spec
        return NodeHandle(self, spec.id)

    def connect(
        self,
        source: Endpoint,
        target: Endpoint,
        *,
        when: str | None = None,
        kind: ConnectionKind | None = None,
        when_error: bool = True,
        otherwise: bool = False,
    ) -> Connection:
        """Join an output to an input; a handle alone means the default port.

        Args:
            source: handle, port (with a field path) or text like `"fetch.out.user"`.
            target: handle, port or text like `"clean.text"`.
            when: expression over `value`, `key`, `headers`, `record`; only rows it is true for pass.
            kind: None: `conditional` with `when` or `otherwise`, `error` from a port named `error`, else
                `data`.
            when_error: whether a row `when` fails on fails; False leaves it out of this branch.
            otherwise: take the rows no conditional branch of that port took.

        Raises:
            WorkflowError: an end is unknown, the same connection is there already, or the options do not fit.
        """
        from_node, from_port, from_path = self._source(source)
        to_node, to_port = self._target(target)
        connection = make_connection(
            from_node, from_port, from_path, to_node, to_port,
            kind=kind, when=when, when_error=when_error, otherwise=otherwise,
        )  # fmt: skip
        self.add_connection(connection)
        return connection

    def chain(self, *nodes: NodeHandle | str) -> None:
        """Connect default port to default port: `chain(b, c, d)` is b to c and c to d.

        Raises:
            WorkflowError: fewer than two nodes, or a port is named: use `connect` there.
        """
        if len(nodes) < 2:  # noqa: PLR2004 - two ends
            raise WorkflowError(f"chain needs at least two nodes, got {len(nodes)}")
        for node in nodes:
            if isinstance(node, PortRef) or (isinstance(node, str) and "." in node):
                raise WorkflowError(
                    f"chain joins default ports only, got {shown(node)}; use connect for a named port"
                )
        for source, target in pairwise(nodes):
            self.connect(source, target)

    def add_connection(self, connection: Connection) -> None:
        """Join two nodes by a finished connection.

        Raises:
            WorkflowError: an end is unknown, both are the same node, or the connection is there already.
        """
        for node in (connection.from_node, connection.to_node):
            if node not in self._nodes:
                remedy = did_you_mean(node, self._nodes)
                raise WorkflowError(f"connection {connection}: no node {str(node)!r}; {remedy}", node=node)
        if connection.from_node == connection.to_node:
            raise WorkflowError(f"connection {connection} joins a node to itself; workflows have no cycles")
        if connection in self._known:
            raise WorkflowError(f"connection {connection} is already there; leave one of the two out")
        self._connections.append(connection)
        self._known.add(connection)

    def _source(self, end: Endpoint) -> tuple[NodeId, str | None, tuple[str, ...]]:
        if isinstance(end, str):
            return parse_endpoint(end)
        node = self._own(end)
        return (node, end.port, end.path) if isinstance(end, PortRef) else (node, None, ())

    def _target(self, end: Endpoint) -> tuple[NodeId, str | None]:
        node, port, path = self._source(end)
        if path:
            written = ".".join((node, port or "", *path))
            raise WorkflowError(
                f"{written!r} names a field of an input; a connection ends at a port: {node}.{port}"
            )
        return node, port

    def _own(self, end: NodeHandle | PortRef) -> NodeId:
        if not isinstance(end, NodeHandle | PortRef):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
            raise WorkflowError(f"a connection joins what add() returned, got {shown(end)}")
        if end.workflow is not self:
            raise WorkflowError(f"{end!r} belongs to workflow {end.workflow.name!r}, not to {self.name!r}")
        return end.node if isinstance(end, PortRef) else end.id

    def _free_id(self, type_name: str, inner: Workflow | None) -> NodeId:
        base = suggest_node_id(inner.name if inner is not None else type_name.rpartition(".")[2])[:100]
        taken = (f"{base}_{count}" for count in range(2, MAX_NODES + 3))
        return NodeId(next(name for name in (base, *taken) if name not in self._nodes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Workflow):
            return NotImplemented
        return all(getattr(self, part) == getattr(other, part) for part in _CONTENT)

    __hash__ = None  # type: ignore[assignment] - it grows while it is built

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, nodes={len(self._nodes)}, connections={len(self._connections)})"


_CONTENT: Final = (
    "name", "id", "version", "description", "params", "nodes", "connections", "settings", "local_types",
)  # fmt: skip


def nesting(workflow: Workflow) -> int:
    """How many workflows deep it is, itself included."""
    inner = [node.workflow for node in workflow.nodes.values() if node.workflow is not None]
    return 1 + max((nesting(each) for each in inner), default=0)


def _identity(spec: NodeSpec) -> tuple[object, ...]:
    return spec.id, spec.type, spec.policies, spec.description, spec.workflow


def _type_of(given: object) -> tuple[str, object | None, Workflow | None]:
    """Type name, the local implementation if there is one, the inner workflow if it is one."""
    if isinstance(given, Workflow):
        return WORKFLOW_TYPE, None, given
    if isinstance(given, str):
        if given == WORKFLOW_TYPE:
            raise WorkflowError("to add a workflow as a node, pass the Workflow itself: wf.add(inner)")
        if not given or any(node_id_fault(part) for part in given.split(".")):
            raise WorkflowError(f"{shown(given)} is no node type; write it like 'text.clean'", value=given)
        return given, None, None
    definition = getattr(given, "__flow_node__", None) or getattr(given, "__flow_connector__", None)
    if isinstance(definition, HasType) and isinstance(definition.type, str):  # pyright: ignore[reportUnnecessaryIsInstance] - duck-typed
        return definition.type, given, None
    raise WorkflowError(
        f"{shown(given)} is no node: pass a type's name, a function decorated with @node, a Node, Source or"
        " Sink class, or a Workflow",
        value=given,
    )


def _is_inner_config(config: Mapping[str, object]) -> bool:
    return not config or (set(config) == {"params"} and isinstance(config["params"], Mapping))


def _param(name: str, given: object) -> ParamSpec:
    fault = param_name_fault(name)
    if fault is not None:
        raise WorkflowError(f"param name {shown(name)} {fault}", value=name)
    return given if isinstance(given, ParamSpec) else ParamSpec(default=given)


def _settings(given: Settings | Mapping[str, object] | None) -> Settings:
    if isinstance(given, Settings):
        return given
    findings = Findings()
    read = read_declared(Settings, given or {}, (), findings)
    findings.raise_if_any("settings")
    return Settings() if read is msgspec.UNSET else read


def _config(node_id: NodeId, config: Mapping[str, object]) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
        raise WorkflowError(
            f"node {str(node_id)!r}: config must be a mapping, got {shown(config)}", node=node_id
        )
    return cast("Mapping[str, Any]", _copied(dict(config), (node_id, "config")))


def _copied(value: object, path: Path) -> object:
    """Lists and dicts copied, so that later changes outside do not reach the workflow; params found."""
    if len(path) > MAX_DEPTH:
        raise WorkflowError(f"{path_text(path[:6])} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str) and type(value) is str:
        return parse_params(value)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_copied(item, (*path, index)) for index, item in enumerate(items)]
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {key: _copied(item, (*path, str(key))) for key, item in pairs}
    return value
