"""Our profiles on one workload: a source faster than its node, rows of some size, a coroutine, a sink.

Everything is written on the public contract; nothing but the profile differs between contenders.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.calls import peak_rss_mib
from benchmarks.ours.memory import Nothing
from benchmarks.work import AsyncRun, Measured
from flowcore import Workflow, node
from flowcore.connector import Credit, Position, Rows, Sink, Source
from flowcore.context import SourceContext
from flowcore.profiles import ProfileName
from flowruntime import FlowRuntime

_STAMP = b"%016d"


class _Reader:
    """Makes rows as fast as it is asked; each knows when it was handed over."""

    def __init__(self, records: int, row_bytes: int) -> None:
        self._records = records
        self._copies = max(1, row_bytes // 16)
        self._next = 0

    async def read(self, credit: Credit) -> Rows[Any] | None:
        """As many rows as there is credit for; None at the end."""
        start = self._next
        if start >= self._records:
            return None
        size = 16 * self._copies
        most = credit.rows if credit.max_bytes is None else max(1, min(credit.rows, credit.max_bytes // size))
        self._next = min(start + most, self._records)
        now = time.perf_counter()
        rows = [
            {"id": number, "at": now, "body": (_STAMP % number) * self._copies}
            for number in range(start, self._next)
        ]
        return Rows(rows, next=self._next, nbytes=size * len(rows))

    async def commit(self, position: Position) -> None:
        """Nothing to remember."""

    async def close(self) -> None:
        """Nothing to release."""


def _source(records: int, row_bytes: int) -> type[Source[Nothing, Any]]:
    class Made(Source[Nothing, Any], type="benchmark.made"):
        async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> _Reader:
            return _Reader(records, row_bytes)

    return Made


def _sink(results: list[int], waits_s: list[float]) -> type[Sink[Nothing, Any]]:
    class Taken(Sink[Nothing, Any], type="benchmark.taken"):
        async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
            now = time.perf_counter()
            for row in batch.values:
                results.append(row["result"])
                waits_s.append(now - row["at"])
            return {}

    return Taken


@node("benchmark.measure")
def measure(row: dict[str, Any]) -> dict[str, Any]:
    """A plain function before the coroutine."""
    return {**row, "size": len(row["body"])}


@asynccontextmanager
async def profile(
    records: int, row_bytes: int, delay_s: float, profile: ProfileName
) -> AsyncGenerator[AsyncRun]:
    """One continuous run under a profile; facts: latency of a row at the 99th percentile, peak memory."""

    @node("benchmark.work")
    async def work(row: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(delay_s)
        return {"at": row["at"], "result": 2 * row["id"], "body": row["body"]}

    async with FlowRuntime(profile=profile, watchdog=None, state_dir=None) as runtime:

        async def run() -> Measured:
            results: list[int] = []
            waits_s: list[float] = []
            workflow = Workflow("profile")
            workflow.chain(
                workflow.add(_source(records, row_bytes), id="source"),
                workflow.add(measure, id="measure"),
                workflow.add(work, id="work"),
                workflow.add(_sink(results, waits_s), id="sink"),
            )
            result = await (await runtime.start(workflow)).wait()
            result.raise_for_state()
            return Measured(
                results,
                facts={
                    "p50_ms": statistics.median(waits_s) * 1e3,
                    "p99_ms": statistics.quantiles(waits_s, n=100)[98] * 1e3,
                    "peak_rss_mib": peak_rss_mib(),
                },
            )

        yield run
