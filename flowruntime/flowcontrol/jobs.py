"""Jobs of a worker pool, and the lanes in which they wait for their turn.

Owns: `Job`, one call under way or waiting; `Lane`, the jobs of one owner; `Owner`, whoever submits them.
Does not own: whose turn it is, permits, workers (pool).

Always holds: a lane gives out its jobs first in first out, but for those that were begun before, which stand
at its front, and for what its precedence holds back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.frame import Opened

if TYPE_CHECKING:
    import asyncio

    from flowruntime.flowcontrol.precedence import Precedence, Row
    from flowruntime.resilience.breaker import Ticket


class Owner(Protocol):
    """Whoever submitted a job."""

    def started(self, job: Job) -> None: ...
    def finished(self, job: Job) -> None: ...
    def crashed(self, error: BaseException) -> None: ...
    def retrying(self, job: Job, error: BaseException, delay_s: float) -> None: ...


class Job:
    """One row (or one batch of rows) on its way through a waiting stage."""

    __slots__ = (
        "attempt", "cancelled", "deadline", "done", "error", "expired", "extra", "generation", "key", "lane",
        "late", "members", "opened", "overall", "prepared", "result", "row", "started", "ticket", "timer",
        "value", "worker",
    )  # fmt: skip

    def __init__(self, lane: Lane, opened: Opened, row: int, value: Any) -> None:
        self.lane = lane
        self.opened = opened
        self.row = row
        self.value = value
        self.attempt = 1
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.expired = False
        """The attempt under way has taken too long."""
        self.late = False
        """All attempts together have."""
        self.deadline: float | None = None
        self.overall: asyncio.TimerHandle | None = None
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.ticket: Ticket | None = None
        self.worker: asyncio.Task[None] | None = None
        self.generation: Any = None
        self.key: Any = None
        self.extra: Any = None
        self.prepared: Any = None
        self.members: Sequence[Job] = ()
        """For a batch: the jobs of its rows."""


class Lane:
    """The jobs of one owner, first in first out; lanes of a pool are served round robin.

    Args:
        owner: is told what becomes of them.
        precedence: which of them may begin while more bytes are in flight than allowed; None: any.
        behind: for owners that keep an order: the rows that wait until some job of this lane has gone.
    """

    __slots__ = ("arrivals", "backing_off", "behind", "held", "owner", "precedence", "queued", "running")

    def __init__(
        self,
        owner: Owner,
        precedence: Precedence | None = None,
        behind: Callable[[], Iterable[Row]] | None = None,
    ) -> None:
        self.owner = owner
        self.precedence = precedence
        self.behind = behind
        self.queued: deque[Job] = deque()
        """Those begun before, which are to be tried again, stand at its front."""
        self.running: set[Job] = set()
        self.backing_off: set[Job] = set()
        self.held = False
        """None of what is queued may begin now."""
        self.arrivals = 0
        """Rows that came to be queued, or to wait behind those that are."""

    def first(self) -> Job | None:
        """The job that may begin now; None: all must wait. Some job is queued."""
        precedence, queued = self.precedence, self.queued
        if precedence is None or queued[0].attempt > 1 or not precedence.holds:
            return queued[0]
        index = precedence.choose(queued, rows_of, self.behind, self.arrivals)
        return None if index is None else queued[index]

    def take_out(self, job: Job) -> None:
        """It waits here no more."""
        if job is self.queued[0]:
            self.queued.popleft()
        else:
            self.queued.remove(job)


def rows_of(job: Job) -> Iterable[Row]:
    """The rows one call works on."""
    return [(each.opened, each.row) for each in job.members] or ((job.opened, job.row),)
