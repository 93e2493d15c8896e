"""One SQLite file of ours: work on it off the loop, one commit for what comes together.

Owns: the thread that writes and the one that reads, their connections, what becomes of each piece of work.
Does not own: the format of the file (sqlite_format), its failures (sqlite_faults), tables and statements
(flowruntime.state.store, flowruntime.state.positions).

Always holds: what `write` was given is done as a whole or not at all, and durable when it returns (WAL,
synchronous=FULL); several processes may use one file. A file that is not ours, newer, damaged or gone is an
error and left as it is: nothing starts empty in its place.

Writes that come while one is being committed are committed together: one fsync for all of them. A cancelled
write that has begun is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from flowcore.store_errors import StoreClosedError, StoreDamagedError, StoreError
from flowruntime.state.sqlite_faults import Fault, breaks, translated
from flowruntime.state.sqlite_format import SqliteFormat, make_file, open_file

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_S: Final = 30.0
"""How long another process may hold the file."""
MOST_TOGETHER: Final = 1_000
"""Writes of one commit."""


class SqliteFile:
    """A file; made when it is used first and is not there.

    Args:
        path: relative to the folder that is the current one now. Missing folders are made.
        format: what the file holds.
        busy_s: how long another process may hold it.

    Holds: two threads and two connections once used; the writes that wait for the one under way.
    """

    def __init__(self, path: str | Path, format: SqliteFormat, *, busy_s: float = BUSY_S) -> None:
        self.path: Final = Path(path).absolute()
        self._format: Final = format
        self._busy_s: Final = busy_s
        self._identity: tuple[int, int] | None = None
        """Device and inode once it was opened: another file in its place is not this one."""
        self._opening = threading.Lock()
        self._writer = _Lane("flow sqlite write")
        self._reader = _Lane("flow sqlite read")
        self._waiting: list[_Job[Any]] = []
        self._committing: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def url(self) -> str:
        return f"sqlite:{self.path}"

    # --- on the loop ------------------------------------------------------------------------------------

    async def write(self, work: Work[T], *, doing: str) -> T:
        """Do `work` in a transaction.

        Args:
            work: gets the connection, on the thread that writes. What it raises undoes what it did, and only
                that.
            doing: named in errors.

        Raises:
            StoreError: nothing of it was done, unless its `outcome` says that this is unknown.
        """
        self._check_open(doing)
        job: _Job[T] = _Job(work, doing, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._committing is None:
            self._commit_next()
        return await job.future

    async def read(self, work: Work[T], *, doing: str) -> T:
        """Do `work` on the thread that reads: it sees what was committed before.

        Raises:
            StoreError: the file cannot be read.
        """
        self._check_open(doing)
        return await self._reader.submit(lambda: self._read(work, doing))

    async def aclose(self) -> None:
        """Finish what was begun and close the file; idempotent."""
        self._closed = True
        while self._committing is not None:
            await asyncio.wait([self._committing])
        await self._reader.aclose()
        await self._writer.aclose()

    def _check_open(self, doing: str) -> None:
        if self._closed:
            raise StoreClosedError(
                f"store {self.url}: {doing}: it is closed; nothing was changed. Make a new one", url=self.url
            )

    def _commit_next(self) -> None:
        jobs, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        self._committing = self._writer.submit(lambda: self._commit(jobs))
        self._committing.add_done_callback(lambda done: self._committed(jobs, done))

    def _committed(self, jobs: list[_Job[Any]], done: asyncio.Future[None]) -> None:
        bug = done.exception()
        self._committing = None
        if self._waiting:
            self._commit_next()
        for job in jobs:
            error = job.error or bug
            if job.future.done():
                continue  # cancelled meanwhile
            if error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(job.result)

    # --- on the threads ---------------------------------------------------------------------------------

    def _commit(self, jobs: list[_Job[Any]]) -> None:
        """Do the jobs in one transaction."""
        jobs = [job for job in jobs if not job.future.cancelled()]
        outcome = "nothing"
        try:
            connection = self._connected(self._writer)
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._do(connection, job)
            outcome = "unknown"
            connection.execute("COMMIT")
        except StoreError as refusal:
            for job in jobs:
                job.error = refusal
        except (sqlite3.Error, OSError, UnicodeDecodeError) as fault:
            # What a connection holds in memory may be wrong now, so the next one is new.
            self._writer.drop()
            for job in jobs:
                job.error = translated(fault, self.url, job.doing, outcome=outcome)

    def _do(self, connection: sqlite3.Connection, job: _Job[Any]) -> None:
        """Do one job; what it raises concerns only itself, unless the transaction is lost with it."""
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except Exception as fault:
            if breaks(fault) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO job")
            job.error = self._ours(fault, job.doing)
        connection.execute("RELEASE job")

    def _read(self, work: Work[T], doing: str) -> T:
        try:
            return work(self._connected(self._reader))
        except Exception as fault:
            if breaks(fault):
                self._reader.drop()
            raise self._ours(fault, doing) from fault

    def _ours(self, fault: Exception, doing: str) -> Exception:
        if isinstance(fault, Fault) and not isinstance(fault, StoreError):
            return translated(fault, self.url, doing, outcome="nothing")
        return fault

    def _connected(self, lane: _Lane) -> sqlite3.Connection:
        """The connection of a lane, to the file it was opened with."""
        with self._opening:
            if self._identity is None and not self.path.exists():
                make_file(self.path, self._format, self.url)
            if self._identity is not None and self._identity != self._found():
                raise StoreDamagedError(
                    f"store {self.url}: the file was removed or replaced while it was in use; nothing was "
                    "changed. Put it back, then open the store again",
                    url=self.url,
                )
            if lane.connection is None:
                lane.connection = open_file(
                    self.path, self._format, self.url, busy_s=self._busy_s, checked=self._identity is not None
                )
                self._identity = self._found()
            return lane.connection

    def _found(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            return status.st_dev, status.st_ino
        return None


class _Job(Generic[T]):
    """Some work, and the future its result goes to."""

    def __init__(self, work: Work[T], doing: str, future: asyncio.Future[T]) -> None:
        self.work: Final = work
        self.doing: Final = doing
        self.future: Final = future
        self.result: T | None = None
        self.error: BaseException | None = None


class _Lane:
    """One thread with its own connection; both are made when they are needed."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._thread: ThreadPoolExecutor | None = None
        self.connection: sqlite3.Connection | None = None

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do `work` on the thread, after what was submitted before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, self._name)
        # By the loop's own way to threads: a loop with virtual time then knows that one works.
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def drop(self) -> None:
        """Close the connection, on the thread; a transaction that is open is undone."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # of a file that failed before: that was said
                connection.close()

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        thread = self._thread
        if thread is None:
            return
        await asyncio.shield(self.submit(self.drop))
        self._thread = None
        thread.shutdown()
