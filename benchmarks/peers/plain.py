"""No engine at all: what plain Python and asyncio do with the same work. The limit, no competitor."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from benchmarks.work import AsyncRun, Run


@contextmanager
def chain(records: int) -> Generator[Run]:
    """A `for` loop that calls the four functions."""
    rows = data.rows(records)
    with_total, is_large = data.with_total, data.is_large
    with_fee, with_class = data.with_fee, data.with_class

    def run() -> list[data.Row]:
        kept: list[data.Row] = []
        for row in rows:
            value = with_total(row)
            if is_large(value):
                kept.append(with_class(with_fee(value)))
        return kept

    yield run


@asynccontextmanager
async def async_stage(records: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """`limit` tasks that take the next number when they are done with one."""

    async def run() -> list[int]:
        results = [0] * records
        numbers = iter(range(records))

        async def work() -> None:
            for number in numbers:
                await asyncio.sleep(delay_s)
                results[number] = 2 * number

        await asyncio.gather(*(work() for _ in range(limit)))
        return results

    yield run
