"""Where values with Streams leave a workflow: gathered for a result, refused by a sink.

Owns: what reaches an end of a request or of `rt.stream` as a stream becomes a list before its row settles;
what reaches a sink as one fails its row.
Does not own: reading (plain), which rows streams belong to (rows).

Always holds: a row settles only when all that is gathered for it is there, or its failure is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from flowcore.definition import NodeDefinition
from flowcore.errors import ContractError, EngineError, StreamCancelledError
from flowcore.frame import Frame
from flowcore.values import Stream, streams_in
from flowruntime.compile.bounds import DEFAULT_OUTPUT_BYTES, output_bound_of
from flowruntime.compile.sentinels import ABSENT
from flowruntime.substream.plain import Allowance, gathered

if TYPE_CHECKING:
    from flowcore.frame import Opened
    from flowruntime.substream.host import HeldRows, Place, StreamHost

Done = Callable[[Any], None]


class Ends:
    """The ends of one chain."""

    def __init__(self, kernel: StreamHost, rows: HeldRows) -> None:
        self._kernel = kernel
        self._rows = rows
        self._open_ports: dict[str, tuple[str, ...]] = {}
        self._tasks: dict[asyncio.Task[None], set[Place]] = {}
        """What is being gathered, and the rows that wait for it."""

    # --- requests -------------------------------------------------------------------------------------

    def completed(self, node_id: str, opened: Opened, row: int, value: Any) -> None:
        """A node of a request has given a value: gather the streams of ports nothing follows."""
        found = [
            given
            for port in self._ports_nothing_follows(node_id)
            if (given := self._given(node_id, port, value)) is not UNSET and streams_in(given)
        ]
        if found:
            self.gather(found, node_id, opened, row, lambda _: None)

    def _ports_nothing_follows(self, node_id: str) -> tuple[str, ...]:
        found = self._open_ports.get(node_id)
        if found is None:
            graph = self._kernel.plan.graph
            taken = {
                connection.from_port
                for connection in graph.connections
                if connection.from_node == node_id and connection.kind in ("data", "conditional")
            }
            ports = graph.nodes[node_id].definition.outputs
            found = self._open_ports[node_id] = tuple(port.name for port in ports if port.name not in taken)
        return found

    def _given(self, node_id: str, port: str, value: Any) -> Any:
        definition = self._kernel.plan.graph.nodes[node_id].definition
        structured = isinstance(definition, NodeDefinition) and definition.structured_output
        return getattr(value, port, UNSET) if structured else value

    # --- gathering ------------------------------------------------------------------------------------

    def gather(self, value: Any, node_id: str, opened: Opened, row: int, done: Done) -> None:
        """Read every stream of a value to its end, and give `done` the value with lists in their places.

        Args:
            value: what has come to the end of the workflow.
            node_id: the end; it fails when a stream does, or is too long.
            opened: of the row, which must not be settled yet and settles only afterwards.
            row: in that frame.
            done: given ABSENT when the row has failed; not called once the chain is taken down.
        """
        places = {(opened, row)} | {
            place for stream in streams_in(value) if (place := self._rows.place_of(stream)) is not None
        }
        for place in places:  # a batch has streams of several rows
            if not self._rows.gather(place):
                raise EngineError(f"a stream of node {node_id!r} was to be gathered after its row settled")
        self._kernel.in_progress += 1
        task = self._kernel.loop.create_task(
            self._gather(value, node_id, opened, row, done), name=f"flow gather {node_id}"
        )
        self._tasks[task] = places
        task.add_done_callback(self._gathered)

    async def _gather(self, value: Any, node_id: str, opened: Opened, row: int, done: Done) -> None:
        kernel = self._kernel
        graph = kernel.plan.graph
        nbytes = output_bound_of(graph.nodes[node_id]) or DEFAULT_OUTPUT_BYTES
        try:
            plain = await gathered(value, Allowance(node_id, graph.settings.max_children, nbytes))
        except Exception as error:  # noqa: BLE001 - of the producer, which is user code, or of the bound
            plain = ABSENT
            if not kernel.closed:
                self._failed(node_id, opened, row, error)
        if not kernel.closed:
            done(plain)

    def _failed(self, node_id: str, opened: Opened, row: int, error: Exception) -> None:
        """The node had completed the row; now it has not."""
        kernel = self._kernel
        counts = kernel.counts[node_id]
        if kernel.plan.graph.nodes[node_id].role != "expand":  # of such a node the parent is counted
            counts.completed -= 1
        execution = kernel.execution_of(opened, row) if kernel.recording else None
        if execution is not None:
            execution.withdrawn(node_id, opened.order(row))
        if isinstance(error, StreamCancelledError) and kernel.stopped(opened, row) is not None:
            counts.cancelled += 1
            if execution is not None:
                execution.cancelled_node(node_id)
            return
        kernel.failed(node_id, opened, row, error, on_error_port=False)

    def _gathered(self, task: asyncio.Task[None]) -> None:
        self._kernel.in_progress -= 1
        try:
            if not task.cancelled():
                task.result()
            for place in self._tasks.pop(task):
                self._rows.gathered(place)
        except Exception as error:  # noqa: BLE001 - the engine's own; told in a callback of the loop
            self._kernel.crash(error)

    def close(self) -> None:
        """The chain is taken down: nothing is gathered any more."""
        for task in list(self._tasks):
            task.cancel()

    async def until_quiet(self) -> None:
        """After `close`: until nothing is being gathered."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def without_streams(kernel: StreamHost, node_id: str, frame: Frame[Any]) -> Frame[Any]:
    """The frame as a sink may have it: rows whose value is or holds a Stream have failed at the sink."""
    rows: list[int] = []
    values: list[Any] = []
    for row, value in zip(frame.present, frame.values, strict=True):
        streams = streams_in(value)
        if not streams:
            rows.append(row)
            values.append(value)
            continue
        error = ContractError(
            f"sink {node_id!r} was given {_holder(value)}{streams[0]!r}; a Stream never enters an outside "
            "system: put stream.collect before the sink for the whole of it, or stream.split for one row "
            "per item",
            node=node_id,
        )
        kernel.failed(node_id, frame.opened, row, error, value=value)
        if kernel.closed:
            break
    if len(values) == len(frame.values):
        return frame
    return Frame(frame.opened, values, rows, frame.covers, frame.failed)


def _holder(value: Any) -> str:
    return "" if isinstance(value, Stream) else f"a {type(value).__name__} that holds "


def rows_with_streams(frame: Frame[Any]) -> dict[int, Any]:
    """The rows whose value is or holds a Stream, with that value."""
    return {row: value for row, value in zip(frame.present, frame.values, strict=True) if streams_in(value)}


def without_rows(frame: Frame[Any], late: Collection[int], *, covered: bool) -> Frame[Any]:
    """The frame without the values of some rows.

    Args:
        frame: some of whose rows are gathered first.
        late: those.
        covered: it answers for them all the same; else whoever has gathered them does.
    """
    pairs = [pair for pair in zip(frame.present, frame.values, strict=True) if pair[0] not in late]
    covers = frame.covers if covered else [row for row in frame.covered if row not in late]
    return Frame(frame.opened, [value for _, value in pairs], [row for row, _ in pairs], covers, frame.failed)
