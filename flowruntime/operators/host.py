"""What operators need of whoever runs them, as protocols: they know nothing of workers and runs.

Owns: `Host`, `Telemetry`, `Caller`. Does not own: the implementations (flowruntime.execute).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from flowcore.frame import Failure, Opened

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self, kernel: Caller, node: str, opened: Opened, row: int, failure: Failure, started: float
    ) -> None: ...
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
    def stops_workflow(self, node_id: str) -> bool: ...
    def context(self, kernel: Any, node_id: str, opened: Opened, row: int) -> Any: ...
