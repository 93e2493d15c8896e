"""How a continuous run concludes: its final state, its result, its terminal event.

Owns: `Ending`, and what follows from it. Does not own: when a run ends (run), its counters (sources).

Pure: no I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowcore.errors import describe_error
from flowcore.events import (
    ErrorInfo,
    RowCounts,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
)
from flowcore.states import Cancelled, Completed, Failed, Partial, WorkflowState
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.result import MAX_ERRORS, RunResult


@dataclass(slots=True)
class Ending:
    """Why a run ends before its sources do. All None: it does not."""

    cause: BaseException | None = None
    node: str | None = None
    """Where `cause` came up, when that is known."""
    cancelled: str | None = None
    """The reason; a cause counts for more."""

    @property
    def is_cut_short(self) -> bool:
        return self.cause is not None or self.cancelled is not None

    def fail(self, error: BaseException, node: str | None) -> None:
        """Take this as the cause, unless there was a reason to end before."""
        if not self.is_cut_short:
            self.cause, self.node = error, node

    def cancel(self, reason: str) -> None:
        """Take this as the reason, unless there is one."""
        self.cancelled = self.cancelled or reason

    def errors(self, found: Mapping[str, list[BaseException]]) -> dict[str, list[BaseException]]:
        """The first errors of each node; the cause is among them, whatever came before."""
        errors = {node_id: list(errors) for node_id, errors in found.items()}
        if self.cause is not None and self.node is not None:
            mine = errors.setdefault(self.node, [])
            if self.cause not in mine:
                mine.insert(0, self.cause)
        return {node_id: mine[:MAX_ERRORS] for node_id, mine in errors.items()}


def state_of(ending: Ending, counts: Mapping[str, NodeCounts]) -> WorkflowState:
    """The final state: never completed with a failed row."""
    if ending.cause is not None:
        return Failed(describe_error(ending.cause))
    if ending.cancelled is not None:
        return Cancelled(ending.cancelled)
    return Partial() if any(node.failed for node in counts.values()) else Completed()


def are_handled(ending: Ending, counts: Mapping[str, NodeCounts]) -> bool:
    """Rows have failed, and each of them was delivered elsewhere."""
    failed = sum(node.failed for node in counts.values())
    handled = sum(node.handled for node in counts.values())
    return failed > 0 and handled == failed and ending.cause is None


def terminal_event(
    result: RunResult, ending: Ending, *, read: int
) -> WorkflowCompleted | WorkflowPartial | WorkflowCancelled | WorkflowFailed:
    """The one event a run ends with.

    Args:
        result: of the run.
        ending: why it ended early, if it did.
        read: rows the sources gave.
    """
    common: dict[str, Any] = {
        "workflow_id": result.workflow_id,
        "execution_id": result.execution_id,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "counts": RowCounts(
            received=read,
            completed=result.records,
            failed=sum(counts.failed for counts in result.counts.values()),
            dropped=sum(counts.dropped for counts in result.counts.values()),
            cancelled=result.abandoned,
        ),
    }
    if ending.cause is not None:
        return WorkflowFailed(**common, error=ErrorInfo.of(ending.cause), node=ending.node)
    if ending.cancelled is not None:
        return WorkflowCancelled(**common, reason=ending.cancelled)
    failed = tuple(node_id for node_id, counts in result.counts.items() if counts.failed)
    return WorkflowPartial(**common, failed_nodes=failed) if failed else WorkflowCompleted(**common)
