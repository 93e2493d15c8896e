"""Edges keep order, fit the stack whatever the chain's length, and lose no observer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from flowruntime.operators.edge import MAX_NESTING, Depth, Edge


def depth(crashes: list[BaseException] | None = None) -> Depth:
    return Depth((crashes if crashes is not None else []).append)


def test_every_observer_gets_every_item_in_order() -> None:
    edge = Edge(depth())
    left: list[int] = []
    right: list[int] = []
    edge.observable().subscribe(left.append)
    edge.observable().subscribe(right.append)
    for item in range(5):
        edge.emit(item)
    assert left == right == [0, 1, 2, 3, 4]


def test_an_observer_that_leaves_gets_nothing_more_and_takes_nobody_along() -> None:
    edge = Edge(depth())
    left: list[int] = []
    stays: list[int] = []
    leaving = edge.observable().subscribe(left.append)
    edge.observable().subscribe(stays.append)
    edge.emit(1)
    leaving.dispose()
    leaving.dispose()
    edge.emit(2)
    assert left == [1]
    assert stays == [1, 2]
    assert len(edge.observers) == 1


def test_a_long_chain_of_edges_fits_the_stack_and_arrives_once() -> None:
    """5,000 stages that emit into each other would take 20,000 frames of the interpreter's 1,000."""
    shared = depth()
    edges = [Edge(shared) for _ in range(5_000)]
    for before, after in pairwise(edges):
        before.observable().subscribe(after.emit)
    seen: list[int] = []
    edges[-1].observable().subscribe(seen.append)
    for item in range(3):
        edges[0].emit(item)
    assert seen == [0, 1, 2]
    assert shared.level == 0
    assert not shared.waiting


def test_items_emitted_while_one_is_delivered_keep_their_order() -> None:
    shared = depth()
    edges = [Edge(shared) for _ in range(MAX_NESTING + 5)]
    last = edges[-1]

    def twice(after: Edge) -> Callable[[int], None]:
        def emit(item: int) -> None:
            after.emit(item)
            if after is last:
                after.emit(item + 1)

        return emit

    for before, after in pairwise(edges):
        before.observable().subscribe(twice(after))
    seen: list[int] = []
    last.observable().subscribe(seen.append)
    for item in (10, 20, 30):
        edges[0].emit(item)
    assert seen == [10, 11, 20, 21, 30, 31]


def test_a_raising_observer_crashes_the_chain_and_not_the_caller() -> None:
    crashes: list[BaseException] = []
    edge = Edge(depth(crashes))
    fault = ValueError("an observer raised")

    def raises(item: int) -> None:
        del item
        raise fault

    edge.observable().subscribe(raises)
    edge.emit(1)
    assert crashes == [fault]
