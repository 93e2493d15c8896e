"""From one event loop to another: work is done there, and waited for here.

Owns: `done_on`. Does not own: either loop.

Always holds: who is cancelled here cancels the work there, and goes on only when it has ended; nothing of it
is left running behind their back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_LOOK_AGAIN_S: Final = 1.0
"""How often one looks whether the other loop is still there."""


class WorkEndedError(RuntimeError):
    """The other loop was closed, or its owner cancelled the work."""


class _Crossing(Generic[T]):
    """One piece of work, seen from both loops."""

    def __init__(self, there: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._here = asyncio.get_running_loop()
        self._there = there
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self.over: asyncio.Future[T] = self._here.create_future()

    def begin(self) -> None:
        """There."""
        self._task = self._there.create_task(self._work())
        self._task.add_done_callback(self._tell)

    def cancel(self) -> None:
        """There; `begin` came first."""
        if self._task is not None:
            self._task.cancel()

    def _tell(self, task: asyncio.Task[T]) -> None:
        with suppress(RuntimeError):  # the loop here is closed: nobody waits any more
            self._here.call_soon_threadsafe(self._settle, task)

    def _settle(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.over.cancel()
        elif (error := task.exception()) is not None:
            self.over.set_exception(error)
        else:
            self.over.set_result(task.result())


async def done_on(there: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine gives that runs on another loop, in another thread.

    Args:
        there: a loop that runs.
        work: makes the coroutine; called there.

    Raises:
        WorkEndedError: that loop is closed, or cancelled it by itself.
        What the coroutine raises.

    Cost: two wake-ups across threads, some 100 us.
    """
    crossing = _Crossing(there, work)
    try:
        there.call_soon_threadsafe(crossing.begin)
    except RuntimeError:
        raise WorkEndedError("the loop that should do the work is closed") from None
    over = crossing.over
    try:
        await _ended(over, there)
    except asyncio.CancelledError:
        with suppress(RuntimeError):  # that loop is closed: so is the work
            there.call_soon_threadsafe(crossing.cancel)
            await _ended(over, there)
        if over.done() and not over.cancelled():
            over.exception()  # told to nobody: who asked has gone
        raise
    if over.cancelled():
        raise WorkEndedError("the work was cancelled where it was done")
    return over.result()


async def _ended(over: asyncio.Future[Any], there: asyncio.AbstractEventLoop) -> None:
    """Return when the work is over.

    Raises:
        WorkEndedError: its loop was closed, and nobody will tell.
    """
    while not over.done():
        await asyncio.wait([over], timeout=_LOOK_AGAIN_S)
        if there.is_closed() and not over.done():
            await asyncio.sleep(0)  # what it told last may be on its way
            if not over.done():
                raise WorkEndedError("the loop that did the work was closed before it was done")
