"""SIGINT and SIGTERM: the first one drains, the second one aborts.

Owns: the handlers while a run or request is under way.
Does not own: draining and aborting (the run).

Always holds: the handlers of before are back when the block is left; a standard error that has gone away
keeps no signal from being obeyed.
"""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from flowruntime.cli.failures import say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ABORTS: Final = 2


class Interrupts:
    """Handles signals inside an `async with`.

    Args:
        drain: what the first one does.
        abort: what the second one does.
    """

    def __init__(
        self,
        *,
        drain: Callable[[], Coroutine[Any, Any, object]],
        abort: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        self._drain = drain
        self._abort = abort
        self._tasks: set[asyncio.Task[object]] = set()
        self.count = 0
        """Signals so far."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._handle, each)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handle(self, number: signal.Signals) -> None:
        self.count += 1
        if self.count == 1:
            self._start(self._drain())
            say(f"flow: {number.name}: finishing what is in flight; once more to abort")
        elif self.count == _ABORTS:
            self._start(self._abort())
            say(f"flow: {number.name}: aborting")

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
