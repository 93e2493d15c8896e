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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from flowcore.errors import CancelledRowError, FlowError, RequestTimeoutError
from flowcore.events import ErrorInfo, WorkflowRetrying
from flowcore.frame import END, Failure, Frame, Opened
from flowruntime.compile.bounds import requests_of
from flowruntime.compile.chain import Chain, Program
from flowruntime.execute.attempts import backoff_s
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.execution import Execution, Past
from flowruntime.execute.request_events import publish_ended, publish_resumed, publish_started
from flowruntime.execute.result import Reporting, RunResult, result_of
from flowruntime.flowcontrol.pool import PATIENCE_S
from flowruntime.operators.kernel import Kernel

if TYPE_CHECKING:
    from flowruntime.durable.keeper import Claim, Keeper
    from flowruntime.execute.worker import Worker

_NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


class Governed(NamedTuple):
    """What hooks around a request have settled before it begins."""

    execution_id: str
    deadline: float | None
    """On the loop's clock."""


_CLOSED = "the runtime was closed"


class RequestChain:
    """The warm chain of one workflow for requests.

    Args:
        program: lowered in request mode.
        worker: started.
        new_id: ids for executions.
        keeper: stores executions whose nodes may wait for an answer; None: none of them may.
    """

    def __init__(
        self,
        program: Program,
        worker: Worker,
        new_id: Callable[[], str],
        keeper: Keeper | None = None,
    ) -> None:
        self.program = program
        self._keeper = keeper
        self.worker = worker
        self._new_id = new_id
        self._reporting = Reporting(program.plan)
        self._counts = {node_id: NodeCounts() for node_id in program.plan.graph.nodes}
        """Shared by all chains of this workflow, one after the other."""
        self._warm: Chain | None = None if program.fresh else self._chain()
        self._live: dict[Execution, Chain] = {}
        self._backing_off: set[Execution] = set()
        """Requests between two attempts."""
        self._closing = asyncio.Event()
        self._reserved = 0
        self._waiting = 0
        """Requests without credit."""
        self._closed = False
        self._credit = asyncio.Semaphore(requests_of(worker.graph))

    def _chain(self) -> Chain:
        listener = _Listener(self)
        kernel = Kernel(self.program.plan, self.worker, listener, recording=True, task=None)
        kernel.counts = self._counts
        if self._keeper is not None:
            kernel.journal = self._keeper.rows(kernel)
        listener.chain = Chain(self.program, kernel, self.worker)
        return listener.chain

    def live_counts(self) -> dict[str, NodeCounts]:
        """Rows by node so far, over all requests."""
        return self._counts

    def statistics(self) -> dict[str, Any]:
        """Live figures: requests in work, limits, pools, sinks."""
        return {
            "workflow": self.worker.workflow_id,
            "in_progress": len(self._live),
            **self.worker.statistics(),
        }

    @property
    def busy(self) -> bool:
        """Some request is being worked on."""
        return bool(self._live) or bool(self._backing_off) or self._reserved > 0

    def reserve(self) -> None:
        """A request is about to be executed: the chain is busy until `release`, so that nobody closes it."""
        self._reserved += 1

    def release(self) -> None:
        """That request has ended, or will not come."""
        self._reserved -= 1

    async def execute(
        self,
        inputs: Mapping[str, Any],
        *,
        record: Any = None,
        timeout: timedelta | None = None,
        past: Past | None = None,
        attributes: Mapping[str, Any] = _NO_ATTRIBUTES,
        execution_id: str | None = None,
        governed: Governed | None = None,
        claim: Claim | None = None,
    ) -> RunResult:
        """Push one request through and wait for its end.

        Args:
            inputs: by `node.port`.
            record: what expressions see as `record`.
            timeout: for the whole request, the wait for credit included.
            past: what the record had when it was read the first time, for a redrive.
            attributes: what the caller says of it, for middleware.
            execution_id: given by the caller; None: a new one.
            governed: by hooks around the request, which began before it and tell of its end.
            claim: an execution that goes on, in the place of a new one.
        """
        if governed is None:
            loop = asyncio.get_running_loop()
            deadline = None if timeout is None else loop.time() + timeout.total_seconds()
            execution = Execution(execution_id or self._new_id(), self.worker.services.clock(), attributes)
        else:
            deadline = governed.deadline
            execution = Execution(governed.execution_id, self.worker.services.clock(), attributes)
            execution.governed = True
        execution.deadline = deadline
        execution.given = inputs
        execution.past = past
        if self._credit.locked():
            self._waiting += 1
            try:
                async with asyncio.timeout_at(deadline):
                    await self._credit.acquire()
            except TimeoutError:
                return self._unbegun(execution, _late(timeout))
            finally:
                self._waiting -= 1
        else:
            await self._credit.acquire()
        try:
            if self.worker.services.bus.held_up:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self.worker.services.bus.ready()
                except TimeoutError:
                    return self._unbegun(execution, _late(timeout))
            if self._closed:
                return self._unbegun(execution, CancelledRowError(_CLOSED))
            if self._keeper is not None:
                await self._keeper.begin(execution, claim)
            return await self._run(execution, record, deadline, timeout, {} if past is None else past.columns)
        finally:
            self._credit.release()

    async def _run(
        self,
        execution: Execution,
        record: Any,
        deadline: float | None,
        timeout: timedelta | None,
        columns: Mapping[str, Any],
    ) -> RunResult:
        self._started(execution)
        interrupted = await self._attempt(execution, record, deadline, timeout, columns)
        while (delay_s := execution.again) is not None and not interrupted:
            interrupted = await self._backed_off(execution, delay_s)
            if interrupted or self._closed:
                break
            execution.begin_again()
            interrupted = await self._attempt(execution, record, deadline, timeout, columns)
        result = self._result(execution)
        if self._keeper is not None:
            result, again = await self._concluded(self._keeper, execution, result)
            interrupted = interrupted or again
        if interrupted or not execution.governed:
            self._ended(result)
        if interrupted:
            raise asyncio.CancelledError
        return result

    async def _concluded(
        self, keeper: Keeper, execution: Execution, result: RunResult
    ) -> tuple[RunResult, bool]:
        """The result once it is durable; and whether the caller was cancelled meanwhile."""
        interrupted = False
        storing = asyncio.ensure_future(keeper.conclude(execution, result))
        while not storing.done():
            try:
                await asyncio.shield(storing)
            except asyncio.CancelledError:
                if storing.cancelled():
                    raise
                interrupted = True
        return storing.result(), interrupted

    async def _attempt(
        self,
        execution: Execution,
        record: Any,
        deadline: float | None,
        timeout: timedelta | None,
        columns: Mapping[str, Any],
    ) -> bool:
        """Push the request through once and wait for its end. True: the caller was cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        if self._warm is None and not self.program.fresh:
            self._warm = self._chain()
        chain = self._warm or self._chain()
        execution.future = loop.create_future()
        self._live[execution] = chain
        timer = None
        try:
            self._push(chain, execution, record, columns)
            if deadline is not None and not execution.future.done():
                timer = loop.call_at(deadline, self._expire, execution, timeout)
            return await self._until_ended(execution)
        finally:
            if timer is not None:
                timer.cancel()
            self._live.pop(execution, None)
            if chain is not self._warm:
                chain.close()

    async def _backed_off(self, execution: Execution, delay_s: float) -> bool:
        """Wait before the next attempt, or until the chain is closed. True: the caller was cancelled."""
        self._backing_off.add(execution)
        try:
            async with asyncio.timeout(delay_s):
                await self._closing.wait()
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            execution.stopped = Failure("", CancelledRowError("the caller was cancelled"))
            return True
        finally:
            self._backing_off.discard(execution)
        execution.stopped = Failure("", CancelledRowError(_CLOSED))
        return False

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

    def _push(self, chain: Chain, execution: Execution, record: Any, columns: Mapping[str, Any]) -> None:
        kernel = chain.kernel
        entry = self.program.plan.entries[0]
        listener = kernel.listener
        broken = listener.broken if isinstance(listener, _Listener) else None
        if broken is not None:
            self._break(execution, broken)
            return
        opened = kernel.open_root(entry.scope, 1, records=[record], **columns)
        opened.executions = {0: execution}
        execution.opened = opened
        chain.entries[entry.id].emit(Frame(opened, [execution.given]))
        if self.program.fresh:
            chain.entries[entry.id].emit(END)

    async def aclose(self) -> None:
        """Cancel what runs, make sinks final and shut the worker down.

        Raises:
            SinkError: a sink could not make its rows durable.
        """
        self._closed = True
        self._closing.set()
        live = list(self._live)
        for execution in live:
            self._cancel(execution, CancelledRowError(_CLOSED))
        try:
            interrupted = [await self._until_ended(execution) for execution in live]
            if any(interrupted):
                raise asyncio.CancelledError
            while self._waiting or self._backing_off:  # noqa: ASYNC110 - each turn of the loop lets the next one have its turn
                await asyncio.sleep(0)
            if self._warm is not None:
                await self._warm.aclose()
            limit = self.worker.graph.settings.drain_timeout.total_seconds()
            for writer in list(self.worker.writers.values()):
                await writer.finish(within_s=limit)
            if self.worker.letters is not None:
                await self.worker.letters.flush(within_s=limit)
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

    def leave(self, opened: Opened, row: int) -> bool:
        """A request has no next run."""
        del opened, row
        return False

    def again(self, failure: Failure, opened: Opened, row: int) -> bool:
        root, root_row = opened.root(row)
        execution: Execution = root.executions[root_row]
        if execution.again is not None:
            return True  # of another row; what still comes of this attempt does not count
        if execution.stopped is not None or self._closed:
            return False
        node = self.program.plan.graph.nodes[failure.node]
        if execution.attempt >= node.attempts:
            return False
        loop = asyncio.get_running_loop()
        delay_s = backoff_s(node, execution.attempt, self.worker.rng, failure.error)
        if execution.deadline is not None and loop.time() + delay_s >= execution.deadline:
            return False
        execution.again, execution.stopped = delay_s, failure
        self._tell_again(execution, failure, node.attempts, delay_s)
        loop.call_soon(self._take_out, execution)
        return True

    def _tell_again(self, execution: Execution, failure: Failure, most: int, delay_s: float) -> None:
        bus = self.worker.services.bus
        if bus.active and bus.wants(WorkflowRetrying):
            bus.publish(
                WorkflowRetrying(
                    workflow_id=self.worker.workflow_id,
                    execution_id=execution.id,
                    node=failure.node,
                    attempt=execution.attempt,
                    max_attempts=most,
                    delay_s=delay_s,
                    error=ErrorInfo.of(failure.error),
                )
            )

    def broke(self, broken: Chain, error: BaseException) -> None:
        """A chain is broken: every request in it fails, the next one gets a new chain."""
        if broken is self._warm:
            self._warm = None
        for execution, chain in list(self._live.items()):
            if chain is broken:
                self._break(execution, error)
        asyncio.get_running_loop().call_soon(broken.close)

    def _break(self, execution: Execution, error: BaseException) -> None:
        failure = Failure(getattr(error, "node", None) or "", error)
        execution.stopped, execution.again = failure, None
        if failure.node in self.worker.graph.nodes:
            execution.failed(failure.node, failure, 0.0, self.worker.services.clock(), handled=False)
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
        chain.cancel_execution(execution.opened, 0)
        letters = self.worker.letters
        if letters is not None and execution.stopped is not None and not execution.stopped.node:
            letters.forget(chain.kernel, execution.opened, 0)  # it is cancelled, and waits for nothing

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

    def _unbegun(self, execution: Execution, error: FlowError) -> RunResult:
        """The request ended while it waited for credit."""
        execution.stopped = Failure("", error)
        self._started(execution)
        result = self._result(execution)
        if not execution.governed:
            self._ended(result)
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
            self._reporting,
            workflow_id=self.worker.workflow_id,
            ended=self.worker.services.clock(),
            error=error,
            cancelled=cancelled,
        )

    def _started(self, execution: Execution) -> None:
        journal = execution.journal
        if journal is not None and journal.paused_s is not None:
            publish_resumed(self.worker.services.bus, self.worker.workflow_id, execution.id, journal.paused_s)
            return
        publish_started(self.worker.services.bus, self.worker.workflow_id, execution.id, self.worker.graph)

    def _ended(self, result: RunResult) -> None:
        publish_ended(self.worker.services.bus, result)


def _late(timeout: timedelta | None) -> RequestTimeoutError:
    """The deadline passed while the request waited for credit."""
    seconds = 0.0 if timeout is None else timeout.total_seconds()
    return RequestTimeoutError(
        f"the request waited {seconds} s for its turn: too many requests are in work; "
        "raise max_in_flight, or send fewer at once",
        timeout_s=seconds,
    )


class _Listener:
    """What one chain tells, so that a chain that breaks takes no request of another one with it."""

    def __init__(self, requests: RequestChain) -> None:
        self._requests = requests
        self.chain: Chain | None = None
        self.broken: BaseException | None = None
        self.settled = requests.settled
        self.failed = requests.failed
        self.stop = requests.stop
        self.again = requests.again
        self.leave = requests.leave
        self.execution = requests.execution

    def crashed(self, error: BaseException) -> None:
        self.broken = error
        if self.chain is not None:
            self._requests.broke(self.chain, error)
