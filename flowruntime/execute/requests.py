"""Requests: one record pushed through a warm chain, one truthful result.

Owns: `RequestChain`: executions, their deadline and cancellation, request credit.
Does not own: caching chains (flowruntime.runtime), reading the inputs a user gave (inputs).

Always holds: every execution ends exactly once, and only when nothing of it is running any more; requests
never wait for each other but for request credit, first come first served.
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
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.execution import Execution
from flowruntime.execute.result import RunResult, result_of
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.operators.kernel import Kernel

if TYPE_CHECKING:
    from flowruntime.execute.worker import Worker

MAX_REQUESTS = 4_096
"""Requests of one workflow in work at once when its settings do not say."""


class RequestChain:
    """The warm chain of one workflow for requests.

    Args:
        program: lowered in request mode.
        worker: started.
        new_id: ids for executions.
    """

    def __init__(self, program: Program, worker: Worker, new_id: Callable[[], str]) -> None:
        self.program = program
        self.worker = worker
        self._new_id = new_id
        self._counts = {node_id: NodeCounts() for node_id in program.plan.graph.nodes}
        """Shared by all chains of this workflow, one after the other."""
        self._warm: Chain | None = None if program.fresh else self._chain()
        self._live: dict[Execution, Chain] = {}
        self._reserved = 0
        most = worker.graph.settings.max_in_flight or MAX_REQUESTS
        self._credit = asyncio.Semaphore(most)

    def _chain(self) -> Chain:
        listener = _Listener(self)
        kernel = Kernel(self.program.plan, self.worker, listener, recording=True, task=None)
        kernel.counts = self._counts
        listener.chain = Chain(self.program, kernel, self.worker)
        return listener.chain

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far, over all requests."""
        return self._counts

    @property
    def busy(self) -> bool:
        """Some request is being worked on."""
        return bool(self._live) or self._reserved > 0

    def reserve(self) -> None:
        """A request is about to be executed: the chain is busy until `release`, so that nobody closes it."""
        self._reserved += 1

    def release(self) -> None:
        """That request has ended, or will not come."""
        self._reserved -= 1

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
        timer = None
        try:
            self._push(chain, execution, inputs, record)
            if deadline is not None and not execution.future.done():
                timer = loop.call_at(deadline, self._expire, execution, timeout)
            interrupted = await self._until_ended(execution)
        finally:
            if timer is not None:
                timer.cancel()
            self._live.pop(execution, None)
            if chain is not self._warm:
                chain.close()
        result = self._result(execution)
        self._ended(execution, result)
        if interrupted:
            raise asyncio.CancelledError
        return result

    async def _until_ended(self, execution: Execution) -> bool:
        """Wait for the end. True: the caller was cancelled meanwhile, and the execution with it."""
        interrupted = False
        assert execution.future is not None  # noqa: S101 - made before the row was pushed
        while not execution.future.done():
            try:
                await asyncio.shield(execution.future)
            except asyncio.CancelledError:
                interrupted = True
                self._cancel(execution, CancelledRowError("the caller was cancelled"))
        return interrupted

    def _push(self, chain: Chain, execution: Execution, inputs: Mapping[str, Any], record: Any) -> None:
        kernel = chain.kernel
        entry = self.program.plan.entries[0]
        listener = kernel.listener
        broken = listener.broken if isinstance(listener, _Listener) else None
        if broken is not None:
            self._break(execution, broken)
            return
        opened = kernel.open_root(entry.scope, 1, records=[record])
        opened.executions = {0: execution}
        execution.opened = opened
        chain.entries[entry.id].emit(Frame(opened, [inputs]))
        if self.program.fresh:
            chain.entries[entry.id].emit(END)

    async def aclose(self) -> None:
        """Cancel what runs, make sinks final and shut the worker down.

        Raises:
            SinkError: a sink could not make its rows durable.
        """
        live = list(self._live)
        for execution in live:
            self._cancel(execution, CancelledRowError("the runtime was closed"))
        for execution in live:
            await self._until_ended(execution)
        try:
            if self._warm is not None:
                await self._warm.aclose()
            limit = self.worker.graph.settings.drain_timeout.total_seconds()
            for writer in list(self.worker.writers.values()):
                await writer.finish(within_s=limit)
        finally:
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

    def broke(self, broken: Chain, error: BaseException) -> None:
        """A chain is broken: every request in it fails, the next one gets a new chain."""
        if broken is self._warm:
            self._warm = None
        for execution, chain in list(self._live.items()):
            if chain is broken:
                self._break(execution, error)
        asyncio.get_running_loop().call_soon(broken.close)

    def _break(self, execution: Execution, error: BaseException) -> None:
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
        asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, execution)
        self._take_out(execution)

    def _take_out(self, execution: Execution) -> None:
        """Cancel whatever of an execution waits or runs."""
        chain = self._live.get(execution)
        if chain is None or execution.opened is None:
            return
        for operator in chain.operators.values():
            operator.cancel_execution(execution.opened, 0)

    def _give_up(self, execution: Execution) -> None:
        """Wait no longer for a cancelled execution: report what still runs of it, ignore its answer."""
        if execution.future is None or execution.future.done():
            return
        self.worker.services.log(
            f"request {execution.id} was cancelled {PATIENCE_S} s ago and something in it does not end: "
            "a node may swallow cancellation",
            "error",
            {"workflow": self.worker.workflow_id, "execution": execution.id},
        )
        execution.future.set_result(None)

    def _expired(self, execution: Execution, timeout: timedelta | None) -> RunResult:
        """The deadline passed while the request waited for credit."""
        seconds = 0.0 if timeout is None else timeout.total_seconds()
        error = RequestTimeoutError(
            f"the request waited {seconds} s for its turn: too many requests are in work; "
            "raise max_in_flight, or send fewer at once",
            timeout_s=seconds,
        )
        execution.stopped = Failure("", error)
        self._started(execution)
        result = self._result(execution)
        self._ended(execution, result)
        return result

    # --- results and events ---------------------------------------------------------------------------

    def _result(self, execution: Execution) -> RunResult:
        error: BaseException | None = None
        cancelled: str | None = None
        stopped = execution.stopped
        if (
            stopped is not None and not stopped.node
        ):  # its deadline, its caller or the engine; none of its nodes
            error = stopped.error
            cancelled = str(error) if isinstance(error, CancelledRowError) else None
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


class _Listener:
    """What one chain tells, so that a chain that breaks takes no request of another one with it."""

    def __init__(self, requests: RequestChain) -> None:
        self._requests = requests
        self.chain: Chain | None = None
        self.broken: BaseException | None = None
        self.settled = requests.settled
        self.failed = requests.failed
        self.stop = requests.stop
        self.execution = requests.execution

    def crashed(self, error: BaseException) -> None:
        self.broken = error
        if self.chain is not None:
            self._requests.broke(self.chain, error)


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
