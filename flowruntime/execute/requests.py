"""Requests: one record pushed through a warm chain, one truthful result.

Owns: `RequestChain`: executions, their deadline and cancellation, request credit.
Does not own: caching chains (flowruntime.runtime), reading the inputs a user gave (inputs).

Always holds: every execution ends exactly once, and only when nothing of it is running any more; requests
never wait for
each other but for request credit, first come first served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flowcore.errors import CancelledRowError, RequestTimeoutError
from flowcore.events import (
    ErrorInfo,
    NodeSkipped,
    RowCounts,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowStarted,
)
from flowcore.frame import END, Failure, Frame, Opened
from flowcore.states import Cancelled, Completed, Failed
from flowruntime.compile.chain import Chain, Program
from flowruntime.execute.execution import Execution
from flowruntime.execute.result import RunResult, result_of
from flowruntime.operators.expand import ExpandOperator
from flowruntime.operators.kernel import Kernel
from flowruntime.operators.waiting import WaitingOperator

if TYPE_CHECKING:
    from flowruntime.execute.worker import Worker

MAX_REQUESTS = 4_096
"""Requests of one workflow in work at once when its settings do not say."""

_GATE_LIMIT_S = 5.0


class RequestChain:
    """The warm chain of one workflow for requests.

    Args:
        program: lowered in request mode.
        worker: started.
        new_id: ids for executions.
    """

    def __init__(
        self, program: Program, worker: Worker, new_id: Callable[[], str], *, replaced: bool = False
    ) -> None:
        self.program = program
        self.replaced = replaced
        """Some node is a stand-in: the graph is not the workflow's own."""
        self.worker = worker
        self._new_id = new_id
        self._warm: Chain | None = None if program.fresh else self._chain()
        self._live: dict[Execution, Chain] = {}
        most = worker.graph.settings.max_in_flight or MAX_REQUESTS
        self._credit = asyncio.Semaphore(most)

    def _chain(self) -> Chain:
        kernel = Kernel(self.program.plan, self.worker, self, recording=True, task=None)
        return Chain(self.program, kernel, self.worker)

    @property
    def busy(self) -> bool:
        """Some request is being worked on."""
        return bool(self._live)

    async def execute(
        self, inputs: Mapping[str, Any], *, record: Any = None, timeout: timedelta | None = None
    ) -> RunResult:
        """Push one request through and wait for its end.

        Args:
            inputs: by `node.port`.
            record: what expressions see as `record`.
            timeout: for the whole request, the wait for credit included.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout.total_seconds()
        execution = Execution(self._new_id(), self.worker.services.clock())
        if self._credit.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._credit.acquire()
            except TimeoutError:
                return self._expired(execution, timeout)
        else:
            await self._credit.acquire()
        try:
            return await self._run(execution, inputs, record, deadline, timeout)
        finally:
            self._credit.release()

    async def _run(
        self,
        execution: Execution,
        inputs: Mapping[str, Any],
        record: Any,
        deadline: float | None,
        timeout: timedelta | None,
    ) -> RunResult:
        loop = asyncio.get_running_loop()
        if self._warm is None and not self.program.fresh:
            self._warm = self._chain()
        chain = self._warm or self._chain()
        execution.future = loop.create_future()
        self._live[execution] = chain
        self._started(execution)
        error: BaseException | None = None
        cancelled: str | None = None
        timer = None
        try:
            self._push(chain, execution, inputs, record)
            if not execution.future.done():
                if deadline is not None:
                    timer = loop.call_at(deadline, self._expire, execution, timeout)
                try:
                    await asyncio.shield(execution.future)
                except asyncio.CancelledError:
                    cancelled = "the caller was cancelled"
                    self._cancel(execution, CancelledRowError("the request was cancelled"))
                    await self._quiet(execution)
                    self._ended(execution, self._result(execution, error, cancelled))
                    raise
        finally:
            if timer is not None:
                timer.cancel()
            self._live.pop(execution, None)
            if chain is not self._warm:
                chain.close()
        if execution.stopped is not None and not execution.stopped.node:
            error = execution.stopped.error  # its deadline, or the engine; not one of its nodes
        result = self._result(execution, error, cancelled)
        self._ended(execution, result)
        return result

    def _push(self, chain: Chain, execution: Execution, inputs: Mapping[str, Any], record: Any) -> None:
        kernel = chain.kernel
        entry = self.program.plan.entries[0]
        opened = kernel.open_root(entry.scope, 1, records=[record])
        opened.executions = {0: execution}
        execution.opened = opened
        chain.entries[entry.id].emit(Frame(opened, [inputs]))
        if self.program.fresh:
            chain.entries[entry.id].emit(END)

    async def aclose(self) -> None:
        """Cancel what runs and shut the worker down."""
        for execution in list(self._live):
            self._cancel(execution, CancelledRowError("the runtime was closed"))
        for execution in list(self._live):
            await self._quiet(execution)
        if self._warm is not None:
            self._warm.close()
        for writer in list(self.worker.writers.values()):
            await writer.finish()
        await self.worker.aclose()

    # --- what the chain tells -------------------------------------------------------------------------

    def settled(self, opened: Opened, rows: Sequence[int]) -> None:
        del rows
        execution: Execution = opened.executions[0]
        if execution.future is not None and not execution.future.done():
            execution.future.set_result(None)

    def failed(self, failure: Failure) -> None:
        """Nothing to do: the execution has it."""

    def stop(self, failure: Failure, opened: Opened, row: int) -> None:
        root, root_row = opened.root(row)
        execution: Execution = root.executions[root_row]
        if execution.stopped is None:
            execution.stopped = failure
            asyncio.get_running_loop().call_soon(self._take_out, execution)

    def crashed(self, error: BaseException) -> None:
        """The chain is broken: every request in it fails, the next one gets a new chain."""
        broken = self._warm
        self._warm = None
        for execution, chain in list(self._live.items()):
            if chain is not broken and not self.program.fresh:
                continue
            execution.stopped = Failure("", error)
            if execution.future is not None and not execution.future.done():
                execution.future.set_result(None)

    def execution(self, opened: Opened, row: int) -> Execution:
        return opened.executions[row]

    # --- ending early ---------------------------------------------------------------------------------

    def _expire(self, execution: Execution, timeout: timedelta | None) -> None:
        seconds = 0.0 if timeout is None else timeout.total_seconds()
        self._cancel(
            execution,
            RequestTimeoutError(f"the request did not finish within {seconds} s", timeout_s=seconds),
        )

    def _cancel(self, execution: Execution, error: BaseException) -> None:
        if execution.stopped is None:
            execution.stopped = Failure("", error)
        self._take_out(execution)

    def _take_out(self, execution: Execution) -> None:
        """Cancel whatever of an execution waits or runs."""
        chain = self._live.get(execution)
        if chain is None or execution.opened is None:
            return
        for operator in chain.operators.values():
            if isinstance(operator, WaitingOperator | ExpandOperator):
                operator.cancel_execution(execution.opened, 0)

    async def _quiet(self, execution: Execution) -> None:
        """Until nothing of a cancelled execution runs any more; the caller's further cancellations are held
        back.
        """
        assert execution.future is not None
        try:
            async with asyncio.timeout(_GATE_LIMIT_S):
                await asyncio.shield(execution.future)
        except TimeoutError:
            self.worker.services.log(
                f"request {execution.id} was cancelled, but a node does not end: it may swallow cancellation",
                "error",
                {"workflow": self.worker.workflow_id, "execution": execution.id},
            )

    def _expired(self, execution: Execution, timeout: timedelta | None) -> RunResult:
        """The deadline passed while the request waited for credit."""
        seconds = 0.0 if timeout is None else timeout.total_seconds()
        error = RequestTimeoutError(
            f"the request waited {seconds} s for its turn: too many requests are in work; raise max_in_flight, or send "
            "fewer at once",
            timeout_s=seconds,
        )
        execution.stopped = Failure("", error)
        self._started(execution)
        result = self._result(execution, error, None)
        self._ended(execution, result)
        return result

    # --- results and events ---------------------------------------------------------------------------

    def _result(self, execution: Execution, error: BaseException | None, cancelled: str | None) -> RunResult:
        return result_of(
            execution,
            self.program.plan,
            workflow_id=self.worker.workflow_id,
            ended=self.worker.services.clock(),
            error=error,
            cancelled=cancelled,
        )

    def _started(self, execution: Execution) -> None:
        bus = self.worker.services.bus
        if bus.active and bus.wants(WorkflowStarted):
            graph = self.worker.graph
            bus.publish(
                WorkflowStarted(
                    workflow_id=self.worker.workflow_id,
                    execution_id=execution.id,
                    name=graph.name,
                    mode="request",
                    nodes=len(graph.nodes),
                )
            )

    def _ended(self, execution: Execution, result: RunResult) -> None:
        bus = self.worker.services.bus
        if not bus.active:
            return
        skipped(bus, self.worker.workflow_id, execution.id, result)
        common: dict[str, Any] = {
            "workflow_id": self.worker.workflow_id,
            "execution_id": execution.id,
            "started_at": execution.started,
            "ended_at": result.ended_at,
            "counts": row_counts(result),
        }
        state = result.state
        if isinstance(state, Completed):
            bus.publish(WorkflowCompleted(**common))
        elif isinstance(state, Failed):
            stopped = execution.stopped
            node = stopped.node if stopped is not None and stopped.node else None
            error = result.cause or CancelledRowError("failed")
            bus.publish(WorkflowFailed(**common, error=ErrorInfo.of(error), node=node))
        elif isinstance(state, Cancelled):
            bus.publish(WorkflowCancelled(**common, reason=state.reason))
        else:
            failed = tuple(node for node, outcome in result.outcomes.items() if outcome.state == "failed")
            bus.publish(WorkflowPartial(**common, failed_nodes=failed))


def skipped(bus: Any, workflow_id: str, execution_id: str, result: RunResult) -> None:
    """NodeSkipped for every node that did not run."""
    if not bus.wants(NodeSkipped):
        return
    for node, outcome in result.outcomes.items():
        if outcome.state in ("skipped", "cancelled"):
            by_node = outcome.cause in result.outcomes
            reason = "cancelled" if outcome.state == "cancelled" else "failed" if by_node else "not_taken"
            bus.publish(
                NodeSkipped(
                    workflow_id=workflow_id,
                    execution_id=execution_id,
                    node=node,
                    cause=outcome.cause or "",
                    reason=reason,
                )
            )


def row_counts(result: RunResult) -> RowCounts:
    """Rows of all nodes together."""
    return RowCounts(
        received=result.records,
        completed=sum(outcome.rows for outcome in result.outcomes.values()),
        failed=sum(outcome.failed for outcome in result.outcomes.values()),
        skipped=sum(1 for outcome in result.outcomes.values() if outcome.state == "skipped"),
        cancelled=sum(1 for outcome in result.outcomes.values() if outcome.state == "cancelled"),
    )
