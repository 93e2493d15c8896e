"""memory.source: rows that are already there, or come from any iterable; for tests, examples and code.

Owns: `MemorySource`, its readers.
Does not own: anything outside the process; nothing is kept.

Always holds: an iterable is read lazily, never more of it than a read was given credit for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from flowcore.connector import Assigned, Credit, Position, Reader, Revoked, Rows, Source
from flowcore.context import SourceContext
from flowcore.errors import ConfigError, ContractError, PositionLostError, SourceError

SLICE: Final = 1024
"""Rows taken from a plain iterator at once: it runs on the loop's thread, so a read must not last."""

Items = Iterable[Any] | AsyncIterable[Any]


class MemorySourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows themselves; in code, `MemorySource.of` takes any iterable instead."""

    values: list[Any] | None = None
    keys: list[Any] | None = None
    """The key of each of `values`."""
    partitions: dict[str, list[Any]] | None = None
    """Rows by partition, instead of `values`."""


class MemorySource(Source[MemorySourceConfig, object], type="memory.source"):
    """Rows from memory, in order.

    Emits           each value once per reader; a position is the number of rows before it.
    Partitions      one, `0`, or those named in `partitions`.
    Resumes         at any position of a list or another iterable that can be read again; an iterator is
                    read once.
    Ends            with the values.
    Holds           of an iterable at most the rows of one read; an async iterable is read ahead only up to
                    the credit of the read that waits. A plain iterator runs on the loop's thread, 1,024
                    rows at a time: give an async iterable if fetching a row takes time.
    Fails           SourceError when the iterable raises, after the rows before it; nothing is skipped.
    """

    def __init__(self, config: MemorySourceConfig) -> None:
        super().__init__(config)
        if config.partitions is not None and (config.values is not None or config.keys is not None):
            raise ConfigError("memory.source takes either values (and keys) or partitions, not both")
        values = config.values or []
        if config.keys is not None and len(config.keys) != len(values):
            raise ConfigError(
                f"memory.source has {len(config.keys)} keys for {len(values)} values; give one key per value",
                value=len(config.keys),
            )
        self._partitions: Mapping[str, Items] = config.partitions or {"0": values}
        self._keys = config.keys
        self._key: Callable[[Any], object] | None = None

    @classmethod
    def of(
        cls, items: Items | Mapping[str, Items], *, key: Callable[[Any], object] | None = None
    ) -> MemorySource:
        """A source over any iterable or async iterable, or over one per partition; `key` gives the key."""
        source = cls(MemorySourceConfig())
        source._partitions = items if isinstance(items, Mapping) else {"0": items}
        source._key = key
        return source

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
        del ctx
        for partition in self._partitions:
            yield Assigned(partition)

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[object]:
        """A reader that begins after `resume` rows."""
        del ctx
        start = _start(resume, partition)
        items = self._partitions.get(partition)
        if items is None:
            known = ", ".join(map(repr, self._partitions))
            raise SourceError(
                f"memory.source has no partition {partition!r}; it has {known}", partition=partition
            )
        if isinstance(items, AsyncIterable):
            return _AsyncReader(items, start, self._key)
        if isinstance(items, Sequence) and not isinstance(items, str | bytes | bytearray):
            rows = items if isinstance(items, list) else list(items)
            if start > len(rows):
                raise _past_the_end(partition, start, len(rows))
            return _ListReader(rows, start, self._keys, self._key)
        return _IteratorReader(iter(items), start, self._key, partition)


class _Reader:
    """What the three kinds of reader share."""

    def __init__(self, start: int, key: Callable[[Any], object] | None) -> None:
        self._at = start
        self._key = key
        self._closed = False

    async def commit(self, position: Position) -> None:
        """Nothing is kept."""
        del position

    async def close(self) -> None:
        self._closed = True

    def _check(self, credit: Credit) -> None:
        if self._closed:
            raise ContractError(f"the reader of memory.source at row {self._at} is closed and was read")
        if credit.rows < 1:
            raise ContractError(f"read needs credit for at least one row, got {credit!r}", credit=credit.rows)

    def _rows(self, values: list[Any], keys: Sequence[object] | None = None) -> Rows[object]:
        first = self._at + 1
        self._at += len(values)
        if self._key is not None:
            keys = list(map(self._key, values))
        return Rows(values, next=self._at, positions=range(first, self._at + 1), keys=keys)


class _ListReader(_Reader):
    def __init__(
        self, rows: list[Any], start: int, keys: list[Any] | None, key: Callable[[Any], object] | None
    ) -> None:
        super().__init__(start, key)
        self._values = rows
        self._keys = keys

    async def read(self, credit: Credit) -> Rows[object] | None:
        self._check(credit)
        first = self._at
        values = self._values[first : first + credit.rows]
        if not values:
            return None
        return self._rows(values, None if self._keys is None else self._keys[first : first + len(values)])


class _IteratorReader(_Reader):
    def __init__(
        self, iterator: Iterator[Any], start: int, key: Callable[[Any], object] | None, partition: str
    ) -> None:
        super().__init__(start, key)
        self._iterator = iterator
        self._failed: Exception | None = None
        skipped = sum(1 for _ in islice(iterator, start))
        if skipped < start:
            raise _past_the_end(partition, start, skipped)

    async def read(self, credit: Credit) -> Rows[object] | None:
        self._check(credit)
        values: list[Any] = []
        if self._failed is None:
            try:
                # extend keeps what came before an exception
                values.extend(islice(self._iterator, min(credit.rows, SLICE)))
            except Exception as fault:  # noqa: BLE001 - a user's iterable may raise anything; it is raised below
                self._failed = fault
        if values:
            return self._rows(values)
        if self._failed is not None:
            raise _broken(self._at, self._failed) from self._failed
        return None


class _AsyncReader(_Reader):
    """Pulls in a task of its own, so that a cancelled read loses nothing and a ready row costs no switch."""

    def __init__(self, items: AsyncIterable[Any], start: int, key: Callable[[Any], object] | None) -> None:
        super().__init__(start, key)
        self._items = items
        self._skip = start
        self._ready: list[Any] = []
        self._wanted = 0
        self._more_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._puller: asyncio.Task[None] | None = None

    async def read(self, credit: Credit) -> Rows[object] | None:
        self._check(credit)
        if self._puller is None:
            self._puller = asyncio.create_task(self._pull())
        while not self._ready:
            if self._puller.done():
                return self._end(self._puller)
            self._wanted = credit.rows
            self._more_wanted.set()
            self._changed.clear()
            await self._changed.wait()
        self._wanted = 0
        values, self._ready = self._ready[: credit.rows], self._ready[credit.rows :]
        return self._rows(values)

    async def close(self) -> None:
        await super().close()
        puller = self._puller
        if puller is not None and not puller.done():
            puller.cancel()
            await asyncio.wait([puller])
        if puller is not None and not puller.cancelled():
            puller.exception()  # it belongs to a read that nobody makes any more

    def _end(self, puller: asyncio.Task[None]) -> None:
        fault = puller.exception()
        if fault is not None:
            raise _broken(self._at, fault) from fault

    async def _pull(self) -> None:
        iterator = aiter(self._items)
        try:
            while True:
                while self._wanted <= len(self._ready):
                    self._more_wanted.clear()
                    await self._more_wanted.wait()
                item = await anext(iterator)
                if self._skip:
                    self._skip -= 1
                    continue
                self._ready.append(item)
                self._changed.set()
        except StopAsyncIteration:
            if self._skip:
                raise SourceError(
                    f"cannot resume: the iterable ended {self._skip} rows before the position"
                ) from None
        finally:
            self._changed.set()
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()


def _start(resume: Position | None, partition: str) -> int:
    if resume is None:
        return 0
    if type(resume) is not int or resume < 0:
        raise PositionLostError(
            f"{resume!r} is no position of memory.source partition {partition!r}: it is a number of rows",
            partition=partition,
        )
    return resume


def _past_the_end(partition: str, start: int, size: int) -> PositionLostError:
    return PositionLostError(
        f"memory.source partition {partition!r} cannot resume after row {start}: it has {size} rows now",
        partition=partition,
    )


def _broken(rows: int, fault: BaseException) -> SourceError:
    if isinstance(fault, SourceError):
        return fault
    return SourceError(
        f"the iterable of memory.source raised after {rows} rows: {type(fault).__name__}: {fault}", rows=rows
    )
