"""Which nodes of a workflow have middleware around them, and what that changes in its plan.

Owns: `Middlewares`, the checked list of a runtime; covering a graph.
Does not own: calling hooks (nodes, layers, runs).

Always holds: a graph no middleware covers is the same object; a covered node keeps its ports, configuration
and policies. What changes: a node that would be compiled into its stage is called as a function, and a plain
one becomes a stage of its own where a hook awaits something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from flowcore.errors import DefinitionError
from flowcore.middleware import NodeFacts
from flowruntime.compile.bounds import is_waiting
from flowruntime.middleware.hooks import RUN_HOOKS, check_middleware, fault, overridden
from flowruntime.middleware.layers import NodeHooks, NodeLayer

if TYPE_CHECKING:
    from flowcore.middleware import Middleware
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode


class Middlewares:
    """The middleware of one runtime, outermost first.

    Raises:
        DefinitionError: one of them is no middleware.
    """

    def __init__(self, given: Iterable[object]) -> None:
        every = [check_middleware(middleware) for middleware in given]
        layers = [(middleware, NodeLayer(middleware)) for middleware in every]
        self._around_nodes = [(middleware, layer) for middleware, layer in layers if not layer.is_empty]
        self.around_runs: tuple[Middleware, ...] = tuple(
            middleware
            for middleware in every
            if any(overridden(middleware, hook) is not None for hook in RUN_HOOKS)
        )

    def covered(self, graph: ResolvedGraph, workflow_id: str) -> ResolvedGraph:
        """The graph with the hooks of each node beside it; itself when there are none.

        Raises:
            DefinitionError: a hook that waits covers a node that works at once.
            MiddlewareError: `covers` raised.
        """
        if not self._around_nodes:
            return graph
        changed: dict[str, ResolvedNode] = {}
        for node in graph.nodes.values():
            if node.role in ("source", "sink", "operator"):
                continue
            hooks = self._hooks_of(node, _facts(graph, node, workflow_id))
            if hooks is not None:
                changed[node.id] = _covered(node, hooks)
        return graph if not changed else dataclasses.replace(graph, nodes={**graph.nodes, **changed})

    def _hooks_of(self, node: ResolvedNode, facts: NodeFacts) -> NodeHooks | None:
        layers: list[NodeLayer] = []
        for middleware, layer in self._around_nodes:
            try:
                covers = middleware.covers(facts)
            except Exception as error:
                raise fault(layer.name, "covers", f"node {node.id!r}", error, node.id) from error
            if covers:
                layers.append(layer)
        return NodeHooks(facts, layers) if layers else None


def _facts(graph: ResolvedGraph, node: ResolvedNode, workflow_id: str) -> NodeFacts:
    definition = node.node
    return NodeFacts(
        id=node.id,
        type=definition.type,
        kind=definition.kind,
        category=definition.category,
        workflow=graph.name,
        workflow_id=workflow_id,
        inputs=tuple(port.name for port in definition.inputs),
        batched=definition.batched,
        waits=is_waiting(node),
    )


def _covered(node: ResolvedNode, hooks: NodeHooks) -> ResolvedNode:
    definition = node.node
    if hooks.waits and definition.kind in ("collect", "batch"):
        names = ", ".join(repr(layer.name) for layer in hooks.layers if layer.waits)
        raise DefinitionError(
            f"middleware {names} says that its hooks wait, and covers node {node.id!r} ({definition.type}), "
            "which makes one value of several rows at once; leave that node out in `covers`"
        )
    becomes_waiting = hooks.waits and not is_waiting(node)
    if definition.computes is not None or becomes_waiting:
        definition = msgspec.structs.replace(
            definition, computes=None, is_async=definition.is_async or becomes_waiting
        )
    return dataclasses.replace(node, definition=definition, hooks=hooks)
