"""Taking executions up again: an answer came, time is up, or the process that was at work is gone.

Owns: `Resuming`: which wait an answer is for, taking an execution over, timers of open waits.
Does not own: running it (the runtime), what is stored of it meanwhile (keeper).

Always holds: an answer is stored before the execution goes on, and only when it is what was asked for; of all
answers to a wait one is taken; of all who want to go on with an execution one does, by compare-and-set of its
revision. What was answered is never lost: whoever is at work on the execution, or comes next, goes on with
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakValueDictionary

import msgspec

from flowcore.errors import ContractError, FlowError, Problem, ValidationFailedError
from flowcore.findings import did_you_mean
from flowcore.states import Paused, Running
from flowcore.store_errors import (
    AmbiguousWaitError,
    ExecutionBusyError,
    ExecutionChangedError,
    ExecutionEndedError,
    NotStoredError,
    StoreConflictError,
    StoreError,
    WaitClosedError,
)
from flowcore.waits import Wait, check_answer
from flowruntime.crashpoints import crash_point
from flowruntime.durable.answering import give_up, let_go_on, row_result
from flowruntime.durable.held import READY, is_held
from flowruntime.durable.keeper import Claim, stored_of
from flowruntime.durable.owner import begin_attempt, end_attempt, is_gone
from flowruntime.durable.releasing import waits_of
from flowruntime.state.store.entries import ExecutionFilter, ExecutionHead, StoredExecution, WaitFilter

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.events.bus import EventBus
    from flowruntime.execute.result import RunResult
    from flowruntime.state.store.protocol import Store

_PATIENCE_S: Final = 5.0
"""How long to wait until whoever is at work on an execution has put it down."""
_LOOK_S: Final = 0.05
_MOST_KEPT: Final = 64
_OPEN: Final = WaitFilter(states=frozenset({"open"}))


class Maker(Protocol):
    """The runtime, as far as it is asked here."""

    @property
    def store(self) -> Store: ...
    @property
    def events(self) -> EventBus: ...
    def row_may_go_on(self, workflow_id: str) -> None: ...
    def validate(self, workflow: Workflow, *, mode: Literal["stream", "request"]) -> object: ...

    async def pass_through(
        self, workflow: Workflow, claim: Claim, replace: Mapping[str, Any]
    ) -> RunResult: ...


class _Turn:
    """Who goes on with an execution in this runtime, one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.result: RunResult | None = None
        """Of the last one."""


NO_ANSWER: Final = msgspec.UNSET


