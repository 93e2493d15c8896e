"""One contender in a process of its own: runs its workload each time it is told, answers in JSON lines.

Owns: timing, garbage collection between runs, the digest of a result.
Does not own: when to run (benchmarks.harness) and what (benchmarks.peers, benchmarks.ours).

    python -m benchmarks.worker benchmarks.peers.plain:chain '{"records": 1000}'

Each line on standard input asks for one run. The answers go to what was standard output at the start;
anything the engine prints goes to standard error instead, so that it cannot spoil them. Standard library
only.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib
import json
import os
import sys
import time
import traceback
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.work import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.work import AsyncRun, Run, Workload

PREVIEW_CHARACTERS = 300


def digest(result: object) -> str:
    """Fingerprint of a result: equal for equal JSON, whatever the order of keys."""
    text = json.dumps(result, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load(reference: str) -> Workload:
    """The workload named `module:function`."""
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)


def _answer(channel: TextIO, **fields: object) -> None:
    channel.write(json.dumps(fields) + "\n")
    channel.flush()


def _sample(outcome: object, seconds: float, cpu_s: float) -> dict[str, object]:
    measured = outcome if isinstance(outcome, Measured) else Measured(outcome)
    preview = repr(measured.result)
    return {
        "seconds": seconds if measured.seconds is None else measured.seconds,
        "cpu_s": cpu_s if measured.cpu_s is None else measured.cpu_s,
        "facts": dict(measured.facts),
        "digest": digest(measured.result),
        "preview": preview if len(preview) <= PREVIEW_CHARACTERS else preview[:PREVIEW_CHARACTERS] + "...",
    }


def _serve(workload: AbstractContextManager[Run], channel: TextIO) -> None:
    with workload as run:
        _answer(channel, ready=True)
        while sys.stdin.readline():
            gc.collect()
            cpu, start = time.process_time(), time.perf_counter()
            outcome = run()
            seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
            _answer(channel, **_sample(outcome, seconds, cpu_s))


async def _serve_async(workload: AbstractAsyncContextManager[AsyncRun], channel: TextIO) -> None:
    async with workload as run:
        _answer(channel, ready=True)
        while await asyncio.to_thread(sys.stdin.readline):
            gc.collect()
            cpu, start = time.process_time(), time.perf_counter()
            outcome = await run()
            seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
            _answer(channel, **_sample(outcome, seconds, cpu_s))


def _private_channel() -> TextIO:
    """Standard output under another descriptor; descriptor 1 becomes standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main(arguments: Sequence[str]) -> int:
    """Serve one workload until standard input ends; 1 when it failed, after an answer that says why."""
    reference, params = arguments
    channel = _private_channel()
    try:
        options: dict[str, Any] = json.loads(params)
        workload = load(reference)(**options)
        if isinstance(workload, AbstractAsyncContextManager):
            asyncio.run(_serve_async(workload, channel))
        else:
            _serve(workload, channel)
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its outcome, reported
        traceback.print_exc()
        _answer(channel, error=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
