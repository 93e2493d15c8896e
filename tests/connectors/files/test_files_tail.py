"""Following files: rotation neither loses nor repeats a line, whatever happens between two looks."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.source import FilesSource, FilesSourceConfig
from flowcore.connector import Assigned, Credit, Position, Reader
from flowcore.errors import PositionLostError, SourceError
from flowruntime.testing.contexts import StandaloneSourceContext


def source(path: object, **config: Any) -> FilesSource:
    return FilesSource(FilesSourceConfig(path=str(path), mode="tail", **config))


async def take(reader: Reader[object], count: int) -> tuple[list[object], Position | None]:
    values: list[object] = []
    position: Position | None = None
    async with asyncio.timeout(20):
        while len(values) < count:
            rows = await reader.read(Credit(rows=count - len(values)))
            assert rows is not None
            values.extend(rows.values)
            position = rows.next
    return values, position


class Log:
    """A log file with its writer and its rotation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[str] = []

    def write(self, count: int) -> None:
        with self.path.open("a") as file:
            for _ in range(count):
                line = f"line {len(self.written)}"
                self.written.append(line)
                file.write(line + "\n")

    def rotated(self) -> None:
        """Make room for `.1`."""
        for number in range(20, 0, -1):
            old = Path(f"{self.path}.{number}")
            if old.exists():
                old.rename(f"{self.path}.{number + 1}")

    def rename_and_create(self) -> None:
        self.rotated()
        self.path.rename(f"{self.path}.1")
        self.path.touch()

    def copy_and_truncate(self) -> None:
        self.rotated()
        shutil.copyfile(self.path, f"{self.path}.1")
        os.truncate(self.path, 0)


steps = st.lists(st.sampled_from(["write", "write", "rename", "read", "restart"]), min_size=1, max_size=14)


@settings(max_examples=30)
@given(steps=steps, data=st.data())
def test_renaming_never_loses_or_repeats_a_line_also_across_restarts(
    steps: list[str], data: st.DataObject
) -> None:
    """Several rotations may happen between two looks, and while nobody looks at all."""

    async def scenario(folder: str) -> None:
        log = Log(Path(folder) / "app.log")
        log.write(1)
        reader = await source(log.path).open(str(log.path), None, StandaloneSourceContext())
        read, position = await take(reader, 1)
        try:
            for step in [*steps, "write", "read all"]:
                if step == "write":
                    log.write(data.draw(st.integers(1, 5)))
                elif step == "rename":
                    log.rename_and_create()
                elif step == "restart":
                    await reader.close()
                    reader = await source(log.path).open(str(log.path), position, StandaloneSourceContext())
                else:
                    missing = len(log.written) - len(read)
                    count = missing if step == "read all" else data.draw(st.integers(0, missing))
                    if count:
                        values, position = await take(reader, count)
                        read.extend(values)
        finally:
            await reader.close()  # also when Hypothesis gives an example up
        assert read == log.written

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))


@settings(max_examples=30)
@given(turns=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=6))
def test_copying_and_truncating_never_loses_or_repeats_a_line(turns: list[tuple[int, int, bool]]) -> None:
    """One rotation between two looks; what was unread is read from the copy."""

    async def scenario(folder: str) -> None:
        log = Log(Path(folder) / "app.log")
        read: list[object] = []
        reader: Reader[object] | None = None
        for before, after, restart in turns:
            log.write(before)
            if reader is None:
                reader = await source(log.path).open(str(log.path), None, StandaloneSourceContext())
            values, position = await take(reader, 1)
            read.extend(values)
            if restart:
                await reader.close()
            log.copy_and_truncate()
            if restart:
                reader = await source(log.path).open(str(log.path), position, StandaloneSourceContext())
            missing = len(log.written) - len(read)
            if missing:
                read.extend((await take(reader, missing))[0])
            log.write(after)
            if after:
                read.extend((await take(reader, after))[0])
        assert reader is not None
        await reader.close()
        assert read == log.written

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))


