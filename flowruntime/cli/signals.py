"""SIGINT and SIGTERM: the first one drains, the second one aborts, and after it the process ends.

Owns: the handlers while a run or request is under way, and leaving a process in which something cannot be
stopped.
Does not own: draining and aborting (the run).

Always holds: the handlers of before are back when the block is left; a signal is obeyed while a node blocks
the loop; a standard error that has gone away keeps no signal from being obeyed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from flowruntime.cli.failures import say

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

INTERRUPTED: Final = 130
LEAVE_AFTER_S: Final = 8.0
"""How long threads and the like may keep a process that is to end; a run waits 5 s for calls of its own."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_WAKE: Final = signal.SIGURG
"""Ignored unless somebody handles it."""
_ABORTS: Final = 2


class Interrupts:
    """Handles signals inside an `async with`.

    Args:
        drain: what the first one does.
        abort: what the second one does; the process then ends within `LEAVE_AFTER_S`. A third one ends it.
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
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waker: _Waker | None = None
        self.count = 0
        """Signals so far."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._waker = _Waker()
        for each in _SIGNALS:
            # Not the loop's own handlers: those wait for the loop to turn, which a node may keep it from.
            self._before[each] = signal.signal(each, self._handle)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in _SIGNALS:
            signal.signal(each, self._before[each])
        if self._waker is not None:
            self._waker.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.count += 1
        name = signal.Signals(number).name
        if self.count == 1:
            self._start(self._drain, f"flow: {name}: finishing what is in flight; once more to abort")
        elif self.count == _ABORTS:
            leave_soon(INTERRUPTED)
            self._start(self._abort, f"flow: {name}: aborting")
        else:
            _leave(INTERRUPTED, f"flow: {name}: leaving at once")

    def _start(self, work: Callable[[], Coroutine[Any, Any, object]], text: str) -> None:
        """Have the loop say and begin something, as soon as it turns."""

        def start() -> None:
            say(text)
            task = asyncio.ensure_future(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        with suppress(RuntimeError):  # the loop is closed: there is nothing left to drain
            if self._loop is not None:
                self._loop.call_soon_threadsafe(start)


class _Waker:
    """Wakes the main thread for a signal that another thread was given.

    The kernel gives a signal to any thread when the main one has one pending already, as with two that come
    at once. Python runs handlers in the main thread alone, and where that sleeps, or waits inside a library,
    nothing tells it: the second signal would be obeyed when a blocking node is done. So each signal is heard
    of through a pipe too, and the main thread interrupted by another one, which means nothing else here.
    """

    def __init__(self) -> None:
        self._main: Final = threading.get_ident()
        self._end, self._way_in = os.pipe()
        os.set_blocking(self._way_in, False)
        self._meant_nothing = signal.signal(_WAKE, _nothing)
        self._told_before = signal.set_wakeup_fd(self._way_in, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="flow signals", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while numbers := os.read(self._end, 64):
            if any(number in _SIGNALS for number in numbers):
                with suppress(OSError):
                    signal.pthread_kill(self._main, _WAKE)
        os.close(self._end)

    def close(self) -> None:
        """Listen no more; on the main thread."""
        signal.set_wakeup_fd(self._told_before)
        os.close(self._way_in)
        self._thread.join()  # it has nothing left to wait for
        signal.signal(_WAKE, self._meant_nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The main thread was waked: Python now runs the handlers of what came."""
    del number, frame


def leave_soon(code: int) -> None:
    """End this process with `code` in `LEAVE_AFTER_S`, should something keep it from ending by itself."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    text = "flow: left behind what cannot be stopped: a thread, code that blocks the loop, or a call that"
    text += " swallows its cancellation"
    timer = threading.Timer(LEAVE_AFTER_S, _leave, (code, text))
    timer.daemon = True
    timer.start()


def _leave(code: int, text: str) -> None:
    """End the process without waiting for anything; printing might wait for a lock somebody holds."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
    os._exit(code)
