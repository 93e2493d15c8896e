"""The text of `flow plan`: stages and why each boundary is there, limits, bounds, guarantees.

Owns: wording and layout; the text of the generated code.
Does not own: what is said (flowruntime.compile.description).

Always holds: no line depends on the width of a terminal, so that two plans can be compared by diff.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from flowcore.durations import format_duration
from flowruntime.compile.bounds import size
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
    from flowruntime.compile.tuning import SettingDescription

_NAMED: Final = 12


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
        _titled(_profile_title(description), _profile(description)),
        _titled("Scopes (rows that stem from one row each)", _scopes(description)),
        _titled("Expressions", _expressions(description.expressions)),
        _titled("Bounds", _bounds(description.bounds)),
        _titled("Dead letters", _dead_letters(description)),
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
        said = stage.nodes[0].said_by.get("concurrency", f"profile {description.profile.name}")
        yield f"       at once: {_limits(stage.limits)} ({said})"
    if stage.order is not None:
        yield f"       order {stage.order}: {stage.order_price}"
    if stage.max_queued_per_key is not None:
        yield f"       at most {stage.max_queued_per_key:,} rows of one key wait; further ones fail"
    if stage.batch is not None:
        yield f"       batch: {stage.batch} ({stage.nodes[0].said_by.get('batch', 'default')})"
    if stage.max_children is not None:
        yield f"       at most {stage.max_children:,} children of one row; a row with more fails"
    yield from _policies(stage.nodes)
    for node in stage.nodes:
        if node.calls is not None:
            yield f"       {node.calls}"


def _policies(nodes: Sequence[NodeDescription]) -> Iterator[str]:
    """One line for nodes that agree, so that a fused stage of forty stays readable."""
    by_policy: dict[str, list[str]] = {}
    for node in nodes:
        by_policy.setdefault(_policy(node), []).append(node.id)
    for policy, ids in by_policy.items():
        yield f"       {policy}" if len(by_policy) == 1 else f"       {', '.join(ids)}: {policy}"


def _policy(node: NodeDescription) -> str:
    """The policies in effect, each with who says it."""
    parts = [f"{text} ({node.said_by.get(policy, 'default')})" for policy, text in _parts(node)]
    if node.middleware:
        parts.append(f"inside middleware {', '.join(node.middleware)}")
    return "; ".join(parts)


def _parts(node: NodeDescription) -> Iterator[tuple[str, str]]:
    """Policies by name, in words."""
    yield "on_error", _on_error(node)
    if node.role == "source":
        return
    until = ", until its first child has left" if node.role == "expand" else ""
    if node.timeout is not None:
        yield "timeout", f"timeout {node.timeout} {'a child' if node.role == 'expand' else 'an attempt'}"
    if node.total_timeout is not None:
        yield "total_timeout", f"{node.total_timeout} in all"
    if node.retry is not None:
        yield "retry", f"retry {node.retry}{until}"
    if node.breaker is not None:
        shared = "" if node.resource is None else f" shared by resource {node.resource}"
        yield "breaker", f"breaker{shared} {node.breaker}"
    if node.rate is not None:
        yield ("rate" if "rate" in node.said_by else "resource"), f"rate {node.rate}"
    if node.max_output_bytes is not None:
        yield "max_output_bytes", f"output up to {size(node.max_output_bytes)}"


def _on_error(node: NodeDescription) -> str:
    if node.role == "source":
        return f"on_error {node.on_error}"
    if node.fallback is not None:
        first = ", until its first child has left" if node.role == "expand" else ""
        return (
            f"on_error fallback {node.fallback}{first} (of a row that fails on its way in: {node.otherwise})"
        )
    again = f"retry_workflow, {node.attempts} attempts, then " if node.attempts > 1 else ""
    return f"on_error {again}{node.on_error}"


def _limits(limits: Iterable[LimitOfNode]) -> str:
    shared = {"node": "of this node", "type": "over all nodes of type", "resource": "over resource"}
    words: list[str] = []
    for limit in limits:
        kind, _, name = limit.name.partition(":")
        of = "over all nodes" if kind == "*" else shared[kind] if kind == "node" else f"{shared[kind]} {name}"
        words.append(f"{limit.rows:,} {of}")
    return ", ".join(words)


# --- the rest ---


def _profile_title(description: PlanDescription) -> str:
    profile = description.profile
    return f"Profile {profile.name} ({profile.chosen_by})"


def _profile(description: PlanDescription) -> Iterator[str]:
    settings = description.profile.settings
    width = max(len(setting.name) for setting in settings)
    for setting in settings:
        yield f"{setting.name:<{width}}  {_amount(setting):>14}  {setting.source}"


def _amount(setting: SettingDescription) -> str:
    if setting.unit == "bytes":
        return size(int(setting.amount))
    if setting.unit == "seconds":
        return format_duration(timedelta(seconds=setting.amount))
    return f"{setting.amount:,} {setting.unit}"


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


def _dead_letters(description: PlanDescription) -> Iterator[str]:
    found = description.dead_letters
    if found is None:
        return
    more = len(found.nodes) - _NAMED
    names = ", ".join(found.nodes[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    yield f"kept in {found.place}; `flow dlq` lists, shows, edits and redrives them"
    yield f"of rows that fail for good at: {names or 'none; say on_error: dead_letter where you want them'}"


def _guarantees(description: PlanDescription) -> Iterator[str]:
    yield from description.guarantees
    for sentence in description.weaker:
        yield f"weaker: {sentence}"


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [title, *found] if found else []


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
