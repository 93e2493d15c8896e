"""Tools of agents: node types and workflows, made ready once for each node that has them.

Owns: `ToolBinder`, one per runtime: from specs to tools with schemas, and their runs.
Does not own: what a run is (the runtime), when a tool is used (the agent), checking arguments (the agent).

Always holds: a tool's run takes no permit of a limit that the row which uses it already holds, so an agent
cannot wait for itself, however low a limit is; within those limits the row's own permit stands for its tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary, finalize

import msgspec

from flowcore.definition import NodeDefinition, Port
from flowcore.errors import ConfigError, EngineError, FlowError, RunFailedError
from flowcore.findings import shown
from flowcore.llm.messages import Tool
from flowcore.llm.schemas import schema_of
from flowcore.llm.tools import BoundTool, ToolSpec
from flowcore.workflow import Workflow
from flowruntime.definition.load import load_workflow

if TYPE_CHECKING:
    from flowcore.registry import NodeRegistry
    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.result import RunResult
    from flowruntime.operators.host import Host

_NODE: Final = "tool"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_LENGTH: Final = 64
_KINDS: Final = ("map", "expand")


class Runs(Protocol):
    """What the binder needs of a runtime."""

    @property
    def registry(self) -> NodeRegistry: ...

    def validate(self, workflow: Workflow, *, mode: Literal["stream", "request"] = ...) -> ResolvedGraph: ...

    async def execute(
        self, workflow: Workflow, inputs: Any = None, *, timeout: timedelta | str | None = None
    ) -> RunResult: ...


class ToolBinder:
    """The tools of one runtime's agents.

    Args:
        runs: where they run.
        allowed: makes a path absolute, if the operator allows it.
    """

    def __init__(self, runs: Runs, allowed: Callable[[str], str]) -> None:
        self._runs: Final = runs
        self._allowed: Final = allowed
        self._bound: WeakKeyDictionary[Host, dict[str, tuple[Sequence[ToolSpec], list[BoundTool]]]] = (
            WeakKeyDictionary()
        )
        self._exempt: dict[int, frozenset[str]] = {}
        """Limits a tool's run is not subject to, by the id of its workflow while that lives."""

    def tools(self, worker: Host, node_id: str, specs: Sequence[ToolSpec]) -> Sequence[BoundTool]:
        """See `NodeContext.tools`."""
        of_worker = self._bound.setdefault(worker, {})
        found = of_worker.get(node_id)
        if found is not None and found[0] is specs:
            return found[1]
        held = worker.limits_held_by(node_id)
        tools = [self._bind(spec, held) for spec in specs]
        names = [tool.tool.name for tool in tools]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"two tools are called {shown(name)}; give one a name", field="tools", value=name
                )
        of_worker[node_id] = (specs, tools)
        return tools

    def exempt(self, workflow: Workflow) -> frozenset[str]:
        """The limits a run of that workflow is not subject to."""
        return self._exempt.get(id(workflow), frozenset())

    # --- one tool ---

    def _bind(self, spec: ToolSpec, held: frozenset[str]) -> BoundTool:
        if spec.type is not None:
            workflow, ports, said = self._of_type(spec, spec.type)
            default_name, leaves = spec.type, (_NODE,)
        else:
            path = str(spec.workflow)
            workflow = load_workflow(self._allowed(path), bind=True)
            graph = self._runs.validate(workflow, mode="request")
            ports, leaves = _open_ports(graph, path), _leaves(graph)
            said, default_name = workflow.description, PurePath(path).stem
        name = spec.name or _NOT_IN_NAMES.sub("_", default_name)[:_NAME_LENGTH]
        tool = Tool(
            name=name, description=spec.description or said or name, parameters=_schema(ports.values())
        )
        self._exempt[id(workflow)] = held
        finalize(workflow, self._exempt.pop, id(workflow), None)
        where = {port.name: place for place, port in ports.items()}
        return _WorkflowTool(self._runs, tool, workflow, where, leaves, spec.timeout)

    def _of_type(self, spec: ToolSpec, type_name: str) -> tuple[Workflow, dict[tuple[str, str], Port], str]:
        try:
            definition = self._runs.registry.factory(type_name).definition
        except FlowError as fault:
            raise ConfigError(f"tool: {fault}", field="tools", value=type_name) from fault
        if not isinstance(definition, NodeDefinition) or definition.kind not in _KINDS or definition.batched:
            raise ConfigError(
                f"{type_name!r} is no tool: only nodes that take one row at a time and give values are",
                field="tools",
                value=type_name,
            )
        workflow = Workflow(f"tool {type_name}")
        workflow.add(type_name, id=_NODE, config=dict(spec.config))
        self._runs.validate(workflow, mode="request")
        ports = {(_NODE, port.name): port for port in definition.inputs}
        return workflow, ports, definition.description.partition("\n\n")[0].replace("\n", " ")


