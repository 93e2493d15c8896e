"""Running a workflow to its end in a test: a source of the test's, every sink kept, every event recorded.

Owns: `run_workflow`, `WorkflowRun`. Does not own: the runtime, or virtual time (flowruntime.testing.virtual).

Always holds: no declared source is read, no declared sink and no dead letter is written; the workflow's own
object is not changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import msgspec

from flowcore.connector import Source
from flowcore.dead_letters import DeadLetter
from flowcore.errors import DefinitionError
from flowcore.findings import did_you_mean
from flowcore.policies import NodePolicies
from flowcore.workflow import Workflow
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode
from flowruntime.execute.replace import replaced
from flowruntime.execute.result import RunResult
from flowruntime.execute.streams import with_source
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.collected import CollectedConfig, CollectedSink, collected
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.recorder import EventRecorder, recorded
from flowruntime.testing.scripted import scripted
from flowruntime.testing.virtual import wall_clock

Rows = Source[Any, Any] | Iterable[Any]


@dataclasses.dataclass(frozen=True)
class WorkflowRun:
    """What a run came to."""

    result: RunResult
    sinks: dict[str, CollectedSink]
    """By sink; a node nothing follows has one under its id (`id.port` for ports other than `out`)."""
    events: EventRecorder
    letters: list[DeadLetter]
    """Dead letters, where the workflow has a place for them; that is not written either."""

    @property
    def received(self) -> dict[str, list[Any]]:
        """The values each sink was given, in order."""
        return {name: sink.values for name, sink in self.sinks.items()}

    @property
    def written(self) -> list[Any]:
        """The values of the only sink.

        Raises:
            AssertionError: there are several.
        """
        if len(self.sinks) != 1:
            raise AssertionError(
                f"there are {len(self.sinks)} sinks: {', '.join(self.sinks)}; use received[...]"
            )
        return next(iter(self.sinks.values())).values


async def run_workflow(
    workflow: Workflow,
    source: Rows | Mapping[str, Rows],
    *,
    replace: Mapping[str, Any] | None = None,
    sinks: Mapping[str, CollectedSink] | None = None,
    runtime: FlowRuntime | None = None,
    nodes: Iterable[object] = (),
    limit: int | None = None,
) -> WorkflowRun:
    """Run a workflow as a stream to its end, on the loop the test runs on.

    Args:
        workflow: with a source, or without one: then each row fills its open port (or, as a mapping, its
            ports).
        source: rows, or a source such as `scripted(...)`; by source id when there are several.
        replace: functions, or values to answer with, in the place of nodes, by id.
        sinks: sinks of the test's in the place of declared ones; the others are made.
        runtime: None: one of its own, on the loop's clock, that keeps no state.
        nodes: for that runtime.
        limit: stop after this many records.

    Raises:
        ValidationFailedError: the workflow, with every problem.
        DefinitionError: `source`, `replace` or `sinks` names what the workflow does not have.

    A failing run does not raise here: see `result.state`, or `result.raise_for_state()`.
    """
    async with contextlib.AsyncExitStack() as stack:
        rt = runtime or await stack.enter_async_context(_runtime(nodes))
        graph, sources = _with_sources(rt, workflow, source)
        graph, kept = with_collected(replaced(graph, replace or {}), sinks or {})
        graph, letters = with_letters(graph)
        with recorded(rt.events) as events:
            run = await rt.start_prepared(graph, workflow, sources=sources, limit=limit)
            try:
                result = await run.wait()
            except BaseException:
                await run.cancel("the test has left")
                raise
        return WorkflowRun(result, kept, events, letters.letters)


@contextlib.asynccontextmanager
async def _runtime(nodes: Iterable[object]) -> AsyncGenerator[FlowRuntime]:
    async with FlowRuntime(nodes, state_dir=None, watchdog=None, seed=0, clock=wall_clock()) as runtime:
        yield runtime


def _with_sources(
    runtime: FlowRuntime, workflow: Workflow, given: Rows | Mapping[str, Rows]
) -> tuple[ResolvedGraph, dict[str, Source[Any, Any]]]:
    """The graph, and a stand-in for each source of it."""
    graph = runtime.validate(workflow, mode="request")
    declared = [node_id for node_id, node in graph.nodes.items() if node.role == "source"]
    if declared:
        graph = runtime.validate(workflow, mode="stream")
    if not isinstance(given, Mapping):
        graph, only = with_source(graph)
        return graph, {only: _source(given)}
    by_id: Mapping[str, Rows] = given  # pyright: ignore[reportUnknownVariableType] - a mapping is by source id
    unknown = [name for name in by_id if name not in declared]
    missing = [name for name in declared if name not in by_id]
    if unknown or missing:
        hint = did_you_mean(unknown[0], declared) if unknown else f"give rows for {', '.join(missing)}, too"
        raise DefinitionError(
            f"source={{...}} names {list(by_id)!r}, the workflow's sources are {declared!r}; {hint}"
        )
    return graph, {name: _source(rows) for name, rows in by_id.items()}


def _source(rows: Rows) -> Source[Any, Any]:
    return rows if isinstance(rows, Source) else scripted(*rows)


def with_collected(
    graph: ResolvedGraph, given: Mapping[str, CollectedSink]
) -> tuple[ResolvedGraph, dict[str, CollectedSink]]:
    """Collected sinks in the place of the declared ones, and behind every output nothing follows."""
    declared = [node_id for node_id, node in graph.nodes.items() if node.role == "sink"]
    for name in given:
        if name not in declared:
            raise DefinitionError(f"sinks={{...}}: there is no sink {name!r}; {did_you_mean(name, declared)}")
    kept: dict[str, CollectedSink] = {}
    nodes = dict(graph.nodes)
    connections = list(graph.connections)
    for node_id in declared:
        kept[node_id] = given.get(node_id) or collected()
        nodes[node_id] = dataclasses.replace(graph.nodes[node_id], definition=_definition(kept[node_id]))
    senders = {connection.from_node for connection in graph.connections if connection.kind != "error"}
    for node_id in graph.nodes:
        if node_id in declared or node_id in senders:
            continue
        for port in graph.nodes[node_id].definition.outputs:
            name = node_id if port.name == "out" else f"{node_id}.{port.name}"
            sink = kept[name] = collected()
            sink_id = f"${name}"
            nodes[sink_id] = ResolvedNode(sink_id, _definition(sink), CollectedConfig(), {}, NodePolicies())
            connections.append(
                ResolvedConnection(len(connections), node_id, port.name, (), sink_id, "value", "data")
            )
    return dataclasses.replace(graph, nodes=nodes, connections=tuple(connections)), kept


def with_letters(graph: ResolvedGraph) -> tuple[ResolvedGraph, CollectedLetters]:
    """The graph with collected dead letters in the place of its own, if it has one."""
    letters = CollectedLetters()
    if graph.dead_letter is None:
        return graph, letters
    place = dataclasses.replace(graph.dead_letter, make=lambda: letters)
    return dataclasses.replace(graph, dead_letter=place), letters


def _definition(sink: CollectedSink) -> Any:
    return msgspec.structs.replace(CollectedSink.__flow_connector__, implementation=_Made(sink))


class _Made:
    """Gives the sink of the test where the runtime would make one."""

    def __init__(self, sink: CollectedSink) -> None:
        self._sink = sink

    def __call__(self, config: object) -> CollectedSink:
        return self._sink
