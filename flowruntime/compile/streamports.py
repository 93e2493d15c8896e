"""Ports that carry a Stream: where one may go, and to how many.

Owns: the rules for connections from a port annotated as a Stream, and their remedies.
Does not own: whether types fit (flowcore.assignable), ports annotated `Any` (their rows fail when they run).

Always holds: what is refused here could never work; branches that exclude each other may share a port.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from flowcore.assignable import Unknown, follow, is_stream, type_text
from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition
from flowruntime.compile.exclusive import Guards
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowruntime.compile.inline import Flat

READ_IT = "put stream.collect in between for the whole of it, or stream.split for one row per item"


def misdirected(given: Any, target: Definition) -> str | None:
    """Why a Stream of type `given` can never be of use to `target`, whatever its port says; None: it may."""
    if not is_stream(given):
        return None
    if isinstance(target, ConnectorDefinition):
        return "a Stream never enters an outside system"
    if target.settles == "on_entry":
        return f"operator {target.type!r} settles rows when they enter, and that cancels their streams"
    return None


def check_fan_out(
    flat: Flat,
    nodes: Mapping[str, ResolvedNode],
    connections: Sequence[ResolvedConnection],
    order: Callable[[], list[str]],
) -> None:
    """Note every Stream for one consumer that several connections may carry for one row.

    Args:
        flat: takes the findings.
        nodes: by id.
        connections: between them.
        order: the nodes, parents first; asked only when there is something to tell apart.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[ResolvedConnection]] = defaultdict(list)
    for connection in connections:
        if connection.kind in ("data", "conditional"):
            groups[connection.from_node, connection.from_port, connection.path].append(connection)
    several = [group for group in groups.values() if len(group) > 1 and _is_unshared(nodes, group[0])]
    if not several:
        return
    in_order = {node_id: nodes[node_id] for node_id in order()}
    guards = Guards(ResolvedGraph("", "", flat.settings, in_order, tuple(connections)))
    for group in several:
        if not guards.exclusive(group):
            _add_finding(flat, nodes, group)


def _add_finding(flat: Flat, nodes: Mapping[str, ResolvedNode], group: Sequence[ResolvedConnection]) -> None:
    first, second = group[0], flat.connections[group[1].index]
    field = ".".join((first.from_node, first.from_port, *first.path))
    receivers = ", ".join(repr(connection.to_node) for connection in group)
    given: Any = _given(nodes, first)
    second.origin.findings.add(
        second.at,
        f"{field} gives {type_text(given)}, which has one consumer, but goes to {receivers}",
        remedy=f"put stream.share between {first.from_node!r} and them, or let only one of them have it",
        value=str(second.declared),
    )


def _is_unshared(nodes: Mapping[str, ResolvedNode], connection: ResolvedConnection) -> bool:
    given = _given(nodes, connection)
    return not isinstance(given, Unknown) and is_stream(given, shared=False)


def _given(nodes: Mapping[str, ResolvedNode], connection: ResolvedConnection) -> Any:
    definition = nodes[connection.from_node].definition
    port = definition.output(connection.from_port)
    if port is None or not isinstance(definition, NodeDefinition):
        return Any
    return follow(port.annotation, connection.path)
