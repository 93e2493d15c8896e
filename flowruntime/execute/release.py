"""Releasing what users' code holds: whatever it raises, and however long it takes, the rest is released too.

Owns: the rule for `shutdown` and `close` of nodes, sinks and sources.
Does not own: the order of releases (worker, sources, run).

Always holds: a release that raises is reported and harms no other; one that does not end is given up after a
time; only the caller's own cancellation, and KeyboardInterrupt, leave here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from flowcore.errors import describe_error
from flowruntime.flowcontrol.pool import PATIENCE_S


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` is the cancellation of the current task, and not one that code raised by itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def released(
    release: Callable[[], Awaitable[object]], *, within: timedelta, report: Callable[[str], None]
) -> None:
    """Call and await `release`, in a task of its own.

    Args:
        release: `shutdown` or `close` of a user's object.
        within: how long it may take before it is cancelled; one that swallows that is left behind.
        report: told what went wrong, if anything did.
    """
    task = asyncio.create_task(_fault_of(release), name="flow release")
    try:
        await asyncio.wait({task}, timeout=within.total_seconds())
        expired = not task.done()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE_S)
    if expired:
        report(f"it did not end within {within.total_seconds():g} s")
    elif (fault := task.result()) is not None:
        told = describe_error(fault)
        report(f"{told['kind']}: {told['message']}")


async def _fault_of(release: Callable[[], Awaitable[object]]) -> BaseException | None:
    """What it raised, as a value: a task would hand a SystemExit to the program."""
    try:
        await release()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - user code; the others are still to be released
        return error
    return None
