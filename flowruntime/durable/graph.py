"""Workflows whose nodes may wait for an answer: the graph of a request, and what cannot be one.

Owns: `kept`. Does not own: journaling (rows), continuous runs (returning), validation as a whole (compile).

Always holds: a graph without such nodes is the same object. In the others every node is a stage of its own
that waits for its result to be stored, so that nothing follows from a result that could be lost.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from flowcore.errors import Problem, ValidationFailedError

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode

_AT_ONCE = ("map", "filter", "merge", "expand")


def kept(graph: ResolvedGraph) -> ResolvedGraph:
    """The graph of a request whose nodes' results are stored; itself when none of its nodes may wait.

    Raises:
        ValidationFailedError: it has a node whose rows stem from several records, a raw operator, or one
            whose failures send a request through the workflow again.
    """
    if not graph.waits:
        return graph
    wrong = [node for node in graph.nodes.values() if node.role in ("batch", "operator")]
    if wrong:
        asking = ", ".join(repr(node.id) for node in graph.nodes.values() if _waits(node))
        raise ValidationFailedError(
            [
                Problem(
                    path=f"nodes.{node.id}",
                    message=f"is a {node.role}, whose rows cannot be told apart when the execution goes on, "
                    f"and {asking} may wait for an answer",
                    remedy="use control.collect for the rows of one record, or put it into a workflow of its "
                    "own",
                    line=node.line,
                )
                for node in wrong
            ]
        )
    again = [node for node in graph.nodes.values() if node.attempts > 1]
    if again:
        raise ValidationFailedError(
            [
                Problem(
                    path=f"nodes.{node.id}.on_error",
                    message="would send the request through the whole workflow again, and what its calls "
                    "gave is kept so that none is made twice",
                    remedy="retry at the node, or say dead_letter and redrive",
                    line=node.line,
                )
                for node in again
            ]
        )
    nodes = {node_id: _waiting(node) for node_id, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes, keeps=True)


def _waits(node: ResolvedNode) -> bool:
    return node.role not in ("source", "sink") and node.node.waits


def _waiting(node: ResolvedNode) -> ResolvedNode:
    """The node as a stage of its own."""
    if node.role not in _AT_ONCE:
        return node
    definition = node.node
    if definition.offload is not None or (definition.is_async and definition.computes is None):
        return node
    changed = msgspec.structs.replace(definition, computes=None, is_async=True)
    return dataclasses.replace(node, definition=changed)
