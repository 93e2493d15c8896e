"""What a plan promises: how much is in work at most, what a crash may do, and what weakens that.

Owns: the sum of all bounds, the sentences on guarantees.
Does not own: single bounds (flowruntime.compile.bounds), stages and expressions (description).

Always holds: a promise that is weakened by a node names the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcore.definition import ConnectorDefinition
from flowcore.durations import format_duration
from flowruntime.compile.asking import paid_again
from flowruntime.compile.bounds import (
    DEFAULT_OUTPUT_BYTES,
    LEAST_CHILDREN,
    MAX_WRITE,
    budget_of,
    concurrency_of,
    has_own_stage,
    input_bytes_of,
    is_waiting,
    limits_of,
    order_of,
    output_bound_of,
    redelivery_of,
    requests_of,
    size,
)
from flowruntime.compile.resolved import on_error_of
from flowruntime.durable.returning import held_for, holders_of
from flowruntime.operators.base import node_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowcore.settings import Settings
    from flowruntime.compile.plan import Plan, Stage
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
    graph, settings, tuning = plan.graph, plan.graph.settings, plan.graph.tuning
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
        name="one frame",
        amount=min(tuning.max_frame, budget),
        unit="rows",
        how=f"max_frame: {tuning.source('max_frame')}",
    )
    yield from _stage_bounds(plan)
    yield from _byte_bounds(plan)
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


def _byte_bounds(plan: Plan) -> Iterator[Bound]:
    settings, tuning = plan.graph.settings, plan.graph.tuning
    at_work = list(_bytes_at_work(plan))
    more = "".join(f" + {stage} {rows:,} x {size(most)}" for stage, rows, most in at_work)
    yield Bound(
        name="all bytes at once",
        amount=tuning.max_bytes + sum(rows * most for _, rows, most in at_work),
        unit="bytes",
        how=f"{size(tuning.max_bytes)} in flight{more}, at work in one task when those are spent; "
        "not counted: records of unknown size, what plain functions make of a row",
    )
    read = input_bytes_of(plan.graph)
    half = "" if read == tuning.max_bytes else f", records read at most {size(read)} of it"
    yield Bound(
        name="bytes in flight",
        amount=tuning.max_bytes,
        unit="bytes",
        how=f"max_bytes: {tuning.source('max_bytes')}{half}; one larger record passes alone",
    )
    yield _output_bound(settings)


def _bytes_at_work(plan: Plan) -> Iterator[tuple[str, int, int]]:
    """What each stage may add when the bytes in flight are spent: rows, and bytes of each.

    What it works on goes on, and of the oldest record as many rows begin as it works on at once; without
    children a record has but one.
    """
    for stage in plan.stages:
        node = stage.node
        if node is None or not has_own_stage(node):
            continue
        rows = 1
        if stage.kind in ("async", "offload"):
            rows = _rows_at_work(plan, stage)
            rows += rows if stage.scope.depth else 1
        elif stage.kind == "expand":
            tuning = plan.graph.tuning
            rows = tuning.expanding + (concurrency_of(node, tuning) if is_waiting(node) else 1)
        yield stage.id, rows, output_bound_of(node) or 0


def _rows_at_work(plan: Plan, stage: Stage) -> int:
    node = node_of(stage)
    per_call = node.policies.batch.max_items if node.node.batched and node.policies.batch else 1
    return per_call * min(limit.rows for limit in limits_of(plan.graph, node))


def _output_bound(settings: Settings) -> Bound:
    how = "settings.max_output_bytes, where a node says nothing else; a larger one fails its row"
    if settings.max_output_bytes is None:
        how = (
            "the default; a larger one fails its row. Plain functions are measured only where they or the "
            "settings say max_output_bytes"
        )
    return Bound(
        name="one output of a node",
        amount=settings.max_output_bytes or DEFAULT_OUTPUT_BYTES,
        unit="bytes",
        how=how,
    )


def _stage_bounds(plan: Plan) -> Iterator[Bound]:
    for stage in plan.stages:
        node = stage.node
        if node is None:
            continue
        if stage.kind in ("async", "offload"):
            per_call = node.policies.batch.max_items if node.node.batched and node.policies.batch else 1
            rows = _rows_at_work(plan, stage)
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
    most, tuning = settings.max_in_flight, graph.tuning
    how = (
        "settings.max_in_flight"
        if most
        else f"{tuning.source('max_requests')}; set max_in_flight to change it"
    )
    yield Bound(
        name="requests at once",
        amount=requests_of(graph),
        unit="requests",
        how=f"{how}; others wait, first come first served",
    )
    for node in graph.nodes.values():
        if is_waiting(node) and node.node.kind != "expand":
            yield Bound(
                name=f"at work in {node.id}",
                amount=concurrency_of(node, tuning),
                unit="rows",
                how="over all requests of a worker",
            )
    yield _output_bound(settings)
    yield Bound(
        name="children of one row", amount=settings.max_children, unit="rows", how="settings.max_children"
    )


# --- guarantees ---


def guarantees_of(plan: Plan) -> Iterator[str]:
    """What holds, crash or not."""
    if plan.mode == "request":
        yield "a result names what became of every node; it is ok only when none failed"
        if plan.graph.keeps:
            waiting = ", ".join(
                node.id
                for node in plan.graph.nodes.values()
                if node.role not in ("source", "sink") and node.node.waits
            )
            yield (
                f"{waiting} may wait for an answer: what each call gives is stored before anything follows "
                "from it; after a crash only what was at work runs again (`flow resume`)"
            )
        return
    yield from _holds(plan.graph)
    if lettered_nodes(plan):
        yield "a row that becomes a dead letter is settled when that is kept; a crash may repeat the letter"
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


def lettered_nodes(plan: Plan) -> list[str]:
    """Nodes whose rows become dead letters when they fail for good; a connected error port comes first."""
    handled = {each.from_node for each in plan.graph.connections if each.kind == "error"}
    settings = plan.graph.settings
    return [
        node.id
        for node in plan.graph.nodes.values()
        if on_error_of(node, settings) == "dead_letter" and node.id not in handled
    ]


def weakened_by(plan: Plan) -> Iterator[str]:
    """What takes something away from it, and where."""
    handled = {each.from_node for each in plan.graph.connections if each.kind == "error"}
    for node in plan.graph.nodes.values():
        if plan.mode == "stream":
            yield from _weaker_connector(node)
        if on_error_of(node, plan.graph.settings) == "continue" and node.id not in handled:
            where = "there" if node.fallback is None else "on its way in, where no fallback stands in,"
            what = f"a row that fails {where} goes no further and is counted (on_error continue)"
            yield f"{_what(node)}: {what}"
        if node.attempts > 1 and plan.mode == "stream":
            yield (
                f"{_what(node)}: a record that fails there goes through the workflow again, at most "
                f"{node.attempts} times: what sinks wrote of it before is written again, without a crash"
            )
        if node.role == "sink" and node.policies.retry is not None:
            yield f"{_what(node)} is retried: a write that raised may have stored rows, and they come again"
        if node.role in ("source", "sink"):
            continue
        if node.node.settles == "on_entry":
            yield f"{_what(node)} answers for rows when they enter: a crash loses those inside it"
        again = paid_again(node) if plan.mode == "stream" else None
        if again is not None:
            yield again
        if node.policies.retry is not None and not node.node.idempotent:
            yield f"{_what(node)} is not idempotent and is retried: its effect may happen more than once"


def _holds(graph: ResolvedGraph) -> Iterator[str]:
    """Rows that wait, and where."""
    limit = format_duration(graph.settings.max_hold)
    for holder in holders_of(graph).values():
        why = "may wait for an answer"
        if holder.delays:
            why = f"{held_for(graph.nodes[holder.node_id])}, longer than max_hold ({limit})"
        yield (
            f"{holder.node_id} {why}: rows that do are stored, their records settle, and they come back as "
            "records of their own; a crash may bring one back twice, and loses none"
        )


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
