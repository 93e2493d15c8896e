"""The shape of the graph: cycles, inputs nothing fills, nodes no row reaches, promises an operator breaks.

Owns: the rules that need the whole graph; the order of nodes.
Does not own: single nodes and connections (resolve, wiring), which rows may meet (the planner).

Always holds: linear in nodes and connections, nothing recurses; a node cut off by a fault already reported
is not reported again.
"""

from __future__ import annotations

from typing import Final, Literal

from flowcore.definition import NodeDefinition
from flowcore.findings import did_you_mean
from flowcore.graph import Graph
from flowruntime.compile.inline import Flat
from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode

_SHOWN: Final = 20

Mode = Literal["stream", "request"]


class Topology:
    """The rules for one graph; every fault goes to the findings of the workflow it belongs to."""

    def __init__(
        self, flat: Flat, nodes: dict[str, ResolvedNode], connections: list[ResolvedConnection], mode: Mode
    ) -> None:
        self._flat: Final = flat
        self._nodes: Final = nodes
        self._mode: Final = mode
        edges = [(connection.from_node, connection.to_node) for connection in connections]
        self._graph: Final = Graph(nodes, edges)
        self._connected: Final = {(connection.to_node, connection.to_port) for connection in connections}
        self._sources: Final = [node_id for node_id, node in nodes.items() if node.role == "source"]
        self.has_cycle = False

    def check(self) -> None:
        """Note every fault."""
        if not self._flat.nodes:
            remedy = "add a node"
            self._flat.origins[0].findings.add(("nodes",), "the workflow has no nodes", remedy=remedy)
        self._check_cycle()
        missing = self._check_inputs()
        if not self.has_cycle:
            self._check_reached(missing)
        self._check_sources_used()
        self._check_promises()
        self._check_limits()

    def order(self) -> list[str]:
        """Node ids, parents first; to be asked only when there is no cycle."""
        return self._graph.topological_order()

    def open_ports(self) -> dict[str, tuple[str, ...]]:
        """Unconnected input ports by node, nodes without any left out."""
        found = {
            node_id: tuple(
                port.name for port in node.definition.inputs if (node_id, port.name) not in self._connected
            )
            for node_id, node in self._nodes.items()
        }
        return {node_id: ports for node_id, ports in found.items() if ports}

    def _check_cycle(self) -> None:
        ring = self._graph.cycle()
        if ring is None:
            return
        self.has_cycle = True
        shown = [*ring[:_SHOWN], *(["..."] if len(ring) > _SHOWN else [])]
        origin = self._flat.nodes[ring[0]].origin
        closing = {(ring[index], ring[index + 1]) for index in range(len(ring) - 1)}
        at = next(
            each.at
            for each in self._flat.connections
            if (each.from_node, each.to_node) in closing and each.origin is origin
        )
        message = f"the workflow has a cycle: {' -> '.join(shown)}"
        origin.findings.add(at, message, remedy="remove one of these connections; a workflow has no cycles")

    def _check_inputs(self) -> set[str]:
        """Note required inputs nothing fills; returns the nodes that lack one."""
        if self._mode == "request" or not self._sources:
            return set()
        missing: set[str] = set()
        for node_id, node in self._nodes.items():
            for port in node.definition.inputs:
                if not port.required or (node_id, port.name) in self._connected:
                    continue
                missing.add(node_id)
                if node_id in self._flat.dangling:
                    continue
                flat = self._flat.nodes[node_id]
                flat.origin.findings.add(
                    flat.path,
                    f"input {port.name!r} of {node_id!r} ({node.definition.type}) is required, not connected",
                    remedy=f"connect it: ... -> {flat.spec.id}.{port.name}",
                )
        return missing

    def _check_reached(self, missing: set[str]) -> None:
        """Note nodes no source leads to: the first of each branch, since those after it follow from it."""
        if self._mode == "request" or not self._sources:
            return
        for node_id in self._graph.unreachable(self._sources):
            cut_off = node_id in missing or node_id in self._flat.dangling
            if self._graph.parents[node_id] or cut_off:
                continue
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
        for node_id in self._sources:
            if not self._graph.children[node_id] and not self._is_sender(node_id):
                flat = self._flat.nodes[node_id]
                flat.origin.findings.add(
                    flat.path,
                    f"source {node_id!r} is connected to nothing: its rows are read and dropped",
                    remedy="connect it, or remove it",
                    severity="warning",
                )

    def _is_sender(self, node_id: str) -> bool:
        """Whether it was to be connected, by a connection that was refused."""
        return any(connection.from_node == node_id for connection in self._flat.connections)

    def _check_promises(self) -> None:
        settings = self._flat.settings
        if settings.delivery == "at_most_once":
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
        used = {node.definition.type for node in self._nodes.values()}
        findings = self._flat.origins[0].findings
        for name in self._flat.settings.limits.types:
            if name not in used:
                findings.add(
                    ("settings", "limits", "types", name),
                    f"no node of this workflow has type {name!r}",
                    remedy=did_you_mean(name, used),
                    severity="warning",
                )
