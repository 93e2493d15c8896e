"""Random valid cases from a seed, and smaller ones that still show what a case showed.

Owns: `random_case`, `smaller`. Does not own: what must come out of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.differential.case import SOURCE, Case, Conn, NodeDecl
from tests.differential.palette import CONDITIONS, PALETTE
from tests.differential.reference import ROOT, InvalidCaseError, Reference

_SIMPLER = {
    "slow_many": "many", "slow_two": "two", "slow_gather": "gather", "unordered": "slow", "by_key": "slow",
    "retried": "slow", "cancels": "slow", "thread": "slow", "slow_keep": "keep", "slow": "one",
    "slow_split": "split", "split": "either",
}  # fmt: skip

_PATHS = (("m",), ("n",), ("m", "k"))


def random_case(seed: int, *, most_nodes: int = 9, most_records: int = 6, stops: bool = True) -> Case:
    """A valid case; the same one for the same seed."""
    chance = random.Random(seed)
    case = Case((NodeDecl(SOURCE, "source"),), (), ())
    for number in range(chance.randint(1, most_nodes)):
        for _ in range(6):
            try:
                candidate = _grown(case, f"n{number}", chance)
                Reference(candidate)
            except InvalidCaseError:
                continue
            case = candidate
            break
    for number in range(chance.choice((0, 1, 1, 2))):
        case = _with_sink(case, f"out{number}", chance)
    if len(case.nodes) == 1:
        case = _with_sink(case, "out0", chance)
    records = tuple(chance.randrange(10_000) for _ in range(chance.randint(1, most_records)))
    on_error = "stop_workflow" if stops and chance.random() < 0.15 else "continue"
    undecodable = frozenset(index for index in range(len(records)) if chance.random() < 0.05)
    case = _with_fallbacks(case, random.Random(seed * 17 + 9))  # so that a seed makes what it made without
    return case._replace(records=records, on_error=on_error, undecodable=undecodable)


def may_fall_back(case: Case, node: NodeDecl) -> bool:
    """Whether a node has an output of its own that a fallback can take the place of."""
    return PALETTE[node.kind].role in ("map", "expand", "collect") and not case.ported(node.id)


def _with_fallbacks(case: Case, chance: random.Random) -> Case:
    nodes = tuple(
        node._replace(on_error="fallback") if chance.random() < 0.25 and may_fall_back(case, node) else node
        for node in case.nodes
    )
    return case._replace(nodes=nodes)


def _grown(case: Case, node_id: str, chance: random.Random) -> Case:
    names = [name for name, kind in PALETTE.items() if kind.weight]
    reference = Reference(case)
    if all(len(scope) == 1 for scope in reference.scope_out.values()):
        names.remove("collect")
    name = chance.choices(names, [PALETTE[name].weight for name in names])[0]
    kind = PALETTE[name]
    fail = chance.choice((0, 0, 0, 2, 3, 5, 7))
    on_error = chance.choice(("continue", "stop_workflow")) if chance.random() < 0.06 else None
    grown = case._replace(nodes=(*case.nodes, NodeDecl(node_id, name, fail, on_error)))
    senders = [node.id for node in case.nodes]
    if name == "collect":
        senders = [node for node in senders if len(reference.scope_out[node]) > 1]
    elif chance.random() < 0.5:
        senders = senders[-3:]
    for port in kind.ports:
        if port in kind.optional and chance.random() < 0.4:
            continue
        count = chance.randint(1, 4) if kind.gather else chance.choices((1, 2, 3), (84, 13, 3))[0]
        for _ in range(count):
            grown = _connected(grown, chance.choice(senders), node_id, port, chance)
    if chance.random() < 0.08:
        grown = _plus(grown, Conn(chance.choice(senders), "out", node_id, "", "control"))
    if name == "collect":
        scope = Reference(grown).scope_in[node_id]
        if any("." in opener or (opener.startswith("n") and PALETTE[grown.node(opener).kind].role != "expand")
               for opener in scope[1:]) or "." in scope[0]:  # fmt: skip
            # Which of several connections comes first is a matter of time: compare without order.
            grown = grown._replace(
                nodes=(*grown.nodes[:-1], NodeDecl(node_id, "collect_any", fail, on_error))
            )
    return grown


def _with_sink(case: Case, node_id: str, chance: random.Random) -> Case:
    senders = [node.id for node in case.nodes if PALETTE[node.kind].role != "sink"]
    case = case._replace(nodes=(*case.nodes, NodeDecl(node_id, "sink")))
    for _ in range(chance.choice((1, 1, 2, 3))):
        case = _connected(case, chance.choice(senders), node_id, "", chance)
    return case


def _connected(case: Case, sender: str, receiver: str, port: str, chance: random.Random) -> Case:
    """One more connection; sometimes with a path, a condition, or from the error port."""
    kind = PALETTE[case.node(sender).kind]
    if chance.random() < 0.07:
        return _plus(case, Conn(sender, "error", receiver, port, "error"))
    from_port = chance.choice(kind.outputs)
    path = chance.choice(_PATHS) if chance.random() < 0.12 else ()
    has_when = any(conn.when is not None for conn in case.conns if conn[:2] == (sender, from_port))
    if has_when and chance.random() < 0.5:
        return _plus(case, Conn(sender, from_port, receiver, port, "conditional", path, otherwise=True))
    if chance.random() < 0.2:
        when = chance.choice(list(CONDITIONS))
        strict = chance.random() < 0.7
        return _plus(
            case, Conn(sender, from_port, receiver, port, "conditional", path, when, when_error=strict)
        )
    return _plus(case, Conn(sender, from_port, receiver, port, "data", path))


def _plus(case: Case, conn: Conn) -> Case:
    if conn.kind == "control" and len(PALETTE[case.node(conn.from_node).kind].outputs) > 1:
        conn = conn._replace(from_port="left")
    return case if conn in case.conns else case._replace(conns=(*case.conns, conn))


def is_valid(case: Case) -> bool:
    """Every required port is connected, every `else` has its `when`, rows that meet belong together."""
    if not case.records or len(case.nodes) < 2 or len(set(case.conns)) < len(case.conns):
        return False
    for conn in case.conns:
        if conn.kind != "error" and conn.from_port not in PALETTE[case.node(conn.from_node).kind].outputs:
            return False
        if conn.otherwise and not any(
            other.when is not None and other[:2] == conn[:2] for other in case.conns
        ):
            return False
    for node in case.nodes[1:]:
        kind = PALETTE[node.kind]
        ports = {conn.to_port for conn in case.conns if conn.to_node == node.id and conn.kind != "control"}
        misplaced = node.on_error == "fallback" and not may_fall_back(case, node)
        if misplaced or not set(kind.ports) - kind.optional <= ports:
            return False
    try:
        Reference(case)
    except InvalidCaseError:
        return False
    return True


def smaller(case: Case, still: Callable[[Case], bool]) -> Case:
    """The smallest case found by leaving things out of which `still` is true."""
    shrunk = True
    while shrunk:
        shrunk = False
        for candidate in _candidates(case):
            if is_valid(candidate) and still(candidate):
                case, shrunk = candidate, True
                break
    return case


def _candidates(case: Case) -> Iterator[Case]:  # noqa: C901 - one clause per thing to leave out
    for node in case.nodes[1:]:
        conns = tuple(conn for conn in case.conns if node.id not in (conn.from_node, conn.to_node))
        nodes = tuple(other for other in case.nodes if other is not node)
        yield case._replace(nodes=nodes, conns=conns)
        for before in [conn for conn in case.conns if conn.to_node == node.id]:  # short-cut around it
            around = tuple(
                conn._replace(from_node=before.from_node, from_port=before.from_port)
                if conn.from_node == node.id and conn.kind != "error"
                else conn
                for conn in case.conns
                if conn.to_node != node.id and not (conn.from_node == node.id and conn.kind == "error")
            )
            if len(set(around)) == len(around):
                yield case._replace(nodes=nodes, conns=around)
    for index in range(len(case.records)):
        yield case._replace(
            records=case.records[:index] + case.records[index + 1 :],
            undecodable=frozenset(at - (at > index) for at in case.undecodable if at != index),
        )
    for conn in case.conns:
        rest = tuple(other for other in case.conns if other is not conn)
        yield case._replace(conns=rest)
        if conn.path:
            yield case._replace(conns=tuple(o._replace(path=()) if o is conn else o for o in case.conns))
        if conn.when is not None or conn.otherwise:
            plain = conn._replace(kind="data", when=None, otherwise=False, when_error=True)
            if plain not in case.conns:
                yield case._replace(conns=tuple(plain if o is conn else o for o in case.conns))
    for at, node in enumerate(case.nodes):
        simple = _SIMPLER.get(node.kind)
        for changed in (
            node._replace(fail=0) if node.fail else None,
            node._replace(on_error=None) if node.on_error else None,
            node._replace(kind=simple) if simple else None,
        ):
            if changed is not None:
                yield case._replace(nodes=(*case.nodes[:at], changed, *case.nodes[at + 1 :]))


__all__ = ["ROOT", "is_valid", "random_case", "smaller"]
