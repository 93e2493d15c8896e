"""Virtual time: an event loop whose clock jumps to the next timer, in an order a seed decides.

Owns: `VirtualLoop`, `run_virtual`, `VirtualClock`, and the errors they raise.
Does not own: the pytest fixture (flowruntime.testing.pytest_plugin), contexts of single nodes (contexts).

Always holds: a timer costs no real time; time never goes back; it stands still while something is ready or a
thread works; the same seed gives the same order of task steps; a program that can never go on is named, not
waited for.

Timers run in order of their time. With a seed, the tasks that are ready in one turn of the loop take their
steps in an order drawn from it; plain callbacks keep theirs, since asyncio promises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from flowruntime.testing.contexts import EPOCH

T = TypeVar("T")

LIMIT: Final = timedelta(days=1)
"""Virtual time a test may take unless it says otherwise: what waits on and on, with a heartbeat, ends."""

_THREAD_PATIENCE_S: Final = 5.0
"""Real time a working thread holds virtual time back."""
_SOCKET_PATIENCE_S: Final = 0.02
"""The same for an open socket or pipe."""
_SILENCE_S: Final = 30.0
"""Real time threads and sockets may stay silent when there is no timer either."""


class DeadlockError(AssertionError):
    """Nothing is ready, no timer is set, no thread works: the program waits for itself. Names its tasks."""


class StuckError(AssertionError):
    """Virtual time ran past its limit. Names the waiting tasks."""


class RealSleepError(AssertionError):
    """`time.sleep` was called on the loop's thread."""


class _Jumping(selectors.DefaultSelector):
    """Asks the loop what to do where others wait."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        patience_s = self.loop.patience_s(idle=timeout is None)
        if patience_s:
            found = super().select(patience_s)
            if found:
                return found
        self.loop.jump()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Use it through `run_virtual` or the fixture `virtual`.

    Args:
        seed: order of the tasks ready in one turn; None: as asyncio has it.
        limit: virtual time after which the run counts as stuck.
        start: what the wall clock shows at virtual time 0.
    """

    # What asyncio's loop keeps, by its own names:
    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]
    _selector: selectors.BaseSelector
    _clock_resolution: float

    def __init__(self, *, seed: int | None = None, limit: timedelta = LIMIT, start: datetime = EPOCH) -> None:
        selector = _Jumping()
        selector.loop = self
        self._now_s = 0.0
        self._limit_s = limit.total_seconds()
        self._start_s = start.timestamp()
        self._order = None if seed is None else random.Random(seed)
        self._threads_busy = 0
        self.seed = seed
        super().__init__(selector)
        self._own_files = len(selector.get_map())

    # --- time ---------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def wall(self) -> float:
        """Unix seconds tied to virtual time, for `FlowRuntime(clock=loop.wall)`."""
        return self._start_s + self._now_s

    def jump(self) -> None:
        """Go to the next timer.

        Raises:
            DeadlockError: there is none.
            StuckError: it lies beyond the limit.
        """
        timers = self._scheduled
        if not timers:
            if self._threads_busy or self._files_open():
                return
            raise DeadlockError(f"nothing can go on: no task is ready and no timer is set\n{self.waiting()}")
        due = timers[0].when()
        if due > self._limit_s:
            raise StuckError(
                f"virtual time has reached {timedelta(seconds=self._now_s)} and nothing is due before the "
                f"limit of {timedelta(seconds=self._limit_s)}; pass limit=... to let it take longer\n"
                f"{self.waiting()}"
            )
        self._now_s = max(self._now_s, due)
        # asyncio runs timers due before `time() + resolution`: that sum must be more than the time itself.
        self._clock_resolution = 2 * math.ulp(self._now_s)

    def patience_s(self, *, idle: bool) -> float:
        """Real seconds to wait for threads and sockets before time may jump; 0 when there are none."""
        if self._threads_busy:
            return _SILENCE_S if idle else _THREAD_PATIENCE_S
        if self._files_open():
            return _SILENCE_S if idle else _SOCKET_PATIENCE_S
        return 0.0

    def waiting(self) -> str:
        """One line per unfinished task: its name and the line it waits at."""
        lines: list[str] = []
        for task in asyncio.all_tasks(self):
            stack = task.get_stack(limit=1)
            where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "not started"
            name = getattr(task.get_coro(), "__qualname__", "")
            lines.append(f"  task {task.get_name()!r} ({name}) waits at {where}")
        return "\n".join(sorted(lines)) or "  (no tasks)"

    # --- threads ------------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """As asyncio has it; virtual time stands still until the thread has answered."""
        future = super().run_in_executor(executor, func, *args)
        self._threads_busy += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._threads_busy += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._threads_busy -= 1

    def _thread_done(self, _: object) -> None:
        self._threads_busy -= 1

    def _files_open(self) -> bool:
        return len(self._selector.get_map()) > self._own_files

    # --- turns --------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        with _no_real_sleep():
            super().run_forever()

    def _run_once(self) -> None:
        if self._order is not None:
            self._shuffle(self._order)
        super()._run_once()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - asyncio's own turn

    def _shuffle(self, order: random.Random) -> None:
        """Let the task steps that are ready change places; other callbacks stay where they are."""
        ready = self._ready
        if len(ready) < 2:  # noqa: PLR2004 - nothing to change places with
            return
        handles = list(ready)
        places = [index for index, handle in enumerate(handles) if _is_task_step(handle)]
        moved = [handles[index] for index in places]
        order.shuffle(moved)
        for index, handle in zip(places, moved, strict=True):
            handles[index] = handle
        ready.clear()
        ready.extend(handles)


