"""Validation: from a declared workflow to a resolved graph, or every problem at once.

Owns: the order of the rule sets, what becomes of their findings, in which order they are told.
Does not own: the rules (inline, resolve, applicable, wiring, topology, streamports, lower).

Always holds: nothing is run and nothing outside is touched; a workflow that validates has only known types,
decoded configurations, compiled expressions, no cycle, and joins only rows that belong together. Of a draft
(flowcore.draft) what could be read is checked as well, and what only follows from a fault is not told. 1,000
nodes take well under a second; nothing recurses over nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from flowcore.binding import bind_draft
from flowcore.errors import ValidationFailedError
from flowcore.findings import Findings, Mark, Path, near_words
from flowcore.profiles import ProfileName
from flowcore.registry import NodeRegistry
from flowcore.workflow import Workflow
from flowruntime.compile.again import check_attempts
from flowruntime.compile.dead_letter import resolve_place
from flowruntime.compile.fallback import check_error_ports
from flowruntime.compile.inline import Flat, inline, nesting_problem
from flowruntime.compile.lower import scope_faults
from flowruntime.compile.report import in_order
from flowruntime.compile.resolve import Definitions, resolve_nodes
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.streamports import check_fan_out
from flowruntime.compile.topology import Mode, Topology, place_of
from flowruntime.compile.wiring import definition_role, resolve_connections
from flowruntime.registry import Overlay

if TYPE_CHECKING:
    from flowcore.draft import Draft

_MOST_COMPARED: Final = 50_000
"""Pairs of names compared when connections to nodes that are not there are put down to nodes that are."""


def validate(
    workflow: Workflow,
    registry: NodeRegistry,
    *,
    mode: Mode = "stream",
    source_file: str | None = None,
    marks: Mapping[Path, Mark] | None = None,
    profile: ProfileName | None = None,
) -> ResolvedGraph:
    """Check a workflow as a whole and resolve it.

    Args:
        workflow: params that are not bound yet take their defaults. Of a draft everything that could be read
            is checked; its own problems are among those told, so that it never validates.
        registry: node types; functions and classes given to `add` come first.
        mode: in a `request` the inputs may fill ports that are not connected.
        source_file: named in problems that have no mark.
        marks: where each path was written; None: the workflow's own.
        profile: for a workflow that names none.

    Returns:
        The graph, nested workflows inlined, with the warnings found.

    Raises:
        ValidationFailedError: attribute `problems` holds every error and warning, by file and line.
    """
    too_deep = nesting_problem(workflow)
    if too_deep is not None:
        raise ValidationFailedError(in_order([*workflow.problems, too_deep]))
    bound = bind_draft(workflow)
    findings = Findings(
        marks=bound.marks if marks is None else marks, file=source_file, refused=bound.refused
    )
    flat, graph = _resolved(bound, registry, mode, findings)
    problems = in_order([*bound.problems, *flat.problems()])
    if any(problem.severity == "error" for problem in problems):
        raise ValidationFailedError(problems)
    return replace(graph, warnings=problems, default_profile=profile)


def _resolved(
    bound: Draft, registry: NodeRegistry, mode: Mode, findings: Findings
) -> tuple[Flat, ResolvedGraph]:
    """The workflow inlined, with everything found, and the graph: whole when nothing was."""
    definitions = Definitions(Overlay(registry, local_types(bound)))
    flat = inline(bound, definitions.of, findings)
    nodes = resolve_nodes(flat, definitions)
    place = resolve_place(flat, nodes, definitions)
    connections = resolve_connections(flat, nodes)
    check_attempts(flat, nodes)
    check_error_ports(flat, nodes, connections)
    unknown = [node for node in flat.nodes.values() if node.id not in nodes]
    meant = [(node.id, definitions.meant(node.spec)) for node in unknown]
    sources = [node_id for node_id, found in meant if found and definition_role(found) == "source"]
    topology = Topology(flat, nodes, connections, mode, sources)
    topology.check()
    if not topology.has_cycle:
        check_fan_out(flat, nodes, connections, topology.order)
    ordered = {node_id: nodes[node_id] for node_id in topology.order()}
    graph = ResolvedGraph(
        name=bound.name,
        id=bound.id or "",
        settings=bound.settings,
        nodes=ordered,
        connections=tuple(
            each for each in connections if each.to_node in ordered and each.from_node in ordered
        ),
        open_ports=topology.open_ports(),
        dead_letter=place,
    )
    _check_scopes(flat, graph, mode, topology.holes)
    return flat, graph


def _check_scopes(flat: Flat, graph: ResolvedGraph, mode: Mode, holes: set[str]) -> None:
    """Note where rows that do not belong together would meet, as far as it is known which rows come."""
    streams = mode == "stream" and any(node.role == "source" for node in graph.nodes.values())
    lost = [*flat.broken.lost_receivers]
    if len(lost) * len(graph.nodes) > _MOST_COMPARED:
        return
    for name in lost:
        within = place_of(name)
        known = [node_id for node_id in graph.nodes if node_id.startswith(within)]
        near = near_words(name, known) if name else []
        if not near and not within:
            return  # it may have been meant for any node
        if holes.isdisjoint(near):  # else it was meant for one of those that lack something
            holes.update(near or known)
    holes -= {node.id for node in graph.nodes.values() if node.role == "source"}  # nothing comes in there
    for fault in scope_faults(graph, mode="stream" if streams else "request", holes=holes):
        node = flat.nodes[fault.node.id]
        node.origin.findings.add(node.path, fault.message, remedy=fault.remedy)


def local_types(workflow: Workflow) -> dict[str, object]:
    """Functions and classes given to `add`, those of nested workflows included; the outer one's win."""
    found: dict[str, object] = {}
    waiting = [workflow]
    while waiting:
        here = waiting.pop(0)
        found = {**here.local_types, **found}
        waiting += [spec.workflow for spec in here.nodes.values() if spec.workflow is not None]
    return found
