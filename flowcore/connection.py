"""Connections: from an output to an input, and the arrow text users write for one.

Owns: `Connection`, its rules by itself, and the grammar `node[.port[.field...]] -> node[.port]`.
Does not own: whether the nodes and ports exist (workflow, flowruntime.compile).

Always holds: `parse_arrow(str(connection))` names the same ends; a field with unusual characters is quoted
as in JSON.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

import msgspec

from flowcore.errors import BuildError
from flowcore.findings import shown
from flowcore.ids import NodeId, node_id_fault, port_name_fault

ConnectionKind = Literal["data", "control", "conditional", "error"]

CONNECTION_KINDS: Final = ("data", "control", "conditional", "error")
DEFAULT_OUT: Final = "out"
ERROR_PORT: Final = "error"

_BARE_FIELD = re.compile(r"[^\s.\"'>]+")
_SEGMENT = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s.">]+')


class ConnectionSyntaxError(BuildError, ValueError):
    """A connection's text or options cannot be read; `value` is what was given."""

    value: object


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One edge of the graph.

    Attributes:
        from_node: where rows come from.
        from_port: its output port.
        from_path: field to take of what leaves the port; a segment of digits indexes a list.
        to_node: where rows go.
        to_port: its input port; None: its default or only one.
        kind: `data` carries values, `conditional` those `when` lets pass, `control` none, `error` failures.
        when: expression of a conditional connection.
        when_error: whether a row `when` fails on fails, instead of not taking this branch.
        otherwise: takes the rows no other conditional connection of the same port took (`else` in files).
    """

    from_node: NodeId
    to_node: NodeId
    from_port: str = DEFAULT_OUT
    from_path: tuple[str, ...] = ()
    to_port: str | None = None
    kind: ConnectionKind = "data"
    when: str | None = None
    when_error: bool = True
    otherwise: bool = False

    @property
    def source_text(self) -> str:
        """`node.port.field` as written on the sending side, defaults left out."""
        if not self.from_path and self.from_port == DEFAULT_OUT:
            return self.from_node
        return ".".join((self.from_node, self.from_port, *map(_field_text, self.from_path)))

    @property
    def target_text(self) -> str:
        """`node.port` as written on the receiving side, a default port left out."""
        return self.to_node if self.to_port is None else f"{self.to_node}.{self.to_port}"

    def __str__(self) -> str:
        return f"{self.source_text} -> {self.target_text}"


def make_connection(  # noqa: PLR0913 - what a connection is made of
    from_node: NodeId,
    from_port: str | None,
    from_path: tuple[str, ...],
    to_node: NodeId,
    to_port: str | None,
    *,
    kind: ConnectionKind | None = None,
    when: str | None = None,
    when_error: bool = True,
    otherwise: bool = False,
) -> Connection:
    """A connection with its kind and default port filled in, checked by itself.

    Raises:
        ConnectionSyntaxError: a name is malformed, or the options contradict each other.
    """
    conditional = when is not None or otherwise
    if kind is None:
        kind = "conditional" if conditional else "error" if from_port == ERROR_PORT else "data"
    port = from_port or (ERROR_PORT if kind == "error" else DEFAULT_OUT)
    connection = Connection(
        from_node=from_node,
        from_port=port,
        from_path=from_path,
        to_node=to_node,
        to_port=to_port,
        kind=kind,
        when=when,
        when_error=when_error,
        otherwise=otherwise,
    )
    fault = connection_fault(connection)
    if fault is not None:
        raise ConnectionSyntaxError(f"connection {connection}: {fault}", value=str(connection))
    return connection


def connection_fault(connection: Connection) -> str | None:
    """Why the connection is wrong by itself, or None."""
    for what, fault in (
        (connection.from_node, node_id_fault(connection.from_node)),
        (connection.to_node, node_id_fault(connection.to_node)),
        (connection.from_port, port_name_fault(connection.from_port)),
        (connection.to_port, connection.to_port and port_name_fault(connection.to_port)),
    ):
        if fault:
            return f"{shown(what)} {fault}"
    return _option_fault(connection)


def parse_endpoint(text: str) -> tuple[NodeId, str | None, tuple[str, ...]]:
    """`node[.port[.field...]]` in its parts; a field with dots or spaces is quoted: `a.out."first name"`.

    Raises:
        ConnectionSyntaxError: the text does not match.
    """
    segments: list[str] = []
    at = 0
    stripped = text.strip()
    while True:
        match = _SEGMENT.match(stripped, at)
        if match is None:
            raise _syntax(text, "is not node[.port[.field...]]")
        segments.append(_unquoted(match[0], text))
        at = match.end()
        if at == len(stripped):
            break
        if stripped[at] != ".":
            raise _syntax(text, "is not node[.port[.field...]]")
        at += 1
    node, *rest = segments
    fault = node_id_fault(node) or (rest and port_name_fault(rest[0])) or None
    if fault:
        raise _syntax(text, f"has a name that {fault}")
    return NodeId(node), rest[0] if rest else None, tuple(rest[1:])


def parse_arrow(text: str) -> tuple[tuple[NodeId, str | None, tuple[str, ...]], tuple[NodeId, str | None]]:
    """`a.out.field -> b.port` in its two ends.

    Raises:
        ConnectionSyntaxError: there is not exactly one arrow, or an end does not match.
    """
    ends = _split_arrow(text)
    if len(ends) != 2:  # noqa: PLR2004 - a sender and a receiver
        raise _syntax(text, f"must have one '->', as in 'a.out -> b.text', has {len(ends) - 1}")
    target, port, path = parse_endpoint(ends[1].strip())
    if path:
        raise _syntax(text, f"names a field of an input; a connection ends at a port: {target}.{port}")
    return parse_endpoint(ends[0].strip()), (target, port)


def _split_arrow(text: str) -> list[str]:
    """Split at `->` outside quotes."""
    parts = re.findall(r'(?:"(?:[^"\\]|\\.)*"|(?!->).)+|->', text, re.DOTALL)
    ends = [""]
    for part in parts:
        if part == "->":
            ends.append("")
        else:
            ends[-1] += part
    return ends


def _option_fault(connection: Connection) -> str | None:  # noqa: PLR0911 - one return per rule
    conditional = connection.when is not None or connection.otherwise
    kind = connection.kind
    if kind not in CONNECTION_KINDS:
        return f"kind must be one of {', '.join(CONNECTION_KINDS)}, got {shown(kind)}"
    if connection.when is not None and connection.otherwise:
        return "takes either `when` or `else`, not both"
    if conditional and kind != "conditional":
        return f"`when` and `else` make a connection conditional, but kind is {kind!r}; leave kind out"
    if kind == "conditional" and not conditional:
        return "is conditional but has neither `when` nor `else`; add one"
    if connection.when is not None and not connection.when.strip():
        return "has an empty `when`; write an expression or leave it out"
    if not connection.when_error and connection.when is None:
        return "says `when_error: false` without a `when`"
    return _kind_fault(connection)


def _kind_fault(connection: Connection) -> str | None:
    kind = connection.kind
    if kind == "error" and connection.from_port != ERROR_PORT:
        return f"of kind 'error' leaves port 'error', not {connection.from_port!r}; leave the port out"
    if kind == "control" and connection.from_path:
        return "of kind 'control' carries no value, so it takes no field"
    return None


def _field_text(field: str) -> str:
    return field if _BARE_FIELD.fullmatch(field) else json.dumps(field)


def _unquoted(segment: str, text: str) -> str:
    if not segment.startswith('"'):
        return segment
    try:
        return str(json.loads(segment))
    except ValueError as fault:
        raise _syntax(text, f"has a badly quoted field {segment} ({fault})") from fault


def _syntax(text: object, fault: str) -> ConnectionSyntaxError:
    return ConnectionSyntaxError(f"connection {shown(text)} {fault}", value=text)