class Resuming:
    """Executions that wait, of one runtime.

    Args:
        maker: the runtime.
        clock: Unix seconds.
        log: where what goes wrong in the background is told: message, level, facts.
    """

    def __init__(
        self, maker: Maker, clock: Callable[[], float], log: Callable[[str, Any, Mapping[str, object]], None]
    ) -> None:
        self._maker = maker
        self._clock = clock
        self._log = log
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._replaced: dict[str, Mapping[str, Any]] = {}
        """By execution: what stood in the place of nodes, while this runtime lives."""
        self._workflows: dict[tuple[str, int], Workflow] = {}
        self._closed = False

    # --- answers --------------------------------------------------------------------------------------

    async def resume(
        self,
        execution_id: str,
        answer: Any = NO_ANSWER,
        *,
        wait: str | None,
        by: str,
        replace: Mapping[str, Any],
        take_over: bool,
    ) -> RunResult:
        """See `FlowRuntime.resume`."""
        store = self._maker.store
        stored = await store.executions.get(execution_id)
        if stored.state.finished:
            raise _ended(stored)
        if is_held(stored.inputs):
            await self._take_answer(stored, answer, wait=wait, by=by)
            return await self._row_goes_on(stored.id)
        replace = replace or self._replaced.get(execution_id, {})
        workflow = await self._workflow_of(stored, replace)
        await self._take_answer(stored, answer, wait=wait, by=by)
        return await self._go_on(execution_id, workflow, replace, take_over=take_over)

    async def _take_answer(self, stored: ExecutionHead, answer: Any, *, wait: str | None, by: str) -> None:
        """Store it, if it is one and what was asked for."""
        if answer is not NO_ANSWER:
            chosen = await self._chosen(stored, wait)
            check_answer(chosen, answer)
            await self._maker.store.waits.answer(chosen.id, answer, at=self._clock(), by=by)
            crash_point("waits.after_answer")
            self._forget(chosen.id)
        elif wait is not None:
            raise ContractError(f"wait {wait!r} was named and no answer given; give one, or name none")

    async def _row_goes_on(self, row_id: str) -> RunResult:
        """Let a row of a continuous run go on where it can, and tell runs of this runtime."""
        store, now = self._maker.store, self._clock()
        row = await let_go_on(store, await store.executions.get(row_id), at=now, bus=self._maker.events)
        self._maker.row_may_go_on(row.workflow_id)
        return await row_result(store, row, now=now)

    async def cancel(self, execution_id: str, reason: str) -> RunResult:
        """See `FlowRuntime.cancel_execution`."""
        store, now = self._maker.store, self._clock()
        head = await give_up(store, execution_id, reason, at=now, bus=self._maker.events, ended=_ended)
        for wait in await self._waits_of(execution_id):
            self._forget(wait.id)
        return await row_result(store, head, now=now)

    async def _chosen(self, execution: ExecutionHead, wait: str | None) -> Wait:
        """The wait an answer is for.

        Raises:
            NotStoredError: the execution has no such wait, or none at all.
            AmbiguousWaitError: it waits for several things.
            WaitClosedError: what it waited for is answered, or over.
        """
        waits = await self._waits_of(execution.id)
        if wait is not None:
            found = next((each for each in waits if each.id == wait), None)
            if found is None:
                known = [each.id for each in waits]
                raise NotStoredError(
                    f"execution {execution.id!r} has no wait {wait!r}; {did_you_mean(wait, known)}",
                    what="wait",
                    id=wait,
                )
            return found
        opened = [each for each in waits if each.state == "open"]
        if len(opened) > 1:
            listed = ", ".join(f"{each.id} ({each.node}: {each.title or each.kind})" for each in opened)
            raise AmbiguousWaitError(
                f"execution {execution.id!r} waits for {len(opened)} answers: {listed}; say which this is",
                id=execution.id,
                waits=[each.id for each in opened],
            )
        if opened:
            return opened[0]
        if waits:
            last = max(waits, key=lambda each: each.closed_at or 0.0)
            raise WaitClosedError(
                f"execution {execution.id!r} has no open wait: {last.id} of node {last.node!r} is "
                f"{last.state}; the answer was not taken",
                id=last.id,
                state=last.state,
            )
        raise NotStoredError(
            f"execution {execution.id!r} waits for nothing; resume it without an answer",
            what="wait",
            id=execution.id,
        )

    async def _waits_of(self, execution_id: str) -> list[Wait]:
        return await waits_of(self._maker.store, execution_id)

    # --- workflows ------------------------------------------------------------------------------------

    def begun(self, workflow: Workflow, head: ExecutionHead, replace: Mapping[str, Any]) -> None:
        """An execution this runtime began: its workflow with the functions given in code, and stand-ins."""
        self._workflows[head.workflow_id, head.workflow_version] = workflow
        while len(self._workflows) > _MOST_KEPT:
            del self._workflows[next(iter(self._workflows))]
        if replace:
            self._replaced[head.id] = replace

    async def _workflow_of(self, execution: StoredExecution, replace: Mapping[str, Any]) -> Workflow:
        """The version of the workflow the execution began with, checked against what this runtime knows.

        Raises:
            ValidationFailedError: a node type is not known here, or stand-ins are not given.
        """
        missing = sorted(set(stored_of(execution.inputs).replaced) ^ set(replace))
        if missing:
            raise ValidationFailedError(
                [
                    Problem(
                        path=f"replace.{name}",
                        message="was replaced when the execution began, and is not now"
                        if name not in replace
                        else "was not replaced when the execution began",
                        remedy="give the same stand-ins: runtime.resume(..., replace={...})",
                    )
                    for name in missing
                ],
                what=f"resuming execution {execution.id}",
            )
        key = (execution.workflow_id, execution.workflow_version)
        workflow = self._workflows.get(key)
        if workflow is None:
            stored = await self._maker.store.workflows.get(*key)
            workflow = stored.workflow
            self._maker.validate(workflow, mode="request")
            self._workflows[key] = workflow
        return workflow

    # --- going on -------------------------------------------------------------------------------------

    async def _go_on(
        self, execution_id: str, workflow: Workflow, replace: Mapping[str, Any], *, take_over: bool = False
    ) -> RunResult:
        """One pass, in a task of its own: it goes on although whoever asked for it listens no more."""
        task = asyncio.get_running_loop().create_task(
            self._pass(execution_id, workflow, replace, take_over=take_over),
            name=f"flow resume {execution_id}",
        )
        self._keep(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._tell(done, execution_id))
            raise

    async def _pass(
        self, execution_id: str, workflow: Workflow, replace: Mapping[str, Any], *, take_over: bool
    ) -> RunResult:
        """One pass; where this runtime is in one already, another one behind it if that is not the last."""
        turn = self._turns.get(execution_id)
        if turn is None:
            turn = self._turns[execution_id] = _Turn()
        async with turn.lock:
            claim = await self._claimed(execution_id, turn, take_over=take_over)
            if claim is None:
                assert turn.result is not None  # noqa: S101 - else it would have been claimed, or refused
                return turn.result
            try:
                turn.result = await self._maker.pass_through(workflow, claim, replace)
            finally:
                end_attempt(claim.head.owner)
                await asyncio.shield(self._put_back(claim))
        return turn.result

    async def _claimed(self, execution_id: str, turn: _Turn, *, take_over: bool) -> Claim | None:
        """The execution, taken; None: it has ended here, while somebody waited for their turn.

        Raises:
            ExecutionEndedError, ExecutionBusyError
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + _PATIENCE_S
        while True:
            stored = await self._maker.store.executions.get(execution_id)
            if stored.state.finished:
                if turn.result is not None:
                    return None
                raise _ended(stored)
            free = isinstance(stored.state, Paused) or is_gone(stored.owner) or take_over
            if free:
                try:
                    return await self._claim(stored)
                except ExecutionChangedError:
                    continue  # somebody else was faster; look again
            if loop.time() >= patience:
                raise ExecutionBusyError(
                    f"execution {execution_id!r} is at work in {stored.owner!r}, which is not known to be "
                    "gone; an answer that was given is kept, and it goes on with it. When you know that "
                    "process is gone, take the execution over",
                    id=execution_id,
                    owner=stored.owner,
                )
            await asyncio.sleep(_LOOK_S)

    async def _claim(self, stored: StoredExecution) -> Claim:
        store, owner = self._maker.store, begin_attempt()
        head: ExecutionHead = stored
        try:
            if isinstance(stored.state, Running):
                head = await store.executions.step(head, Paused("taken over"), at=self._clock(), by=owner)
            head = await store.executions.step(head, Running(), at=self._clock(), by=owner)
            crash_point("execution.after_claim")
            entries = list(await store.journal.get_all(stored.id))
            waits = await self._waits_of(stored.id)
        except BaseException:
            end_attempt(owner)
            raise
        since = max((wait.created_at for wait in waits), default=stored.created_at)
        return Claim(
            head=head,
            stored=stored_of(stored.inputs),
            entries=entries,
            waits=waits,
            paused_s=max(0.0, self._clock() - since),
        )

    async def _put_back(self, claim: Claim) -> None:
        """A pass that was never begun, or ended without a word, leaves the execution to the next one."""
        store = self._maker.store
        try:
            now = await store.executions.get(claim.head.id)
            if isinstance(now.state, Running) and now.owner == claim.head.owner:
                await store.executions.step(
                    now, Paused("it could not go on"), at=self._clock(), by=claim.head.owner
                )
        except StoreError:
            return  # its owner is gone, which is enough for taking it over

    # --- time -----------------------------------------------------------------------------------------

    def put_down(self, execution_id: str, waits: list[Wait], *, answered: bool) -> None:
        """An execution of this runtime waits: be there when its time is up."""
        if self._closed:
            return
        if answered:
            self._spawn(self._continue(execution_id), execution_id)
        for wait in waits:
            if wait.expires_at is not None:
                self._schedule(wait, max(0.0, wait.expires_at - self._clock()))

    def _schedule(self, wait: Wait, delay_s: float) -> None:
        self._forget(wait.id)
        loop = asyncio.get_running_loop()
        self._timers[wait.id] = loop.call_later(
            delay_s, lambda: self._spawn(self._time_is_up(wait), wait.execution_id)
        )

    def _forget(self, wait_id: str) -> None:
        timer = self._timers.pop(wait_id, None)
        if timer is not None:
            timer.cancel()

    async def _time_is_up(self, wait: Wait) -> None:
        self._timers.pop(wait.id, None)
        if await self._expire(wait) is not None:
            await self._continue(wait.execution_id)
        elif (await self._maker.store.waits.get(wait.id)).state == "open" and not self._closed:
            self._schedule(wait, _LOOK_S)  # the clock is not the loop's, and a little behind it

    async def _expire(self, wait: Wait) -> Wait | None:
        """Note that its time is up; None: it was answered before, or it is not due."""
        try:
            expired = await self._maker.store.waits.expire(wait.id, at=self._clock())
        except (StoreConflictError, NotStoredError):
            return None
        crash_point("waits.after_expire")
        return expired

    async def _continue(self, execution_id: str) -> RunResult:
        stored = await self._maker.store.executions.get(execution_id)
        if stored.state.finished:
            raise _ended(stored)
        if is_held(stored.inputs):
            return await self._row_goes_on(execution_id)
        replace = self._replaced.get(execution_id, {})
        return await self._go_on(execution_id, await self._workflow_of(stored, replace), replace)

    async def expire_waits(self) -> list[RunResult | FlowError]:
        """See `FlowRuntime.expire_waits`."""
        found: dict[str, None] = {}
        while due := await self._maker.store.waits.due(self._clock(), limit=1_000):
            expired = [wait for wait in due if await self._expire(wait) is not None]
            found |= dict.fromkeys(wait.execution_id for wait in due)
            if not expired:
                break  # others are noting them just now
        found |= dict.fromkeys(await self._unattended())
        done: list[RunResult | FlowError] = []
        for execution_id in found:
            try:
                done.append(await self._continue(execution_id))
            except ExecutionEndedError:
                continue  # it had ended, and its wait was all that was left
            except FlowError as error:
                done.append(error)
        return done

    async def _unattended(self) -> list[str]:
        """Executions nobody has to answer and nobody is at work on: a process died on the way.

        Executions are read before waits: what is paused by then has opened its waits before.
        """
        store = self._maker.store
        heads: list[ExecutionHead] = []
        after: str | None = None
        wanted = ExecutionFilter(states=frozenset({"paused", "running"}))
        while True:
            heads_page = await store.executions.list(wanted, limit=1_000, after=after)
            heads += heads_page.items
            after = heads_page.after
            if after is None:
                break
        asked: set[str] = set()
        while heads:
            waits_page = await store.waits.list(_OPEN, limit=1_000, after=after)
            asked.update(wait.execution_id for wait in waits_page.items)
            after = waits_page.after
            if after is None:
                break
        return [
            head.id
            for head in heads
            if (
                head.owner and is_gone(head.owner)
                if isinstance(head.state, Running)
                else head.id not in asked and head.owner != READY
            )
        ]

    # --- in the background ----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, Any], execution_id: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"flow resume {execution_id}")
        self._keep(task)
        task.add_done_callback(lambda done: self._tell(done, execution_id))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, task: asyncio.Task[Any], execution_id: str) -> None:
        """Log why an execution could not go on where nobody else is told."""
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ExecutionEndedError):
            return
        self._log(f"execution {execution_id} could not go on: {error}", "error", {"execution": execution_id})

    def stop(self) -> None:
        """Nothing is begun by itself any more; waits stay in the store."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def aclose(self) -> None:
        """Wait for what is left; to be called when no chain is open any more, so that passes have ended."""
        self.stop()
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _ended(execution: ExecutionHead) -> ExecutionEndedError:
    return ExecutionEndedError(
        f"execution {execution.id!r} is {execution.state.name} since {execution.ended_at!r}; it never "
        "goes on",
        id=execution.id,
        state=execution.state.name,
    )
