"""Connections resolved: ports found, types compared, conditions compiled.

Owns: the rules for one connection and for its siblings at one port.
Does not own: the shape of the graph (topology), which rows may meet (the planner).

Always holds: a connection that comes back joins an output that exists to an input that exists, or is of
kind control or error; every fault is a finding of the workflow it was declared in.
"""

from __future__ import annotations

from typing import Any, Final

from flowcore.assignable import Unknown, element, follow, known_fields, mismatch, type_text
from flowcore.connection import DEFAULT_OUT, ERROR_PORT
from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition, Port
from flowcore.findings import did_you_mean
from flowruntime.compile.inline import Flat, FlatConnection, default_input
from flowruntime.compile.resolve import compile_checked
from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode
from flowruntime.factories import output_ports

WHEN_VARIABLES: Final = ("value", "key", "headers", "record")
_LISTS: Final = ("collect", "batch")


def resolve_connections(flat: Flat, nodes: dict[str, ResolvedNode]) -> list[ResolvedConnection]:
    """Every connection whose ends are known; faults go to the findings of its workflow."""
    resolved: list[ResolvedConnection] = []
    by_declaration: list[tuple[FlatConnection, ResolvedConnection]] = []
    for index, connection in enumerate(flat.connections):
        if connection.from_node not in nodes or connection.to_node not in nodes:
            flat.dangling.add(connection.to_node)  # the type at one end is unknown, and was reported
            continue
        found = _Joint(connection, nodes).resolve(index)
        if found is None:
            flat.dangling.add(connection.to_node)
        else:
            resolved.append(found)
            by_declaration.append((connection, found))
    _check_otherwise(by_declaration)
    return resolved


def _check_otherwise(connections: list[tuple[FlatConnection, ResolvedConnection]]) -> None:
    """`else` takes what no `when` of the same port took, so there must be one."""
    guarded = {(found.from_node, found.from_port) for _, found in connections if found.when is not None}
    for connection, found in connections:
        if found.otherwise and (found.from_node, found.from_port) not in guarded:
            connection.origin.findings.add(
                connection.at,
                f"'else' needs another connection with 'when' from {found.from_node}.{found.from_port}",
                remedy="add one, or leave 'else' out to take every row",
                value=str(connection.declared),
            )


class _Joint:
    """One connection between two known nodes."""

    def __init__(self, connection: FlatConnection, nodes: dict[str, ResolvedNode]) -> None:
        self._connection = connection
        self._source = nodes[connection.from_node]
        self._target = nodes[connection.to_node]

    def resolve(self, index: int) -> ResolvedConnection | None:
        connection, declared = self._connection, self._connection.declared
        origin = self._output()
        target = self._input()
        when = None
        if declared.when is not None:
            when = compile_checked(
                declared.when,
                variables=WHEN_VARIABLES,
                result="bool",
                findings=connection.origin.findings,
                path=(*connection.at, "when"),
            )
        if origin is None or target is False:
            return None
        if declared.kind in ("data", "conditional") and isinstance(target, Port):
            self._compare(origin, target)
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

    def _output(self) -> Port | None:
        connection, definition = self._connection, self._source.definition
        if definition_role(definition) == "sink":
            if connection.declared.kind == "error":
                message = f"{self._source.id!r} is a sink; rows it cannot write follow its on_error"
            else:
                message = f"{self._source.id!r} is a sink ({definition.type}); nothing leaves it"
            return self._refuse(message, "connect from the node before it")
        if connection.declared.kind == "error":
            return self._error_port(definition)
        ports = output_ports(definition)
        found = next((port for port in ports if port.name == connection.from_port), None)
        any_port = len(ports) == 1 or connection.declared.kind == "control"
        if found is None and connection.from_port == DEFAULT_OUT and any_port and ports:
            found = ports[0]
        if found is None:
            names = [port.name for port in ports]
            return self._refuse(
                f"node {self._source.id!r} ({definition.type}) has no output port {connection.from_port!r}",
                did_you_mean(connection.from_port, names),
            )
        return found

    def _error_port(self, definition: Definition) -> Port | None:
        if isinstance(definition, NodeDefinition) and definition.settles == "on_entry":
            return self._refuse(
                f"{self._source.id!r} settles its rows on entry, so no row can fail in it",
                "connect the error port of another node",
            )
        return Port(name=ERROR_PORT)

    # --- the receiving side ---

    def _input(self) -> Port | bool | None:
        """The port; None for kind control; False when there is none, which is then reported."""
        connection, definition = self._connection, self._target.definition
        if definition_role(definition) == "source":
            message = f"{self._target.id!r} is a source ({definition.type}); nothing can be sent to it"
            self._refuse(message, "use a sink of the same system, or another node")
            return False
        if connection.declared.kind == "control":
            if definition_role(definition) == "sink":
                self._refuse(f"{self._target.id!r} is a sink and needs a value", "use a data connection")
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
            remedy = f"write {self._target.id}.PORT with one of {', '.join(names)}"
        else:
            message, remedy = "takes no input", "to run it after another node, use kind: control"
        self._refuse(f"node {self._target.id!r} ({definition.type}) {message}", remedy)
        return False

    # --- types ---

    def _compare(self, origin: Port, target: Port) -> None:
        connection = self._connection
        given: Any = follow(origin.annotation, connection.path)
        sender = f"{connection.from_node}.{origin.name}"
        if isinstance(given, Unknown):
            self._refuse(
                f"{sender} gives {type_text(origin.annotation)}; {given.holder} has no field {given.name!r}",
                did_you_mean(given.name, given.known) or "take the whole value, or convert it in between",
            )
            return
        wanted = row_type(self._target.definition, target)
        reason = mismatch(given, wanted)
        if reason is None:
            return
        field = ".".join((sender, *connection.path))
        self._refuse(
            f"input {target.name!r} of {self._target.id!r} takes {type_text(wanted)}, but {field} gives"
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
    fields = known_fields(given) if isinstance(given, type) else None
    fitting = [name for name, kind in (fields or {}).items() if mismatch(kind, wanted) is None]
    if fitting:
        return f"send one of its fields, such as {field}.{fitting[0]}, or convert it in between"
    return "put a node in between that converts it, such as transform.coerce or transform.map"
