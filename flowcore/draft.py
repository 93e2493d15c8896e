"""Drafts: what could be read of a workflow that has faults, so that the rest of it can be checked as well.

Owns: `Draft`, and making a workflow anew with other content.
Does not own: reading documents (document), filling params (binding), checking what is there
(flowruntime.compile).

Always holds: a draft says what is wrong with it (`problems`) and where its content is a guess (`refused`); it
is checked, never run: whoever validates it refuses it. Only `finished` makes a `Workflow` of it, and has the
builder check everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from flowcore.connection import Connection
from flowcore.errors import ValidationFailedError
from flowcore.settings import ParamSpec, Settings
from flowcore.workflow import NodeHandle, NodeSpec, Workflow

W = TypeVar("W", bound=Workflow)

UNREADABLE: Final = ""
"""Stands for the type of a node, or the end of a connection, that could not be read."""


class Draft(Workflow):
    """A workflow as far as it could be read.

    Node ids may be malformed and types `UNREADABLE`. A connection that was refused is kept in its place, so
    that the others keep their number; its ends are the names it was written with, or `UNREADABLE`.
    """

    def add_node(self, spec: NodeSpec) -> NodeHandle:
        """Take the node as it is."""
        self._nodes[spec.id] = spec
        return NodeHandle(self, spec.id)

    def add_connection(self, connection: Connection) -> None:
        """Take the connection as it is."""
        self._connections.append(connection)

    def finished(self) -> Workflow:
        """The workflow.

        Raises:
            ValidationFailedError: there are problems.
            WorkflowError: the builder refuses what was read.
        """
        if self.problems:
            raise ValidationFailedError(self.problems)
        nodes = (
            msgspec.structs.replace(spec, workflow=spec.workflow.finished())
            if isinstance(spec.workflow, Draft)
            else spec
            for spec in self.nodes.values()
        )
        return _filled(alike(Workflow, self), nodes, self.connections)


def rebuilt(
    workflow: Workflow,
    *,
    nodes: Iterable[NodeSpec],
    connections: Iterable[Connection],
    settings: Settings | None = None,
) -> Workflow:
    """The same workflow with other content; a draft stays one.

    Args:
        workflow: gives everything that is not given here.
        nodes: all of them.
        connections: all of them, between those nodes.
        settings: None: the same.

    Raises:
        WorkflowError: as `Workflow.add_node` and `Workflow.add_connection`.
    """
    made = alike(Draft if isinstance(workflow, Draft) else Workflow, workflow, settings=settings)
    made.problems, made.refused = workflow.problems, workflow.refused
    return _filled(made, nodes, connections)


def alike(
    kind: type[W],
    workflow: Workflow,
    *,
    params: Mapping[str, ParamSpec] | None = None,
    settings: Settings | None = None,
) -> W:
    """An empty workflow with the name, id, version, description, local types and marks of another."""
    made = kind(
        workflow.name,
        id=workflow.id,
        version=workflow.version,
        description=workflow.description,
        params=workflow.params if params is None else params,
        settings=workflow.settings if settings is None else settings,
    )
    made.local_types.update(workflow.local_types)
    made.marks = workflow.marks
    return made


def _filled(made: W, nodes: Iterable[NodeSpec], connections: Iterable[Connection]) -> W:
    for spec in nodes:
        made.add_node(spec)
    for connection in connections:
        made.add_connection(connection)
    return made
