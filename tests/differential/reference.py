"""What must come out of a case, worked out the obvious way: record by record, node by node, no frames.

Owns: `Reference`: scopes and guards of a case, and `Expected`, what every node, sink and counter must show.
Does not own: the order in which rows of different records leave, or which records a stop cuts off.

A row is named by its key: one entry per scope it went through, the first for the record itself. A node's
state of a row is its output, or `Gone` with the nodes whose failure is behind it; none: it was dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

from tests.differential.case import SOURCE, Case, Conn, NodeDecl, fallback_of
from tests.differential.palette import CONDITIONS, PALETTE, _at, record_of

Key = tuple[Any, ...]
ScopePath = tuple[str, ...]
ROOT: ScopePath = ("record",)


class InvalidCaseError(Exception):
    """The workflow joins rows that do not belong together, or collects what nothing expanded."""


class Gone(NamedTuple):
    """No value for a row: the nodes whose failure is behind it; none: dropped or not taken."""

    causes: frozenset[str] = frozenset()


DROPPED = Gone()


class Expected:
    """What one record, or all of them, must lead to."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        """Values by node and port, in the rows' order."""
        self.completed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Rows the node itself failed on."""
        self.replaced: Counter[str] = Counter()
        """Of these: those that went on with the node's fallback."""
        self.edge_failed: Counter[str] = Counter()
        """Connections into the node that failed on a row."""
        self.dropped: Counter[str] = Counter()
        self.unrouted: Counter[str] = Counter()
        self.sinks: dict[str, list[Any]] = defaultdict(list)
        self.causes: dict[str, set[str]] = defaultdict(set)
        """For each node: failures behind rows that did not reach it."""

    def failures(self, node: str) -> int:
        return self.failed[node] + self.edge_failed[node]

    def left(self, node: str) -> int:
        """Failures that no fallback took the place of."""
        return self.failures(node) - self.replaced[node]

    def add(self, other: Expected) -> None:
        for name in ("completed", "failed", "replaced", "edge_failed", "dropped", "unrouted"):
            getattr(self, name).update(getattr(other, name))
        for sink, values in other.sinks.items():
            self.sinks[sink] += values


