"""The smallest cases of faults the random tests have found; each is named after what must hold."""

from __future__ import annotations

import pytest

from tests.differential.case import Case, Conn, NodeDecl
from tests.differential.test_differential import faults_of

SRC = NodeDecl("src", "source")


def _case(*parts: NodeDecl | Conn, records: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Case:
    nodes = tuple(part for part in parts if isinstance(part, NodeDecl))
    conns = tuple(part for part in parts if isinstance(part, Conn))
    return Case((SRC, *nodes), conns, records)


def _when(sender: str, receiver: str, port: str, when: str, *, out: str = "out", strict: bool = True) -> Conn:
    return Conn(sender, out, receiver, port, "conditional", when=when, when_error=strict)


CASES = {
    "a node behind an error port runs on the failed rows only": _case(
        NodeDecl("a", "one", fail=2),
        NodeDecl("handler", "one"),
        NodeDecl("both", "two"),
        Conn("src", "out", "a", "a"),
        Conn("a", "error", "handler", "a", "error"),
        Conn("handler", "out", "both", "a"),
        Conn("src", "out", "both", "b"),
    ),
    "a row that fails on the connection into a node reaches that node's error port": _case(
        NodeDecl("a", "one"),
        NodeDecl("sink", "sink"),
        Conn("src", "out", "a", "a", path=("m", "k", "x")),
        Conn("a", "error", "sink", "", "error"),
    ),
    "a waiting node with one port and a control connection is given the value itself": _case(
        NodeDecl("a", "slow"),
        NodeDecl("b", "slow"),
        Conn("src", "out", "a", "a"),
        Conn("src", "out", "b", "a"),
        Conn("a", "out", "b", "", "control"),
    ),
    "a gathering node that waits is given the list itself": _case(
        NodeDecl("a", "slow"),
        NodeDecl("b", "slow_gather"),
        Conn("src", "out", "b", "items"),
        Conn("a", "out", "b", "items"),
        Conn("src", "out", "a", "a"),
    ),
    "a gathering node does not run when none of its connections has a value": _case(
        NodeDecl("f", "keep"),
        NodeDecl("g", "keep"),
        NodeDecl("one_stage", "gather"),
        NodeDecl("s", "slow_keep"),
        NodeDecl("two_stages", "gather"),
        Conn("src", "out", "f", "a"),
        Conn("src", "out", "g", "a"),
        Conn("f", "out", "one_stage", "items"),
        Conn("g", "out", "one_stage", "items"),
        Conn("src", "out", "s", "a"),
        Conn("s", "out", "two_stages", "items"),
        Conn("f", "out", "two_stages", "items"),
    ),
    "a record is not settled before a value its children might have needed": _case(
        NodeDecl("never", "keep"),
        NodeDecl("many", "many"),
        NodeDecl("slow", "slow"),
        NodeDecl("both", "two"),
        _when("src", "never", "a", "value.n % 2 == 0"),
        Conn("never", "out", "many", "a"),
        Conn("src", "out", "slow", "a"),
        Conn("slow", "out", "both", "a"),
        Conn("many", "out", "both", "b"),
    ),
    "a record is covered once when its last child settles while the list of children is sent": _case(
        NodeDecl("many", "many"),
        NodeDecl("all", "collect"),
        NodeDecl("both", "two"),
        Conn("src", "out", "many", "a"),
        Conn("many", "out", "all", "items"),
        Conn("many", "out", "both", "a"),
        Conn("all", "out", "both", "b"),
    ),
    "a row a port has no value for is not unrouted there": _case(
        NodeDecl("e", "either"),
        NodeDecl("a", "maybe"),
        Conn("src", "out", "e", "a"),
        _when("e", "a", "a", "value.n % 2 == 0", out="left"),
    ),
    "rows that reach an ordered node out of order keep their values": _case(
        NodeDecl("any", "unordered"),
        NodeDecl("kept", "slow"),
        NodeDecl("both", "two"),
        NodeDecl("sink", "sink"),
        Conn("src", "out", "any", "a"),
        Conn("any", "out", "kept", "a"),
        Conn("kept", "out", "both", "a"),
        Conn("src", "out", "both", "b"),
        Conn("both", "out", "sink", ""),
        records=(812, 587, 841, 82),
    ),
    "a record is not settled while a branch that was not taken is still at work": _case(
        NodeDecl("slow", "slow", fail=3),
        NodeDecl("even", "two"),
        NodeDecl("met", "one"),
        _when("src", "even", "a", "value.n % 2 == 0"),
        Conn("src", "out", "slow", "a"),
        Conn("slow", "out", "even", "b"),
        Conn("even", "out", "met", "a"),
        Conn("src", "out", "met", "a", "conditional", otherwise=True),
    ),
    "what the children of a record did makes no branches of their lists exclusive": _case(
        NodeDecl("many", "many"),
        NodeDecl("each", "one", fail=2),
        NodeDecl("bad", "collect"),
        NodeDecl("good", "collect"),
        NodeDecl("met", "slow"),
        Conn("src", "out", "many", "a"),
        Conn("many", "out", "each", "a"),
        Conn("each", "error", "bad", "items", "error"),
        Conn("each", "out", "good", "items"),
        Conn("bad", "out", "met", "a"),
        Conn("good", "out", "met", "a"),
        records=tuple(range(20)),
    ),
    "a failure on a connection into a node reaches its error port, whatever else is missing": _case(
        NodeDecl("fails", "slow", fail=1),
        NodeDecl("slow", "slow"),
        NodeDecl("both", "two"),
        NodeDecl("handler", "sink"),
        Conn("src", "out", "fails", "a"),
        Conn("src", "out", "slow", "a"),
        Conn("fails", "out", "both", "a"),
        Conn("slow", "out", "both", "b", path=("m", "k", "x")),
        Conn("both", "error", "handler", "", "error"),
        records=tuple(range(20)),
    ),
    "a row that one of two branches took is not unrouted, though both are needed": _case(
        NodeDecl("both", "two"),
        _when("src", "both", "a", "value.n % 2 == 0"),
        _when("src", "both", "b", "record.id % 2 == 1"),
        records=tuple(range(20)),
    ),
    "a generator that breaks off gives its rows before its error": _case(
        NodeDecl("many", "many", fail=2),
        NodeDecl("all", "gather"),
        Conn("src", "out", "many", "a"),
        Conn("src", "out", "all", "items"),
        Conn("many", "error", "all", "items", "error"),
        records=tuple(range(20)),
    ),
    "outputs of rows nested twice are in the order of their parents": _case(
        NodeDecl("outer", "many"),
        NodeDecl("slow", "slow"),
        NodeDecl("inner", "slow_many"),
        Conn("src", "out", "outer", "a"),
        Conn("outer", "out", "slow", "a"),
        Conn("slow", "out", "inner", "a"),
        records=(82, 172, 3, 4, 5, 6, 7),
    ),
    "a node below an error port and its own sender's success is exclusive of both": _case(
        NodeDecl("n0", "two"),
        NodeDecl("n1", "one"),
        Conn("src", "error", "n0", "a", "error"),
        Conn("src", "out", "n0", "b"),
        Conn("src", "out", "n1", "a"),
        Conn("n0", "out", "n1", "a"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_found_before(name: str) -> None:
    for seed in range(10):
        assert faults_of(CASES[name], seed) == []
