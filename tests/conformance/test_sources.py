"""Every source of ours passes the source contract.

Owns: the subjects. The contract itself is flowruntime.testing.conformance.source.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard

from connectors.files.source import FilesSource, FilesSourceConfig
from connectors.memory.source import MemorySource, MemorySourceConfig
from connectors.stdio.source import StdioSource
from connectors.timer.source import TimerSource, TimerSourceConfig
from flowruntime.testing.conformance.source import SourceConformance, SourceSubject
from flowruntime.testing.contexts import StandaloneSourceContext
from flowruntime.testing.scripted import delay, error, scripted

ROWS = [{"id": number, "text": "äö" * (number % 5)} for number in range(20)]
JSONL = b'\n{"id": 0}\r\n\n{"id": 1}\nnot json\n{"id": "\\ud800"}\n{"id": 1180591620717411303424}\n[1]'
PARSED = [{"id": 0}, {"id": 1}, None, {"id": "\ud800"}, {"id": 2**70}, [1]]
CSV = b'id,text\r\n1,plain\r\n2,"two\r\nlines, quoted"\r\n\r\n3\r\n4,"say ""hi"""\n5,x'
RECORDS = [
    {"id": "1", "text": "plain"},
    {"id": "2", "text": "two\r\nlines, quoted"},
    None,
    {"id": "4", "text": 'say "hi"'},
    {"id": "5", "text": "x"},
]


def files(path: Path, **config: object) -> FilesSource:
    return FilesSource(FilesSourceConfig(path=str(path), **config))  # pyright: ignore[reportArgumentType] - options of one struct


class TestMemoryList(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        config = MemorySourceConfig(values=ROWS, keys=[row["id"] for row in ROWS])
        return SourceSubject(make=lambda: MemorySource(config), rows=ROWS)


class TestMemoryIterator(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        def rows() -> Iterator[object]:
            yield from ROWS

        return SourceSubject(make=lambda: MemorySource.of(rows()), rows=ROWS)


class TestMemoryAsyncIterable(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        async def rows() -> AsyncIterator[object]:
            for row in ROWS:
                yield row

        return SourceSubject(make=lambda: MemorySource.of(rows()), rows=ROWS)


class TestFilesJsonLines(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(JSONL)
        return SourceSubject(make=lambda: files(path), rows=PARSED, failing=frozenset({2}))


class TestFilesCsv(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        path = tmp_path / "rows.csv"
        path.write_bytes(b"\xef\xbb\xbf" + CSV)
        return SourceSubject(make=lambda: files(path), rows=RECORDS, failing=frozenset({2}))


class TestFilesGzip(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        path = tmp_path / "rows.csv.gz"
        path.write_bytes(gzip.compress(CSV[:20]) + gzip.compress(CSV[20:]))
        return SourceSubject(make=lambda: files(path), rows=RECORDS, failing=frozenset({2}))


class TestFilesZstd(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        path = tmp_path / "rows.jsonl.zst"
        compress = zstandard.ZstdCompressor().compress
        path.write_bytes(compress(JSONL[:20]) + compress(JSONL[20:]))
        return SourceSubject(make=lambda: files(path), rows=PARSED, failing=frozenset({2}))


class TestFilesUtf16(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        path = tmp_path / "rows.txt"
        rows = ["eins", "", "zwöi", "✓ drü"]
        path.write_text("\r\n".join(rows) + "\r\n", encoding="utf-16", newline="")
        return SourceSubject(make=lambda: files(path, encoding="utf-16"), rows=rows)


class TestFilesTail(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        """A run that is stopping reads what is there and ends."""
        path = tmp_path / "rows.log"
        rows = [f"line {number}" for number in range(20)]
        path.write_text("\n".join(rows) + "\n")

        def stopping() -> StandaloneSourceContext:
            ctx = StandaloneSourceContext()
            ctx.stop()
            return ctx

        return SourceSubject(make=lambda: files(path, mode="tail"), rows=rows, context=stopping)


class TestStdio(SourceConformance):
    @pytest.fixture
    def subject(self) -> Iterator[SourceSubject]:
        opened: list[int] = []

        def make() -> StdioSource:
            read, write = os.pipe()
            opened.append(read)
            os.write(write, JSONL)
            os.close(write)
            return StdioSource(descriptor=read)

        yield SourceSubject(make=make, rows=PARSED, failing=frozenset({2}), resumable=False)
        for descriptor in opened:
            os.close(descriptor)


class TestTimer(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        config = TimerSourceConfig(interval=timedelta(seconds=3), count=10)
        return SourceSubject(make=lambda: TimerSource(config), rows=range(10))


class TestScripted(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        script = ["a", delay(0), error(b"\xff"), "c", "d", delay(0), "e"]
        rows = ["a", None, "c", "d", "e"]
        return SourceSubject(make=lambda: scripted(*script), rows=rows, failing=frozenset({1}))
