"""What every store says when it refuses: one text per reason, whatever the store.

Owns: the errors about what is stored and what was asked.
Does not own: failures of files and servers (sqlite_faults, postgres_faults), what cannot be stored (codec).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Literal

from flowcore.findings import shown
from flowcore.store_errors import (
    AlreadyStoredError,
    AmbiguousNameError,
    ExecutionChangedError,
    NotStoredError,
    StoreClosedError,
    StoreDamagedError,
    WorkflowInUseError,
)
from flowruntime.state.store.codec import UnreadableError
from flowruntime.state.store.entries import ExecutionHead

Kept = Literal["workflow", "execution", "wait"]
_SHOWN: int = 5


@contextlib.contextmanager
def readable(url: str, what: str) -> Generator[None]:
    """What is read in here is what FlowRx wrote.

    Raises:
        StoreDamagedError: it is not.
    """
    try:
        yield
    except UnreadableError as fault:
        raise StoreDamagedError(
            f"store {url}: {what} is damaged: {fault}; it was not given out and nothing was changed. Restore "
            "the store from a copy",
            url=url,
            what=what,
        ) from fault


def not_stored(url: str, what: Kept, id: str, detail: str = "") -> NotStoredError:
    """Nothing of that id is there."""
    return NotStoredError(
        f"store {url}: no {what} {shown(id)}{detail}; it was never stored there, or it was deleted",
        url=url,
        what=what,
        id=id,
    )


def no_version(url: str, name: str, version: int | None) -> NotStoredError:
    """The workflow is there, that version is not."""
    return not_stored(url, "workflow", name, f" in version {version!r}")


def no_workflow_for(url: str, execution: ExecutionHead) -> NotStoredError:
    """An execution of a version that is not there."""
    detail = f" in version {execution.workflow_version!r}, so execution {execution.id!r} was not stored"
    return not_stored(url, "workflow", execution.workflow_id, detail)


def already_stored(url: str, what: Kept, id: str) -> AlreadyStoredError:
    """Something else has that id."""
    return AlreadyStoredError(
        f"store {url}: another {what} has the id {shown(id)}; it was left as it is, and this one was not "
        "stored. Give it a new id",
        url=url,
        what=what,
        id=id,
    )


def ambiguous(url: str, name: str, ids: Sequence[str]) -> AmbiguousNameError:
    """Several workflows have that name."""
    some = ", ".join(repr(id) for id in ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    return AmbiguousNameError(
        f"store {url}: several workflows have the name {shown(name)}; use one of their ids: {some}",
        url=url,
        name=name,
        ids=tuple(ids[:_SHOWN]),
    )


def in_use(url: str, id: str, version: int | None) -> WorkflowInUseError:
    """Executions refer to the workflow."""
    which = "" if version is None else f" version {version!r}"
    return WorkflowInUseError(
        f"store {url}: workflow {shown(id)}{which} is used by executions; it was not deleted. Let them end "
        "and prune them first: executions.prune(ended_before)",
        url=url,
        id=id,
        version=version,
    )


def changed(url: str, before: ExecutionHead, now: ExecutionHead) -> ExecutionChangedError:
    """Somebody else was faster with a step."""
    return ExecutionChangedError(
        f"store {url}: execution {before.id!r} is {now.state.name!r} at revision {now.revision}, not "
        f"{before.state.name!r} at revision {before.revision}: someone else took a step. Nothing was "
        "changed; read it again and decide anew",
        url=url,
        id=before.id,
        expected=before.revision,
        found=now.revision,
    )


def closed(url: str, doing: str) -> StoreClosedError:
    """The store was closed before."""
    return StoreClosedError(
        f"store {url}: {doing}: it is closed; nothing was changed. Make a new one", url=url
    )
