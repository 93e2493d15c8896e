"""What the operators of one chain share: opening frames, settling rows, reporting failures.

Owns: `Kernel`, and `Listener`, what the chain's driver (a task, or a request chain) must answer.
Does not own: reading, committing, policies of a run (flowruntime.execute).

Always holds: settling a row never pushes rows; every failure is counted and reported once; after `close`
nothing that still comes in is worked on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowcore.frame import Failure, Opened
from flowcore.settlement import Ledger
from flowruntime.compile.sentinels import ABSENT
from flowruntime.execute.counts import NodeCounts
from flowruntime.operators.edge import Depth

if TYPE_CHECKING:
    from flowruntime.compile.plan import Plan, Scope
    from flowruntime.execute.execution import Execution
    from flowruntime.operators.host import Host


class Listener(Protocol):
    """The driver of a chain."""

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        """Rows of a root scope are settled."""
        ...

    def failed(self, failure: Failure) -> None:
        """A row failed for good, whatever the policy says of it."""
        ...

    def stop(self, failure: Failure, opened: Opened, row: int) -> None:
        """A row failed where the policy says to stop the workflow."""
        ...

    def crashed(self, error: BaseException) -> None:
        """The engine itself failed; nothing of this chain can be trusted any more."""
        ...

    def execution(self, opened: Opened, row: int) -> Execution:
        """The execution a root row belongs to, made on first use."""
        ...


ChildSettled = Callable[[Opened, Sequence[int]], None]


class Kernel:
    """Shared by the operators of one chain; used on the loop thread only."""

    def __init__(
        self, plan: Plan, worker: Host, listener: Listener, *, recording: bool, task: str | None
    ) -> None:
        self.plan = plan
        self.worker = worker
        self.listener = listener
        self.recording = recording
        """Outcomes and outputs of each execution are kept (requests), not only counted."""
        self.task = task
        self.loop = asyncio.get_running_loop()
        self.depth = Depth(self._crash)
        self.closed = False
        self.counts: dict[str, NodeCounts] = {node_id: NodeCounts() for node_id in plan.graph.nodes}
        self.handled = {
            connection.from_node for connection in plan.graph.connections if connection.kind == "error"
        }
        self._seqs: dict[str, int] = {}
        self.keeps_failures = False
        """The first failure of each root record stays with it until it is settled."""
        self.in_progress = 0
        """Rows some stage is working on or holds on its own account (not for want of credit)."""

    # --- scopes ---------------------------------------------------------------------------------------

    def open_root(self, scope: Scope, size: int, **columns: Any) -> Opened:
        """A frame of a source or a request, with its ledger."""
        opened = Opened(scope.id, self._next(scope.id), size, **columns)
        opened.ledger = Ledger(size, scope.leaves, self._root_settled, opened)
        return opened

    def open_child(
        self, scope: Scope, parents: Sequence[tuple[Opened, int]], child_settled: ChildSettled
    ) -> Opened:
        """A frame of an inner scope: its rows are charged without waiting, and released when settled."""
        size = len(parents)
        opened = Opened(scope.id, self._next(scope.id), size, parents=parents)
        budget = self.worker.budget
        budget.charge(size)

        def settled(ledger: Ledger, rows: Sequence[int]) -> None:
            del ledger
            budget.release(len(rows))
            child_settled(opened, rows)

        opened.ledger = Ledger(size, scope.leaves, settled, opened)
        return opened

    def _next(self, scope: str) -> int:
        seq = self._seqs.get(scope, 0)
        self._seqs[scope] = seq + 1
        return seq

    def _root_settled(self, ledger: Ledger, rows: Sequence[int]) -> None:
        if self.closed:
            return  # cut short: what leaves now was not worked on to its end, and must come again
        opened: Any = ledger.owner
        self.listener.settled(opened, rows)

    # --- failures -------------------------------------------------------------------------------------

    def failed(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        error: BaseException,
        attempts: int = 1,
        *,
        started: float = 0.0,
    ) -> Failure:
        """Count and report a failed row, and stop the workflow where its policy says so.

        Args:
            node_id: the node it failed at.
            opened: the row's frame.
            row: in that frame.
            error: what the node raised, or the engine in its place.
            attempts: how many were made, this one included.
            started: when the node began on it, Unix seconds; 0.0 when nobody asked, or it never began.
        """
        failure = Failure(node_id, error, attempts)
        counts = self.counts[node_id]
        counts.failed += 1
        handled = node_id in self.handled
        if handled:
            counts.handled += 1
        if self.recording:
            self.execution_of(opened, row).failed(
                node_id, failure, started, self.worker.telemetry.clock(), handled=handled
            )
        if self.keeps_failures:
            for root, root_row in opened.roots(row):
                if root.failures is None:
                    root.failures = {}
                root.failures.setdefault(root_row, failure)
        self.worker.telemetry.node_failed(self, node_id, opened, row, failure, started)
        self.listener.failed(failure)
        if not handled and self.worker.stops_workflow(node_id):
            self.listener.stop(failure, opened, row)
        return failure

    def completed(
        self, node_id: str, opened: Opened, row: int, value: Any, started: float, attempts: int = 1
    ) -> None:
        """Report one finished row of a node, ABSENT when it let nothing through; counting is the caller's."""
        telemetry = self.worker.telemetry
        if not self.recording and not telemetry.bus.active:
            return
        ended = telemetry.clock()
        dropped = value is ABSENT
        telemetry.node_completed(self, node_id, opened, row, started, ended, dropped=dropped, value=value)
        if self.recording:
            execution = self.execution_of(opened, row)
            if dropped:
                execution.dropped(node_id, started, ended)
            else:
                execution.completed(node_id, opened.order(row), value, started, ended, attempts)

    def sink_wrote(self, node_id: str, opened: Opened, row: int, now: float) -> None:
        """A sink has made a row durable."""
        self.worker.telemetry.node_completed(self, node_id, opened, row, now, now, dropped=False)
        if self.recording:
            self.execution_of(opened, row).dropped(node_id, now, now)

    def _crash(self, error: BaseException) -> None:
        self.closed = True
        self.listener.crashed(error)

    def crash(self, error: BaseException) -> None:
        """An engine fault found by an operator."""
        self._crash(error)

    # --- executions -----------------------------------------------------------------------------------

    def execution_of(self, opened: Opened, row: int) -> Execution:
        """The execution of the root record a row descends from."""
        root, root_row = opened.root(row)
        return self.listener.execution(root, root_row)

    def execution_id(self, opened: Opened, row: int) -> str | None:
        """For events: the execution's id, without making an execution."""
        root, root_row = opened.root(row)
        executions: Mapping[int, Execution] | None = root.executions
        if executions is not None and root_row in executions:
            return executions[root_row].id
        return f"{self.task}#{root.seq}.{root_row}"

    def stopped(self, opened: Opened, row: int) -> Failure | None:
        """Why a row must not be worked on any more; None: it must."""
        root, root_row = opened.root(row)
        executions: Mapping[int, Execution] | None = root.executions
        if executions is None:
            return None
        execution = executions.get(root_row)
        return None if execution is None else execution.stopped
