"""From a workflow to its plan, as the commands need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowcore.errors import ValidationFailedError
from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowcore.middleware import Middleware
    from flowcore.registry import NodeRegistry
    from flowcore.workflow import Workflow
    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedGraph


def planned(
    workflow: Workflow,
    registry: NodeRegistry,
    middleware: Sequence[Middleware] = (),
    *,
    to_run: bool = False,
) -> Plan:
    """The plan: as a stream when the workflow has a source, else as a request.

    Where nodes wait for answers, and rows that come back could not go on in a stream, it is a request, too.

    Args:
        workflow: to be validated.
        registry: of node types.
        middleware: of the project; one that waits makes plain nodes stages of their own.
        to_run: as a stream or not at all, if it has a source.

    Raises:
        ValidationFailedError: with every problem.
    """
    graph = validate(workflow, registry, mode="stream")
    if middleware:
        from flowruntime.middleware.coverage import Middlewares

        graph = Middlewares(middleware).covered(graph, graph.id or graph.name)
    if has_source(graph) and _can_run(graph, workflow, to_run=to_run):
        return lower(graph, mode="stream")
    if graph.waits:
        from flowruntime.durable.graph import kept

        graph = kept(graph)
    return lower(graph, mode="request")


def _can_run(graph: ResolvedGraph, workflow: Workflow, *, to_run: bool) -> bool:
    """Whether rows that are held can go on when they come back.

    Raises:
        ValidationFailedError: they cannot, and it is to be run; or they are only delayed.
    """
    from flowruntime.compile.report import located
    from flowruntime.durable.returning import holding

    try:
        holding(graph)
    except ValidationFailedError as error:
        if graph.waits and not to_run:
            return False
        raise located(error, workflow.marks, "workflow in a continuous run") from None
    return True


def has_source(graph: ResolvedGraph) -> bool:
    """Whether it can run as a stream."""
    return any(node.role == "source" for node in graph.nodes.values())
