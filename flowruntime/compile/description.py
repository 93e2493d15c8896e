"""What there is to say about a plan, as plain data: stages, bounds, expressions, guarantees.

Owns: `describe` and the structs it gives, which are also `flow plan --format json`.
Does not own: their text (flowruntime.compile.explain), their picture (mermaid), comparing two plans (diff).

Always holds: everything said is derived from the plan that runs and the bounds the runtime keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from flowcore.durations import format_duration
from flowcore.expression import Expression
from flowcore.findings import shown
from flowruntime.compile.asking import calls_of
from flowruntime.compile.bounds import (
    LimitOfNode,
    is_waiting,
    limits_of,
    linger_of,
    order_of,
    output_bound_of,
)
from flowruntime.compile.promises import Bound, guarantees_of, lettered_nodes, sum_of_bounds, weakened_by
from flowruntime.compile.resolved import on_error_of
from flowruntime.compile.tuning import ProfileDescription, profile_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowcore.policies import Breaker, NodePolicies, Rate, RetryPolicy
    from flowcore.profiles import Tuning
    from flowruntime.compile.plan import Plan, Stage, StageKind
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode

HELD_IN_ORDER = "results leave in the order rows came, so one slow row holds back those behind it"
_ORDER_PRICE = {
    "ordered": HELD_IN_ORDER,
    "by_key": "rows of one key leave in order; a slow row holds back its own key only",
    "unordered": "results leave as they finish",
}


class NodeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One node and the policies in effect for it."""

    id: str
    type: str
    role: str
    line: int | None
    on_error: str
    """A word, or `fallback`; after the last of `attempts`."""
    attempts: int
    """How often a record goes through the workflow at most, when it fails there."""
    fallback: str | None
    """The value a row goes on with that failed there, as it was declared."""
    otherwise: str | None
    """With a fallback: what a row does that failed on its way in."""
    timeout: str | None
    total_timeout: str | None
    retry: str | None
    breaker: str | None
    rate: str | None
    resource: str | None
    max_output_bytes: int | None
    """None: what it gives is not measured."""
    middleware: tuple[str, ...]
    """Around its calls, outermost first."""
    calls: str | None
    """Which model is asked, and under which rules; None: none is."""
    said_by: Mapping[str, str]
    """Who says each policy, by its name: `the node`, `its type`, `settings`, `default`, ..."""
    description: str


class StageDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the chain."""

    index: int
    id: str
    kind: StageKind
    reason: str
    """Why there is a boundary in front of it."""
    nodes: tuple[NodeDescription, ...]
    scope: str
    feeds: tuple[int, ...]
    """Stages its rows go to, by index; empty: they end here."""
    order: str | None
    order_price: str | None
    limits: tuple[LimitOfNode, ...]
    batch: str | None
    max_children: int | None
    max_queued_per_key: int | None


class ScopeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One row space."""

    id: str
    parent: str | None
    leaves: int
    """Edges on which its rows end; a row is settled when all of them have covered it."""


class ExpressionDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One expression, and whether it runs as Python."""

    where: str
    text: str
    interpreted_because: str | None
    """None: compiled; beginning with `in part`: the rest is."""


class DeadLettersDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Where dead letters go, and whose rows become one."""

    place: str
    nodes: tuple[str, ...]
    """Nodes with a connected error port are left out: their failures go there."""


class PlanDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A whole plan."""

    workflow: str
    mode: Literal["stream", "request"]
    profile: ProfileDescription
    nodes: int
    stages: tuple[StageDescription, ...]
    scopes: tuple[ScopeDescription, ...]
    expressions: tuple[ExpressionDescription, ...]
    bounds: tuple[Bound, ...]
    dead_letters: DeadLettersDescription | None
    """None: the workflow names no place for them."""
    delivery: str
    guarantees: tuple[str, ...]
    weaker: tuple[str, ...]
    """What takes something away from the guarantees, and where."""


def describe(plan: Plan, said_by: Mapping[str, str] = MappingProxyType({})) -> PlanDescription:
    """Everything `flow plan` says about a plan.

    Args:
        plan: of a stream or a request.
        said_by: who says a setting that the workflow does not say itself, by name of the setting.
    """
    graph = plan.graph
    return PlanDescription(
        workflow=graph.name,
        mode=plan.mode,
        profile=profile_of(plan, said_by),
        nodes=len(graph.nodes),
        stages=tuple(_stage(plan, stage) for stage in plan.stages),
        scopes=tuple(
            ScopeDescription(
                id=scope.id, parent=None if scope.parent is None else scope.parent.id, leaves=scope.leaves
            )
            for scope in plan.scopes
        ),
        expressions=tuple(_expressions(graph)),
        bounds=tuple(sum_of_bounds(plan)),
        dead_letters=None
        if graph.dead_letter is None
        else DeadLettersDescription(place=str(graph.dead_letter), nodes=tuple(lettered_nodes(plan))),
        delivery=graph.settings.delivery,
        guarantees=tuple(guarantees_of(plan)),
        weaker=tuple(weakened_by(plan)),
    )


# --- stages ---


def nodes_of(stage: Stage) -> list[ResolvedNode]:
    """The nodes a stage runs."""
    if stage.calls:
        return [call.node for call in stage.calls]
    return [] if stage.node is None else [stage.node]


def targets_of(stage: Stage) -> list[Stage]:
    """The stages its rows go to, in order, each once."""
    edges = [*(out.target for out in stage.outs), *stage.edges]
    return list(dict.fromkeys(edge.target for edge in edges))


def _stage(plan: Plan, stage: Stage) -> StageDescription:
    graph, node = plan.graph, stage.node
    waiting = node is not None and is_waiting(node)
    order = order_of(node, plan.mode) if node is not None and stage.kind in ("async", "offload") else None
    concurrency = None if node is None else node.policies.concurrency
    return StageDescription(
        index=stage.index,
        id=stage.id,
        kind=stage.kind,
        reason=stage.reason,
        nodes=tuple(_node(graph, each) for each in nodes_of(stage)),
        scope=stage.scope.id,
        feeds=tuple(target.index for target in targets_of(stage)),
        order=order,
        order_price=None if order is None else _ORDER_PRICE[order],
        limits=limits_of(graph, node) if waiting and node is not None else (),
        batch=None if node is None else _batch(node, plan.graph.tuning),
        max_children=node.policies.max_children if node is not None and stage.kind == "expand" else None,
        max_queued_per_key=concurrency.max_queued_per_key
        if concurrency is not None and order == "by_key"
        else None,
    )


def _node(graph: ResolvedGraph, node: ResolvedNode) -> NodeDescription:
    policies, fallback = node.policies, node.fallback
    return NodeDescription(
        id=node.id,
        type=node.definition.type,
        role=node.role,
        line=node.line,
        on_error="fallback" if fallback is not None else on_error_of(node, graph.settings),
        attempts=node.attempts,
        fallback=None if fallback is None else shown(fallback.said),
        otherwise=None if fallback is None else fallback.otherwise,
        timeout=None if policies.timeout is None else format_duration(policies.timeout),
        total_timeout=None if policies.total_timeout is None else format_duration(policies.total_timeout),
        retry=None if policies.retry is None else _retry(policies.retry, node),
        breaker=None if policies.breaker is None else _breaker(policies.breaker),
        rate=_rates(graph, policies),
        resource=policies.resource,
        max_output_bytes=output_bound_of(node),
        middleware=() if node.hooks is None else node.hooks.names,
        calls=calls_of(node),
        said_by=node.said_by,
        description=node.definition.description.partition("\n")[0],
    )


def _retry(retry: RetryPolicy, node: ResolvedNode) -> str:
    waits = f"after {format_duration(retry.initial)}, x{retry.multiplier:g} each time, at most"
    what = f" on {', '.join(retry.retry_on)}" if retry.retry_on else ""
    if not retry.retry_on and node.role != "sink" and not node.node.idempotent:
        what = " on refusals only, as it is not idempotent"
    budget = f", {retry.budget:g} retries per first attempt of all rows together"
    return f"{retry.max_attempts} attempts{what}, {waits} {format_duration(retry.max_delay)}{budget}"


def _breaker(breaker: Breaker) -> str:
    then = "rows fail at once" if breaker.when_open == "fail" else "rows wait"
    return (
        f"opens at {breaker.failures} failures of {breaker.window} calls in"
        f" {format_duration(breaker.period)}, then {then} for {format_duration(breaker.open_for)}"
    )


def _rates(graph: ResolvedGraph, policies: NodePolicies) -> str | None:
    found = [] if policies.rate is None else [_rate(policies.rate)]
    shared = graph.settings.limits.rates.get(policies.resource or "")
    if shared is not None:
        found.append(f"{_rate(shared)} over resource {policies.resource}")
    return ", ".join(found) or None


def _rate(rate: Rate) -> str:
    return f"{rate.rows:,} calls in {format_duration(rate.per)}, {rate.burst:,} at once"


def _batch(node: ResolvedNode, tuning: Tuning) -> str | None:
    batch = node.policies.batch
    if batch is None:
        return None
    linger = linger_of(node, tuning)
    waits = "takes what is there" if not linger else f"waits {format_duration(linger)} for company"
    return f"up to {batch.max_items:,} rows a call, {waits}"


# --- expressions ---


def _expressions(graph: ResolvedGraph) -> Iterator[ExpressionDescription]:
    for node in graph.nodes.values():
        if node.key is not None:
            yield _expression(f"key of {node.id}", node.key.text, node.key)
        for field in getattr(node.config, "__struct_fields__", ()):
            value = getattr(node.config, field)
            for index, item in enumerate(value if isinstance(value, list | tuple) else [value]):  # pyright: ignore[reportUnknownArgumentType] - any node's configuration
                if isinstance(item, Expression):
                    place = (
                        f"{node.id}.{field}[{index}]"
                        if isinstance(value, list | tuple)
                        else f"{node.id}.{field}"
                    )
                    yield _expression(place, item.text, item.compiled)
    for connection in graph.connections:
        if connection.when is not None:
            yield _expression(
                f"{connection.from_node} -> {connection.to_node}", connection.when.text, connection.when
            )


def _expression(where: str, text: str, compiled: Any) -> ExpressionDescription:
    reason = (
        getattr(compiled, "interpreted_because", None) if compiled is not None else "built by hand, in code"
    )
    return ExpressionDescription(where=where, text=text, interpreted_because=reason)
