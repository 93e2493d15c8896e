"""An iterable as a source: what `rt.stream` reads.

Owns: `IterableSource`, `Window`, how far the iterable may run ahead of whoever consumes the outcomes.
Does not own: the run.

Always holds: an item is taken only when there is room for its outcome; a cancelled read loses none.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec

from flowcore.connector import Credit, Position, Rows, Source
from flowcore.context import SourceContext


class NoConfig(msgspec.Struct, frozen=True):
    """An iterable has nothing to configure."""


class Window:
    """How many items may be taken and not yet consumed as outcomes."""

    def __init__(self, size: int) -> None:
        self.free = size
        self._waiting: asyncio.Future[None] | None = None

    async def room(self) -> None:
        """Returns when at least one item may be taken."""
        while self.free <= 0:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def release(self) -> None:
        """An outcome was consumed."""
        self.free += 1
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class IterableSource(Source[NoConfig, Any], type="flow.iterable"):
    """Reads an iterable or asynchronous iterable, lazily, no faster than the window allows."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], window: Window) -> None:
        super().__init__(NoConfig())
        self._items = items
        self._window = window

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> IterableReader:
        del partition, resume, ctx
        return IterableReader(self._items, self._window)


class IterableReader:
    """Takes what is there without waiting; waits for at least one item."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], window: Window) -> None:
        self._async: AsyncIterator[Any] | None = aiter(items) if isinstance(items, AsyncIterable) else None
        self._sync = None if isinstance(items, AsyncIterable) else iter(items)
        self._window = window
        self._pending: asyncio.Future[Any] | None = None
        self._fault: Exception | None = None

    async def read(self, credit: Credit) -> Rows[Any] | None:
        await self._window.room()
        if self._sync is not None:
            values = self._read_sync(self._sync, min(credit.rows, self._window.free))
        else:
            values = await self._read_async()
        self._window.free -= len(values)
        return Rows(values) if values else None

    def _read_sync(self, items: Iterator[Any], most: int) -> list[Any]:
        """What the iterator has; when it raises, what it gave before comes first, the error next time."""
        if self._fault is not None:
            raise self._fault
        values: list[Any] = []
        try:
            values.extend(itertools.islice(items, most))
        except Exception as error:
            if not values:
                raise
            self._fault = error
        return values

    async def _read_async(self) -> list[Any]:
        if self._pending is None:
            assert self._async is not None  # noqa: S101 - one of the two is there
            self._pending = asyncio.ensure_future(_next(self._async))
        try:
            # A cancelled read must not lose the item that is on its way.
            value = await asyncio.shield(self._pending)
        except StopAsyncIteration:
            return []
        finally:
            if self._pending.done():
                self._pending = None
        return [] if value is _ENDED else [value]

    async def commit(self, position: Position) -> None:
        """An iterable keeps no position."""

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()  # pyright: ignore[reportUnknownMemberType] - of any element type


_ENDED = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    """The next item, or the end as a value: StopAsyncIteration cannot be set on a future's task."""
    return await anext(items, _ENDED)
