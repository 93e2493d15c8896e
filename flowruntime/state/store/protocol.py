"""The protocol of a store: workflows, executions, waits and a journal behind one object.

Owns: what every store offers and promises. `flowruntime.testing.conformance.store` holds stores to it.
Does not own: how it is kept (memory, sqlite, postgres), what it is used for (execute).

Always holds: what was written is durable when the `await` returns; an operation is done as a whole or not at
all; a value comes back as the same value (flowcore.values.same_value); every failure is a StoreError.

Every operation may raise `StoreUnavailableError` and `StoreTimeoutError` (retriable), `StoreAccessError`,
`StoreFullError`, `StoreFailedError`, `StoreFormatError`, `StoreDamagedError`, `StoreClosedError`; and
`StoreInputError` for texts and values that cannot be stored. What was cancelled was done or not, as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

from flowcore.states import WorkflowState
from flowcore.waits import Wait
from flowcore.workflow import Workflow
from flowruntime.state.store.entries import (
    ExecutionFilter,
    ExecutionHead,
    Held,
    JournalEntry,
    Page,
    StoredExecution,
    StoredWorkflow,
    WaitFilter,
    WorkflowHead,
)


class WorkflowStore(Protocol):
    """Workflows by id, each with its versions.

    The id is the workflow's own, or its name. Wherever a `name` is taken it may be the id or, where one
    workflow only has it, the name.
    """

    async def put(self, workflow: Workflow, *, at: float | None = None) -> WorkflowHead:
        """Store it as the newest version; the same content as the newest one is no new version.

        Args:
            workflow: functions and classes given to `add` are stored by the name of their type.
            at: when; None: now, by the wall clock.

        Raises:
            ValidationFailedError: a configuration holds something that has no plain form.
        """
        ...

    async def get(self, name: str, version: int | None = None) -> StoredWorkflow:
        """A version, or the newest one.

        Raises:
            NotStoredError, AmbiguousNameError
        """
        ...

    async def list(self, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        """The newest version of each, by id."""
        ...

    async def versions(self, name: str, *, limit: int = 100, after: str | None = None) -> Page[WorkflowHead]:
        """The versions of one, the newest first.

        Raises:
            NotStoredError, AmbiguousNameError
        """
        ...

    async def delete(self, name: str, version: int | None = None) -> None:
        """Forget a version, or all of them.

        Raises:
            NotStoredError, AmbiguousNameError
            WorkflowInUseError: an execution refers to it, also a finished one: `executions.prune` first.
        """
        ...


class ExecutionStore(Protocol):
    """Executions: one entry per request or run."""

    async def create(self, execution: StoredExecution) -> None:
        """Store a new one; doing so twice is as good as once.

        Args:
            execution: pending or running, at revision 0 (`new_execution`).

        Raises:
            AlreadyStoredError: another one has that id.
            NotStoredError: its version of the workflow is not there.
        """
        ...

    async def hold(self, held: Sequence[Held]) -> frozenset[str]:
        """Store executions that wait from their beginning, each with its waits, all in one commit.

        What has one of their ids stays as it is, whatever became of it: who knows an execution by its id may
        hold it as often as it likes.

        Args:
            held: pending executions, at revision 0, of different ids.

        Returns:
            The ids that were there before.

        Raises:
            NotStoredError: a version of a workflow is not there; none of them was stored.
        """
        ...

    async def get(self, id: str) -> StoredExecution:
        """Raises: NotStoredError."""
        ...

    async def step(
        self,
        execution: ExecutionHead,
        following: WorkflowState,
        *,
        at: float,
        by: str = "",
        result: Any = None,
    ) -> ExecutionHead:
        """Take it to its next state, if nobody else has: compare and set by `execution.revision`.

        Args:
            execution: as read last.
            following: see `flowcore.states`; a failed one carries its error.
            at: when.
            by: who takes it, kept as `owner`. Where it is an id of this attempt alone, the same step taken
                again, because its answer got lost, is no conflict.
            result: what came out, with a finished state.

        Returns:
            What is stored now.

        Raises:
            TransitionError: `following` may not come now.
            ExecutionChangedError: it is at another revision.
            NotStoredError
        """
        ...

    async def list(
        self, filter: ExecutionFilter = ..., *, limit: int = 100, after: str | None = None
    ) -> Page[ExecutionHead]:
        """The newest first, by `created_at` and id."""
        ...

    async def prune(self, ended_before: float, *, owner: str | None = None) -> int:
        """Forget what ended before that time, waits and journal included; how many that were.

        Args:
            ended_before: Unix seconds.
            owner: only what this one ended; None: all.

        Not one transaction: cut short, it has forgotten some as a whole.
        """
        ...


class WaitStore(Protocol):
    """What executions wait for."""

    async def open(self, wait: Wait) -> None:
        """Store an open one; doing so twice is as good as once.

        Raises:
            AlreadyStoredError: another one has that id.
            NotStoredError: its execution is not there.
        """
        ...

    async def get(self, id: str) -> Wait:
        """Raises: NotStoredError."""
        ...

    async def list(
        self, filter: WaitFilter = ..., *, limit: int = 100, after: str | None = None
    ) -> Page[Wait]:
        """The oldest first, by `created_at` and id."""
        ...

    async def answer(self, id: str, answer: Any, *, at: float, by: str = "") -> Wait:
        """Answer it: of all answers exactly one is taken.

        Raises:
            WaitClosedError: it was answered before, has expired at `at`, or was cancelled.
            NotStoredError
        """
        ...

    async def due(self, now: float, *, limit: int = 100, held_of: str | None = None) -> Sequence[Wait]:
        """Open ones whose time is up, the longest overdue first.

        Args:
            now: Unix seconds.
            limit: at most so many.
            held_of: only of pending executions of this workflow, by its id; None: of all.
        """
        ...

    async def expire(self, id: str, *, at: float) -> Wait:
        """Note that its time is up.

        Raises:
            WaitClosedError: it is not open any more.
            StoreConflictError: it is not due at `at`.
            NotStoredError
        """
        ...

    async def cancel(self, execution_id: str, *, at: float) -> None:
        """Give up every open one of an execution, together; one that is answered meanwhile stays answered."""
        ...


class JournalStore(Protocol):
    """What calls of nodes gave, so that a resumed execution does not call them again.

    The execution need not be stored.
    """

    async def put(self, entries: Sequence[JournalEntry]) -> None:
        """Store them in one commit; of a call that is there already the first entry stays."""
        ...

    async def get_all(self, execution_id: str) -> Sequence[JournalEntry]:
        """All of an execution, by node, path and call."""
        ...

    async def drop(self, execution_id: str) -> None:
        """Forget all of an execution; idempotent."""
        ...


@runtime_checkable
class Store(Protocol):
    """A store; of one loop at a time. Opened by `open`, by `async with`, or by its first use."""

    @property
    def url(self) -> str:
        """Where it is; without user, password and options."""
        ...

    @property
    def workflows(self) -> WorkflowStore: ...
    @property
    def executions(self) -> ExecutionStore: ...
    @property
    def waits(self) -> WaitStore: ...
    @property
    def journal(self) -> JournalStore: ...

    async def open(self) -> None:
        """Reach it, make or migrate its schema; idempotent. After a failure it may be tried again."""
        ...

    async def ping(self) -> None:
        """Return when it answers; opens it."""
        ...

    async def aclose(self) -> None:
        """Finish what was begun and let go of it; idempotent."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
