"""What a plan promises: how much is in work at most, what a crash may do, and what weakens that.

Owns: the sum of all bounds, the sentences on guarantees.
Does not own: single bounds (flowruntime.compile.bounds), stages and expressions (description).

Always holds: a promise that is weakened by a node names the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcore.definition import ConnectorDefinition
from flowruntime.compile.bounds import (
    LEAST_CHILDREN,
    MAX_REQUESTS,
    MAX_WRITE,
    budget_of,
    concurrency_of,
    is_waiting,
    limits_of,
    order_of,
    redelivery_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One declared or derived limit on memory."""

    name: str
    amount: int
    unit: Literal["rows", "bytes", "records", "requests"]
    how: str


def sum_of_bounds(plan: Plan) -> Iterator[Bound]:
    """Every bound on what is in work at once, the sum first."""
    yield from _request_bounds(plan.graph) if plan.mode == "request" else _stream_bounds(plan)


def _stream_bounds(plan: Plan) -> Iterator[Bound]:
    graph, settings = plan.graph, plan.graph.settings
    budget = budget_of(graph)
    expanding = [stage for stage in plan.stages if stage.kind in ("expand", "reopen")]
    allowance = max(LEAST_CHILDREN, budget)
    total = budget + allowance * sum(1 for stage in expanding if stage.kind == "expand")
    names = ", ".join(stage.id for stage in expanding if stage.kind == "expand")
    more = f" + {allowance:,} children of each of: {names}" if names else ""
    yield Bound(
        name="all rows at once",
        amount=total,
        unit="rows",
        how=f"{budget:,} in flight{more}; stage queues are part of it",
    )
    how = "settings.max_in_flight"
    if settings.max_in_flight is None:
        how = "derived: 2 frames + 4 x what waiting stages and batches hold; set max_in_flight to change it"
    yield Bound(name="records in flight", amount=budget, unit="rows", how=how)
    yield Bound(
        name="one frame", amount=min(settings.max_frame, budget), unit="rows", how="settings.max_frame"
    )
    yield from _stage_bounds(plan)
    yield Bound(
        name="input bytes in flight",
        amount=settings.max_bytes,
        unit="bytes",
        how="settings.max_bytes; one larger record passes alone",
    )
    yield Bound(
        name="one output of a node",
        amount=settings.max_output_bytes,
        unit="bytes",
        how="settings.max_output_bytes; a larger one fails its row",
    )
    if settings.delivery == "at_least_once":
        how = (
            "settings.max_redelivery" if settings.max_redelivery else "4 x records in flight, at least 1,000"
        )
        yield Bound(
            name="repeated after a crash",
            amount=redelivery_of(graph),
            unit="records",
            how=f"per partition at most: {how}",
        )


def _stage_bounds(plan: Plan) -> Iterator[Bound]:
    for stage in plan.stages:
        node = stage.node
        if node is None:
            continue
        if stage.kind in ("async", "offload"):
            per_call = node.policies.batch.max_items if node.node.batched and node.policies.batch else 1
            rows = per_call * min(limit.rows for limit in limits_of(plan.graph, node))
            how = f"{rows // per_call:,} calls x {per_call:,} rows" if per_call > 1 else "one row a call"
            yield Bound(name=f"at work in {stage.id}", amount=rows, unit="rows", how=how)
        elif stage.kind == "batch" and node.policies.batch is not None:
            yield Bound(
                name=f"held by {stage.id}",
                amount=node.policies.batch.max_items,
                unit="rows",
                how="batch.max_items",
            )
        elif stage.kind == "sink":
            yield Bound(
                name=f"one write of {stage.id}",
                amount=MAX_WRITE,
                unit="rows",
                how="rows in flight that wait for the sink",
            )


def _request_bounds(graph: ResolvedGraph) -> Iterator[Bound]:
    settings = graph.settings
    most = settings.max_in_flight
    how = "settings.max_in_flight" if most else "the default; set max_in_flight to change it"
    yield Bound(
        name="requests at once",
        amount=most or MAX_REQUESTS,
        unit="requests",
        how=f"{how}; others wait, first come first served",
    )
    for node in graph.nodes.values():
        if is_waiting(node) and node.node.kind != "expand":
            yield Bound(
                name=f"at work in {node.id}",
                amount=concurrency_of(node),
                unit="rows",
                how="over all requests of a worker",
            )
    yield Bound(
        name="one output of a node",
        amount=settings.max_output_bytes,
        unit="bytes",
        how="settings.max_output_bytes; a larger one fails its row",
    )
    yield Bound(
        name="children of one row", amount=settings.max_children, unit="rows", how="settings.max_children"
    )


# --- guarantees ---


def guarantees_of(plan: Plan) -> Iterator[str]:
    """What holds, crash or not."""
    if plan.mode == "request":
        yield "a result names what became of every node; it is ok only when none failed"
        return
    if plan.graph.settings.delivery == "at_least_once":
        yield (
            "at least once: a record's position is committed when every sink has acknowledged what came of"
            f" it; after a crash at most {redelivery_of(plan.graph):,} records per partition come again"
        )
    else:
        yield "at most once: a crash loses the records in flight and repeats none"
    ordered = [
        stage.id
        for stage in plan.stages
        if stage.kind in ("async", "offload")
        and stage.node is not None
        and order_of(stage.node, plan.mode) != "ordered"
    ]
    if ordered:
        yield f"order: not kept behind {', '.join(ordered)}"
    else:
        yield "order: rows of one partition reach each sink as they were read, but where branches meet"


def weakened_by(plan: Plan) -> Iterator[str]:
    """What takes something away from it, and where."""
    handled = {each.from_node for each in plan.graph.connections if each.kind == "error"}
    for node in plan.graph.nodes.values():
        if plan.mode == "stream":
            yield from _weaker_connector(node)
        if (node.policies.on_error or plan.graph.settings.on_error) == "continue" and node.id not in handled:
            yield f"{_what(node)}: a row that fails there goes no further and is counted (on_error continue)"
        if node.role in ("source", "sink"):
            continue
        if node.node.settles == "on_entry":
            yield f"{_what(node)} answers for rows when they enter: a crash loses those inside it"
        if node.policies.retry is not None and not node.node.idempotent:
            yield f"{_what(node)} is not idempotent and is retried: its effect may happen more than once"


def _what(node: ResolvedNode) -> str:
    return f"{node.role if node.role in ('source', 'sink', 'operator') else 'node'} {node.id!r}"


def _weaker_connector(node: ResolvedNode) -> Iterator[str]:
    definition = node.definition
    if not isinstance(definition, ConnectorDefinition):
        return
    what = f"{node.role} {node.id!r} ({definition.type})"
    if node.role == "source" and getattr(definition.implementation, "positions", "none") == "none":
        yield f"{what} keeps no positions: after a crash or stop it begins anew"
    if node.role == "sink" and _settles(node) == "at_end":
        yield f"{what} is durable only when the run has ended: nothing is committed before"


def _settles(node: ResolvedNode) -> Any:
    """When a sink's rows are durable; its configuration may decide, so one is made, but not opened."""
    made = node.definition.implementation
    try:
        made = made(node.config)
    except Exception:  # noqa: BLE001 - a user's constructor may need what only a run has; then its class answers
        return getattr(made, "settles", "on_write")
    return getattr(made, "settles", "on_write")
