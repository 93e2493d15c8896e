"""Pathway: an asynchronous user function with a capacity."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pathway as pw
from pathway.internals.parse_graph import G

from benchmarks.work import Measured

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.work import Run


class Numbers(pw.Schema):
    """The one column."""

    number: int


@contextmanager
def async_stage(records: int, limit: int, delay_s: float) -> Generator[Run]:
    """One table of numbers through one async function.

    Pathway starts an engine per run; its start and its end are left out: the time is from the first call's
    start to the last call's end, which favours it.
    """

    def run() -> Measured:
        G.clear()
        started: list[float] = []
        ended: list[float] = []
        results: list[tuple[int, int]] = []

        @pw.udf(executor=pw.udfs.async_executor(capacity=limit))
        async def double(number: int) -> int:
            started.append(time.perf_counter())
            await asyncio.sleep(delay_s)
            ended.append(time.perf_counter())
            return 2 * number

        table = pw.debug.table_from_rows(Numbers, [(number,) for number in range(records)])
        doubled = table.select(number=pw.this.number, result=double(pw.this.number))

        def keep(key: object, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG001, FBT001
            results.append((row["number"], row["result"]))

        pw.io.subscribe(doubled, on_change=keep)
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        return Measured(
            [result for _, result in sorted(results)],
            seconds=max(ended) - min(started),
        )

    yield run
