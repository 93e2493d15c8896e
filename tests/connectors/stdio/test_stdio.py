"""stdio: the loop never waits for a pipe, and closing never waits for the other side."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from connectors.stdio.sink import StdioSink
from connectors.stdio.source import StdioSource, StdioSourceConfig
from flowcore.connector import Credit, Rows
from flowcore.errors import SinkError, SourceError
from flowruntime.testing.contexts import StandaloneSinkContext, StandaloneSourceContext


async def test_rows_come_as_soon_as_their_line_is_whole_and_closing_does_not_wait_for_more() -> None:
    ours, theirs = os.pipe()
    source = StdioSource(StdioSourceConfig(format="lines"), descriptor=ours)
    reader = await source.open("0", None, StandaloneSourceContext())
    os.write(theirs, b"one\ntwo\nthr")
    rows = await reader.read(Credit(rows=10))
    assert rows is not None
    assert rows.values == ["one", "two"]
    assert rows.next is None
    waiting = asyncio.ensure_future(reader.read(Credit(rows=10)))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    os.write(theirs, b"ee\n")
    again = await reader.read(Credit(rows=10))
    assert again is not None
    assert again.values == ["three"]
    waiting = asyncio.ensure_future(reader.read(Credit(rows=10)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait_for(reader.close(), 5)
    os.close(theirs)
    os.close(ours)


async def test_an_input_that_cannot_be_read_or_resumed_is_an_error(tmp_path: Path) -> None:
    ours = os.open(tmp_path, os.O_RDONLY)
    source = StdioSource(descriptor=ours)
    reader = await source.open("0", None, StandaloneSourceContext())
    with pytest.raises(SourceError, match="cannot read the standard input"):
        await reader.read(Credit(rows=1))
    await reader.close()
    os.close(ours)
    with pytest.raises(SourceError, match="cannot resume"):
        await source.open("0", 7, StandaloneSourceContext())


async def test_a_reader_that_has_gone_is_a_clear_error_and_stays_one() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    sink = StdioSink(descriptor=ours)
    await sink.open(StandaloneSinkContext())
    for _ in range(2):
        with pytest.raises(SinkError, match="broken pipe"):
            await sink.write(Rows([1]))
    await sink.close()
    os.close(ours)


async def test_a_slow_reader_holds_up_the_write_but_neither_the_loop_nor_close() -> None:
    theirs, ours = os.pipe()
    sink = StdioSink(descriptor=ours)
    await sink.open(StandaloneSinkContext())
    writing = asyncio.ensure_future(sink.write(Rows(["x" * 1_000_000])))
    await asyncio.sleep(0)
    await asyncio.wait_for(sink.close(), 5)
    with pytest.raises(SinkError, match="was closed while it waited"):
        await writing
    os.close(theirs)
    os.close(ours)