async def test_a_line_without_its_newline_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\ntw")
    reader = await source(path).open(str(path), None, StandaloneSourceContext())
    assert (await take(reader, 1))[0] == ["one"]
    waiting = asyncio.ensure_future(reader.read(Credit(rows=10)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    with path.open("a") as file:
        file.write("o\n")
    rows = await waiting
    assert rows is not None
    assert rows.values == ["two"]
    await reader.close()


async def test_a_writer_that_is_slow_to_reopen_still_has_its_lines_read(tmp_path: Path) -> None:
    """The old file is left only when it has been quiet for `rotate_wait`."""
    path = tmp_path / "app.log"
    ctx = StandaloneSourceContext()
    with path.open("w", buffering=1) as old:
        old.write("one\n")
        reader = await source(path, rotate_wait=timedelta(minutes=1)).open(str(path), None, ctx)
        assert (await take(reader, 1))[0] == ["one"]
        path.rename(tmp_path / "app.log.1")
        path.write_text("three\n")
        old.write("two\n")
        assert (await take(reader, 2))[0] == ["two", "three"]
    await reader.close()
    assert ctx.monotonic() >= 60


async def test_truncation_with_lines_unread_and_no_copy_is_never_silent(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\ntwo\nthr")
    reader = await source(path).open(str(path), None, StandaloneSourceContext())
    await take(reader, 2)
    path.write_text("")
    for why in ("truncated with 3 bytes unread", "neither the file nor a rotation of it holds it"):
        with pytest.raises(PositionLostError, match=why):
            await reader.read(Credit(rows=1))
    await reader.close()


async def test_truncation_after_everything_was_read_goes_on_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\ntwo\n")
    ctx = StandaloneSourceContext()
    reader = await source(path).open(str(path), None, ctx)
    await take(reader, 2)
    path.write_text("new\n")
    assert (await take(reader, 1))[0] == ["new"]
    assert "truncated after all of its 2 lines were read" in ctx.logs[0].message
    await reader.close()


async def test_a_file_rotated_away_while_nobody_looked_is_a_lost_position(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\ntwo\n")
    first = await source(path).open(str(path), None, StandaloneSourceContext())
    _, position = await take(first, 1)
    await first.close()
    path.unlink()
    path.write_text("a new file\n")
    reader = await source(path).open(str(path), position, StandaloneSourceContext())
    with pytest.raises(PositionLostError, match="on_lost_position: restart"):
        await reader.read(Credit(rows=1))
    await reader.close()
    ctx = StandaloneSourceContext()
    reader = await source(path, on_lost_position="restart").open(str(path), position, ctx)
    assert (await take(reader, 1))[0] == ["a new file"]
    assert "cannot resume" in ctx.logs[0].message
    await reader.close()


async def test_a_file_that_is_not_there_yet_is_waited_for_and_stopping_ends_the_wait(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    ctx = StandaloneSourceContext()
    reader = await source(path).open(str(path), None, ctx)
    waiting = asyncio.ensure_future(take(reader, 1))
    await asyncio.sleep(0)
    path.write_text("one\n")
    assert (await waiting)[0] == ["one"]
    ctx.stop()
    assert await reader.read(Credit(rows=1)) is None
    await reader.close()


async def test_new_files_of_a_pattern_are_assigned_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    ctx = StandaloneSourceContext()
    changes = aiter(source(tmp_path / "*.log").assignments(ctx))
    assert await anext(changes) == Assigned(f"{tmp_path}/a.log")
    (tmp_path / "b.log").touch()
    assert await anext(changes) == Assigned(f"{tmp_path}/b.log")
    ctx.stop()
    assert [change async for change in changes] == []


async def test_rotations_a_pattern_matches_are_left_to_the_file_they_are_of(tmp_path: Path) -> None:
    """Reading them too would repeat lines; that a run broke at the first rotation would be no better."""
    for name in ("a.log", "a.log.1", "a.log.2.gz", "b.log.1"):
        (tmp_path / name).touch()
    ctx = StandaloneSourceContext()
    changes = aiter(source(tmp_path / "*.log*", format="lines").assignments(ctx))
    assert await anext(changes) == Assigned(f"{tmp_path}/a.log")
    assert await anext(changes) == Assigned(f"{tmp_path}/b.log.1")
    (tmp_path / "a.log").rename(tmp_path / "a.log.3")
    (tmp_path / "c.log").touch()
    assert await anext(changes) == Assigned(f"{tmp_path}/c.log")
    ctx.stop()
    assert [change async for change in changes] == []
    assert "2 files are not read" in ctx.logs[0].message
    assert "they are rotations" in ctx.logs[0].message
    assert "a.log.3" in ctx.logs[1].message


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
async def test_what_is_no_file_is_an_error_also_when_it_comes_later(tmp_path: Path, make: Any) -> None:
    """Waiting for a folder or a pipe to become a file would be a standstill."""
    path = tmp_path / "app.log"
    reader = await source(path).open(str(path), None, StandaloneSourceContext())
    waiting = asyncio.ensure_future(reader.read(Credit(rows=1)))
    await asyncio.sleep(0)
    make(path)
    with pytest.raises(SourceError, match="reads regular files"):
        await waiting
    await reader.close()
