"""Which connections can never both carry a value for one row.

Owns: the guards of a node or connection (the branches that must be taken for it to have a value) and the
    rule that two
connections are exclusive when they need different branches of one branch point.
Does not own: what is done with the answer (lower: a merge that keeps the rows' identity, or one that opens a
scope).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from flowcore.definition import NodeDefinition
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph

Guard = tuple[str, str]
"""(branch point, branch)."""


class Guards:
    """Guards of the nodes that lead to a port where connections meet: nobody asks for those of others.

    In a chain of n conditions the last node has n guards, so all of them together would take n squared.
    """

    def __init__(self, graph: ResolvedGraph) -> None:
        self._graph = graph
        self._error_ports = {c.from_node for c in graph.connections if c.kind == "error"}
        incoming: dict[str, dict[str | None, list[ResolvedConnection]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for connection in graph.connections:
            incoming[connection.to_node][connection.to_port].append(connection)
        self._nodes: dict[str, frozenset[Guard]] = {}
        self._scopes: dict[str, tuple[str, ...]] = {}
        """What opened the rows of each node's output, outermost first."""
        self._opened: dict[tuple[str, ...], frozenset[Guard]] = {(): frozenset()}
        """Branches that were taken whenever the rows of a scope are opened."""
        asked = self._asked(incoming)
        for node_id in graph.nodes:
            if node_id in asked:
                self._visit(node_id, incoming[node_id])

    @staticmethod
    def _asked(incoming: Mapping[str, Mapping[str | None, Sequence[ResolvedConnection]]]) -> set[str]:
        """Nodes that lead to a port where several connections meet, the nodes of those ports included."""
        asked = {
            node_id
            for node_id, ports in incoming.items()
            if any(port is not None and len(connections) > 1 for port, connections in ports.items())
        }
        waiting = list(asked)
        while waiting:
            for connections in incoming.get(waiting.pop(), {}).values():
                senders = {connection.from_node for connection in connections} - asked
                asked |= senders
                waiting.extend(senders)
        return asked

    def _visit(self, node_id: str, incoming: dict[str | None, list[ResolvedConnection]]) -> None:
        definition = self._graph.nodes[node_id].definition
        found: frozenset[Guard] = frozenset()
        scopes: list[tuple[str, ...]] = [()]
        for port, connections in incoming.items():
            declared = definition.input(port) if port is not None else None
            senders = [self._scopes[connection.from_node] for connection in connections]
            needed = [self.of(connection) for connection in connections]
            if port is None:
                found = found.union(*needed)
                scopes += senders
            elif declared is not None and declared.gather:
                scopes += senders  # it runs with whatever is there
            else:
                found |= needed[0].intersection(*needed[1:])
                scopes.append(self._meet(f"{node_id}.{port}", connections, senders))
        deepest = max(scopes, key=len)
        kind = definition.kind if isinstance(definition, NodeDefinition) else None
        if kind == "expand":
            deepest = (*deepest, node_id)
            self._opened[deepest] = found
        elif kind == "collect":
            # It runs for every parent row, whatever branches the children took.
            found = self._opened[deepest]
            deepest = deepest[:-1]
        elif kind in ("batch", "operator"):
            found, deepest = frozenset[Guard](), (node_id,)
            self._opened[deepest] = found
        self._nodes[node_id] = found
        self._scopes[node_id] = deepest

    def _meet(
        self, name: str, connections: Sequence[ResolvedConnection], senders: Sequence[tuple[str, ...]]
    ) -> tuple[str, ...]:
        """The scope of a port: its connections' own, or a new one where several may carry a value."""
        same = len(set(senders)) == 1
        if len(connections) == 1 or (same and self.exclusive(connections)):
            return senders[0]
        base = senders[0] if same else ()
        scope = (*base, name)
        self._opened[scope] = self._opened[base]
        return scope

    def of(self, connection: ResolvedConnection) -> frozenset[Guard]:
        """The branches that are taken whenever the connection carries a value."""
        point = f"{connection.from_node}.{connection.from_port}"
        own: set[Guard] = set()
        if connection.from_node in self._error_ports:
            own.add((f"{connection.from_node}!", "error" if connection.kind == "error" else "ok"))
        if connection.otherwise:
            own.add((point + "?", "else"))
        elif connection.kind == "conditional":
            own.add((point + "?", "when"))
        definition = self._graph.nodes[connection.from_node].definition
        if isinstance(definition, NodeDefinition) and definition.exclusive_outputs:
            own.add((f"{connection.from_node}>", connection.from_port))
        return self._nodes.get(connection.from_node, frozenset()) | own

    def exclusive(self, connections: Sequence[ResolvedConnection]) -> bool:
        """Whether at most one of them carries a value for any row."""
        guards = [self.of(connection) for connection in connections]
        return all(
            any(point == other and branch != taken for point, branch in first for other, taken in second)
            for index, first in enumerate(guards)
            for second in guards[index + 1 :]
        )
