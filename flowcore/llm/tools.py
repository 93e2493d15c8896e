"""Tools an agent may use: node types and workflows, bound to the runtime that runs them.

Owns: `ToolSpec`, what a user declares; `BoundTool`, what a node is given by `ctx.tools`.
Does not own: running a tool (the runtime), when it is used (the agent).

Always holds: a tool's arguments are checked against its schema before anything runs; a tool runs as a request
of its own, with its node's or workflow's policies, under this runtime's limits, and is cancelled with the row
that asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from flowcore.errors import ConfigError
from flowcore.llm.messages import Tool

ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class ToolSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tool: `{type: geo.lookup}`, or `{workflow: refund.yaml}`; exactly one of the two."""

    type: Annotated[
        str | None,
        Meta(description="a node type, a Python function with @node: its inputs are the arguments"),
    ] = None
    config: Annotated[dict[str, Any], Meta(description="configuration of that node")] = {}
    workflow: Annotated[
        str | None, Meta(description="a file: the open inputs of the workflow are the arguments")
    ] = None
    name: Annotated[
        ToolName | None, Meta(description="for the model; left out: made of the type or file")
    ] = None
    description: Annotated[
        str | None, Meta(description="for the model; left out: that of the node or workflow")
    ] = None
    timeout: Annotated[timedelta | None, Meta(description="of one use")] = None

    def __post_init__(self) -> None:
        if (self.type is None) == (self.workflow is None):
            raise ConfigError(
                "a tool is a node type or a workflow: write {type: geo.lookup} or {workflow: refund.yaml}",
                field="type",
            )
        if self.workflow is not None and self.config:
            raise ConfigError("a workflow takes no config; remove it", field="config")


class BoundTool(Protocol):
    """A tool that can be used."""

    @property
    def tool(self) -> Tool:
        """Name, description and schema, as a model is told."""
        ...

    async def use(self, arguments: Mapping[str, Any]) -> Any:
        """What the tool gives: the value of its one output, or values by name where there are several.

        Args:
            arguments: by name; checked by the caller (`flowcore.answers.value_faults`).

        Raises:
            What the node or workflow failed with.
        """
        ...
