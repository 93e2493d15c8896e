"""Connections resolved: ports found, types compared, conditions compiled.

Owns: the rules for one connection and for its siblings at one port.
Does not own: the shape of the graph (topology), which rows may meet (the planner).

Always holds: a connection that comes back joins an output that exists to an input that exists, or is of
kind control or error; every fault is a finding of the workflow it was declared in.
"""

from __future__ import annotations

from typing import Any, Final

from flowcore.assignable import Unknown, element, follow, is_stream, known_fields, mismatch, type_text
from flowcore.connection import DEFAULT_OUT, ERROR_PORT
from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition, Port
from flowcore.findings import did_you_mean
from flowruntime.compile.inline import Flat, FlatConnection, default_input
from flowruntime.compile.resolve import compile_checked
from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode
from flowruntime.compile.streamports import READ_IT, misdirected
from flowruntime.factories import output_ports

WHEN_VARIABLES: Final = ("value", "key", "headers", "record")
_LISTS: Final = ("collect", "batch")


def resolve_connections(flat: Flat, nodes: dict[str, ResolvedNode]) -> list[ResolvedConnection]:
    """Every connection whose ends are known; faults go to the findings of its workflow."""
    resolved: list[ResolvedConnection] = []
    by_declaration: list[tuple[FlatConnection, ResolvedConnection]] = []
    for index, connection in enumerate(flat.connections):
        found = _Joint(connection, flat, nodes).resolve(index)
        if found is None:
            flat.broken.receivers.add(connection.to_node)
            flat.broken.senders.add(connection.from_node)
        else:
            resolved.append(found)
            by_declaration.append((connection, found))
    _check_otherwise(by_declaration, flat)
    return resolved


def _check_otherwise(connections: list[tuple[FlatConnection, ResolvedConnection]], flat: Flat) -> None:
    """`else` takes what no `when` of the same port took, so there must be one."""
    guarded = {
        (found.from_node, found.from_port)
        for _, found in connections
        if found.kind == "conditional" and not found.otherwise
    }
    for connection, found in connections:
        if flat.broken.lost_senders or found.from_node in flat.broken.senders:
            continue  # one of those may be its `when`
        if found.otherwise and (found.from_node, found.from_port) not in guarded:
            connection.origin.findings.add(
                connection.at,
                f"'else' needs another connection with 'when' from {found.from_node}.{found.from_port}",
                remedy="add one, or leave 'else' out to take every row",
                value=str(connection.declared),
            )


