"""Threads that end with the interpreter: a call that never returns must not keep the program from ending.

Owns: `Threads`, an executor of daemon threads. Does not own: what runs in them (offload).

Always holds: at most `most` threads, begun when a call finds none free, and as many calls at once; further
calls wait, first come first served; a call that was cancelled while it waited never runs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]


class Threads(Executor):
    """For `loop.run_in_executor`; used from one thread.

    Args:
        most: calls at once.
        name: of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread.

        Raises:
            RuntimeError: the threads were told to end.
        """
        if self._closed:
            raise RuntimeError(f"the threads {self._name!r} were told to end")
        future: Future[T] = Future()
        self._queue.put((future, lambda: fn(*args, **kwargs)))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - it crosses to whoever waits
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del task, future, call  # else an idle thread keeps the last values alive
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        """Tell the threads to end when they are through.

        Args:
            wait: until they have; a call that never returns is then waited for without end.
            cancel_futures: calls that have not begun are cancelled.
        """
        self._closed = True
        if cancel_futures:
            self._cancel_waiting()
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                return
            if task is not None:
                task[0].cancel()