class _WorkflowTool:
    """A tool that runs as a request."""

    def __init__(
        self,
        runs: Runs,
        tool: Tool,
        workflow: Workflow,
        ports: Mapping[str, tuple[str, str]],
        leaves: Sequence[str],
        timeout: timedelta | None,
    ) -> None:
        self.tool: Final = tool
        self.workflow: Final = workflow
        self._runs = runs
        self._ports = ports
        self._leaves = leaves
        self._timeout = timeout

    async def use(self, arguments: Mapping[str, Any]) -> Any:
        inputs: dict[str, dict[str, Any]] = {}
        for name, value in arguments.items():
            node, port = self._ports[name]
            inputs.setdefault(node, {})[port] = value
        result = await self._runs.execute(self.workflow, inputs, timeout=self._timeout)
        if not result.ok:
            raise _failure_of(result)
        given = {leaf: result.outputs[leaf] for leaf in self._leaves if leaf in result.outputs}
        values = {leaf: _single(outputs) for leaf, outputs in given.items()}
        return next(iter(values.values())) if len(self._leaves) == 1 and values else values or None


def _failure_of(result: RunResult) -> BaseException:
    """What the tool failed with: the error of its first failed node, as the model should read it."""
    first = next((errors[0] for errors in result.errors.values() if errors), None)
    if first is not None:
        return first
    try:
        result.raise_for_state()
    except RunFailedError as failed:
        return failed
    raise EngineError("a run that is not ok has neither an error nor a state that says so")


def _single(outputs: Mapping[str, Any]) -> Any:
    return outputs["out"] if set(outputs) == {"out"} else dict(outputs)


def _open_ports(graph: ResolvedGraph, path: str) -> dict[tuple[str, str], Port]:
    """Each open input of a workflow, by node and port; two of one name are called `node_port`."""
    if graph.sources:
        raise ConfigError(
            f"{path!r} is no tool: it has a source ({graph.sources[0]!r}); a tool's workflow takes its "
            "values at open inputs",
            field="tools",
            value=path,
        )
    found: dict[tuple[str, str], Port] = {}
    for node_id, names in graph.open_ports.items():
        for name in names:
            port = graph.nodes[node_id].definition.input(name)
            if port is not None:
                found[node_id, name] = port
    names = [name for _, name in found]
    return {
        (node_id, name): port
        if names.count(name) == 1
        else msgspec.structs.replace(port, name=_NOT_IN_NAMES.sub("_", f"{node_id}_{name}"))
        for (node_id, name), port in found.items()
    }


def _leaves(graph: ResolvedGraph) -> tuple[str, ...]:
    """Nodes whose values go nowhere: they are the result."""
    feeding = {connection.from_node for connection in graph.connections}
    return tuple(node_id for node_id in graph.nodes if node_id not in feeding)


def _schema(ports: Iterable[Port]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for port in ports:
        try:
            properties[port.name] = schema_of(port.annotation)
        except ConfigError:  # a type of the user's own, which the node reads itself
            properties[port.name] = {}
        if port.description:
            properties[port.name]["description"] = port.description
        if port.required:
            required.append(port.name)
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
