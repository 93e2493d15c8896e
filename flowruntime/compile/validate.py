"""Validation: from a declared workflow to a resolved graph, or every problem at once.

Owns: the order of the rule sets and what becomes of their findings.
Does not own: the rules (inline, resolve, applicable, wiring, topology), which rows may meet (the planner).

Always holds: nothing is run and nothing outside is touched; a workflow that validates has only known types,
decoded configurations, compiled expressions and no cycle. 1,000 nodes take well under a second; nothing
recurses over nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

from flowcore.binding import bind_params
from flowcore.errors import ValidationFailedError
from flowcore.findings import Findings, Mark, Path
from flowcore.registry import NodeRegistry
from flowcore.workflow import Workflow
from flowruntime.compile.inline import inline, nesting_problem
from flowruntime.compile.resolve import Definitions, resolve_nodes
from flowruntime.compile.resolved import ResolvedGraph
from flowruntime.compile.topology import Mode, Topology
from flowruntime.compile.wiring import resolve_connections
from flowruntime.registry import Overlay


def validate(
    workflow: Workflow,
    registry: NodeRegistry,
    *,
    mode: Mode = "stream",
    source_file: str | None = None,
    marks: Mapping[Path, Mark] | None = None,
) -> ResolvedGraph:
    """Check a workflow as a whole and resolve it.

    Args:
        workflow: params that are not bound yet take their defaults.
        registry: node types; functions and classes given to `add` come first.
        mode: in a `request` the inputs may fill ports that are not connected.
        source_file: named in problems that have no mark.
        marks: where each path was written; None: the workflow's own.

    Returns:
        The graph, nested workflows inlined, with the warnings found.

    Raises:
        ValidationFailedError: attribute `problems` holds every error and warning.
    """
    too_deep = nesting_problem(workflow)
    if too_deep is not None:
        raise ValidationFailedError([too_deep])
    bound = bind_params(workflow)
    definitions = Definitions(Overlay(registry, local_types(bound)))
    findings = Findings(marks=bound.marks if marks is None else marks, file=source_file)
    flat = inline(bound, definitions.of, findings)
    nodes = resolve_nodes(flat, definitions)
    connections = resolve_connections(flat, nodes)
    topology = Topology(flat, nodes, connections, mode)
    topology.check()
    problems = flat.problems()
    if any(problem.severity == "error" for problem in problems):
        raise ValidationFailedError(problems)
    return ResolvedGraph(
        name=bound.name,
        id=bound.id or "",
        settings=bound.settings,
        nodes={node_id: nodes[node_id] for node_id in topology.order()},
        connections=tuple(connections),
        open_ports=topology.open_ports(),
        warnings=tuple(problems),
    )


def local_types(workflow: Workflow) -> dict[str, object]:
    """Functions and classes given to `add`, those of nested workflows included; the outer one's win."""
    found: dict[str, object] = {}
    waiting = [workflow]
    while waiting:
        here = waiting.pop(0)
        found = {**here.local_types, **found}
        waiting += [spec.workflow for spec in here.nodes.values() if spec.workflow is not None]
    return found
