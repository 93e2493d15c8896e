"""Further attempts of records: a record of a stream goes through its chain again when one of its rows failed.

Owns: `Attempts`: which records have an attempt left, and beginning it after the backoff.
Does not own: which nodes retry the workflow (flowruntime.compile), requests' attempts (requests).

Always holds: a record is put off in its source's frame from its first failed attempt until the last one has
ended, so that its credit is held and its position is not committed before; two attempts of one record never
overlap; each begins with a fresh state. Holds one entry per record that is being tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flowcore.events import ErrorInfo, WorkflowRetrying
from flowcore.frame import Failure, Frame, Opened
from flowcore.policies import RetryPolicy
from flowruntime.resilience.retry import next_delay_s

if TYPE_CHECKING:
    import random

    from flowruntime.compile.plan import Scope
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.events.bus import EventBus
    from flowruntime.operators.edge import Edge
    from flowruntime.operators.kernel import Kernel

BACKOFF: Final = RetryPolicy()
"""Of a node that does not say how to repeat a call."""


def backoff_s(node: ResolvedNode, attempt: int, rng: random.Random, error: BaseException) -> float:
    """Seconds from the end of a failed attempt to the next one.

    Args:
        node: where it failed.
        attempt: the one that failed, from 1.
        rng: for jitter.
        error: with what.
    """
    return next_delay_s(node.policies.retry or BACKOFF, attempt, rng, error)


class _Entry:
    """One record that is being tried again."""

    __slots__ = ("attempt", "failure", "timer")

    def __init__(self) -> None:
        self.attempt = 1
        self.failure: Failure | None = None
        """Of the attempt under way, for which a further one is made."""
        self.timer: asyncio.TimerHandle | None = None


class Attempts:
    """Of the records of one task.

    Args:
        kernel: of its chain.
        scope: of the root records.
        entry: where they enter the chain.
        bus: told of every further attempt.
        rng: for jitter.
        value_of: what enters the chain of a root record.
    """

    def __init__(
        self,
        kernel: Kernel,
        scope: Scope,
        entry: Edge,
        bus: EventBus,
        rng: random.Random,
        value_of: Callable[[Opened, int], Any],
    ) -> None:
        self._kernel = kernel
        self._scope = scope
        self._entry = entry
        self._bus = bus
        self._rng = rng
        self._value_of = value_of
        self._entries: dict[tuple[Opened, int], _Entry] = {}

    def again(self, failure: Failure, opened: Opened, row: int) -> bool:
        """A row failed for good. Whether its record has an attempt left."""
        root, root_row = opened.root(row)
        entry = self._entries.get((root, root_row))
        if entry is None:
            entry = self._entries[root, root_row] = _Entry()
            root.ledger.put_off(root_row, partial(self._over, root, root_row))
        if entry.failure is None and entry.attempt < self._most(failure):
            entry.failure = failure
        return entry.failure is not None

    def is_trying(self, root: Opened, row: int) -> bool:
        """Whether the record is being tried again."""
        return (root, row) in self._entries

    def _most(self, failure: Failure) -> int:
        return self._kernel.plan.graph.nodes[failure.node].attempts

    def _over(self, root: Opened, row: int) -> None:
        """Everything of an attempt has ended: the record is settled, or tried again after a while."""
        kernel, entry = self._kernel, self._entries[root, row]
        failure = entry.failure
        if kernel.closed:
            return
        if failure is None:
            del self._entries[root, row]
            root.ledger.settle_now(row)
            return
        node = kernel.plan.graph.nodes[failure.node]
        delay_s = backoff_s(node, entry.attempt, self._rng, failure.error)
        self._tell(failure, entry.attempt, kernel.execution_id(root, row), delay_s)
        entry.timer = kernel.loop.call_later(delay_s, self._begin, root, row)

    def _tell(self, failure: Failure, attempt: int, execution_id: str | None, delay_s: float) -> None:
        if self._bus.active and self._bus.wants(WorkflowRetrying):
            self._bus.publish(
                WorkflowRetrying(
                    workflow_id=self._kernel.worker.workflow_id,
                    execution_id=execution_id,
                    task=self._kernel.task,
                    node=failure.node,
                    attempt=attempt,
                    max_attempts=self._most(failure),
                    delay_s=delay_s,
                    error=ErrorInfo.of(failure.error),
                )
            )

    def _begin(self, root: Opened, row: int) -> None:
        """The next attempt, with nothing left of the one before."""
        if self._kernel.closed:
            return
        entry = self._entries[root, row]
        entry.attempt += 1
        entry.failure = entry.timer = None
        for kept in (root.executions, root.outcomes, root.failures):
            if kept is not None:
                kept.pop(row, None)
        over: Callable[[], None] = partial(self._over, root, row)
        frame = self._kernel.open_again(self._scope, root, row, over)
        self._entry.emit(Frame(frame, [self._value_of(root, row)]))

    def close(self) -> None:
        """No further attempt is begun. Idempotent."""
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
        self._entries.clear()