class _Joint:
    """One connection; where the type at one end is unknown, which was reported, the other is checked."""

    def __init__(self, connection: FlatConnection, flat: Flat, nodes: dict[str, ResolvedNode]) -> None:
        self._connection = connection
        self._ports_known = flat.nodes[connection.from_node].ports_known
        self._source = nodes.get(connection.from_node)
        self._target = nodes.get(connection.to_node)

    def resolve(self, index: int) -> ResolvedConnection | None:
        """The connection, or None when it does not join two ports."""
        connection, declared = self._connection, self._connection.declared
        origin = None if self._source is None else self._output(self._source)
        target = False if self._target is None else self._input(self._target)
        when = None
        refused = connection.origin.workflow.refused
        if declared.when is not None and not refused.touches((*connection.at, "when")):
            when = compile_checked(
                declared.when,
                variables=WHEN_VARIABLES,
                result="bool",
                findings=connection.origin.findings,
                path=(*connection.at, "when"),
            )
        if origin is None or target is False:
            return None
        if declared.kind in ("data", "conditional") and isinstance(target, Port) and self._target is not None:
            self._compare(origin, target, self._target)
        return ResolvedConnection(
            index=index,
            from_node=connection.from_node,
            from_port=origin.name,
            path=connection.path,
            to_node=connection.to_node,
            to_port=target.name if isinstance(target, Port) else None,
            kind=declared.kind,
            when=when,
            otherwise=declared.otherwise,
            when_error=declared.when_error,
            line=connection.origin.findings.mark_of(connection.at).line,
        )

    # --- the sending side ---

    def _output(self, source: ResolvedNode) -> Port | None:
        connection, definition = self._connection, source.definition
        if definition_role(definition) == "sink":
            if connection.declared.kind == "error":
                message = f"{source.id!r} is a sink; rows it cannot write follow its on_error"
            else:
                message = f"{source.id!r} is a sink ({definition.type}); nothing leaves it"
            return self._refuse(message, "connect from the node before it")
        if connection.declared.kind == "error":
            return self._error_port(source)
        ports = output_ports(definition)
        found = next((port for port in ports if port.name == connection.from_port), None)
        any_port = len(ports) == 1 or connection.declared.kind == "control"
        if found is None and not self._ports_known:
            return None
        if found is None and connection.from_port == DEFAULT_OUT and any_port and ports:
            found = ports[0]
        if found is None:
            names = [port.name for port in ports]
            return self._refuse(
                f"node {source.id!r} ({definition.type}) has no output port {connection.from_port!r}",
                did_you_mean(connection.from_port, names),
            )
        return found

    def _error_port(self, source: ResolvedNode) -> Port | None:
        definition = source.definition
        if isinstance(definition, NodeDefinition) and definition.settles == "on_entry":
            return self._refuse(
                f"{source.id!r} settles its rows on entry, so no row can fail in it",
                "connect the error port of another node",
            )
        return Port(name=ERROR_PORT)

    # --- the receiving side ---

    def _input(self, target: ResolvedNode) -> Port | bool | None:
        """The port; None for kind control; False when there is none, which is then reported."""
        connection, definition = self._connection, target.definition
        if definition_role(definition) == "source":
            message = f"{target.id!r} is a source ({definition.type}); nothing can be sent to it"
            self._refuse(message, "use a sink of the same system, or another node")
            return False
        if connection.declared.kind == "control":
            if definition_role(definition) == "sink":
                self._refuse(f"{target.id!r} is a sink and needs a value", "use a data connection")
                return False
            return None
        if connection.to_port is not None:
            found = definition.input(connection.to_port)
        else:
            found = default_input(definition)
        if found is not None:
            return found
        names = [port.name for port in definition.inputs]
        if connection.to_port is not None:
            message = f"has no input port {connection.to_port!r}"
            remedy = did_you_mean(connection.to_port, names) or "it takes no input; use kind: control"
        elif names:
            message = f"has {len(names)} input ports; name the one meant"
            remedy = f"write {target.id}.PORT with one of {', '.join(names)}"
        else:
            message, remedy = "takes no input", "to run it after another node, use kind: control"
        self._refuse(f"node {target.id!r} ({definition.type}) {message}", remedy)
        return False

    # --- types ---

    def _compare(self, origin: Port, target: Port, receiver: ResolvedNode) -> None:
        connection = self._connection
        given: Any = follow(origin.annotation, connection.path)
        sender = f"{connection.from_node}.{origin.name}"
        if isinstance(given, Unknown):
            self._refuse(
                f"{sender} gives {type_text(origin.annotation)}; {given.holder} has no field {given.name!r}",
                did_you_mean(given.name, given.known) or "take the whole value, or convert it in between",
            )
            return
        wanted = row_type(receiver.definition, target)
        field = ".".join((sender, *connection.path))
        lost = misdirected(given, receiver.definition)
        if lost is not None:
            self._refuse(f"{field} gives {type_text(given)} to {receiver.id!r}, but {lost}", READ_IT)
            return
        reason = mismatch(given, wanted)
        if reason is None:
            return
        self._refuse(
            f"input {target.name!r} of {receiver.id!r} takes {type_text(wanted)}, but {field} gives"
            f" {type_text(given)}" + ("" if reason.count(" is not ") == 1 else f" ({reason})"),
            _remedy(field, given, wanted),
        )

    def _refuse(self, message: str, remedy: str) -> None:
        connection = self._connection
        value = str(connection.declared)
        connection.origin.findings.add(connection.at, message, remedy=remedy, value=value)


def row_type(definition: Definition, port: Port) -> Any:
    """What one row must be: an item, where the node is handed lists of rows or gathers its connections."""
    lists = isinstance(definition, NodeDefinition) and (definition.batched or definition.kind in _LISTS)
    return element(port.annotation) if port.gather or lists else port.annotation


def definition_role(definition: Definition) -> str:
    """`source`, `sink`, or `node`."""
    return definition.role if isinstance(definition, ConnectorDefinition) else "node"


def _remedy(field: str, given: Any, wanted: Any) -> str:
    if is_stream(given):
        return READ_IT if not is_stream(wanted) else "put a node in between that converts its items"
    if is_stream(wanted):
        return "only a node makes a Stream: let it return ctx.stream(...), and declare `-> Stream[...]`"
    fields = known_fields(given) if isinstance(given, type) else None
    fitting = [name for name, kind in (fields or {}).items() if mismatch(kind, wanted) is None]
    if fitting:
        return f"send one of its fields, such as {field}.{fitting[0]}, or convert it in between"
    return "put a node in between that converts it, such as transform.coerce or transform.map"
