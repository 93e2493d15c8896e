"""`rt.stream`: a continuous run whose source is an iterable, with one outcome per item.

Owns: preparing the workflow (a source for its open ports, an outcome stage behind every end), the order of
outcomes, ending the run with its consumer.
Does not own: the run, taking items (iterables), collecting values (flowruntime.operators.outcome).

Always holds: every item taken from the iterable has exactly one outcome, unless the consumer leaves; a stream
that is cut short raises behind them; at most `max_in_flight` items are on their way or finished and not
consumed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flowcore.errors import Problem, RunFailedError, ValidationFailedError
from flowcore.frame import Opened
from flowcore.policies import NodePolicies
from flowcore.states import Cancelled
from flowcore.workflow import Workflow
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode
from flowruntime.execute.iterables import IterableSource, NoConfig, Window
from flowruntime.execute.replace import replaced
from flowruntime.execute.result import RunResult, StreamOutcome
from flowruntime.operators.outcome import OUTCOME, Reached

if TYPE_CHECKING:
    from flowcore.registry import NodeRegistry
    from flowruntime.execute.run import Run


class Starter(Protocol):
    """What a stream needs of the runtime."""

    @property
    def registry(self) -> NodeRegistry: ...
    def validate(
        self, workflow: Workflow, *, mode: Literal["stream", "request"] = "stream"
    ) -> ResolvedGraph: ...
    async def start_prepared(
        self,
        graph: ResolvedGraph,
        workflow: Workflow,
        *,
        fresh: bool = False,
        limit: int | None = None,
        sources: Mapping[str, Any] | None = None,
        captures: bool = False,
        on_settled: Callable[[Opened, Sequence[int]], None] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Run: ...


class Outcomes:
    """Records as they settle, turned into outcomes in the order asked for."""

    def __init__(self, ends: Sequence[str], order: Literal["input", "completion"]) -> None:
        self._ends = ends
        self._in_order = order == "input"
        self._next = 0
        self._held: dict[int, StreamOutcome] = {}
        self._ready: deque[StreamOutcome] = deque()
        self._wake: asyncio.Future[None] | None = None
        self.ended = False

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        """Root records are settled."""
        first = opened.first_index
        for row in rows:
            outcome = self._outcome(opened, row, first + row)
            if not self._in_order:
                self._ready.append(outcome)
            elif outcome.index == self._next:
                self._ready.append(outcome)
                self._next += 1
            else:
                self._held[outcome.index] = outcome
        while self._next in self._held:
            self._ready.append(self._held.pop(self._next))
            self._next += 1
        self.wake()

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def next(self) -> StreamOutcome | None:
        """The next outcome; None when the run has ended and all are out."""
        while not self._ready:
            if self.ended:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._ready.popleft()

    def _outcome(self, opened: Opened, row: int, index: int) -> StreamOutcome:
        failure = None if opened.failures is None else opened.failures.pop(row, None)
        error = None if failure is None else failure.error
        reached: Reached | None = None if opened.outcomes is None else opened.outcomes.pop(row, None)
        if reached is None:
            return StreamOutcome(index=index, error=error, dropped=error is None)
        values = reached.by_end()
        value = next(iter(values.values())) if len(self._ends) == 1 else values
        return StreamOutcome(index=index, value=value, error=error)


async def stream_items(
    runtime: Starter,
    workflow: Workflow,
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    order: Literal["input", "completion"],
    replace: Mapping[str, Any],
    write: bool,
    attributes: Mapping[str, Any] | None = None,
) -> AsyncGenerator[StreamOutcome]:
    """See `FlowRuntime.stream`."""
    validated = replaced(runtime.validate(workflow, mode=_mode(workflow, runtime)), replace)
    trial = not write and bool(validated.sources)
    fed, source = with_source(validated)
    graph, ends = with_outcomes(fed, write=write)
    window = Window(graph.settings.max_in_flight or 4 * graph.tuning.max_frame)
    outcomes = Outcomes(ends, order)
    run = await runtime.start_prepared(
        graph,
        workflow,
        sources={source: IterableSource(items, window)},
        captures=trial,  # of a pipeline whose sinks and dead letters are not written
        on_settled=outcomes.settled,
        attributes=attributes,
    )

    def ended() -> None:
        outcomes.ended = True
        outcomes.wake()

    run.on_end(ended)
    try:
        while (outcome := await outcomes.next()) is not None:
            yield outcome
            window.release()
        _check_finished(graph.name, await run.wait())
    finally:
        if not outcomes.ended:
            await run.cancel("the stream's consumer has left")


def _check_finished(name: str, result: RunResult) -> None:
    """A stream that was cut short says so, after the outcomes of everything it had taken.

    Raises:
        RunFailedError: it was.
    """
    if isinstance(result.state, Cancelled):
        raise RunFailedError(
            f"the stream of workflow {name!r} was cancelled: {result.state.reason}", result=result
        )
    if result.cause is None:
        return
    stopped_by_item = any(counts.failed for counts in result.counts.values())
    remedy = "; set on_error: continue to go on after an item that failed" if stopped_by_item else ""
    raise RunFailedError(
        f"the stream of workflow {name!r} stopped: {result.cause}{remedy}", result=result
    ) from result.cause


def _mode(workflow: Workflow, runtime: Starter) -> Literal["stream", "request"]:
    """A workflow without a source is checked as for requests: its open ports are what the items fill."""
    for spec in workflow.nodes.values():
        if spec.type == "workflow":
            continue
        known = workflow.local_types.get(spec.type)
        definition = getattr(known, "__flow_connector__", None)
        if definition is None and known is None:
            definition = runtime.registry.factory(spec.type).definition
        if getattr(definition, "role", "") == "source":
            return "stream"
    return "request"


def with_source(graph: ResolvedGraph) -> tuple[ResolvedGraph, str]:
    """The graph and its one source; a workflow without one gets a source whose records fill the open ports.

    Raises:
        ValidationFailedError: there are several sources, or several nodes with open required ports.
    """
    sources = graph.sources
    if len(sources) == 1:
        return graph, sources[0]
    if sources:
        raise ValidationFailedError(
            [
                Problem(
                    path="nodes",
                    message=f"a stream of items feeds one source, but there are {len(sources)}: "
                    + ", ".join(sources),
                    remedy="run it with rt.start(workflow, sources={...})",
                )
            ]
        )
    required = [
        (node_id, name)
        for node_id, names in graph.open_ports.items()
        for name in names
        if (port := graph.nodes[node_id].definition.input(name)) is not None and port.required
    ]
    items = ResolvedNode("$items", IterableSource.__flow_connector__, NoConfig(), {}, NodePolicies())
    first = len(graph.connections)
    single = len(required) == 1
    added = [
        ResolvedConnection(first + index, "$items", "out", () if single else (name,), node_id, name, "data")
        for index, (node_id, name) in enumerate(required)
    ]
    nodes = {"$items": items, **graph.nodes}
    return dataclasses.replace(graph, nodes=nodes, connections=(*graph.connections, *added)), "$items"


def with_outcomes(graph: ResolvedGraph, *, write: bool) -> tuple[ResolvedGraph, list[str]]:
    """The graph with an outcome stage behind every end; and the ends, in order of declaration.

    An end is a node nothing follows. A sink is one, too: it is replaced, or with `write` observed beside its
    writing.
    """
    senders = {connection.from_node for connection in graph.connections if connection.kind != "error"}
    ends = [node_id for node_id in graph.nodes if node_id not in senders]
    nodes = dict(graph.nodes)
    added: list[ResolvedConnection] = []
    for end in ends:
        node = graph.nodes[end]
        if node.role == "sink" and not write:
            nodes[end] = dataclasses.replace(node, definition=OUTCOME, config=None)
            continue
        name = f"$end.{end}"
        nodes[name] = ResolvedNode(name, OUTCOME, None, {}, NodePolicies())
        if node.role == "sink":
            incoming = [connection for connection in graph.connections if connection.to_node == end]
            added += [dataclasses.replace(connection, to_node=name) for connection in incoming]
        else:
            added += [
                ResolvedConnection(0, end, port.name, (), name, "value", "data")
                for port in node.definition.outputs
            ]
    first = len(graph.connections)
    numbered = [
        dataclasses.replace(connection, index=first + index) for index, connection in enumerate(added)
    ]
    return dataclasses.replace(graph, nodes=nodes, connections=(*graph.connections, *numbered)), ends
