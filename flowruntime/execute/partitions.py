"""Partitions of one source as they come and go: a task each, taken down when its partition leaves.

Owns: `Partitions`, following a source's assignments.
Does not own: opening and judging tasks (run), pumping (task).

Always holds: a task that fails ends the following at once, also while further changes may come; nothing it
started outlives it; a partition that comes back is opened only when its former task is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flowcore.connector import Assigned, Revoked

if TYPE_CHECKING:
    from flowruntime.execute.task import SourceTask

Change = Assigned | Revoked


class Partitions:
    """Follows the assignments of one source.

    Args:
        changes: as the source gives them; may never end.
        opened: opens a partition and makes its task.
        work: runs a task to its end.
        retire: takes down a task whose partition was revoked, once all its rows are settled.
    """

    def __init__(
        self,
        changes: AsyncIterator[Change],
        opened: Callable[[str], Awaitable[SourceTask]],
        work: Callable[[SourceTask], Awaitable[None]],
        retire: Callable[[SourceTask], Awaitable[None]],
    ) -> None:
        self._changes = changes
        self._opened = opened
        self._work = work
        self._retire = retire
        self._running: dict[str, tuple[SourceTask, asyncio.Task[None]]] = {}
        self._revoked: set[str] = set()
        self._drained = asyncio.Event()

    def drain(self) -> None:
        """Take no further change; `follow` returns when the partitions there are have ended."""
        self._drained.set()

    async def follow(self) -> None:
        """Until the source has no further partition and all have ended."""
        upcoming: asyncio.Task[Change | None] | None = self._ask()
        drained = asyncio.create_task(self._drained.wait(), name="flow drain")
        try:
            while upcoming is not None or self._running:
                waiting: set[asyncio.Task[Any]] = {work for _, work in self._running.values()}
                waiting |= {task for task in (upcoming, drained) if task is not None and not task.done()}
                if upcoming is None or not upcoming.done():
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await self._take_ended()
                if drained.done() and upcoming is not None:
                    await _cancelled(upcoming)
                    upcoming = None
                elif upcoming is not None and upcoming.done():
                    change = upcoming.result()
                    upcoming = None if change is None else await self._follow_one(change)
        finally:
            await _cancelled(drained, *([] if upcoming is None else [upcoming]))
            await _cancelled(*(work for _, work in self._running.values()))
            if isinstance(self._changes, AsyncGenerator):
                await self._changes.aclose()  # pyright: ignore[reportUnknownMemberType] - its send type is not ours

    def _ask(self) -> asyncio.Task[Change | None]:
        return asyncio.create_task(_next(self._changes), name="flow assignments")

    async def _follow_one(self, change: Change) -> asyncio.Task[Change | None]:
        partition = change.partition
        if isinstance(change, Revoked):
            if partition in self._running:
                self._revoked.add(partition)
                self._running[partition][0].drain()
            return self._ask()
        if partition in self._running:
            await asyncio.wait({self._running[partition][1]})
            await self._take_ended()
        task = await self._opened(partition)
        work = asyncio.create_task(_awaited(self._work(task)), name=f"flow task {task.name}")
        self._running[partition] = (task, work)
        return self._ask()

    async def _take_ended(self) -> None:
        """Let go of tasks that have ended.

        Raises:
            FlowError: what one of them failed with.
        """
        for partition, (task, work) in list(self._running.items()):
            if not work.done():
                continue
            work.result()
            del self._running[partition]
            if partition in self._revoked:
                self._revoked.discard(partition)
                await self._retire(task)


async def _next(changes: AsyncIterator[Change]) -> Change | None:
    return await anext(changes, None)


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
