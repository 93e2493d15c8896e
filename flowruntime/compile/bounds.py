"""Bounds: how much of a workflow may be in work at once, from its declarations alone.

Owns: concurrency of one node, the row budget when nobody states one, the order of results, which limits a
node is subject to.
Does not own: keeping the bounds (flowruntime.flowcontrol), their text (flowruntime.compile.description).

Always holds: pure but for the number of processors; every waiting node has a bound.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode

DEFAULT_CONCURRENCY: Final = 64
"""Rows a coroutine node works on at once when nobody says otherwise."""

DEFAULT_EXPANDING: Final = 16
"""Rows an asynchronous expanding node works on at once when nobody says otherwise."""

LEAST_CHILDREN: Final = 256
"""Children an expanding node may always have unsettled."""

MAX_REQUESTS: Final = 4_096
"""Requests of one workflow in work at once when its settings do not say."""

LEAST_REDELIVERY: Final = 1_000
MAX_WRITE: Final = 4_096
"""Rows given to a sink in one write at most."""

_MAX_THREADS: Final = 32


class LimitOfNode(msgspec.Struct, frozen=True, kw_only=True):
    """One bound on the rows a node works on at once, and who else counts against it."""

    name: str
    """`node:embed`, `type:llm.generate`, `resource:gpu`, `*`."""
    rows: int


def is_waiting(node: ResolvedNode) -> bool:
    """Whether rows wait in the node: a coroutine, or a function run elsewhere."""
    if node.role in ("source", "sink"):
        return False
    definition = node.node
    return definition.kind != "operator" and (definition.is_async or definition.offload is not None)


def concurrency_of(node: ResolvedNode) -> int:
    """Rows (or batches) a waiting node works on at once."""
    policy = node.policies.concurrency
    if policy is not None and policy.max is not None:
        return policy.max
    if node.node.offload == "process":
        return os.cpu_count() or 1
    if node.node.offload == "thread":
        return min(_MAX_THREADS, 4 * (os.cpu_count() or 1))
    return DEFAULT_EXPANDING if node.node.kind == "expand" else DEFAULT_CONCURRENCY


def order_of(node: ResolvedNode, mode: Literal["stream", "request"]) -> Order:
    """In which order a waiting node's results leave; requests never wait for each other."""
    if mode == "request":
        return "unordered"
    policy = node.policies.concurrency
    return "ordered" if policy is None or policy.order is None else policy.order


def limits_of(graph: ResolvedGraph, node: ResolvedNode) -> tuple[LimitOfNode, ...]:
    """Every bound the workflow declares for a waiting node, its own first."""
    if not is_waiting(node):
        return ()
    settings = graph.settings
    found = [LimitOfNode(name=f"node:{node.id}", rows=concurrency_of(node))]
    if settings.max_parallel is not None:
        found.append(LimitOfNode(name="*", rows=settings.max_parallel))
    of_type = settings.limits.types.get(node.definition.type)
    if of_type is not None:
        found.append(LimitOfNode(name=f"type:{node.definition.type}", rows=of_type))
    resource = node.policies.resource
    if resource is not None:
        found.append(
            LimitOfNode(name=f"resource:{resource}", rows=settings.limits.resources.get(resource, 1))
        )
    return tuple(found)


def derived_budget(graph: ResolvedGraph) -> int:
    """Rows in flight when nobody says: two frames, and four times what the waiting stages work on at once."""
    rows = 2 * graph.settings.max_frame
    for node in graph.nodes.values():
        if node.policies.batch is not None:
            rows += 4 * node.policies.batch.max_items
        if is_waiting(node):
            most = node.policies.concurrency.max if node.policies.concurrency is not None else None
            rows += 4 * (most or DEFAULT_CONCURRENCY)
    return rows


def budget_of(graph: ResolvedGraph) -> int:
    """Rows in flight on one worker."""
    return graph.settings.max_in_flight or derived_budget(graph)


def redelivery_of(graph: ResolvedGraph) -> int:
    """Records per partition that may come again after a crash."""
    return graph.settings.max_redelivery or max(LEAST_REDELIVERY, 4 * budget_of(graph))
