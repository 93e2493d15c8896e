"""One execution: a request, or one root record of a stream, and what its nodes did.

Owns: `Execution`, `Seen`, what is recorded of one node, `State`, the NodeState of one execution, `Past`.
Does not own: turning it into a result (flowruntime.execute.result).

Always holds: nothing here is shared between executions; it is dropped when the root row is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowcore.frame import Failure, Opened

if TYPE_CHECKING:
    from flowcore.dead_letters import Ancestor, DeadLetter, Origin
    from flowruntime.durable.journal import ExecutionJournal
    from flowruntime.models.budgets import Life


class State:
    """Values shared by all nodes of one execution."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}


class Seen:
    """What one node did in one execution."""

    __slots__ = (
        "attempts", "cancelled", "ended", "failures", "replaced", "rows", "started", "values", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows = 0
        """Rows completed."""
        self.values: list[tuple[tuple[int, ...], Any]] = []
        """Each value it gave, with its row's place in the execution (`Opened.order`)."""
        self.failures: list[Failure] = []
        self.replaced = 0
        """Of the failures: those whose rows went on with the node's fallback."""
        self.cancelled = 0
        self.waiting = 0
        """Rows that wait for an answer."""
        self.attempts = 0
        self.started = 0.0
        self.ended = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a record that runs again: what it had the first time, and its letters."""

    origin: Origin
    key: object = None
    headers: Mapping[str, object] = field(default_factory=dict[str, object])
    event_time: datetime | None = None
    lineage: tuple[Ancestor, ...] = ()
    lossy: Mapping[str, str] = field(default_factory=dict[str, str])
    """Parts of `origin` that were not kept."""

    @property
    def columns(self) -> dict[str, Any]:
        """Of its root row, as `Kernel.open_root` takes them."""
        return {"keys": [self.key], "headers": [self.headers], "times": [self.event_time]}


class Execution:
    """The record of one execution, written by the operators of a recording chain."""

    __slots__ = (
        "again",
        "attempt",
        "attributes",
        "captures",
        "counts",
        "deadline",
        "future",
        "given",
        "governed",
        "handled",
        "has_streams",
        "id",
        "index",
        "journal",
        "kept_letters",
        "letters",
        "life",
        "nodes",
        "numbers",
        "opened",
        "past",
        "started",
        "state_",
        "stopped",
    )

    def __init__(
        self, execution_id: str, started: float, attributes: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.id = execution_id
        self.started = started
        self.attributes = attributes
        """What the caller said of the request; for middleware."""
        self.attempt = 1
        """Of the whole request, when a node retries the workflow."""
        self.again: float | None = None
        """This attempt has failed: seconds after its end another one begins."""
        self.deadline: float | None = None
        """On the loop's clock."""
        self.governed = False
        """Hooks stand around the request; whoever asks them tells of its end."""
        self.life: Life | None = None
        """What budgets of this request alone last as long as; made when a model is called first."""
        self.nodes: dict[str, Seen] = {}
        self.captures: dict[str, list[Any]] = {}
        """By sink: the values it would have written."""
        self.stopped: Failure | None = None
        """Why no further row of it may be worked on."""
        self.handled = 0
        self.has_streams = False
        """Some node has made a Stream, so that values may hold one."""
        self.state_: State | None = None
        self.future: asyncio.Future[None] | None = None
        self.opened: Opened | None = None
        self.index = 0
        self.counts: Mapping[str, int] = {}
        self.given: Mapping[str, Any] | None = None
        """The inputs of a request by `node.port`; None in a stream."""
        self.past: Past | None = None
        """In a redrive."""
        self.letters: list[DeadLetter] = []
        """Of its failures, kept; with captured sinks: that would have been."""
        self.kept_letters = 0
        self.journal: ExecutionJournal | None = None
        """Where the execution survives its process."""
        self.numbers: dict[object, int] = {}

    def begin_again(self) -> None:
        """The next attempt: nothing is left of the one before but its letters, which are kept."""
        self.attempt += 1
        self.nodes = {}
        self.captures = {}
        self.stopped = self.again = self.state_ = None
        self.handled = 0
        self.has_streams = False

    @property
    def state(self) -> State:
        """Made on first use."""
        if self.state_ is None:
            self.state_ = State()
        return self.state_

    def numbered(self, what: object) -> int:
        """How often that was asked before."""
        number = self.numbers.get(what, 0)
        self.numbers[what] = number + 1
        return number

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
        if attempts > seen.attempts:  # noqa: PLR1730 - for every row: max() costs a call
            seen.attempts = attempts
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

    def withdrawn(self, node_id: str, order: tuple[int, ...]) -> None:
        """A row the node had finished has failed after all, so its value does not count."""
        seen = self.node(node_id)
        seen.values = [given for given in seen.values if given[0] != order]
        seen.rows = max(0, seen.rows - 1)

    def dead_lettered(self, letters: Sequence[DeadLetter], *, kept: bool) -> None:
        """The letters of one failure are kept or captured, so that it is handled."""
        self.letters.extend(letters)
        self.kept_letters += len(letters) if kept else 0
        self.handled += 1

    def cancelled_node(self, node_id: str) -> None:
        self.node(node_id).cancelled += 1

    def captured(self, node_id: str, value: Any) -> None:
        """A sink's value is kept instead of written."""
        self.captures.setdefault(node_id, []).append(value)
        self.node(node_id).rows += 1
