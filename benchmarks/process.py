"""The parent's side of a worker: starts the process, asks for runs, gives up on one that hangs.

Owns: `WorkerProcess`, `Sample`, and how a contender's failure reads.
Does not own: what the process does (benchmarks.worker).

Always holds: leaving the context ends the process and waits for it.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from benchmarks.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

TIMEOUT_S = 180.0
"""For a start or for one run; the longest run of a peer takes some 10 s."""

QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "",
    "RUST_LOG": "error",
}
"""Peers' telemetry off, so that nothing but the work is timed and nothing leaves the machine."""


class ContenderError(Exception):
    """A contender did not do the work; the message is the reason given in the report."""


@dataclass(frozen=True)
class Sample:
    """One run of a contender."""

    seconds: float
    cpu_s: float
    digest: str
    preview: str
    facts: Mapping[str, float] = field(default_factory=dict[str, float])


class WorkerProcess:
    """A contender in its own process, from `__enter__`, which waits until it is warm, to `__exit__`."""

    def __init__(
        self, python: Path, work: str, params: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._command = [str(python), "-m", "benchmarks.worker", work, json.dumps(dict(params))]
        self._work = work
        self._timeout_s = timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in _end
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self) -> Sample:
        """One run.

        Raises:
            ContenderError: the workload raised, the process ended, or it took longer than the limit.
        """
        process = self._started()
        try:
            assert process.stdin is not None
            process.stdin.write("run\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(self._ended()) from None
        return Sample(**self._answer())

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            message = f"{self._work}: not started; enter the context first"
            raise RuntimeError(message)
        return self._process

    def _answer(self) -> dict[str, Any]:
        stdout = self._started().stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._timeout_s):
                self._started().kill()
                message = f"no answer within {self._timeout_s:g} s"
                raise ContenderError(message)
        line = stdout.readline()
        if not line:
            raise ContenderError(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def _ended(self) -> str:
        code = self._started().wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with code {code}: {lines[-1] if lines else 'it said nothing'}"

    def _end(self) -> None:
        process = self._started()
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()  # the worker's loop ends, so that its context managers are left
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._stderr.close()
