"""The shape of the graph: cycles, inputs nothing fills, nodes no row reaches, promises an operator breaks.

Owns: the rules that need the whole graph; the order of nodes.
Does not own: single nodes and connections (resolve, wiring), which rows may meet (scopes).

Always holds: linear in nodes and connections, nothing recurses; a node cut off by a fault already reported
is not reported again, as far as the names in a refused connection tell which node it was meant for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

from flowcore.definition import NodeDefinition, Port
from flowcore.findings import did_you_mean, near_words
from flowcore.graph import Graph
from flowruntime.compile.bounds import is_waiting
from flowruntime.compile.inline import Flat
from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode

_SHOWN: Final = 20
_MOST_COMPARED: Final = 50_000
"""Pairs of names compared when connections to nodes that are not there are put down to nodes that are."""

Mode = Literal["stream", "request"]


class Topology:
    """The rules for one graph; every fault goes to the findings of the workflow it belongs to.

    Args:
        flat: the workflow, nested ones inlined.
        nodes: those whose type is known.
        connections: those that join such nodes.
        mode: in a `request` the inputs may fill ports that are not connected.
        meant_sources: nodes of unknown type that were probably meant to be sources.
    """

    def __init__(
        self,
        flat: Flat,
        nodes: dict[str, ResolvedNode],
        connections: list[ResolvedConnection],
        mode: Mode,
        meant_sources: Collection[str] = (),
    ) -> None:
        self._flat: Final = flat
        self._nodes: Final = nodes
        edges = [(connection.from_node, connection.to_node) for connection in connections]
        self._graph: Final = Graph(nodes, edges)
        self._connected: Final = {(connection.to_node, connection.to_port) for connection in connections}
        self._sources: Final = [node_id for node_id, node in nodes.items() if node.role == "source"]
        self._unread: Final = _unread(flat)
        """Of nodes whose ids begin so it is not known what they are connected to."""
        self._streams: Final = mode == "stream" and bool(self._sources or meant_sources)
        self.holes: set[str] = set(flat.broken.receivers)
        """Nodes of which not every input is known."""
        self.has_cycle = False

    def check(self) -> None:
        """Note every fault."""
        if not self._flat.nodes:
            remedy = "add a node"
            self._flat.origins[0].findings.add(("nodes",), "the workflow has no nodes", remedy=remedy)
        cyclic = self.has_cycle = self._check_cycles()
        if self._streams:
            self._check_inputs(reached=not cyclic)
        self._check_sources_used()
        self._check_promises()
        self._check_limits()

    def order(self) -> list[str]:
        """Node ids, parents first; nodes on or behind a cycle are left out."""
        return self._graph.order_before_cycles()

    def open_ports(self) -> dict[str, tuple[str, ...]]:
        """Unconnected input ports by node, nodes without any left out."""
        found = {
            node_id: tuple(
                port.name for port in node.definition.inputs if (node_id, port.name) not in self._connected
            )
            for node_id, node in self._nodes.items()
        }
        return {node_id: ports for node_id, ports in found.items() if ports}

    def _check_cycles(self) -> bool:
        rings = self._graph.cycles()
        for ring in rings:
            shown = [*ring[:_SHOWN], *(["..."] if len(ring) > _SHOWN else [])]
            closing = next(
                each for each in self._flat.connections if (each.from_node, each.to_node) == ring[-2:]
            )
            closing.origin.findings.add(
                closing.at,
                f"the workflow has a cycle: {' -> '.join(shown)}",
                remedy=f"remove {closing.declared}, or another one of these connections",
            )
        return bool(rings)

    def _check_inputs(self, *, reached: bool) -> None:
        """Note required inputs nothing fills and, if asked for, nodes no source leads to."""
        broken = self._flat.broken
        missing = self._missing_inputs()
        self.holes |= missing.keys()
        cut_off = [node_id for node_id in missing if node_id not in broken.receivers]
        stranded = [
            node_id
            for node_id in (self._graph.unreachable(self._sources) if reached and self._sources else ())
            if not self._graph.parents[node_id]
            and node_id not in self.holes
            and not node_id.startswith(self._unread)
        ]  # the first of each branch, since those after it follow from it
        told = set(_unexplained([*cut_off, *stranded], broken.lost_receivers))
        for node_id in cut_off:
            for port in missing[node_id] if node_id in told else ():
                self._tell_missing(node_id, port)
        for node_id in stranded:
            if node_id in told:
                self._tell_stranded(node_id)

    def _missing_inputs(self) -> dict[str, list[Port]]:
        missing = {
            node_id: [
                port
                for port in node.definition.inputs
                if port.required and (node_id, port.name) not in self._connected
            ]
            for node_id, node in self._nodes.items()
            if not node_id.startswith(self._unread)
        }
        return {node_id: ports for node_id, ports in missing.items() if ports}

    def _tell_missing(self, node_id: str, port: Port) -> None:
        flat, definition = self._flat.nodes[node_id], self._nodes[node_id].definition
        flat.origin.findings.add(
            flat.path,
            f"input {port.name!r} of {node_id!r} ({definition.type}) is required, not connected",
            remedy=f"connect it: ... -> {flat.spec.id}.{port.name}",
        )

    def _tell_stranded(self, node_id: str) -> None:
        flat = self._flat.nodes[node_id]
        after = len(self._graph.descendants([node_id]))
        also = f", and {after} after it" if after else ""
        source = self._sources[0]
        flat.origin.findings.add(
            flat.path,
            f"no source leads to {node_id!r}{also}: it would never run",
            remedy=f"connect it, or run it per row: {{from: {source}, to: {node_id}, kind: control}}",
        )

    def _check_sources_used(self) -> None:
        broken = self._flat.broken
        idle = [
            node_id
            for node_id in self._sources
            if not self._graph.children[node_id]
            and node_id not in broken.senders
            and not node_id.startswith(self._unread)
        ]
        for node_id in _unexplained(idle, broken.lost_senders):
            flat = self._flat.nodes[node_id]
            flat.origin.findings.add(
                flat.path,
                f"source {node_id!r} is connected to nothing: its rows are read and dropped",
                remedy="connect it, or remove it",
                severity="warning",
            )

    def _check_promises(self) -> None:
        settings = self._flat.settings
        unread = any(self._flat.refuses("settings", name) for name in ("delivery", "allow_weaker"))
        if settings.delivery == "at_most_once" or unread:
            return
        for node_id, node in self._nodes.items():
            definition = node.definition
            if not isinstance(definition, NodeDefinition) or definition.settles != "on_entry":
                continue
            flat = self._flat.nodes[node_id]
            flat.origin.findings.add(
                (*flat.path, "type"),
                f"operator {definition.type!r} settles rows when they enter, so a crash loses those in it:"
                f" weaker than {settings.delivery}",
                remedy="write it with settles='explicit', or set allow_weaker or delivery: at_most_once",
                severity="warning" if settings.allow_weaker else "error",
            )

    def _check_limits(self) -> None:
        if len(self._nodes) < len(self._flat.nodes):
            return  # a type that is unknown may be the one
        used = {node.definition.type: node for node in self._nodes.values()}
        findings = self._flat.origins[0].findings
        for name in self._flat.settings.limits.types:
            if name in used and not is_waiting(used[name]):
                findings.add(
                    ("settings", "limits", "types", name),
                    f"a limit has no effect on type {name!r}, whose rows do not wait",
                    remedy="remove it; limits bind coroutines, async generators and offloaded functions",
                )
            elif name not in used:
                findings.add(
                    ("settings", "limits", "types", name),
                    f"no node of this workflow has type {name!r}",
                    remedy=did_you_mean(name, used),
                    severity="warning",
                )


def place_of(node_id: str) -> str:
    """What the ids of the nodes of its workflow begin with: a connection joins no others."""
    return node_id[: node_id.rfind("/") + 1]


def _unread(flat: Flat) -> tuple[str, ...]:
    """What node ids begin with in workflows of which, or around which, connections could not be read."""
    unread = [origin for origin in flat.origins if origin.workflow.refused.covers(("connections",))]
    found = {
        id(node.origin): node.id.removesuffix(node.spec.id)
        for node in flat.nodes.values()
        if node.origin in unread
    }
    # One without nodes of its own has no name here: then nothing is known of any node.
    return tuple(found.get(id(origin), "") for origin in unread)


def _unexplained(nodes: Sequence[str], lost: Sequence[str]) -> list[str]:
    """Those of the unconnected nodes that no connection to a node that is not there was meant for.

    Args:
        nodes: connected to nothing.
        lost: the names such connections gave, empty where none could be read. One explains the node it
            resembles; when all that is left of its workflow could be explained by those that resemble none,
            it is.
    """
    left = list(dict.fromkeys(nodes))
    places: list[str] = []
    comparable = len(left) * len(lost) <= _MOST_COMPARED
    for name in lost:
        within = place_of(name)
        there = [node_id for node_id in left if node_id.startswith(within)] if name and comparable else []
        near = near_words(name, there)
        if near:
            left.remove(near[0])
        else:
            places.append(within)
    maybe = {node_id for node_id in left if node_id.startswith(tuple(places))}
    return left if len(maybe) > len(places) else [node_id for node_id in left if node_id not in maybe]
