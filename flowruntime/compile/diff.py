"""What an edit of a workflow means: which nodes, stages and positions it keeps, resets, orphans.

Owns: comparing two plans; the text of the comparison.
Does not own: positions themselves (the runtime's store).

Always holds: positions are identified by workflow, node id and type; a renamed node is one that goes and one
that comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from flowcore.definition import ConnectorDefinition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode

Fate = Literal["kept", "changed", "added", "removed"]
PositionFate = Literal["kept", "reset", "orphaned"]


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """One node in both workflows, or in one of them."""

    node: str
    fate: Fate
    what: tuple[str, ...] = ()
    """For changed ones: `type`, `config.x`, `timeout`, ..."""


class PositionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a source's saved positions."""

    node: str
    fate: PositionFate
    why: str


class StageChange(msgspec.Struct, frozen=True, kw_only=True):
    """One group of nodes that run together."""

    nodes: tuple[str, ...]
    kind: str
    fate: Literal["kept", "added", "removed"]


class PlanDiff(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    workflow: str
    nodes: tuple[NodeChange, ...]
    stages: tuple[StageChange, ...]
    positions: tuple[PositionChange, ...]
    connections_added: tuple[str, ...]
    connections_removed: tuple[str, ...]
    settings: tuple[str, ...]
    """Those that changed: `max_in_flight: None -> 100`."""

    @property
    def is_empty(self) -> bool:
        """Nothing changed at all."""
        changed = [*self.connections_added, *self.connections_removed, *self.settings]
        return not changed and all(each.fate == "kept" for each in (*self.nodes, *self.positions))


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What an edit from `old` to `new` does."""
    before, after = old.graph, new.graph
    had, has = (
        [_connection(each) for each in before.connections],
        [_connection(each) for each in after.connections],
    )
    return PlanDiff(
        workflow=after.name,
        nodes=tuple(_nodes(before, after)),
        stages=tuple(_stages(old, new)),
        positions=tuple(_positions(before, after)),
        connections_added=tuple(each for each in has if each not in had),
        connections_removed=tuple(each for each in had if each not in has),
        settings=tuple(_changed_fields(before.settings, after.settings)),
    )


def diff_text(found: PlanDiff) -> str:
    """A comparison as text, for people."""
    if found.is_empty:
        return f"{found.workflow}: nothing changes\n"
    lines = [f"{found.workflow}: what the edit does"]
    signs = {"kept": " ", "changed": "~", "added": "+", "removed": "-", "reset": "!", "orphaned": "?"}
    kept = sum(1 for each in found.nodes if each.fate == "kept")
    lines += ["", f"Nodes ({kept} kept as they are)"]
    lines += [
        f"  {signs[each.fate]} {each.node} {each.fate}" + (f": {', '.join(each.what)}" if each.what else "")
        for each in found.nodes
        if each.fate != "kept"
    ]
    lines += [f"  + connection {each}" for each in found.connections_added]
    lines += [f"  - connection {each}" for each in found.connections_removed]
    lines += [f"  ~ settings.{each}" for each in found.settings]
    lines += ["", f"Stages ({sum(1 for each in found.stages if each.fate == 'kept')} kept)"]
    lines += [
        f"  {signs[each.fate]} {each.kind} {', '.join(each.nodes)}"
        for each in found.stages
        if each.fate != "kept"
    ]
    if found.positions:
        lines += ["", "Positions"]
        lines += [f"  {signs[each.fate]} {each.node} {each.fate}: {each.why}" for each in found.positions]
    return "\n".join(lines) + "\n"


def _nodes(before: ResolvedGraph, after: ResolvedGraph) -> Iterator[NodeChange]:
    for node_id, node in after.nodes.items():
        old = before.nodes.get(node_id)
        if old is None:
            yield NodeChange(node=node_id, fate="added")
            continue
        what = tuple(_changes(old, node))
        yield NodeChange(node=node_id, fate="changed" if what else "kept", what=what)
    for node_id in before.nodes:
        if node_id not in after.nodes:
            yield NodeChange(node=node_id, fate="removed")


def _changes(old: ResolvedNode, new: ResolvedNode) -> Iterator[str]:
    if old.definition.type != new.definition.type:
        yield f"type {old.definition.type} -> {new.definition.type}"
    for name in dict.fromkeys([*old.raw_config, *new.raw_config]):
        if old.raw_config.get(name, msgspec.UNSET) != new.raw_config.get(name, msgspec.UNSET):
            yield f"config.{name}"
    for name in old.policies.__struct_fields__:
        if getattr(old.policies, name) != getattr(new.policies, name):
            yield name


def _stages(old: Plan, new: Plan) -> Iterator[StageChange]:
    before = {(stage.kind, tuple(stage.node_ids)) for stage in old.stages if stage.node_ids}
    after = [(stage.kind, tuple(stage.node_ids)) for stage in new.stages if stage.node_ids]
    for kind, nodes in after:
        yield StageChange(nodes=nodes, kind=kind, fate="kept" if (kind, nodes) in before else "added")
    for kind, nodes in sorted(before - set(after)):
        yield StageChange(nodes=nodes, kind=kind, fate="removed")


def _positions(before: ResolvedGraph, after: ResolvedGraph) -> Iterator[PositionChange]:
    renamed = before.name != after.name
    for node_id, node in before.nodes.items():
        if not _keeps_positions(node):
            continue
        new = after.nodes.get(node_id)
        if renamed:
            yield PositionChange(
                node=node_id,
                fate="orphaned",
                why=f"the workflow was {before.name!r}, is {after.name!r}; give it its old name to keep them",
            )
        elif new is None:
            yield PositionChange(
                node=node_id, fate="orphaned", why="no node of that id is left; keep the id to keep them"
            )
        elif new.definition.type != node.definition.type:
            why = f"the type was {node.definition.type!r} and is {new.definition.type!r}: it begins anew"
            yield PositionChange(node=node_id, fate="reset", why=why)
        elif new.raw_config != node.raw_config:
            why = "same node, another configuration: kept for what it still reads"
            yield PositionChange(node=node_id, fate="kept", why=why)
        else:
            yield PositionChange(node=node_id, fate="kept", why="same node")
    for node_id, node in after.nodes.items():
        if _keeps_positions(node) and (renamed or node_id not in before.nodes):
            yield PositionChange(node=node_id, fate="reset", why="nothing is saved for it: it begins anew")


def _keeps_positions(node: ResolvedNode) -> bool:
    definition = node.definition
    kept = getattr(definition.implementation, "positions", "none")
    return isinstance(definition, ConnectorDefinition) and node.role == "source" and kept != "none"


def _changed_fields(old: msgspec.Struct, new: msgspec.Struct) -> Iterator[str]:
    for name in new.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name}: {before!r} -> {after!r}"


def _connection(connection: ResolvedConnection) -> str:
    path = "".join(f".{part}" for part in connection.path)
    target = (
        connection.to_node if connection.to_port is None else f"{connection.to_node}.{connection.to_port}"
    )
    more = f" when {connection.when.text}" if connection.when is not None else ""
    kind = f" ({connection.kind})" if connection.kind in ("control", "error") else ""
    otherwise = " else" if connection.otherwise else ""
    return f"{connection.from_node}.{connection.from_port}{path} -> {target}{kind}{more}{otherwise}"
