"""Blocking and CPU-bound functions, off the loop: threads, and processes that rows reach as msgpack.

Owns: `Offloader`, the calls of one node. Does not own: limits and retries (pool), processes and threads
(processes, threads), the form in which values cross (wire).

Always holds: a process gets `module:qualname` and msgpack, never pickled objects of the user; a worker
process that dies fails the row it had, with a clear error, and no other; a cancelled or expired row ends its
process; closing waits for nothing longer than told.
A thread cannot be interrupted: a cancelled row's answer is thrown away when it comes; until then its thread
stays taken, so that the number of threads bounds the work whatever is cancelled. It does not keep the program
from ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from flowcore.definition import Offload
from flowcore.errors import ContractError, DefinitionError, RunError, RuntimeClosedError
from flowcore.values import ValueFormError
from flowruntime.flowcontrol.process_worker import CALL, ERROR, IMPORT, UNFIT
from flowruntime.flowcontrol.processes import ProcessEnded, Processes, ProcessUnfit, WorkerProcess
from flowruntime.flowcontrol.threads import Threads
from flowruntime.flowcontrol.wire import from_wire, rebuild_error, to_wire


class WorkerProcessDiedError(RunError, ChildProcessError):
    """A worker process ended while it worked on the row: attributes `node`, `how`."""


class Offloader:
    """Runs one function in a pool of threads or processes.

    Args:
        function: for threads any callable; for processes one a fresh interpreter finds by name.
        kind: `thread` or `process`.
        workers: how many calls run at once.
        name: of the node.

    Raises:
        DefinitionError: a process would not find the function.
    """

    def __init__(self, function: Callable[..., Any], kind: Offload, workers: int, *, name: str) -> None:
        self.name = name
        self.kind = kind
        self.workers = workers
        self._function = function
        self._threads: Threads | None = None
        self._processes: Processes | None = None
        self._location = f"{function.__module__}:{function.__qualname__}"
        if kind == "process":
            check_importable(function, name)

    async def prepare(self) -> WorkerProcess | None:
        """What one call of `run` needs: a process that has imported the function; a thread needs nothing.

        Raises:
            WorkerProcessDiedError: it died while it was started.
            Exception: what importing the function's module raised there.
        """
        if self.kind == "thread":
            return None
        if self._processes is None:
            self._processes = Processes(self.workers, self.name)
        try:
            return await self._processes.ready(IMPORT + to_wire({"function": self._location}))
        except ProcessEnded as error:
            raise self._died("while it was started", error) from error
        except ProcessUnfit as error:
            raise rebuild_error(from_wire(error.reply[1:])) from None

    async def run(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any], prepared: WorkerProcess | None = None
    ) -> Any:
        """The function's result.

        Args:
            arguments: its positional ones.
            keywords: and the others.
            prepared: by `prepare`; None: done here.

        Raises:
            WorkerProcessDiedError: the process was killed or crashed.
            ContractError: arguments or the result cannot cross as msgpack.
        """
        if self.kind == "process":
            worker = prepared or await self.prepare()
            assert worker is not None  # noqa: S101 - what it gives for processes
            return await self._in_process(worker, arguments, keywords)
        if self._threads is None:
            self._threads = Threads(self.workers, f"flow-{self.name}")
        loop = asyncio.get_running_loop()
        ok, answer = await loop.run_in_executor(self._threads, _outcome, self._function, arguments, keywords)
        if ok:
            return answer
        raise answer

    async def _in_process(
        self, worker: WorkerProcess, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        processes = self._processes
        if processes is None:
            raise RuntimeClosedError(f"the worker processes of node {self.name!r} were ended", node=self.name)
        call = {"function": self._location, "arguments": list(arguments), "configuration": keywords}
        try:
            message = CALL + to_wire(call)
        except ValueFormError as error:
            processes.give_back(worker)
            raise self._unfit("its input cannot cross into a worker process", str(error)) from error
        try:
            answer = await processes.call(worker, message)
        except ProcessEnded as error:
            raise self._died("while it worked on the row", error) from error
        how, data = answer[:1], from_wire(answer[1:])
        if how == ERROR:
            raise rebuild_error(data)
        if how == UNFIT:
            raise self._unfit("its result cannot cross back from a worker process", data)
        return data

    def _died(self, when: str, error: ProcessEnded) -> WorkerProcessDiedError:
        return WorkerProcessDiedError(
            f"the worker process of node {self.name!r} died {when} ({error.how}); the record, or memory, may "
            "have killed it; other rows go on in processes of their own",
            node=self.name,
            how=error.how,
        )

    def _unfit(self, what: str, why: str) -> ContractError:
        return ContractError(
            f"node {self.name!r}: {what}: {why}; or use offload='thread'", node=self.name, reason=why
        )

    async def aclose(self) -> None:
        """End the pool; threads that are still busy are left to end by themselves."""
        threads, self._threads = self._threads, None
        processes, self._processes = self._processes, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        if processes is not None:
            await processes.aclose()


def _outcome(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[bool, Any]:
    """In a thread: the result, or what was raised, as a value: no future takes a StopIteration."""
    try:
        return True, function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 - user code; it becomes the row's failure
        return False, error


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
