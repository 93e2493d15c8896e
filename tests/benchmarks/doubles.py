"""Workloads that behave, and ones that do not: what test_process runs in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from benchmarks.work import AsyncRun, Measured, Run


@contextmanager
def counting() -> Generator[Run]:
    """Answers how often it has run, with a time of its own."""
    runs: list[int] = []

    def run() -> Measured:
        runs.append(len(runs) + 1)
        return Measured(runs[-1:], seconds=0.5, facts={"peak": len(runs)})

    yield run


@asynccontextmanager
async def counting_async() -> AsyncGenerator[AsyncRun]:
    """Answers whether the loop is still the one it was set up on."""
    loop = asyncio.get_running_loop()

    async def run() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is loop

    yield run


@contextmanager
def noisy() -> Generator[Run]:
    """Prints, through Python and past it."""

    def run() -> str:
        sys.stdout.write("noise\n")
        sys.stdout.flush()
        os.write(1, b"more noise\n")
        return "quiet"

    yield run


@contextmanager
def raising() -> Generator[Run]:
    """Fails in the run."""

    def run() -> None:
        raise ValueError("not today")

    yield run


@contextmanager
def needing() -> Generator[Run]:
    """Fails in the set-up."""
    raise ModuleNotFoundError("No module named 'nowhere'")
    yield  # pragma: no cover - makes this a generator


@contextmanager
def dying() -> Generator[Run]:
    """Ends its process."""

    def run() -> None:
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os._exit(7)

    yield run


@contextmanager
def hanging() -> Generator[Run]:
    """Never answers; ends when its process is told to."""

    def run() -> None:
        signal.pause()

    yield run
