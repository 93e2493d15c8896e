"""What operators need of whoever runs them, as protocols: they know nothing of workers and runs.

Owns: `Host`, `Telemetry`, `Letters`, `Caller`, `RowJournal`, `RowHolds`.
Does not own: the implementations (flowruntime.execute, flowruntime.durable).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from flowcore.frame import Failure, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from flowcore.dead_letters import DeadLetter
    from flowcore.events import FailureHandling
    from flowcore.frame import Frame
    from flowcore.on_error import OnError
    from flowcore.waits import WaitRequest
    from flowruntime.compile.plan import Plan
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.meter import StageMeter
    from flowruntime.flowcontrol.budget import Budget


class Caller(Protocol):
    """The chain an event is about."""

    @property
    def plan(self) -> Plan: ...
    @property
    def recording(self) -> bool: ...
    @property
    def task(self) -> str | None: ...
    @property
    def streams(self) -> object | None: ...
    def execution_id(self, opened: Opened, row: int) -> str | None: ...


class Telemetry(Protocol):
    """Tells the event bus of single nodes, when someone listens."""

    @property
    def bus(self) -> EventBus: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def watched(self) -> bool: ...
    @property
    def metered(self) -> bool: ...
    def meter(self, stage: str) -> StageMeter: ...
    def node_started(self, kernel: Caller, node: str, opened: Opened, row: int) -> float: ...
    def node_completed(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        started: float,
        ended: float,
        *,
        dropped: bool,
        value: Any = ...,
    ) -> None: ...
    def node_failed(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        failure: Failure,
        started: float,
        then: FailureHandling,
    ) -> None: ...
    def dead_lettered(self, kernel: Caller, letters: Sequence[DeadLetter]) -> None: ...
    def node_retrying(
        self,
        kernel: Caller,
        node: str,
        opened: Opened,
        row: int,
        error: BaseException,
        attempt: int,
        delay_s: float,
    ) -> None: ...


class Letters(Protocol):
    """Takes rows that were given up on, and keeps them unsettled until their letters are kept."""

    def put(
        self, kernel: Any, opened: Opened, row: int, failure: Failure, value: object, *, undecoded: bool
    ) -> None:
        """A row failed for good; `value` is what the node was given, UNSET when that is not known."""
        ...


class Recalled(Protocol):
    """What a call gave in an earlier pass of its execution."""

    @property
    def value(self) -> Any: ...
    @property
    def error(self) -> BaseException | None: ...


class RowJournal(Protocol):
    """Keeps what calls give, and recalls it, where executions survive their process (flowruntime.durable)."""

    def recall(self, node_id: str, opened: Opened, row: int) -> Recalled | None: ...
    def take(self, node_id: str, job: Any, then: Callable[[], None]) -> None: ...
    def keep(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        then: Callable[[], None],
        *,
        value: Any = ...,
        error: BaseException | None = ...,
        into: Any = ...,
    ) -> None: ...
    async def wait(
        self, node_id: str, opened: Opened, row: int, number: int, request: WaitRequest
    ) -> Any: ...
    def children(
        self, node_id: str, start: Callable[[Opened, int, Any, int], Any], most: int
    ) -> Callable[[Opened, int, Any, int], Any]: ...
    def was_called(self, node_id: str, opened: Opened, row: int) -> bool: ...
    async def failed(self, node_id: str, opened: Opened, row: int, error: BaseException) -> None: ...
    def unwritten(self, node_id: str, slot: int, frame: Frame[Any]) -> Frame[Any]: ...
    async def wrote(
        self, node_id: str, frame: Frame[Any], failed: Mapping[int, BaseException], whole: Exception | None
    ) -> None: ...
    def was_lettered(self, node_id: str, opened: Opened, row: int) -> bool: ...
    async def lettered(
        self, node_id: str, opened: Opened, row: int, letters: Iterable[DeadLetter]
    ) -> None: ...


class RowHolds(Protocol):
    """Stores rows of a continuous run that wait, and goes on with them (flowruntime.durable)."""

    async def wait(
        self, node_id: str, opened: Opened, row: int, number: int, request: WaitRequest
    ) -> Any: ...
    def delays(self, node_id: str) -> bool: ...
    async def delay(
        self, node_id: str, opened: Opened, row: int, number: int, duration: timedelta
    ) -> None: ...
    def take(self, node_id: str, job: Any, then: Callable[[], None]) -> None: ...


class Host(Protocol):
    """The worker, as operators see it."""

    current: Any
    """The fused stage being run, for the watchdog."""

    @property
    def budget(self) -> Budget: ...
    @property
    def telemetry(self) -> Telemetry: ...
    @property
    def workflow_id(self) -> str: ...
    @property
    def on_error(self) -> Mapping[str, OnError]: ...
    def report(self, node_id: str, fault: str) -> None: ...
    def limits_held_by(self, node_id: str) -> frozenset[str]: ...
    def letters_of(self, node_id: str, *, asked: bool = False) -> Letters | None: ...
    def context(self, kernel: Any, node_id: str, opened: Opened, row: int, attempt: int = 1) -> Any: ...
