"""Worker processes, one call at a time each: the death of one is the failure of its row and of no other.

Owns: `Processes`, the processes of one node: starting them when needed, calling, ending them.
Does not own: what runs in them (process_worker), the form of values (wire), limits and retries (pool).

Always holds: a process works on one row; when it dies, or its row is cancelled, it is gone for good and the
next row gets a fresh one; what starting it takes is no row's time; none outlives `aclose`, nor the parent
(process_worker).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from flowruntime.flowcontrol.process_worker import RESULT, receive, send
from flowruntime.flowcontrol.threads import Threads

PATIENCE_S = 5.0
"""How long an idle process may take to end by itself."""

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from flowruntime.flowcontrol.process_worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class ProcessEnded(Exception):  # noqa: N818 - a fact for the caller, not an error for users
    """The process ended while it worked; `how` says in words what ended it."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class ProcessUnfit(Exception):  # noqa: N818 - as above
    """A fresh process cannot work; `reply` is what it answered."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("a fresh worker process cannot work")
        self.reply = reply


class Processes:
    """The worker processes of one node.

    Args:
        most: calls at once.
        name: of the node, for threads.
    """

    def __init__(self, most: int, name: str) -> None:
        # Twice: one whose row was cancelled is being waited for while another is called already.
        self._threads = Threads(2 * most, f"flow-{name}")
        self._free: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._ending: set[WorkerProcess] = set()
        """Killed, and not known to be gone."""

    async def ready(self, first: bytes) -> WorkerProcess:
        """A process that has nothing to do, to be given to `call`, or to `give_back`.

        Args:
            first: the message a fresh one gets before all others.

        Raises:
            ProcessEnded: it died on its first message.
            ProcessUnfit: it answered it with something else than a result.
            OSError: none could be started.
        """
        if self._free:
            return self._free.pop()
        worker = WorkerProcess()
        reply = await self.call(worker, first)
        if reply[:1] != RESULT:
            raise ProcessUnfit(reply)  # it stays, for a row that comes later to be told the same
        self._free.remove(worker)
        return worker

    def give_back(self, worker: WorkerProcess) -> None:
        """It was not called after all."""
        self._free.append(worker)

    async def call(self, worker: WorkerProcess, message: bytes) -> bytes:
        """The answer of a worker process.

        Raises:
            ProcessEnded: it died.
        """
        self._busy.add(worker)
        try:
            answered = asyncio.get_running_loop().run_in_executor(self._threads, worker.call, message)
            reply = await answered
        except BaseException:
            worker.kill()  # of a cancelled row too: what it computes is wanted by nobody
            self._ending = {each for each in (*self._ending, worker) if not each.gone.is_set()}
            raise
        else:
            self._free.append(worker)
            return reply
        finally:
            self._busy.discard(worker)

    async def aclose(self) -> None:
        """End them all: those at work at once, idle ones by themselves."""
        for worker in self._busy:
            worker.kill()
        idle, self._free = self._free, []
        ending = [worker for worker in (*self._busy, *self._ending) if worker.pid is not None]
        await asyncio.gather(
            *(asyncio.to_thread(worker.close) for worker in idle),
            *(asyncio.to_thread(worker.gone.wait, PATIENCE_S) for worker in ending),
        )
        self._threads.shutdown(wait=False, cancel_futures=True)


class WorkerProcess:
    """One process, started by its first call. `kill` may come from another thread than `call`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._killed = False
        self.gone = threading.Event()
        """It has ended, and nothing of it is left."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def call(self, message: bytes) -> bytes:
        """Send a call and wait for its answer; blocks.

        Raises:
            ProcessEnded: it died.
        """
        connection = self._started()
        reply: bytes | None = None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(connection, message)
            reply = receive(connection)
        if reply is None:
            raise ProcessEnded(self._end())
        return reply

    def _started(self) -> socket.socket:
        with self._lock:
            if self._killed:
                raise ProcessEnded("it was told to end")
            if self._connection is None:
                self._process, self._connection = _start()
            return self._connection

    def _end(self) -> str:
        """Release what is left of a process that has ended, or is ending, and say how it did."""
        assert self._process is not None  # noqa: S101 - only asked after it was started
        self._process.kill()  # its socket is closed, whatever it is doing
        code = self._process.wait()
        self._release()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"

    def kill(self) -> None:
        """End it at once. Idempotent; a call under way sees its process end, and releases it."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End an idle one: it ends by itself when its socket is closed; blocks until it has."""
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        connection.shutdown(socket.SHUT_RDWR)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._release()

    def _release(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        self.gone.set()


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process of this interpreter that serves calls, and this end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        arguments = [sys.executable, *_flags(), "-c", _CODE, path, str(theirs.fileno()), str(os.getpid())]
        try:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        except OSError:
            ours.close()
            raise
    return process, ours


def _flags() -> list[str]:
    """What this interpreter was told on its command line and code can see."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    if sys.flags.dont_write_bytecode:
        flags.append("-B")
    return [*flags, "-" + "O" * sys.flags.optimize] if sys.flags.optimize else flags
