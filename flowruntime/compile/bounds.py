"""Bounds: how much of a workflow may be in work at once, from its declarations alone.

Owns: concurrency of one node, the row budget when nobody states one, the order of results, which limits a
node is subject to.
Does not own: keeping the bounds (flowruntime.flowcontrol), their text (flowruntime.compile.description).

Always holds: pure but for the number of processors; every waiting node has a bound.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from flowcore.policies import Order
    from flowcore.profiles import Tuning
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode

LEAST_CHILDREN: Final = 256
"""Children an expanding node may always have unsettled."""

DEFAULT_OUTPUT_BYTES: Final = 16 << 20
"""Size of one output of a node with a stage of its own when nobody says otherwise."""

LEAST_REDELIVERY: Final = 1_000
MAX_WRITE: Final = 4_096
"""Rows given to a sink in one write at most."""

_MAX_THREADS: Final = 32
_STEP: Final = 1024
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


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


def concurrency_of(node: ResolvedNode, tuning: Tuning) -> int:
    """Rows (or batches) a waiting node works on at once."""
    policy = node.policies.concurrency
    if policy is not None and policy.max is not None:
        return policy.max
    if node.node.offload == "process":
        return os.cpu_count() or 1
    if node.node.offload == "thread":
        return min(_MAX_THREADS, 4 * (os.cpu_count() or 1))
    return tuning.expanding if node.node.kind == "expand" else tuning.concurrency


def linger_of(node: ResolvedNode, tuning: Tuning) -> timedelta:
    """How long the first row of a batch waits for company.

    A node whose batches are its result (kind `batch`) says so itself: how fast a workflow is to be must not
    change what comes out of it.
    """
    batch = node.policies.batch
    if batch is not None and batch.linger is not None:
        return batch.linger
    return timedelta(0) if node.node.kind == "batch" else tuning.linger


def requests_of(graph: ResolvedGraph) -> int:
    """Requests in work at once; others wait."""
    return graph.settings.max_in_flight or graph.tuning.max_requests


def has_own_stage(node: ResolvedNode) -> bool:
    """Whether the node is more than a plain function in a fused stage: it waits, or changes the rows."""
    if node.role in ("source", "sink"):
        return False
    return is_waiting(node) or node.node.kind in ("expand", "collect", "batch", "operator")


def output_bound_of(node: ResolvedNode) -> int | None:
    """Bytes one output of the node may have; None: it is not measured.

    Nodes with a stage of their own always have a bound. In a fused stage measuring would be most of the work,
    so that a plain function has one only when the node or the settings say so.
    """
    if node.role in ("source", "sink"):
        return None
    said = node.policies.max_output_bytes
    return DEFAULT_OUTPUT_BYTES if said is None and has_own_stage(node) else said


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
    found = [LimitOfNode(name=f"node:{node.id}", rows=concurrency_of(node, graph.tuning))]
    if settings.max_parallel is not None:
        found.append(LimitOfNode(name="*", rows=settings.max_parallel))
    of_type = settings.limits.types.get(node.definition.type)
    if of_type is not None:
        found.append(LimitOfNode(name=f"type:{node.definition.type}", rows=of_type))
    resource = node.policies.resource
    of_resource = None if resource is None else settings.limits.resources.get(resource)
    if of_resource is not None:
        found.append(LimitOfNode(name=f"resource:{resource}", rows=of_resource))
    return tuple(found)


def derived_budget(graph: ResolvedGraph) -> int:
    """Rows in flight when nobody says: two frames, and four times what the waiting stages work on at once."""
    tuning = graph.tuning
    rows = 2 * tuning.max_frame
    for node in graph.nodes.values():
        if node.policies.batch is not None:
            rows += 4 * node.policies.batch.max_items
        if is_waiting(node):
            most = node.policies.concurrency.max if node.policies.concurrency is not None else None
            rows += 4 * (most or tuning.concurrency)
    return rows


def budget_of(graph: ResolvedGraph) -> int:
    """Rows in flight on one worker."""
    return graph.settings.max_in_flight or derived_budget(graph)


def input_bytes_of(graph: ResolvedGraph) -> int:
    """Bytes of records read that may be in flight: half of `max_bytes` where nodes may make more of them."""
    grows = any(has_own_stage(node) for node in graph.nodes.values())
    most = graph.tuning.max_bytes
    return max(1, most // 2) if grows else most


def redelivery_of(graph: ResolvedGraph) -> int:
    """Records per partition that may come again after a crash."""
    return graph.settings.max_redelivery or max(LEAST_REDELIVERY, 4 * budget_of(graph))


def size(amount: int) -> str:
    """A number of bytes as people read it: `64 MiB`, `1.5 KiB`."""
    value, unit = float(amount), 0
    while value >= _STEP and unit < len(_SIZES) - 1:
        value /= _STEP
        unit += 1
    return f"{value:.1f}".removesuffix(".0") + f" {_SIZES[unit]}"
