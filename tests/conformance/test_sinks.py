"""Every sink of ours passes the sink contract.

Owns: the subjects. The contract itself is flowruntime.testing.conformance.sink.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connectors.files.sink import FilesSink, FilesSinkConfig
from connectors.memory.sink import MemorySink
from connectors.sqlite.dead_letters import DeadLettersConfig, DeadLettersSink
from connectors.stdio.sink import StdioSink
from flowcore.letter_log import decode_entry
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.conformance.sink import SinkConformance, SinkSubject

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": 'with "quotes",\nand lines'}, {"a": 3, "b": "ü"}]
UNWRITABLE = [{"a": math.nan}, {"a": b"bytes"}, {"a": {"b": object()}}, {1: 2}]


def json_lines(data: bytes) -> list[object]:
    return [json.loads(line) for line in data.splitlines()]


def letters_in(path: Path) -> list[object]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT letter FROM letters ORDER BY seq").fetchall()
    return [decode_entry(row) for (row,) in rows]


class TestMemory(SinkConformance):
    @pytest.fixture
    def subject(self) -> SinkSubject:
        sink = MemorySink()
        return SinkSubject(make=lambda: sink, stored=lambda: sink.values, good=ROWS)


class TestFilesAppend(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        path = tmp_path / "new folder" / "out.jsonl"
        return SinkSubject(
            make=lambda: FilesSink(FilesSinkConfig(path=str(path))),
            stored=lambda: json_lines(path.read_bytes()) if path.exists() else [],
            good=ROWS,
            bad=UNWRITABLE,
        )


class TestFilesAtomic(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        path = tmp_path / "out.jsonl"
        return SinkSubject(
            make=lambda: FilesSink(FilesSinkConfig(path=str(path), mode="atomic")),
            stored=lambda: json_lines(path.read_bytes()) if path.exists() else [],
            good=ROWS,
            bad=UNWRITABLE,
        )


class TestFilesAtomicGzip(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        path = tmp_path / "out.jsonl.gz"
        return SinkSubject(
            make=lambda: FilesSink(FilesSinkConfig(path=str(path), mode="atomic")),
            stored=lambda: json_lines(gzip.decompress(path.read_bytes())) if path.exists() else [],
            good=ROWS,
            bad=UNWRITABLE,
        )


class TestFilesCsv(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        path = tmp_path / "out.csv"

        def stored() -> list[object]:
            if not path.exists():
                return []
            with path.open(newline="") as file:
                return list(csv.DictReader(file))

        return SinkSubject(
            make=lambda: FilesSink(FilesSinkConfig(path=str(path), columns=("a", "b"))),
            stored=stored,
            good=[{name: str(cell) for name, cell in row.items()} for row in ROWS],
            bad=[{"a": b"bytes"}, {"a": 1, "c": 2}, "text", {"a": "\ud800"}],
        )


class TestFilesLines(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        path = tmp_path / "out.txt"
        return SinkSubject(
            make=lambda: FilesSink(FilesSinkConfig(path=str(path))),
            stored=lambda: path.read_text().split("\n")[:-1] if path.exists() else [],
            good=["one", "", "drü"],
            bad=["two\nlines", 3, "\ud800", "ends\r"],
        )


class TestSqliteDeadLetters(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SinkSubject:
        config = DeadLettersConfig(path=str(tmp_path / "new folder" / "dead.sqlite"))
        return SinkSubject(
            make=lambda: DeadLettersSink(config),
            stored=lambda: letters_in(Path(config.path)),
            good=[sample_letter(number) for number in range(3)],
            bad=[{"a": 1}, "text", None, {"kind": "letter"}],
            once=True,
        )


class TestStdio(SinkConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Iterator[SinkSubject]:
        path = tmp_path / "stdout"
        with path.open("ab") as file:
            yield SinkSubject(
                make=lambda: StdioSink(descriptor=file.fileno()),
                stored=lambda: json_lines(path.read_bytes()),
                good=ROWS,
                bad=UNWRITABLE,
            )
