"""The text of `flow plan`: stages and why each boundary is there, limits, bounds, guarantees.

Owns: wording and layout; the text of the generated code.
Does not own: what is said (flowruntime.compile.description).

Always holds: no line depends on the width of a terminal, so that two plans can be compared by diff.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowruntime.compile.fuse import fuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowruntime.compile.bounds import LimitOfNode
    from flowruntime.compile.description import (
        ExpressionDescription,
        NodeDescription,
        PlanDescription,
        StageDescription,
    )
    from flowruntime.compile.plan import Plan
    from flowruntime.compile.promises import Bound

_STEP: Final = 1024
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def explain(description: PlanDescription) -> str:
    """A plan as text, for people."""
    stages, scopes = len(description.stages), len(description.scopes)
    head = (
        f"{description.workflow}, as a {description.mode}: {_counted(description.nodes, 'node')} in"
        f" {_counted(stages, 'stage')}, {_counted(scopes, 'scope')}"
    )
    sections = [
        [head],
        [line for stage in description.stages for line in _stage(description, stage)],
        _titled("Scopes (rows that stem from one row each)", _scopes(description)),
        _titled("Expressions", _expressions(description.expressions)),
        _titled("Bounds", _bounds(description.bounds)),
        _titled("Guarantees", _guarantees(description)),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def code(plan: Plan) -> str:
    """The generated functions of a plan, in order of its stages, as Python text."""
    form = "recording" if plan.mode == "request" else "lean"
    parts: list[str] = []
    for stage in plan.fused:
        written = fuse(stage)
        nodes = ", ".join(stage.node_ids) or "connections only"
        source = written.recording if form == "recording" else written.lean
        parts.append(f"# stage {stage.index} {stage.id}: {nodes} ({form} form)\n{source.strip()}\n")
    if not parts:
        return "# no stage is fused: nothing is generated\n"
    return "\n\n".join(parts)


# --- stages ---


def _stage(description: PlanDescription, stage: StageDescription) -> Iterator[str]:
    names = ", ".join(node.id for node in stage.nodes) or stage.id
    types = ", ".join(dict.fromkeys(node.type for node in stage.nodes))
    yield f"{stage.index:>3}  {stage.kind:<8} {names}" + (f"  ({types})" if types else "")
    yield f"       boundary: {stage.reason}"
    feeds = ", ".join(f"{index} {description.stages[index].id}" for index in stage.feeds)
    yield f"       rows of scope {stage.scope} go to {feeds}" if feeds else "       rows end here"
    if stage.limits:
        yield f"       at once: {_limits(stage.limits)}"
    if stage.order is not None:
        yield f"       order {stage.order}: {stage.order_price}"
    if stage.max_queued_per_key is not None:
        yield f"       at most {stage.max_queued_per_key:,} rows of one key wait; further ones fail"
    if stage.batch is not None:
        yield f"       batch: {stage.batch}"
    if stage.max_children is not None:
        yield f"       at most {stage.max_children:,} children of one row; a row with more fails"
    yield from _policies(stage.nodes)


def _policies(nodes: Sequence[NodeDescription]) -> Iterator[str]:
    """One line for nodes that agree, so that a fused stage of forty stays readable."""
    by_policy: dict[str, list[str]] = {}
    for node in nodes:
        by_policy.setdefault(_policy(node), []).append(node.id)
    for policy, ids in by_policy.items():
        yield f"       {policy}" if len(by_policy) == 1 else f"       {', '.join(ids)}: {policy}"


def _policy(node: NodeDescription) -> str:
    if node.role == "source":
        return f"on_error {node.on_error}"
    parts = [f"on_error {node.on_error}"]
    if node.timeout is not None:
        parts.append(f"timeout {node.timeout} an attempt")
    if node.retry is not None:
        parts.append(f"retry {node.retry}")
    if node.max_output_bytes is not None:
        parts.append(f"output up to {size(node.max_output_bytes)}")
    return "; ".join(parts)


def _limits(limits: Iterable[LimitOfNode]) -> str:
    shared = {"node": "of this node", "type": "over all nodes of type", "resource": "over resource"}
    words: list[str] = []
    for limit in limits:
        kind, _, name = limit.name.partition(":")
        of = "over all nodes" if kind == "*" else shared[kind] if kind == "node" else f"{shared[kind]} {name}"
        words.append(f"{limit.rows:,} {of}")
    return ", ".join(words)


# --- the rest ---


def _scopes(description: PlanDescription) -> Iterator[str]:
    for scope in description.scopes:
        parent = "" if scope.parent is None else f", children of rows of {scope.parent}"
        yield f"{scope.id}{parent}; a row ends on {_counted(scope.leaves, 'edge')}"


def _expressions(expressions: Sequence[ExpressionDescription]) -> Iterator[str]:
    compiled = sum(1 for each in expressions if each.interpreted_because is None)
    if expressions:
        yield f"{compiled} of {len(expressions)} compiled to Python"
    for each in expressions:
        if each.interpreted_because is not None:
            yield f"interpreted: {each.where}: {each.text}"
            yield f"  because {each.interpreted_because}"


def _bounds(bounds: Sequence[Bound]) -> Iterator[str]:
    width = max((len(bound.name) for bound in bounds), default=0)
    for bound in bounds:
        amount = size(bound.amount) if bound.unit == "bytes" else f"{bound.amount:,} {bound.unit}"
        yield f"{bound.name:<{width}}  {amount:>16}  {bound.how}"


def _guarantees(description: PlanDescription) -> Iterator[str]:
    yield from description.guarantees
    for sentence in description.weaker:
        yield f"weaker: {sentence}"


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [title, *found] if found else []


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(amount: int) -> str:
    """A number of bytes as people read it: `64 MiB`, `1.5 KiB`."""
    value, unit = float(amount), 0
    while value >= _STEP and unit < len(_SIZES) - 1:
        value /= _STEP
        unit += 1
    return f"{value:.1f}".removesuffix(".0") + f" {_SIZES[unit]}"