def _is_task_step(handle: Any) -> bool:
    callback = getattr(handle, "_callback", None)
    return isinstance(getattr(callback, "__self__", None), asyncio.Task)


@contextlib.contextmanager
def _no_real_sleep() -> Generator[None]:
    """`time.sleep` raises on this thread; other threads may sleep."""
    here = threading.get_ident()
    real = time.sleep

    def sleep(seconds: float) -> None:
        if threading.get_ident() == here:
            _refuse(seconds)
        real(seconds)

    time.sleep = sleep
    try:
        yield
    finally:
        time.sleep = real


def _refuse(seconds: float) -> NoReturn:
    raise RealSleepError(
        f"time.sleep({seconds!r}) on the event loop's thread: it blocks everything and virtual time does not "
        "see it; use `await asyncio.sleep(...)`, or offload the function to a thread"
    )


def run_virtual(
    main: Coroutine[Any, Any, T],
    *,
    seed: int | None = None,
    limit: timedelta = LIMIT,
    debug: bool | None = None,
) -> T:
    """Run `main` on virtual time and return its result; like `asyncio.run`, with no loop running.

    Args:
        main: the coroutine.
        seed: draws the order of tasks ready at once: run a test under many seeds to meet many orders.
        limit: virtual time it may take.
        debug: asyncio's debug mode.

    Raises:
        DeadlockError: it can never go on.
        StuckError: it took more virtual time than `limit`.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed=seed, limit=limit), debug=debug) as runner:
        return runner.run(main)


class VirtualClock:
    """The clocks of the virtual loop a test runs on: what the fixture `virtual` gives."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    @property
    def elapsed_s(self) -> float:
        """Virtual seconds since the test began."""
        return self._loop.time()

    @property
    def seed(self) -> int | None:
        return self._loop.seed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._loop.wall(), UTC)

    def wall(self) -> float:
        """Unix seconds, for `FlowRuntime(clock=virtual.wall)`."""
        return self._loop.wall()

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from a test that is no coroutine itself."""
        return self._loop.run_until_complete(main)


def wall_clock() -> Callable[[], float]:
    """The wall clock of the running loop: virtual on a `VirtualLoop`, else the real one."""
    loop = asyncio.get_running_loop()
    return loop.wall if isinstance(loop, VirtualLoop) else time.time
