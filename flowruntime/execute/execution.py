"""One execution: a request, or one root record of a stream, and what its nodes did.

Owns: `Execution`, `Seen`, what is recorded of one node, and `State`, the NodeState of one execution.
Does not own: turning it into a result (flowruntime.execute.result).

Always holds: nothing here is shared between executions; it is dropped when the root row is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flowcore.frame import Failure, Opened


class State:
    """Values shared by all nodes of one execution."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}


class Seen:
    """What one node did in one execution."""

    __slots__ = ("attempts", "cancelled", "ended", "failures", "rows", "started", "values")

    def __init__(self) -> None:
        self.rows = 0
        """Rows completed."""
        self.values: list[tuple[tuple[int, ...], Any]] = []
        """Each value it gave, with its row's place in the execution (`Opened.order`)."""
        self.failures: list[Failure] = []
        self.cancelled = 0
        self.attempts = 0
        self.started = 0.0
        self.ended = 0.0


class Execution:
    """The record of one execution, written by the operators of a recording chain."""

    __slots__ = (
        "captures",
        "counts",
        "future",
        "handled",
        "id",
        "index",
        "nodes",
        "opened",
        "started",
        "state_",
        "stopped",
    )

    def __init__(self, execution_id: str, started: float) -> None:
        self.id = execution_id
        self.started = started
        self.nodes: dict[str, Seen] = {}
        self.captures: dict[str, list[Any]] = {}
        """By sink: the values it would have written."""
        self.stopped: Failure | None = None
        """Why no further row of it may be worked on."""
        self.handled = 0
        self.state_: State | None = None
        self.future: asyncio.Future[None] | None = None
        self.opened: Opened | None = None
        self.index = 0
        self.counts: Mapping[str, int] = {}

    @property
    def state(self) -> State:
        """Made on first use."""
        if self.state_ is None:
            self.state_ = State()
        return self.state_

    def node(self, node_id: str) -> Seen:
        seen = self.nodes.get(node_id)
        if seen is None:
            seen = self.nodes[node_id] = Seen()
        return seen

    def completed(
        self, node_id: str, order: tuple[int, ...], value: Any, started: float, ended: float, attempts: int
    ) -> None:
        """A node has finished one row with a value."""
        seen = self.nodes.get(node_id)
        if seen is None:
            seen = self.nodes[node_id] = Seen()
            seen.started = started
        seen.rows += 1
        seen.ended = ended
        seen.attempts = max(seen.attempts, attempts)
        seen.values.append((order, value))

    def dropped(self, node_id: str, started: float, ended: float) -> None:
        """A node has finished one row and let no value through."""
        seen = self.node(node_id)
        seen.rows += 1
        seen.started = seen.started or started
        seen.ended = ended

    def yielded(self, node_id: str, order: tuple[int, ...], value: Any) -> None:
        """An expanding node gave one child; the row is not finished by that."""
        self.node(node_id).values.append((order, value))

    def failed(self, node_id: str, failure: Failure, started: float, ended: float, *, handled: bool) -> None:
        seen = self.node(node_id)
        seen.started = seen.started or started
        seen.ended = ended
        seen.failures.append(failure)
        seen.attempts = max(seen.attempts, failure.attempts)
        self.handled += handled

    def cancelled_node(self, node_id: str) -> None:
        self.node(node_id).cancelled += 1

    def captured(self, node_id: str, value: Any) -> None:
        """A sink's value is kept instead of written."""
        self.captures.setdefault(node_id, []).append(value)
        self.node(node_id).rows += 1
