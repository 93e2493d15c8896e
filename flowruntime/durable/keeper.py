"""Executions that survive: stored before they begin, put down when they wait, ended once.

Owns: `Keeper`, what is stored of an execution as a whole and in which order; `Claim`, an execution taken up
again.
Does not own: its calls (journal, rows), taking it up (resuming).

The order. Before anything runs: the version of the workflow, the execution as running. While it runs: what
each call gave, before anything follows from it. When all that is left waits: the waits, then the execution as
paused; only then the result. So whatever is stored when a process dies is enough to go on, and a wait that
can be answered belongs to an execution that can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from flowcore.errors import CancelledRowError, describe_error
from flowcore.event_codec import plain_payload
from flowcore.events import OpenWait
from flowcore.plain import from_plain
from flowcore.states import Failed, Paused, WorkflowState
from flowcore.store_errors import AlreadyStoredError, StoreError, StoreInputError
from flowcore.waits import Wait
from flowruntime.crashpoints import crash_point
from flowruntime.durable.journal import ExecutionJournal
from flowruntime.durable.owner import begin_attempt, end_attempt
from flowruntime.durable.rows import RowJournal
from flowruntime.execute.execution import State
from flowruntime.state.store.entries import ExecutionHead, JournalEntry, new_execution

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.execute.execution import Execution
    from flowruntime.execute.result import RunResult
    from flowruntime.operators.kernel import Kernel
    from flowruntime.state.store.entries import WorkflowHead
    from flowruntime.state.store.protocol import Store

CLOSED: Final = "the runtime was closed"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution's entry keeps of the request, as its `inputs`."""

    given: dict[str, Any]
    """By `node.port`."""
    write: bool = False
    attributes: dict[str, Any] = {}
    replaced: list[str] = []
    """Nodes with something else in their place; who takes the execution up must give it again."""

    def inputs(self) -> dict[str, dict[str, Any]]:
        """As `FlowRuntime.execute` takes them: by node and port."""
        found: dict[str, dict[str, Any]] = {}
        for name, value in self.given.items():
            node, _, port = name.rpartition(".")
            found.setdefault(node, {})[port] = value
        return found

    def to_data(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """An execution taken up by this process: running, and owned by `head.owner`."""

    head: ExecutionHead
    stored: Stored
    entries: list[JournalEntry]
    waits: list[Wait]
    paused_s: float


class Watch(Protocol):
    """Who looks after executions that were put down."""

    def begun(self, workflow: Workflow, head: ExecutionHead, replace: Mapping[str, Any]) -> None:
        """An execution of this runtime is stored."""
        ...

    def put_down(self, execution_id: str, waits: list[Wait], *, answered: bool) -> None:
        """It waits; `answered`: something it waits for was answered meanwhile, so that it can go on."""
        ...


class Keeper:
    """Keeps the executions of one workflow in one runtime.

    Args:
        store: where.
        workflow: as it is stored.
        clock: Unix seconds.
        watch: told of executions that wait.
        write: sinks write.
        replace: what stands in the place of nodes.
    """

    def __init__(
        self,
        store: Store,
        workflow: Workflow,
        clock: Callable[[], float],
        watch: Watch,
        *,
        write: bool,
        replace: Mapping[str, Any],
    ) -> None:
        self._store = store
        self._workflow = workflow
        self._clock = clock
        self._watch = watch
        self._write = write
        self._replace = replace
        self._head: WorkflowHead | None = None

    def rows(self, kernel: Kernel) -> RowJournal:
        """What the operators of a chain ask."""
        return RowJournal(kernel, self._clock)

    async def begin(self, execution: Execution, claim: Claim | None) -> None:
        """Store the execution as running, or take up one that is; before anything of it runs.

        Raises:
            AlreadyStoredError: another execution has its id.
            StoreInputError: its inputs cannot be kept.
            StoreError: the store cannot be reached; nothing has run.
        """
        if claim is not None:
            execution.given = claim.stored.given
            journal = ExecutionJournal(
                self._store,
                claim.head,
                entries=claim.entries,
                waits=claim.waits,
                paused_s=claim.paused_s,
            )
            if journal.state:
                execution.state_ = State()
                execution.state_.data.update(journal.state)
            execution.journal = journal
            return
        owner = begin_attempt()
        try:
            execution.journal = ExecutionJournal(self._store, await self._create(execution, owner))
        except BaseException:
            end_attempt(owner)
            raise

    async def _create(self, execution: Execution, owner: str) -> ExecutionHead:
        if self._head is None:
            self._head = await self._store.workflows.put(self._workflow, at=self._clock())
        stored = Stored(
            given=dict(execution.given or {}),
            write=self._write,
            attributes=dict(execution.attributes),
            replaced=sorted(self._replace),
        )
        found = new_execution(execution.id, self._head, stored.to_data(), at=execution.started, running=True)
        found = msgspec.structs.replace(found, owner=owner)
        await self._store.executions.create(found)
        there = await self._store.executions.get(found.id)
        if there.owner != owner:  # to a store, the same request at the same time is the same execution
            raise AlreadyStoredError(
                f"execution {found.id!r} is there already; give another id, or resume it",
                what="execution",
                id=found.id,
            )
        crash_point("execution.after_create")
        self._watch.begun(self._workflow, found, self._replace)
        return found

    # --- the end of a pass ----------------------------------------------------------------------------

    async def conclude(self, execution: Execution, result: RunResult) -> RunResult:
        """Store what a pass came to, before anybody is told of it.

        Returns:
            The result; with what it waits for, or failed when the store is gone: the execution is not lost
            then, and can be taken up once the store is back.
        """
        journal = execution.journal
        assert journal is not None  # noqa: S101 - begun
        try:
            if journal.fault is not None:
                raise journal.fault
            if _was_closed(execution):
                state = Paused(CLOSED)
                await self._step(journal, state)
                return msgspec.structs.replace(result, state=state, cause=None)
            if isinstance(result.state, Paused):
                return await self._put_down(journal, result)
            await self._end(journal, result)
        except StoreError as error:
            return msgspec.structs.replace(result, state=Failed(describe_error(error)), cause=error)
        else:
            return result
        finally:
            end_attempt(journal.head.owner)

    async def _put_down(self, journal: ExecutionJournal, result: RunResult) -> RunResult:
        waits = sorted(journal.suspended.values(), key=_as_asked)
        crash_point("waits.before_open")
        for wait in waits:
            if wait.id not in journal.waits:
                await self._open(wait)
        crash_point("waits.after_open")
        await self._step(journal, result.state)
        crash_point("execution.after_pause")
        answered = False
        for wait in waits:
            answered = answered or (await self._store.waits.get(wait.id)).state != "open"
        self._watch.put_down(journal.execution_id, waits, answered=answered)
        return msgspec.structs.replace(result, waits=[shown_wait(wait) for wait in waits])

    async def _open(self, wait: Wait) -> None:
        """Open it, or find it open: a pass that died behind this had opened it."""
        try:
            await self._store.waits.open(wait)
        except AlreadyStoredError:
            found = await self._store.waits.get(wait.id)
            if found.execution_id != wait.execution_id:
                raise

    async def _end(self, journal: ExecutionJournal, result: RunResult) -> None:
        crash_point("execution.before_end")
        outcome = {"outputs": result.outputs, "captured": result.captured}
        try:
            await self._step(journal, result.state, outcome)
        except StoreInputError:  # a value of a node's own type: it is told, not kept as it is
            told = from_plain(plain_payload(outcome))
            await self._step(journal, result.state, told)
        crash_point("execution.after_end")
        await self._store.waits.cancel(journal.execution_id, at=self._clock())

    async def _step(self, journal: ExecutionJournal, state: WorkflowState, result: Any = None) -> None:
        head = journal.head
        journal.head = await self._store.executions.step(
            head, state, at=self._clock(), by=head.owner, result=result
        )


def _was_closed(execution: Execution) -> bool:
    stopped = execution.stopped
    return (
        stopped is not None and isinstance(stopped.error, CancelledRowError) and str(stopped.error) == CLOSED
    )


def _as_asked(wait: Wait) -> tuple[Any, ...]:
    """The order of waits: of rows of one node in theirs."""
    return wait.created_at, wait.node, [int(place) for place in wait.path.split("/") if place], wait.id


def shown_wait(wait: Wait) -> OpenWait:
    """What results and events tell of a wait."""
    return OpenWait(
        id=wait.id,
        node=wait.node,
        wait_kind=wait.kind,
        title=wait.title,
        schema=wait.schema,
        expires_at=wait.expires_at,
        path=wait.path,
    )


def stored_of(inputs: Any) -> Stored:
    """What `Stored.to_data` gave.

    Raises:
        StoreInputError: the execution was stored by something else, and cannot go on here.
    """
    known = set(Stored.__struct_fields__)
    if not isinstance(inputs, dict) or "given" not in inputs or not known.issuperset(inputs):  # pyright: ignore[reportUnknownArgumentType] - of any kind
        raise StoreInputError(
            "the execution was not begun by FlowRuntime.execute, and cannot be resumed by it; nothing was "
            "changed",
            what="inputs",
            reason="of another program",
        )
    return Stored(**cast("dict[str, Any]", inputs))
