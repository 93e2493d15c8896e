"""From a workflow to its plan, as the commands need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate

if TYPE_CHECKING:
    from flowcore.registry import NodeRegistry
    from flowcore.workflow import Workflow
    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedGraph


def planned(workflow: Workflow, registry: NodeRegistry) -> Plan:
    """The plan: as a stream when the workflow has a source, else as a request.

    Raises:
        ValidationFailedError: with every problem.
    """
    graph = validate(workflow, registry, mode="stream")
    return lower(graph, mode="stream" if has_source(graph) else "request")


def has_source(graph: ResolvedGraph) -> bool:
    """Whether it can run as a stream."""
    return any(node.role == "source" for node in graph.nodes.values())
