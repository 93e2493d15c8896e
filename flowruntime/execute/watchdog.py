"""The watchdog: a thread that names the node whose code blocks the event loop.

Owns: noticing, finding the node on the loop thread's stack, the log line and the event.
Does not own: stopping it; Python cannot.

Always holds: a block longer than `threshold` is logged while it lasts, once per block, and published as
LoopBlocked when the loop is free again. A loop that is late because very many short steps were due at once
is busy, not blocked: one step must have had it all that time.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Final

from flowcore.events import LoopBlocked

if TYPE_CHECKING:
    from flowcore.context import LogLevel
    from flowruntime.events.bus import EventBus

OTHER_CODE_S = 1.0
"""Code that belongs to no node is named only when it blocks for this long: imports and compilation take some
time."""

_STEP: Final = asyncio.Handle._run.__code__  # noqa: SLF001 - the frame in which a loop runs each of its steps

Log = Callable[[str, "LogLevel", Mapping[str, object]], None]


class Watchdog:
    """Watches one loop.

    Args:
        bus: where LoopBlocked goes.
        log: told while the loop is still blocked, from the watchdog's thread.
        threshold_s: blocks shorter than this are normal work.
    """

    def __init__(self, bus: EventBus, log: Log, *, threshold_s: float = 0.1) -> None:
        self._bus = bus
        self._log = log
        self._threshold_s = threshold_s
        self._codes: dict[CodeType, str] = {}
        self._beat = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._found: tuple[str | None, str] | None = None
        self._blocked_since = 0.0
        self._step: object = None
        """What the loop was running at the last look, and since which look."""
        self._step_since = 0.0

    def watch(self, node_id: str, code: CodeType | None) -> None:
        """Know whose code this is."""
        if code is not None:
            self._codes.setdefault(code, node_id)

    def forgive(self) -> None:
        """What the loop did until now was the engine's own preparation: nobody needs to hear of it."""
        self._beat = time.monotonic()

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._pulse()
        self._thread = threading.Thread(target=self._run, name="flow watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=1)

    def _pulse(self) -> None:
        """On the loop: it turns."""
        now = time.monotonic()
        found, self._found = self._found, None
        if found is not None and self._bus.active:
            node, stack = found
            blocked_s = now - self._blocked_since
            self._bus.publish(LoopBlocked(workflow_id="", node=node, stack=stack, blocked_s=blocked_s))
        self._beat = now
        if self._loop is not None and not self._stop.is_set():
            self._timer = self._loop.call_later(self._threshold_s / 4, self._pulse)

    def _run(self) -> None:
        """On the watchdog's thread."""
        while not self._stop.wait(self._threshold_s / 4):
            beat = self._beat
            now = time.monotonic()
            if now - beat < self._threshold_s / 4 or self._found is not None:
                self._step = None
                continue
            frame = _stack_of(self._loop_thread)
            if frame is None or self._beat != beat:
                self._step = None
                continue
            step = _step_on(frame) or beat
            if step is not self._step and step != self._step:
                self._step, self._step_since = step, now
            blocked_s = now - beat
            # It was begun between two looks, so it lasts for a quarter longer than it was seen.
            if blocked_s < self._threshold_s or now - self._step_since < self._threshold_s * 3 / 4:
                continue
            node = self._node_on(frame)
            if node is None and (blocked_s < OTHER_CODE_S or _waits_in_selector(frame) or _imports(frame)):
                continue  # a compilation or import, or the loop sleeps: a virtual clock, a stopped process
            if blocked_s < OTHER_CODE_S and _imports(frame):
                continue  # what a node needs is loaded at its first call
            stack = "".join(traceback.format_stack(frame))
            self._blocked_since = beat
            self._found = (node, stack)
            name = f"node {node!r}" if node is not None else "code outside any node"
            self._log(
                f"the event loop has been blocked for {blocked_s:.2f} s by {name}; "
                f"make it a coroutine, or offload it to a thread or process\n{stack}",
                "warning",
                {"node": node, "blocked_s": round(blocked_s, 3)},
            )

    def _node_on(self, frame: FrameType) -> str | None:
        here: FrameType | None = frame
        while here is not None:
            node = self._codes.get(here.f_code)
            if node is not None:
                return node
            here = here.f_back
        return None


def _stack_of(thread: int) -> FrameType | None:
    """What another thread runs now; the documented way to it has an underscore in its name."""
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - see above
    return frames.get(thread)


def _step_on(frame: FrameType) -> object:
    """The callback or the step of a task that the loop runs; None where its loop is not of Python."""
    here: FrameType | None = frame
    while here is not None:
        if here.f_code is _STEP:
            return here.f_locals.get("self")
        here = here.f_back
    return None


def _imports(frame: FrameType) -> bool:
    """A module is being loaded: once, and on a first start without its bytecode."""
    here: FrameType | None = frame
    while here is not None:
        if here.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        here = here.f_back
    return False


def _waits_in_selector(frame: FrameType) -> bool:
    return frame.f_code.co_name in ("select", "poll", "_run_once") and "selectors" in frame.f_code.co_filename
