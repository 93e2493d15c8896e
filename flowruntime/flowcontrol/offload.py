"""Blocking and CPU-bound functions, off the loop: threads, and processes that rows reach as msgpack.

Owns: `Offloader`, the pool of one node. Does not own: limits and retries (pool).

Always holds: a process gets `module:qualname` and msgpack, never pickled objects of the user; a worker
process that
dies fails the rows it had, with a clear error, and the pool is made anew; closing waits for nothing longer
than told.
A thread cannot be interrupted: a cancelled row's answer is thrown away when it comes; until then its thread
stays
taken, so that the number of threads bounds the work whatever is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import msgspec

from flowcore.definition import Offload
from flowcore.errors import ContractError, DefinitionError, RunError


class WorkerProcessDiedError(RunError, ChildProcessError):
    """A worker process ended while it worked on the row."""


class RemoteError(RunError):
    """An exception of a worker process whose class cannot be rebuilt here; `kind` names it."""


class Offloader:
    """Runs one function in a pool of threads or processes.

    Args:
        function: for threads any callable; for processes one a fresh interpreter finds by name.
        kind: `thread` or `process`.
        workers: how many calls run at once.
    """

    def __init__(self, function: Callable[..., Any], kind: Offload, workers: int, *, name: str) -> None:
        self.name = name
        self.kind = kind
        self.workers = workers
        self._function = function
        self._executor: Executor | None = None
        self._location = f"{function.__module__}:{function.__qualname__}"
        if kind == "process":
            check_importable(function, name)

    async def run(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The function's result.

        Raises:
            WorkerProcessDiedError: the process was killed or crashed.
            ContractError: arguments or the result cannot cross as msgpack.
        """
        loop = asyncio.get_running_loop()
        executor = self._pool()
        if self.kind == "thread":
            return await loop.run_in_executor(executor, lambda: self._function(*arguments, **keywords))
        try:
            payload = msgspec.msgpack.encode((arguments, keywords), enc_hook=encode_extra)
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(
                f"node {self.name!r}: its input cannot cross into a worker process ({error}); use plain "
                "values, or offload='thread'",
                node=self.name,
            ) from error
        try:
            answer = await loop.run_in_executor(executor, call_by_name, self._location, payload)
        except BrokenProcessPool as error:
            if self._executor is executor:
                self._executor = None
            raise WorkerProcessDiedError(
                f"the worker process of node {self.name!r} died while it worked; the record, or memory, "
                "may have killed it",
                node=self.name,
            ) from error
        ok, payload = answer
        decoded = msgspec.msgpack.decode(payload, ext_hook=decode_extra)
        if ok:
            return decoded
        raise rebuild_error(decoded)

    def _pool(self) -> Executor:
        if self._executor is None:
            if self.kind == "thread":
                self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix=f"flow-{self.name}")
            else:
                self._executor = ProcessPoolExecutor(
                    self.workers, mp_context=multiprocessing.get_context("spawn")
                )
        return self._executor

    async def aclose(self) -> None:
        """End the pool; threads that are still busy are left to end by themselves."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        living: dict[int, Any] = getattr(executor, "_processes", None) or {}
        processes = list(living.values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
                process.terminate()
        if processes:
            await asyncio.to_thread(_join_all, processes)


def _join_all(processes: list[Any]) -> None:
    for process in processes:
        process.join(timeout=5)


def check_importable(function: Callable[..., Any], name: str) -> None:
    """A worker process must find the function by its name.

    Raises:
        DefinitionError: it is local, a lambda, or lives in `__main__`.
    """
    location = f"{function.__module__}:{function.__qualname__}"
    if "<locals>" in location or "<lambda>" in location or function.__module__ == "__main__":
        raise DefinitionError(
            f"node {name!r} runs in a process, which cannot find {location}; put the function at the top "
            "level of a module that can be imported, or use offload='thread'"
        )


# --- in the worker process ----------------------------------------------------------------------------

_found: dict[str, Callable[..., Any]] = {}


def call_by_name(location: str, payload: bytes) -> tuple[bool, bytes]:
    """Run in the worker process: find the function, call it, encode what came of it."""
    function = _found.get(location)
    if function is None:
        module, _, qualname = location.partition(":")
        target: Any = importlib.import_module(module)
        for part in qualname.split("."):
            target = getattr(target, part)
        function = _found[location] = target
    arguments, keywords = msgspec.msgpack.decode(payload, ext_hook=decode_extra)
    try:
        result = function(*arguments, **keywords)
        return True, msgspec.msgpack.encode(result, enc_hook=encode_extra)
    except Exception as error:  # noqa: BLE001 - user code; it crosses back as the row's failure
        return False, msgspec.msgpack.encode(error_as_data(error), enc_hook=encode_extra)


# --- what msgpack does not know -----------------------------------------------------------------------

_ARRAY = 1
_ERROR = 2


def encode_extra(value: Any) -> Any:
    """Arrays as shape, type and bytes; exceptions as data."""
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
        header = msgspec.msgpack.encode((str(value.dtype), list(value.shape)))
        return msgspec.msgpack.Ext(_ARRAY, len(header).to_bytes(2, "big") + header + value.tobytes())
    if isinstance(value, BaseException):
        return msgspec.msgpack.Ext(_ERROR, msgspec.msgpack.encode(error_as_data(value)))
    raise TypeError(f"{type(value).__name__} is not a plain value")


def decode_extra(code: int, data: memoryview) -> Any:
    """The inverse of `encode_extra`."""
    if code == _ARRAY:
        import numpy as np

        size = int.from_bytes(data[:2], "big")
        dtype, shape = msgspec.msgpack.decode(data[2 : 2 + size], type=tuple[str, list[int]])
        return np.frombuffer(bytes(data[2 + size :]), dtype=dtype).reshape(shape).copy()
    if code == _ERROR:
        return rebuild_error(msgspec.msgpack.decode(data))
    raise ContractError(f"unknown extension {code} from a worker process")


def error_as_data(error: BaseException) -> Any:
    """An exception as plain data: class, message, module."""
    kind = type(error)
    return {"$error": [kind.__module__, kind.__qualname__, str(error)]}


def rebuild_error(data: Any) -> Exception:
    """The exception again: of its own class when that is a builtin or one of ours, else a RemoteError."""
    parts: list[str] = data["$error"]
    module, qualname, message = parts
    if module in ("builtins", "flowcore.errors"):
        kind = getattr(importlib.import_module(module), qualname, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            with contextlib.suppress(TypeError):  # a class with another constructor comes as RemoteError
                return kind(message)
    return RemoteError(f"{qualname}: {message}", kind=f"{module}.{qualname}")
