"""Rows of a chain and the journals of their executions: recalling calls, keeping them, suspending rows.

Owns: `RowJournal`, asked by operators for each row; which entry is whose: node, lineage of the row, and for
sinks the connection.
Does not own: the journal of one execution (journal), when an execution is paused or ends (keeper).

Always holds: what an operator is told to go on with is durable, or its execution was stopped because the
store is gone. A chain without nodes that wait has no RowJournal, and pays nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowcore.dead_letters import DeadLetter
from flowcore.errors import CancelledRowError, ContractError, describe_error
from flowcore.frame import Failure, Frame, Opened
from flowcore.store_errors import StoreError
from flowcore.waits import Wait, WaitExpiredError, WaitRequest, check_request
from flowruntime.durable.recorded import RecordedError, builtins_of, children_of, recall, record, wait_id
from flowruntime.durable.suspension import Suspension

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.durable.journal import ExecutionJournal
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.operators.kernel import Kernel
    from flowruntime.state.store.entries import JournalEntry

_LETTERS: Final = "$letters/"
_PART: Final = 64
"""Rows of a plain generator between two turns of the loop."""


class Recalled(NamedTuple):
    """What a call gave in an earlier pass."""

    value: Any
    error: RecordedError | None


class RowJournal:
    """The journals of all executions of one chain, by row."""

    def __init__(self, kernel: Kernel, clock: Callable[[], float]) -> None:
        self._kernel = kernel
        self._clock = clock
        self._slots: dict[Frame[Any], int] = {}
        """Of frames on their way to a sink: the connection they came by."""
        self._asked: set[tuple[str, str, str]] = set()
        """Execution, node and path of calls that were told to end."""

    def _of(self, opened: Opened, row: int) -> ExecutionJournal:
        found = self._kernel.execution_of(opened, row).journal
        assert found is not None  # noqa: S101 - every execution of this chain was begun by its keeper
        return found

    def _node(self, node_id: str) -> ResolvedNode:
        return self._kernel.plan.graph.nodes[node_id]

    # --- nodes ----------------------------------------------------------------------------------------

    def recall(self, node_id: str, opened: Opened, row: int) -> Recalled | None:
        """What the node gave for the row in an earlier pass; None: it was not called, or not to its end."""
        entry = self._of(opened, row).find(node_id, opened.path(row))
        if entry is None:
            return None
        if entry.failure is not None:
            return Recalled(None, RecordedError(entry.failure))
        return Recalled(recall(self._node(node_id).node, entry.value), None)

    def take(self, node_id: str, job: Job, then: Callable[[], None]) -> None:
        """A call is over: keep what it gave, and go on when that is durable. One that waits is not over."""
        key = (self._of(job.opened, job.row).execution_id, node_id, job.opened.path(job.row))
        asked = key in self._asked
        self._asked.discard(key)
        if isinstance(job.error, Suspension):
            journal = self._of(job.opened, job.row)
            journal.suspended.update({wait.id: wait for wait in job.error.waits})
            then()
            return
        if asked and job.error is None:
            job.error = ContractError(
                f"node {node_id!r} caught what ctx.wait ends its call with, and went on without an answer; "
                "catch Exception there, not BaseException",
                node=node_id,
            )
        self.keep(node_id, job.opened, job.row, then, value=job.result, error=job.error, into=job)

    def keep(
        self,
        node_id: str,
        opened: Opened,
        row: int,
        then: Callable[[], None],
        *,
        value: Any = None,
        error: BaseException | None = None,
        into: Any = None,
    ) -> None:
        """Keep what a call gave, or how it failed; `then` is called when that is durable.

        Args:
            node_id: of the node.
            opened: the row's frame.
            row: in that frame.
            then: goes on with the row.
            value: what the node gave.
            error: what it failed with.
            into: its `error` is set when the value cannot be kept, which is the row's failure then.
        """
        journal = self._of(opened, row)
        path = opened.path(row)
        node = self._node(node_id)
        entries: list[JournalEntry] = []
        if error is None:
            try:
                given = bool(value) if node.role == "filter" else value
                entries = [
                    journal.entry(node_id, path, value=record(node.node, given)),
                    *self._state(opened, row),
                ]
            except Exception as refused:  # noqa: BLE001 - of values and a user's __bool__; it is the row's failure
                error = refused
                if into is not None:
                    into.error = refused
        if error is not None:
            entries = [journal.entry(node_id, path, failure=describe_error(error))]

        def kept(done: asyncio.Future[None]) -> None:
            self._check(done, opened, row)
            then()

        journal.keep(entries).add_done_callback(kept)

    def _state(self, opened: Opened, row: int) -> Sequence[JournalEntry]:
        execution = self._kernel.execution_of(opened, row)
        shared = None if execution.state_ is None else execution.state_.data
        return self._of(opened, row).state_entries(shared)

    def _check(self, done: asyncio.Future[None], opened: Opened, row: int) -> None:
        """A store that is gone stops the execution: nothing more of it may happen that nobody would know."""
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is None or self._kernel.closed:
            return
        if not isinstance(error, StoreError):
            self._kernel.crash(error)
            return
        self._kernel.listener.stop(Failure("", error), opened, row)

    async def _kept(self, entries: Sequence[JournalEntry], opened: Opened, row: int) -> None:
        done = self._of(opened, row).keep(entries)
        await asyncio.wait([done])
        self._check(done, opened, row)

    # --- waiting --------------------------------------------------------------------------------------

    async def wait(self, node_id: str, opened: Opened, row: int, number: int, request: WaitRequest) -> Any:
        """The answer to the n-th wait of a call.

        Raises:
            Suspension: there is none yet.
            WaitExpiredError: there will be none.
            CancelledRowError: it was given up, or its time was up where that cancels the execution.
        """
        check_request(request, node_id)
        journal, path = self._of(opened, row), opened.path(row)
        id = wait_id(journal.execution_id, node_id, path, number)
        wait = journal.waits.get(id) or self._new(id, journal, node_id, path, request)
        if wait.state == "open":
            self._asked.add((journal.execution_id, node_id, path))
            raise Suspension(wait)
        if wait.state == "answered" or (wait.state == "expired" and wait.on_timeout == "answer"):
            return wait.answer
        if wait.state == "expired" and wait.on_timeout == "fail":
            raise WaitExpiredError(
                f"node {node_id!r} waited for {wait.title or wait.kind!r} and nobody answered in time",
                wait=wait.id,
                node=node_id,
            )
        why = f"nobody answered {wait.title or node_id!r} in time" if wait.state == "expired" else "given up"
        error = CancelledRowError(f"wait {wait.id} of node {node_id!r}: {why}", node=node_id)
        self._kernel.listener.stop(Failure("", error), opened, row)
        raise error

    def _new(self, id: str, journal: ExecutionJournal, node_id: str, path: str, request: WaitRequest) -> Wait:
        now = self._clock()
        return Wait(
            id=id,
            execution_id=journal.execution_id,
            node=node_id,
            path=path,
            kind=request.kind,
            title=request.title,
            schema=request.schema,
            created_at=now,
            expires_at=None if request.timeout is None else now + request.timeout.total_seconds(),
            on_timeout=request.on_timeout,
            default=request.default,
        )

    # --- nodes that yield several rows ----------------------------------------------------------------

    def children(
        self, node_id: str, start: Callable[[Opened, int, Any, int], Any], most: int
    ) -> Callable[[Opened, int, Any, int], AsyncIterator[Any]]:
        """`start` of an expanding node, whose rows are kept as a whole before the first one leaves.

        Args:
            node_id: of the node.
            start: calls it and gives its iterator.
            most: rows it may yield; one more is taken, for the stage to refuse.
        """

        async def begin(opened: Opened, row: int, value: Any, attempt: int) -> AsyncIterator[Any]:
            definition = self._node(node_id).node
            journal, path = self._of(opened, row), opened.path(row)
            entry = journal.find(node_id, path)
            if entry is not None and entry.failure is not None:
                raise RecordedError(entry.failure)
            if entry is not None:
                recorded, failed = children_of(entry.value)
                for child in recorded:
                    yield recall(definition, child)
                if failed is not None:
                    raise RecordedError(failed)
                return
            found, error = await _all(start(opened, row, value, attempt), most + 1)
            if error is not None and not found:
                raise error  # none has left: it may be tried again
            kept: dict[str, Any] = {"children": [record(definition, child) for child in found]}
            if error is not None:
                kept["failure"] = describe_error(error)
            entries = [journal.entry(node_id, path, value=kept), *self._state(opened, row)]
            await self._kept(entries, opened, row)
            for child in found:
                yield child
            if error is not None:
                raise error

        return begin

    def was_called(self, node_id: str, opened: Opened, row: int) -> bool:
        """Whether an earlier pass has kept what the node gave for the row."""
        return self._of(opened, row).find(node_id, opened.path(row)) is not None

    async def failed(self, node_id: str, opened: Opened, row: int, error: BaseException) -> None:
        """Keep that an expanding node failed before its first row."""
        entry = self._of(opened, row).entry(node_id, opened.path(row), failure=describe_error(error))
        await self._kept([entry], opened, row)

    # --- sinks ----------------------------------------------------------------------------------------

    def unwritten(self, node_id: str, slot: int, frame: Frame[Any]) -> Frame[Any]:
        """The frame without the rows the sink has written in an earlier pass, or failed on."""
        opened, kernel = frame.opened, self._kernel
        rows: list[int] = []
        values: list[Any] = []
        for row, value in zip(frame.present, frame.values, strict=True):
            entry = self._of(opened, row).find(node_id, opened.path(row), slot)
            if entry is None:
                rows.append(row)
                values.append(value)
            elif entry.failure is None:
                kernel.sink_wrote(node_id, opened, row, self._clock(), recalled=True)
            else:
                error = RecordedError(entry.failure)
                kernel.failed(node_id, opened, row, error, value=value, recalled=True)
        left = frame if len(rows) == len(frame.values) else Frame(opened, values, rows, list(frame.covered))
        if rows:
            self._slots[left] = slot
        return left

    async def wrote(
        self, node_id: str, frame: Frame[Any], failed: Mapping[int, BaseException], whole: Exception | None
    ) -> None:
        """Keep what a sink has written; its rows are covered only then.

        Args:
            node_id: of the sink.
            frame: what it was given.
            failed: rows it refused, by their place among the frame's values.
            whole: why it wrote none of them.
        """
        opened, slot = frame.opened, self._slots.pop(frame, 0)
        by_execution: dict[ExecutionJournal, list[JournalEntry]] = defaultdict(list)
        for index, row in enumerate(frame.present):
            journal = self._of(opened, row)
            error = whole if whole is not None else failed.get(index)
            by_execution[journal].append(
                journal.entry(
                    node_id,
                    opened.path(row),
                    call=slot,
                    failure=None if error is None else describe_error(error),
                )
            )
        for entries in by_execution.values():
            await self._kept(entries, opened, next(iter(frame.present)))

    # --- dead letters ---------------------------------------------------------------------------------

    def was_lettered(self, node_id: str, opened: Opened, row: int) -> bool:
        """Whether the letters of this failure were kept in an earlier pass; they are in the result then."""
        journal, path = self._of(opened, row), opened.path(row)
        execution = self._kernel.execution_of(opened, row)
        number = execution.numbered(("asked", node_id, path))
        entry = journal.find(f"{_LETTERS}{node_id}", path, number)
        if entry is None:
            return False
        execution.numbered(("kept", node_id, path))
        letters = [msgspec.convert(letter, DeadLetter) for letter in entry.value]
        execution.dead_lettered(letters, kept=True)
        return True

    async def lettered(self, node_id: str, opened: Opened, row: int, letters: Iterable[DeadLetter]) -> None:
        """Keep that the letters of a failure are kept."""
        journal, path = self._of(opened, row), opened.path(row)
        number = self._kernel.execution_of(opened, row).numbered(("kept", node_id, path))
        told = [builtins_of(letter) for letter in letters]
        entry = journal.entry(f"{_LETTERS}{node_id}", path, call=number, value=told)
        await self._kept([entry], opened, row)


async def _all(iterator: Any, most: int) -> tuple[list[Any], Exception | None]:
    """What an iterator of either kind gives, up to `most`, and what it failed with behind that."""
    found: list[Any] = []
    try:
        if hasattr(iterator, "__aiter__"):
            async for child in iterator:
                found.append(child)
                if len(found) == most:
                    break
        else:
            for child in iterator:
                found.append(child)
                if len(found) == most:
                    break
                if len(found) % _PART == 0:
                    await asyncio.sleep(0)
    except Exception as error:  # noqa: BLE001 - user code; it becomes the row's failure behind what was yielded
        return found, error
    finally:
        await _close(iterator)
    return found, None


async def _close(iterator: Any) -> None:
    """Run the clean-up of a generator that is left in the middle."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
    elif hasattr(iterator, "close"):
        iterator.close()
