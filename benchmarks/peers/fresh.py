"""Fresh interpreters: how long an import or a whole command takes. Standard library only."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from benchmarks.work import Measured, Run

TIMED_IMPORT = """
import sys, time
module, _, name = sys.argv[1].partition(":")
start = time.perf_counter()
loaded = __import__(module, fromlist=[name or "__name__"])
name and getattr(loaded, name)
print(time.perf_counter() - start)
"""


def _python(*arguments: str) -> str:
    """Standard output of this environment's interpreter; raises when it fails.

    Raises:
        RuntimeError: with the last line the process said.
    """
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}: {lines[-1:]}")
    return done.stdout


@contextmanager
def importing(module: str) -> Generator[Run]:
    """`from MODULE import NAME`, or `import MODULE`, alone; the interpreter has started already."""

    def run() -> Measured:
        return Measured(None, seconds=float(_python("-c", TIMED_IMPORT, module).splitlines()[-1]))

    yield run


@contextmanager
def command(arguments: Sequence[str]) -> Generator[Run]:
    """The whole process, from start to exit."""

    def run() -> Measured:
        start = time.perf_counter()
        _python(*arguments)
        return Measured(None, seconds=time.perf_counter() - start)

    yield run
