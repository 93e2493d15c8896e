"""What can go wrong with a store of workflows, executions, waits and journals.

Owns: the branch `StoreError` of the tree of errors.
Does not own: the stores (flowruntime.state.store), or the rules that raise some of these (flowcore.waits).

Always holds: `url` names the store without user, password and options; the message says whether anything was
stored; `retriable` is True only where asking the same again can help by itself.
"""

from __future__ import annotations

from flowcore.errors import RunError


class StoreError(RunError):
    """A store could not do what it was asked.

    Attributes `url` (empty where no store had to be asked) and `outcome`: `nothing` was stored, or that is
    `unknown` because the answer got lost; then read before you write again.
    """

    url: str = ""
    outcome: str = "nothing"


# --- how it is reached ----------------------------------------------------------------------------------


class StoreUrlError(StoreError, ValueError):
    """The url names no store."""


class StoreExtraError(StoreError, ImportError):
    """The package a store needs is not installed: attribute `extra`."""


class StoreClosedError(StoreError, RuntimeError):
    """The store was closed before."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The server cannot be reached, or went away; trying again may help."""

    retriable = True


class StoreTimeoutError(StoreError, TimeoutError):
    """The store was busy for longer than it may be; trying again may help."""

    retriable = True


class StoreAccessError(StoreError, PermissionError):
    """The store may not be opened, or not be written: rights, a read-only disk, a password."""


class StoreFailedError(StoreError, OSError):
    """What lies under the store failed: a disk, a server."""


class StoreFullError(StoreFailedError, MemoryError):
    """There is no room left under the store."""


# --- what is in it --------------------------------------------------------------------------------------


class StoreFormatError(StoreError, ValueError):
    """What is there is not a store of this kind; it was left as it was."""


class StoreVersionError(StoreFormatError):
    """A newer FlowRx wrote the store: attributes `found`, `known`. It was left as it was."""


class StoreDamagedError(StoreError, OSError):
    """The store is damaged, or something replaced it; what is damaged is never given out."""


# --- what was asked -------------------------------------------------------------------------------------


class StoreInputError(StoreError, ValueError):
    """What was to be stored cannot be: attributes `what`, `reason`."""


class NotStoredError(StoreError, LookupError):
    """Nothing of that id is there: attributes `what` (workflow, execution, wait), `id`."""


class AmbiguousWaitError(StoreError, LookupError):
    """The execution waits for several things: attributes `id`, `waits`. Say which one is answered."""


class AmbiguousNameError(StoreError, LookupError):
    """Several workflows have that name: attributes `name`, `ids`."""


class StoreConflictError(StoreError, ValueError):
    """What is there now does not allow it; read it again and decide anew."""


class AlreadyStoredError(StoreConflictError):
    """Something else has that id: attributes `what`, `id`."""


class ExecutionChangedError(StoreConflictError):
    """Someone else took a step with the execution: attributes `id`, `expected` and `found` (revisions)."""


class ExecutionEndedError(StoreConflictError):
    """The execution has ended, and never goes on: attributes `id`, `state`."""


class ExecutionBusyError(StoreConflictError):
    """Another process is at work on the execution: attributes `id`, `owner`."""


class WaitClosedError(StoreConflictError):
    """The wait is not open any more: attributes `id`, `state`."""


class WorkflowInUseError(StoreConflictError):
    """Executions refer to the workflow: attributes `id`, `version`."""
