"""memory: any iterable, lazily, within credit; nothing is lost to a failure or a full sink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.memory.sink import MemorySink, MemorySinkConfig
from connectors.memory.source import MemorySource, MemorySourceConfig
from flowcore.connector import Credit, Rows
from flowcore.errors import ConfigError, LimitExceededError, PositionLostError, SourceError
from flowruntime.testing.contexts import StandaloneSinkContext, StandaloneSourceContext


async def test_an_iterator_is_never_read_beyond_the_credit() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    reader = await MemorySource.of(endless()).open("0", None, StandaloneSourceContext())
    rows = await reader.read(Credit(rows=3))
    assert rows is not None
    assert rows.values == taken == [0, 1, 2]
    await reader.close()


async def test_an_async_iterable_gives_what_is_there_and_is_not_read_beyond_the_credit() -> None:
    taken: list[int] = []
    gate = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        for number in range(1000):
            if number == 2:
                await gate.wait()
            taken.append(number)
            yield number

    reader = await MemorySource.of(endless()).open("0", None, StandaloneSourceContext())
    first = await reader.read(Credit(rows=5))
    assert first is not None
    assert first.values == [0, 1]
    gate.set()
    second = await reader.read(Credit(rows=5))
    assert second is not None
    assert len(taken) <= 2 + 5
    await reader.close()


async def test_rows_before_a_failure_of_the_iterable_are_delivered_first() -> None:
    def failing() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("boom")

    async def failing_later() -> AsyncIterator[int]:
        for number in failing():
            yield number

    for items in (failing(), failing_later()):
        reader = await MemorySource.of(items).open("0", None, StandaloneSourceContext())
        values: list[object] = []
        while len(values) < 2 and (rows := await reader.read(Credit(rows=5))) is not None:
            values += rows.values
        assert values == [1, 2]
        with pytest.raises(SourceError, match="raised after 2 rows: ValueError: boom"):
            await reader.read(Credit(rows=5))
        await reader.close()


async def test_keys_and_partitions() -> None:
    ctx = StandaloneSourceContext()
    source = MemorySource.of({"a": [1, 2], "b": iter([3])}, key=str)
    assert [change.partition async for change in source.assignments(ctx)] == ["a", "b"]
    rows = await (await source.open("b", None, ctx)).read(Credit(rows=5))
    assert rows is not None
    assert (rows.values, rows.keys) == ([3], ["3"])
    with pytest.raises(SourceError, match="no partition 'c'; it has 'a', 'b'"):
        await source.open("c", None, ctx)
    with pytest.raises(PositionLostError, match="it has 2 rows now"):
        await source.open("a", 3, ctx)
    with pytest.raises(ConfigError, match="1 keys for 2 values"):
        MemorySource(MemorySourceConfig(values=[1, 2], keys=["a"]))


async def test_rows_beyond_the_limit_of_a_sink_fail_one_by_one() -> None:
    sink = MemorySink(MemorySinkConfig(max_rows=3))
    await sink.open(StandaloneSinkContext())
    assert not await sink.write(Rows([1, 2]))
    failed = await sink.write(Rows([3, 4, 5]))
    assert set(failed) == {1, 2}
    assert isinstance(failed[1], LimitExceededError)
    assert sink.values == [1, 2, 3]