class Reference:
    """Works out a case. Raises InvalidCaseError when it is none."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.into: dict[str, list[Conn]] = defaultdict(list)
        self.out_of: dict[str, list[Conn]] = defaultdict(list)
        for conn in case.conns:
            self.into[conn.to_node].append(conn)
            self.out_of[conn.from_node].append(conn)
        self.needs: dict[str, frozenset[tuple[str, str]]] = {}
        """Branches that were taken whenever the node runs."""
        self.opened: dict[ScopePath, frozenset[tuple[str, str]]] = {ROOT: frozenset(), (): frozenset()}
        """Branches that were taken whenever the rows of a scope are there."""
        self.scope_in: dict[str, ScopePath] = {}
        self.scope_out: dict[str, ScopePath] = {}
        self.port_scope: dict[tuple[str, str], ScopePath] = {}
        for node in case.nodes:
            self._place(node)

    # --- scopes -----------------------------------------------------------------------------------------

    def _place(self, node: NodeDecl) -> None:  # noqa: C901 - the rules of scopes, in one place to be read as one
        kind = PALETTE[node.kind]
        by_port: dict[str, list[Conn]] = defaultdict(list)
        for conn in self.into[node.id]:
            by_port["!control" if conn.kind == "control" else conn.to_port].append(conn)
        needs: frozenset[tuple[str, str]] = frozenset()
        scopes = [ROOT] if not by_port else []
        for port, conns in by_port.items():
            senders = [self.scope_out[conn.from_node] for conn in conns]
            if port == "!control" or kind.gather or kind.role == "sink" or len(conns) == 1:
                scopes += senders
            elif len(set(senders)) == 1 and self.exclusive(conns):
                scopes.append(senders[0])
            else:
                base = senders[0] if len(set(senders)) == 1 else ()
                self.port_scope[node.id, port] = (*base, f"{node.id}.{port}")
                scopes.append(self.port_scope[node.id, port])
                self.opened[self.port_scope[node.id, port]] = self.opened[base]
            guards = [self.guards(conn) for conn in conns]
            if port == "!control":
                needs |= frozenset[tuple[str, str]]().union(*guards)
            elif not kind.gather:
                needs |= guards[0].intersection(*guards[1:])
        self.needs[node.id] = needs
        if kind.role == "sink":
            return
        deepest = max(scopes, key=len)
        if any(deepest[: len(scope)] != scope for scope in scopes):
            raise InvalidCaseError(f"{node.id} joins {scopes}")
        self.scope_in[node.id] = self.scope_out[node.id] = deepest
        if kind.role == "expand":
            self.scope_out[node.id] = (*deepest, node.id)
            self.opened[self.scope_out[node.id]] = needs
        elif kind.role == "collect":
            if len(deepest) == 1:
                raise InvalidCaseError(f"{node.id} collects {deepest}")
            self.scope_out[node.id] = deepest[:-1]
            self.needs[node.id] = self.opened[deepest]  # it runs for every parent, whatever its children did

    def guards(self, conn: Conn) -> frozenset[tuple[str, str]]:
        """The choices that were made whenever the connection carries a value."""
        own = {(conn.from_node, "error" if conn.kind == "error" else "ok")}
        if conn.when is not None or conn.otherwise:
            own.add((f"{conn.from_node}.{conn.from_port}", "else" if conn.otherwise else "when"))
        if PALETTE[self.case.node(conn.from_node).kind].exclusive and conn.kind != "error":
            own.add((f"{conn.from_node}:", conn.from_port))
        return self.needs[conn.from_node] | own

    def exclusive(self, conns: list[Conn]) -> bool:
        """No two of them can both carry a value."""
        found = [self.guards(conn) for conn in conns]
        return all(
            any(point == other and branch != taken for point, branch in left for other, taken in right)
            for at, left in enumerate(found)
            for right in found[at + 1 :]
        )

    # --- one record -------------------------------------------------------------------------------------

    def run(self, *, undecodable: bool = False, index: int = 0) -> Expected:
        """What the record at `index` leads to."""
        return _Record(self, self.case.records[index], undecodable=undecodable).run()

    def total(self) -> Expected:
        """What all records together lead to."""
        total = Expected()
        for index in range(len(self.case.records)):
            total.add(self.run(index=index, undecodable=index in self.case.undecodable))
        return total


class _Record:
    def __init__(self, reference: Reference, number: int, *, undecodable: bool) -> None:
        self.ref = reference
        self.case = reference.case
        self.record = record_of(number)
        self.undecodable = undecodable
        self.rows: dict[ScopePath, list[Key]] = defaultdict(list)
        self.rows[ROOT] = [("r",)]
        self.state: dict[str, dict[Key, Any]] = defaultdict(dict)
        self.carried: dict[Conn, dict[Key, Any]] = {}
        self.broken: dict[tuple[ScopePath, Key], Gone] = {}
        """Parent rows whose children are not all there, with the cause; only those."""
        self.above: dict[str, set[str]] = {}
        """For each node: itself if it failed, and every failed node above it."""
        self.found = Expected()

    def run(self) -> Expected:
        for node in self.case.nodes:
            for (owner, port), scope in self.ref.port_scope.items():
                if owner == node.id:
                    self._reopen(owner, port, scope)
            getattr(self, "_" + PALETTE[node.kind].role)(node)
            self._leave(node)
            self._note_missing(node)
        return self.found

    # --- kinds of nodes ---------------------------------------------------------------------------------

    def _source(self, node: NodeDecl) -> None:
        if self.undecodable:
            self._fail(node, ("r",))
        else:
            self._complete(node, ("r",), {"out": self.record})

    def _map(self, node: NodeDecl) -> None:
        structured = PALETTE[node.kind].outputs != ("out",)
        for key, inputs in self._ready(node):
            try:
                value = self._compute(node, *inputs)
            except Exception:  # noqa: BLE001 - whatever a node raises is its failure
                self._fail(node, key)
            else:
                self._complete(node, key, value if structured else {"out": value})

    def _filter(self, node: NodeDecl) -> None:
        for key, inputs in self._ready(node):
            try:
                kept = self._compute(node, *inputs)
            except Exception:  # noqa: BLE001 - whatever a node raises is its failure
                self._fail(node, key)
            else:
                self._complete(node, key, {"out": inputs[0]} if kept else None)
                self.found.dropped[node.id] += not kept

    def _expand(self, node: NodeDecl) -> None:
        scope = self.ref.scope_out[node.id]
        arrived = dict(self._ready(node))
        for key in self.rows[self.ref.scope_in[node.id]]:
            if key not in arrived:
                self.broken[scope, key] = self.state[node.id].pop(key)
                continue
            children = self._compute(node, *arrived[key])
            index = -1
            try:
                for index, value in enumerate(children):
                    child = (*key, index)
                    self.rows[scope].append(child)
                    self._emit(node, child, {"out": value})
                self.found.completed[node.id] += 1
            except Exception:  # noqa: BLE001 - whatever a node raises is its failure
                self.found.failed[node.id] += 1
                if index < 0 and node.on_error == "fallback":
                    self.found.replaced[node.id] += 1
                    self.rows[scope].append((*key, 0))
                    self._emit(node, (*key, 0), {"out": fallback_of(node)})
                    continue
                self.broken[scope, key] = Gone(frozenset({node.id}))
                if self.case.handled(node.id):
                    child = (*key, "!")
                    self.rows[scope].append(child)
                    self.state[node.id][child] = Gone(frozenset({node.id}))

    def _collect(self, node: NodeDecl) -> None:
        scope = self.ref.scope_in[node.id]
        children: dict[Key, list[Any]] = {key: [] for key in self.rows[scope[:-1]]}
        for key in self.rows[scope]:
            children[key[:-1]].append(self._inputs(node, key))
        for key, items in children.items():
            gone = [item for item in [*items, self.broken.get((scope, key))] if isinstance(item, Gone)]
            causes = frozenset[str]().union(*(item.causes for item in gone))
            if causes or self.broken.get((scope, key)) is not None:
                self._skip(node, key, Gone(causes))
                continue
            try:
                present = [item[0] for item in items if not isinstance(item, Gone)]
                value = self._compute(node, self._order(node, present))
            except Exception:  # noqa: BLE001 - whatever a node raises is its failure
                self._fail(node, key)
            else:
                self._complete(node, key, {"out": value})

    def _sink(self, node: NodeDecl) -> None:
        for conn in self.ref.into[node.id]:
            for item in self._carry(conn).values():
                if isinstance(item, Gone):
                    self.found.causes[node.id] |= item.causes
                else:
                    self.found.completed[node.id] += 1
                    self.found.sinks[node.id].append(item)

    def _reopen(self, owner: str, port: str, scope: ScopePath) -> None:
        """Several connections that may all carry a value: each value is a row of its own."""
        conns = [conn for conn in self.ref.into[owner] if conn.to_port == port and conn.kind != "control"]
        for at, conn in enumerate(conns):
            for key, item in self._carry(conn).items():
                if isinstance(item, Gone):
                    if item.causes:
                        before = self.broken.get((scope, key), DROPPED)
                        self.broken[scope, key] = Gone(before.causes | item.causes)
                    continue
                child = (*key, (port, at)) if len(scope) > 1 else ((port, at, key),)
                self.rows[scope].append(child)
                self.state[f"{owner}.{port}"][child] = item
        self.rows[scope].sort(key=repr)

    def _compute(self, node: NodeDecl, *inputs: Any) -> Any:
        compute = PALETTE[node.kind].compute
        assert compute is not None
        return compute(node.id, node.fail, *inputs)

    # --- what comes in ----------------------------------------------------------------------------------

    def _ready(self, node: NodeDecl) -> list[tuple[Key, list[Any]]]:
        """Rows the node runs on; the others are gone here, too."""
        found: list[tuple[Key, list[Any]]] = []
        for key in self.rows[self.ref.scope_in[node.id]]:
            inputs = self._inputs(node, key)
            if isinstance(inputs, Gone):
                self._skip(node, key, inputs)
            else:
                found.append((key, inputs))
        return found

    def _inputs(self, node: NodeDecl, key: Key) -> Any:
        """One value per port, or Gone."""
        kind, conns = PALETTE[node.kind], self.ref.into[node.id]
        inputs: list[Any] = []
        gone: list[Gone] = []
        for port in kind.ports:
            mine = [conn for conn in conns if conn.to_port == port and conn.kind != "control"]
            item = self._port(node, port, mine, key)
            gone += [item] if isinstance(item, Gone) else []
            inputs.append(item)
        controls = [self._item(conn, key) for conn in conns if conn.kind == "control"]
        gone += [item for item in controls if isinstance(item, Gone)]
        return Gone(frozenset[str]().union(*(item.causes for item in gone))) if gone else inputs

    def _port(self, node: NodeDecl, port: str, conns: list[Conn], key: Key) -> Any:
        if (node.id, port) in self.ref.port_scope:
            scope = self.ref.port_scope[node.id, port]
            return self.state[f"{node.id}.{port}"][key[: len(scope)]]
        items = [self._item(conn, key) for conn in conns]
        gone = Gone(frozenset[str]().union(*(item.causes for item in items if isinstance(item, Gone))))
        there = [item for item in items if not isinstance(item, Gone)]
        if PALETTE[node.kind].gather:
            return gone if gone.causes or not there else there
        if not conns:
            return None  # the default of every optional port of the palette
        return there[0] if there else gone

    def _item(self, conn: Conn, key: Key) -> Any:
        return self._carry(conn)[key[: len(self.ref.scope_out[conn.from_node])]]

    def _carry(self, conn: Conn) -> dict[Key, Any]:
        """What a connection carries, for each row of its sender."""
        if conn not in self.carried:
            self.carried[conn] = {
                key: self._carry_row(conn, key, state) for key, state in self.state[conn.from_node].items()
            }
        return self.carried[conn]

    def _carry_row(self, conn: Conn, key: Key, state: Any) -> Any:  # noqa: C901, PLR0911 - one return per rule
        if conn.kind == "error":
            if isinstance(state, Gone) and conn.from_node in state.causes:
                return {"node": conn.from_node, "error": ..., "attempts": 1, "record": self.record}
            return state if isinstance(state, Gone) else DROPPED
        if isinstance(state, Gone):
            return state
        if conn.from_port not in state:
            return DROPPED
        value = state[conn.from_port]
        if conn.otherwise:
            taken = [self._carry(other)[key] for other in self._siblings(conn)]
            if not all(isinstance(item, Gone) for item in taken):
                return DROPPED
            causes = frozenset[str]().union(*(item.causes for item in taken))
            if causes:
                return Gone(causes)
        try:
            if conn.when is not None and not CONDITIONS[conn.when](value, self.record):
                return DROPPED
            return _at_path(value, conn.path)
        except Exception:  # noqa: BLE001 - whatever an expression or path raises
            if not conn.when_error:
                return DROPPED
            self.found.edge_failed[conn.to_node] += 1
            return Gone(frozenset({conn.to_node}))

    def _siblings(self, conn: Conn) -> list[Conn]:
        return [
            other
            for other in self.ref.out_of[conn.from_node]
            if other.from_port == conn.from_port and other.when is not None
        ]

    def _note_missing(self, node: NodeDecl) -> None:
        """Rows that never came to be: what kept their parents from having them."""
        for conn in self.ref.into[node.id]:
            if conn.kind != "error":
                self.found.causes[node.id] |= self.above[conn.from_node]
            for item in self._carry(conn).values():
                self.found.causes[node.id] |= item.causes if isinstance(item, Gone) else set()
        own = {node.id} if self.found.failures(node.id) else set[str]()
        self.above[node.id] = self.found.causes[node.id] | own

    # --- what goes out ----------------------------------------------------------------------------------

    def _order(self, node: NodeDecl, items: list[Any]) -> list[Any]:
        return sorted(items, key=repr) if node.kind == "collect_any" else items

    def _complete(self, node: NodeDecl, key: Key, outputs: dict[str, Any] | None) -> None:
        self.found.completed[node.id] += 1
        if outputs is None:
            self.state[node.id][key] = DROPPED
        else:
            self._emit(node, key, outputs)

    def _emit(self, node: NodeDecl, key: Key, outputs: dict[str, Any]) -> None:
        self.state[node.id][key] = outputs
        for port, value in outputs.items():
            self.found.outputs[node.id][port].append(value)

    def _fail(self, node: NodeDecl, key: Key) -> None:
        self.found.failed[node.id] += 1
        if node.on_error == "fallback":
            self.found.replaced[node.id] += 1
            value = fallback_of(node)
            self._emit(node, key, value if PALETTE[node.kind].outputs != ("out",) else {"out": value})
            return
        self.state[node.id][key] = Gone(frozenset({node.id}))

    def _skip(self, node: NodeDecl, key: Key, gone: Gone) -> None:
        # A row that failed on its way into the node failed here, whatever else is missing.
        self.state[node.id][key] = Gone(frozenset({node.id})) if node.id in gone.causes else gone
        self.found.causes[node.id] |= gone.causes

    def _leave(self, node: NodeDecl) -> None:
        """Count the rows no branch of a port took, and those that went a way that leads nowhere."""
        leaving = [conn for conn in self.ref.out_of[node.id] if conn.kind != "error"]
        for port in PALETTE[node.kind].outputs:
            mine = [conn for conn in leaving if conn.from_port == port]
            if PALETTE[node.kind].exclusive and leaving and not mine:
                self.found.unrouted[node.id] += sum(
                    not isinstance(state, Gone) and port in state for state in self.state[node.id].values()
                )
            branches = [conn for conn in mine if conn.when is not None]
            if not branches or any(conn.otherwise for conn in mine):
                continue
            for key, state in self.state[node.id].items():
                if not isinstance(state, Gone) and port in state:
                    self.found.unrouted[node.id] += all(
                        self._carry(conn)[key] == DROPPED for conn in branches
                    )


def _at_path(value: Any, path: tuple[str, ...]) -> Any:
    return _at(value, *path)


def source_decl() -> NodeDecl:
    return NodeDecl(SOURCE, "source")
