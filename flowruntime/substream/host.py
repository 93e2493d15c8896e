"""What the streams of a chain need of it, as protocols: they know neither operators nor workers.

Owns: `StreamHost`, `HeldRows`. Does not own: the implementations (flowruntime.operators.kernel, rows).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from flowcore.frame import Failure, Opened
    from flowcore.values import Stream
    from flowruntime.compile.plan import Plan
    from flowruntime.execute.counts import NodeCounts
    from flowruntime.execute.execution import Execution

Place = tuple["Opened", int]
"""A row: its frame, and where in it."""


class StreamHost(Protocol):
    """The kernel of the chain."""

    closed: bool
    in_progress: int

    @property
    def plan(self) -> Plan: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def recording(self) -> bool: ...
    @property
    def counts(self) -> dict[str, NodeCounts]: ...
    def stopped(self, opened: Opened, row: int) -> Failure | None: ...
    def execution_of(self, opened: Opened, row: int) -> Execution: ...
    def crash(self, error: BaseException) -> None: ...
    def failed(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        error: BaseException,
        attempts: int = 1,
        *,
        started: float = 0.0,
        on_error_port: bool = True,
        value: object = ...,
    ) -> Failure: ...


class HeldRows(Protocol):
    """The rows that streams keep unsettled."""

    def place_of(self, stream: Stream[Any]) -> Place | None: ...
    def gather(self, place: Place) -> bool: ...
    def gathered(self, place: Place) -> None: ...
