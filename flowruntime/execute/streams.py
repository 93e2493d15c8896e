"""`rt.stream`: a continuous run whose source is an iterable, with one outcome per item.

Owns: the iterable as a source, turning executions into outcomes, their order, ending the run with its
    consumer.
Does not own: the run.

Always holds: every item taken from the iterable has exactly one outcome, unless the consumer leaves; at most
`max_in_flight` items are on their way or finished and not consumed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from flowcore.connector import Credit, Position, Rows, Source
from flowcore.context import SourceContext
from flowcore.errors import Problem, RunFailedError, ValidationFailedError
from flowcore.policies import NodePolicies
from flowcore.workflow import Workflow
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode
from flowruntime.execute.replace import replaced
from flowruntime.execute.result import StreamOutcome, outputs_of, repeated_nodes

if TYPE_CHECKING:
    from flowcore.registry import NodeRegistry
    from flowruntime.execute.execution import Execution
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
        on_row: Callable[[Execution], None] | None = None,
    ) -> Run: ...


class NoConfig(msgspec.Struct, frozen=True):
    """An iterable has nothing to configure."""


class Window:
    """How many items may be taken and not yet consumed as outcomes."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._waiting: asyncio.Future[None] | None = None

    async def room(self) -> None:
        """Returns when at least one item may be taken."""
        while self.free <= 0:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def release(self) -> None:
        """An outcome was consumed."""
        self.free += 1
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class IterableSource(Source[NoConfig, Any], type="flow.iterable"):
    """Reads an iterable or asynchronous iterable, lazily, no faster than the window allows."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], window: Window) -> None:
        super().__init__(NoConfig())
        self._items = items
        self._window = window

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> IterableReader:
        del partition, resume, ctx
        return IterableReader(self._items, self._window)


class IterableReader:
    """Takes what is there without waiting; waits for at least one item."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], window: Window) -> None:
        self._async: AsyncIterator[Any] | None = aiter(items) if isinstance(items, AsyncIterable) else None
        self._sync = None if isinstance(items, AsyncIterable) else iter(items)
        self._window = window
        self._pending: asyncio.Future[Any] | None = None

    async def read(self, credit: Credit) -> Rows[Any] | None:
        await self._window.room()
        if self._sync is not None:
            values = list(itertools.islice(self._sync, min(credit.rows, self._window.free)))
        else:
            values = await self._read_async()
        self._window.free -= len(values)
        return Rows(values) if values else None

    async def _read_async(self) -> list[Any]:
        if self._pending is None:
            assert self._async is not None
            self._pending = asyncio.ensure_future(_next(self._async))
        try:
            # A cancelled read must not lose the item that is on its way.
            value = await asyncio.shield(self._pending)
        except StopAsyncIteration:
            return []
        finally:
            if self._pending.done():
                self._pending = None
        return [] if value is _ENDED else [value]

    async def commit(self, position: Position) -> None:
        """An iterable keeps no position."""

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()  # pyright: ignore[reportUnknownMemberType] - of any element type


_ENDED = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    """The next item, or the end as a value: StopAsyncIteration cannot be set on a future's task."""
    return await anext(items, _ENDED)


class Outcomes:
    """Executions as they settle, turned into outcomes in the order asked for."""

    def __init__(
        self, graph: ResolvedGraph, ends: Sequence[str], order: Literal["input", "completion"]
    ) -> None:
        self._graph = graph
        self._ends = ends
        self._repeated: frozenset[str] = frozenset()
        self._in_order = order == "input"
        self._next = 0
        self._held: dict[int, StreamOutcome] = {}
        self._ready: deque[StreamOutcome] = deque()
        self._wake: asyncio.Future[None] | None = None
        self.ended = False

    def repeats(self, nodes: frozenset[str]) -> None:
        """Nodes whose outputs are lists."""
        self._repeated = nodes

    def settled(self, execution: Execution) -> None:
        """A record is settled."""
        outcome = self._outcome(execution)
        if not self._in_order:
            self._ready.append(outcome)
        else:
            self._held[outcome.index] = outcome
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        self.wake()

    def wake(self) -> None:
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

    def _outcome(self, execution: Execution) -> StreamOutcome:
        values: dict[str, Any] = {}
        error: BaseException | None = None
        for seen in execution.nodes.values():
            if seen.failures and error is None:
                error = seen.failures[0].error
        for node_id in self._ends:
            if node_id in execution.captures:
                values[node_id] = execution.captures[node_id]
                continue
            seen = execution.nodes.get(node_id)
            if seen is None or not seen.values:
                continue
            node = self._graph.nodes[node_id]
            structured = node.role not in ("source", "sink") and node.node.structured_output
            ports = tuple(port.name for port in node.definition.outputs)
            outputs = outputs_of(seen, structured=structured, repeated=node_id in self._repeated, ports=ports)
            values[node_id] = outputs["out"] if set(outputs) == {"out"} else outputs
        single = len(self._ends) == 1
        value: Any = values if not single else next(iter(values.values()), None)
        if single and self._ends[0] in execution.captures and len(execution.captures[self._ends[0]]) == 1:
            value = execution.captures[self._ends[0]][0]
        return StreamOutcome(
            index=execution.index,
            value=value if values else None,
            error=error,
            dropped=not values and error is None,
        )


async def stream_items(
    runtime: Starter,
    workflow: Workflow,
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    order: Literal["input", "completion"],
    replace: Mapping[str, Any],
    write: bool,
) -> AsyncIterator[StreamOutcome]:
    """See `FlowRuntime.stream`."""
    graph, source = with_source(replaced(runtime.validate(workflow, mode=_mode(workflow, runtime)), replace))
    window = Window(graph.settings.max_in_flight or 4 * graph.settings.max_frame)
    outcomes = Outcomes(graph, ends_of(graph), order)
    run = await runtime.start_prepared(
        graph,
        workflow,
        sources={source: IterableSource(items, window)},
        captures=not write,
        on_row=outcomes.settled,
    )
    outcomes.repeats(repeated_nodes(run.plan_of(source)))

    def ended() -> None:
        outcomes.ended = True
        outcomes.wake()

    run.on_end(ended)
    try:
        while (outcome := await outcomes.next()) is not None:
            yield outcome
            window.release()
        result = await run.wait()
        if not result.ok and result.cause is not None:
            raise RunFailedError(
                f"the stream of workflow {graph.name!r} stopped: {result.cause}; set on_error: continue to get failed "
                "items as outcomes",
                result=result,
            ) from result.cause
    finally:
        if not outcomes.ended:
            await run.cancel("the stream's consumer has left")


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
    sources = [node_id for node_id, node in graph.nodes.items() if node.role == "source"]
    if len(sources) == 1:
        return graph, sources[0]
    if sources:
        raise ValidationFailedError(
            [
                Problem(
                    path="nodes",
                    message=f"a stream of items feeds one source, but there are {len(sources)}: {', '.join(sources)}",
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


def ends_of(graph: ResolvedGraph) -> list[str]:
    """Nodes nothing follows: where a record's value is taken from."""
    senders = {connection.from_node for connection in graph.connections if connection.kind != "error"}
    return [node_id for node_id in graph.nodes if node_id not in senders]
