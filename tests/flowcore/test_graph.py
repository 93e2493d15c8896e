"""Graph rules: order, cycles, reachability; linear in size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.graph import CycleFoundError, Graph

_EDGES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=16)


def test_order_keeps_the_declaration_where_it_can() -> None:
    graph = Graph("dcba", [("a", "d")])
    assert graph.topological_order() == ["c", "b", "a", "d"]
    assert (graph.roots, graph.leaves) == (["c", "b", "a"], ["d", "c", "b"])


def test_a_cycle_is_named_in_order_from_its_first_node() -> None:
    with pytest.raises(CycleFoundError, match="a -> b -> c -> a") as caught:
        Graph("abcd", [("b", "c"), ("c", "a"), ("a", "b"), ("c", "d")]).topological_order()
    assert caught.value.facts()["nodes"] == ["a", "b", "c", "a"]


@given(_EDGES)
def test_either_an_order_that_respects_every_edge_or_a_true_cycle(edges: list[tuple[str, str]]) -> None:
    graph = Graph("abcdefgh", edges)
    cycle = graph.cycle()
    if cycle is None:
        order = graph.topological_order()
        assert sorted(order) == list("abcdefgh")
        assert all(order.index(a) < order.index(b) for a, b in edges)
    else:
        assert cycle[0] == cycle[-1]
        assert all(pair in edges for pair in pairwise(cycle))
        with pytest.raises(CycleFoundError):
            graph.topological_order()


@given(_EDGES)
def test_ancestors_mirror_descendants(edges: list[tuple[str, str]]) -> None:
    graph = Graph("abcdefgh", edges)
    for a in "abcdefgh":
        assert all(a in graph.ancestors([b]) for b in graph.descendants([a]))


def test_reachability_and_components() -> None:
    graph = Graph("abcde", [("a", "b"), ("b", "c"), ("d", "e")])
    assert graph.descendants(["a"]) == {"b", "c"}
    assert graph.ancestors(["c"]) == {"a", "b"}
    assert graph.unreachable(["a"]) == ["d", "e"]
    assert graph.components() == [["a", "b", "c"], ["d", "e"]]


def test_ten_thousand_nodes_in_a_chain_do_not_recurse() -> None:
    names = [str(number) for number in range(10_000)]
    chain = list(pairwise(names))
    graph = Graph(reversed(names), chain)
    assert graph.topological_order() == names
    assert len(graph.descendants(["0"])) == 9_999
    assert len(Graph(names, [*chain, (names[-1], names[0])]).cycle() or ()) == 10_001
