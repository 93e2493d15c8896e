"""What a store keeps: workflows, executions, entries of a journal; and the step of an execution.

Owns: the structs a store takes and gives, filters, `Page`, `Held`, and the rule of a step (`stepped`).
Does not own: waits (flowcore.waits), states (flowcore.states), how any of it is kept.

Always holds: everything here is immutable; times are Unix seconds. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from flowcore.states import Pending, Running, WorkflowState, step
from flowcore.store_errors import StoreInputError
from flowcore.waits import KeptWaitKind, Wait, WaitState
from flowcore.workflow import Workflow

T = TypeVar("T")

MAX_PAGE: Final = 1_000
"""Items of one page at most."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some items, and where to go on.

    What was stored before the first page was asked for comes once, on one of the pages; what is stored
    meanwhile may come or not, and never twice.
    """

    items: tuple[T, ...]
    after: str | None = None
    """Give it as `after` for the next page; None: this was the last one."""


# --- workflows ------------------------------------------------------------------------------------------


class WorkflowHead(msgspec.Struct, frozen=True, kw_only=True):
    """A stored version of a workflow, without its content."""

    id: str
    """The workflow's own id, or its name where it has none."""
    version: int
    """Given by the store, from 1, in the order of `put`; not the text `Workflow.version`."""
    name: str
    hash: str
    """Of the content: SHA-256 of its document, hexadecimal."""
    created_at: float


class StoredWorkflow(WorkflowHead, frozen=True, kw_only=True):
    """A stored version of a workflow."""

    workflow: Workflow
    """Functions and classes that were given to `add` are there by the name of their type only."""


# --- executions -----------------------------------------------------------------------------------------


STATES: Final = tuple(state.__name__.lower() for state in get_args(WorkflowState))
"""Names of all states."""


class ExecutionHead(msgspec.Struct, frozen=True, kw_only=True):
    """A request or a run, without the values that went in and came out."""

    id: str
    workflow_id: str
    workflow_version: int
    workflow_hash: str
    created_at: float
    state: WorkflowState = Pending()
    """A failed one carries its error."""
    revision: int = 0
    """Steps taken so far: who takes the next one names it."""
    started_at: float | None = None
    ended_at: float | None = None
    owner: str = ""
    """Who took the last step, as it called itself."""


class StoredExecution(ExecutionHead, frozen=True, kw_only=True):
    """A request or a run."""

    inputs: Any = None
    result: Any = None
    """What came out; None until it has ended."""


class ExecutionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which executions a list shows; what is left out restricts nothing."""

    workflow_id: str | None = None
    states: frozenset[str] = frozenset()
    """Names of states (`paused`, `failed`, ...); empty: all."""
    owner: str | None = None
    """Who took the last step, as it called itself."""
    created_from: float | None = None
    created_before: float | None = None


def new_execution(
    id: str, workflow: WorkflowHead, inputs: Any, *, at: float, running: bool = False
) -> StoredExecution:
    """An execution of a stored workflow, before its first step.

    Args:
        id: unique among all executions.
        workflow: as `put` gave it.
        inputs: of any kind a value has.
        at: when it was accepted.
        running: it begins at once.
    """
    return StoredExecution(
        id=id,
        workflow_id=workflow.id,
        workflow_version=workflow.version,
        workflow_hash=workflow.hash,
        created_at=at,
        state=Running() if running else Pending(),
        started_at=at if running else None,
        inputs=inputs,
    )


def head_of(execution: ExecutionHead) -> ExecutionHead:
    """The execution without its values."""
    if not isinstance(execution, StoredExecution):
        return execution
    return ExecutionHead(**{name: getattr(execution, name) for name in ExecutionHead.__struct_fields__})


def stepped(
    execution: ExecutionHead, following: WorkflowState, *, at: float, by: str, result: Any
) -> ExecutionHead:
    """The execution in its next state, without values.

    Args:
        execution: as it is.
        following: the state it goes to.
        at: when; the first Running sets `started_at`, a finished state `ended_at`.
        by: who takes it.
        result: what comes out; only an execution that ends has one.

    Raises:
        TransitionError: `following` may not come now.
        StoreInputError: a result before the end.
    """
    step(execution.state, following)
    if result is not None and not following.finished:
        raise StoreInputError(
            f"execution {execution.id!r}: a result comes with a finished state, not with {following.name!r}; "
            "nothing was stored",
            what="result",
            reason=f"state {following.name}",
        )
    started = execution.started_at
    if started is None and isinstance(following, Running):
        started = at
    return msgspec.structs.replace(
        head_of(execution),
        state=following,
        revision=execution.revision + 1,
        started_at=started,
        ended_at=at if following.finished else None,
        owner=by,
    )


ALL_EXECUTIONS: Final = ExecutionFilter()


# --- waits ----------------------------------------------------------------------------------------------


class WaitFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which waits a list shows; what is left out restricts nothing."""

    execution_id: str | None = None
    workflow_id: str | None = None
    """Of executions of this workflow."""
    states: frozenset[WaitState] = frozenset()
    kinds: frozenset[KeptWaitKind] = frozenset()
    execution_states: frozenset[str] = frozenset()
    """Of executions in these states."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that waits from its beginning, and what for."""

    execution: StoredExecution
    waits: tuple[Wait, ...]
    """Open ones of it, at least one."""


ALL_WAITS: Final = WaitFilter()


# --- the journal ----------------------------------------------------------------------------------------


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of a node gave: a value, or a failure."""

    execution_id: str
    node: str
    path: str = ""
    """Which row: its lineage, as the runtime writes it."""
    call: int = 0
    """Which call of that node for that row, from 0."""
    value: Any = None
    failure: Mapping[str, Any] | None = None
    """What `describe_error` says of the error; None: the call succeeded."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.execution_id, self.node, self.path, self.call
