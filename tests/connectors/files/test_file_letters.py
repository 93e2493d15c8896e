"""Dead letters in a file: shared by processes, whole lines or none, broken ones named and passed over."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.files.letters import MAX_LINE_BYTES, FileLetters
from connectors.files.sink import FilesSink, FilesSinkConfig
from flowcore.dead_letters import LetterFilter
from flowcore.errors import ConfigError, LetterNotFoundError, PathRefusedError, SinkError
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.contexts import StandaloneSinkContext
from tests.connectors.files.test_files_sink import file_size_limit


async def opened(path: Path, ctx: StandaloneSinkContext | None = None) -> FileLetters:
    store = FileLetters(str(path))
    await store.open(ctx or StandaloneSinkContext())
    return store


async def ids_in(store: FileLetters) -> list[str]:
    return [filed.id for filed in (await store.list(limit=1_000)).letters]


def ids(*numbers: int) -> list[str]:
    return [sample_letter(number).id for number in numbers]


# --- what a crash and a full disk leave -------------------------------------------------------------------


async def test_a_full_disk_leaves_no_half_letter_and_the_letters_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1)])
    before = path.read_bytes()
    large = [sample_letter(2), sample_letter(3, record="x" * 100_000)]
    with file_size_limit(50_000), pytest.raises(SinkError, match="the file would be larger"):
        await store.write(large)
    assert path.read_bytes() == before
    with file_size_limit(len(before) + 10), pytest.raises(SinkError):
        await store.mark(ids(1), "redriven")
    assert (await store.get(ids(1)[0])).state == "pending"
    await store.write(large)
    assert await ids_in(store) == ids(1, 2, 3)


async def test_a_line_torn_by_a_crash_is_named_and_moved_aside_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    ctx = StandaloneSinkContext()
    store = await opened(path, ctx)
    await store.write([sample_letter(1), sample_letter(2)])
    whole = path.read_bytes()
    for cut in (1, 40, len(whole.splitlines()[1]) - 1):
        path.write_bytes(whole[: len(whole.splitlines(keepends=True)[0]) + cut])
        page = await store.list()
        assert [filed.id for filed in page.letters] == ids(1)
        (broken,) = page.broken
        assert broken.where == f"{path}:2"
        assert "cut short by a crash" in broken.reason
        await store.write([sample_letter(3)])
        page = await store.list()
        assert ([filed.id for filed in page.letters], page.broken) == (ids(1, 3), ())
    assert "was cut short by a crash" in ctx.logs[-1].message
    assert (tmp_path / "dead.jsonl.torn").exists()


async def test_a_last_letter_that_lacks_only_its_newline_is_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1)])
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    page = await store.list()
    assert ([filed.id for filed in page.letters], page.broken) == (ids(1), ())
    await store.write([sample_letter(2)])
    assert await ids_in(store) == ids(1, 2)


async def test_lines_that_are_no_letters_are_named_with_file_and_line_and_the_others_are_given(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1)])
    with path.open("ab") as file:
        file.write(b'{"kind":"letter","id":1}\n\xff\xfe\n\n{"a": 1}\n')
    await store.write([sample_letter(2), sample_letter(3)])
    first = await store.list(limit=1)
    assert [entry.where for entry in first.broken] == [f"{path}:{line}" for line in (2, 3, 4, 5)]
    rest = await store.list(after=first.next)
    assert [filed.id for filed in (*first.letters, *rest.letters)] == ids(1, 2, 3)
    assert rest.broken == (), "each is named once"
    await store.mark(ids(2), "redriven")
    assert (await store.get(ids(2)[0])).state == "redriven"


async def test_a_line_longer_than_any_letter_is_passed_over_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_LINE_BYTES > 1 << 20
    monkeypatch.setattr("connectors.files.letters.MAX_LINE_BYTES", 2_000)
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1), sample_letter(2, record="x" * 9_000), sample_letter(3)])
    page = await store.list()
    assert [filed.id for filed in page.letters] == ids(1, 3)
    assert [(entry.where, entry.reason) for entry in page.broken] == [
        (f"{path}:2", "the line has more than 2000 bytes")
    ]


# --- other processes --------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from connectors.files.letters import FileLetters
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.contexts import StandaloneSinkContext

async def main(path, first):
    store = FileLetters(path)
    await store.open(StandaloneSinkContext())
    for number in range(first, first + 50):
        await store.write([sample_letter(number, record="x" * (number % 7) * 1000)])
        if number % 5 == 0:
            await store.mark([sample_letter(number).id], "redriven")
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_processes_that_write_and_mark_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), str(first), env=environment, stderr=subprocess.PIPE
        )
        for first in (0, 1_000, 2_000)
    ]
    store = await opened(path)
    while any(writer.returncode is None for writer in writers):
        page = await store.list(limit=1_000)
        assert page.broken == (), "a line that is being written is not broken"
        await asyncio.wait([asyncio.ensure_future(writer.wait()) for writer in writers], timeout=0.05)
    assert [(await writer.communicate())[1] for writer in writers] == [b""] * 3
    expected = [number for first in (0, 1_000, 2_000) for number in range(first, first + 50)]
    page = await store.list(limit=1_000)
    assert sorted(filed.id for filed in page.letters) == ids(*expected)
    marked = {filed.id for filed in page.letters if filed.state == "redriven"}
    assert marked == set(ids(*(number for number in expected if number % 5 == 0)))


async def test_a_file_somebody_else_keeps_locked_is_an_error_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    sink = FilesSink(FilesSinkConfig(path=str(path)))
    await sink.open(StandaloneSinkContext())
    ctx = StandaloneSinkContext()
    store = await opened(path, ctx)
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    waiting = asyncio.ensure_future(store.write([sample_letter(1)]))
    await asyncio.sleep(0.1)
    await sink.close()
    await waiting
    assert await ids_in(store) == ids(1)


async def test_a_lock_that_is_never_given_back_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.files.letters._PATIENCE_S", 0.1)
    monkeypatch.setattr("connectors.files.letters._SLICE_S", 0.0)
    path = tmp_path / "dead.jsonl"
    sink = FilesSink(FilesSinkConfig(path=str(path)))
    await sink.open(StandaloneSinkContext())
    store = await opened(path)
    with pytest.raises(SinkError, match=r"locked by another writer.*keep dead letters in a file"):
        await store.write([sample_letter(1)])
    await sink.close()


async def test_a_file_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    """As logs are rotated: the old file keeps its letters, the new one its own states."""
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1)])
    await store.mark(ids(1), "redriven")
    path.rename(tmp_path / "old.jsonl")
    await store.write([sample_letter(1), sample_letter(2)])
    page = await store.list()
    assert [(filed.id, filed.state) for filed in page.letters] == [(each, "pending") for each in ids(1, 2)]
    old = await opened(tmp_path / "old.jsonl")
    assert (await old.get(ids(1)[0])).state == "redriven"


# --- the rest ---------------------------------------------------------------------------------------------


async def test_reading_makes_no_file_and_needs_no_permission_to_write(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "dead.jsonl"
    store = await opened(path)
    assert (await store.list()).letters == ()
    assert not path.parent.exists()
    await store.write([sample_letter(1)])
    path.chmod(0o400)
    assert await ids_in(store) == ids(1)


async def test_a_place_in_a_page_that_is_none_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path / "dead.jsonl")
    await store.write([sample_letter(1), sample_letter(2)])
    for place in ("", "x", "1", "5:1", "99999:3", "-1:0", "1:2:3"):
        with pytest.raises(LetterNotFoundError, match="is no place in"):
            await store.list(after=place)


async def test_letters_are_lines_any_tool_reads(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    store = await opened(path)
    await store.write([sample_letter(1)])
    await store.replace(ids(1)[0], {"order": "other"})
    await store.mark(ids(1), "resolved", note="done by hand")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["letter", "edit", "mark"]
    assert {line["id"] for line in lines} == set(ids(1))
    assert lines[0]["record"] == {"order": 1}


async def test_a_filter_by_id_finds_a_letter_among_many(tmp_path: Path) -> None:
    store = await opened(tmp_path / "dead.jsonl")
    await store.write([sample_letter(number) for number in range(3_000)])
    wanted = LetterFilter(ids=frozenset(ids(7, 2_999)))
    assert [filed.id for filed in (await store.list(wanted)).letters] == ids(7, 2_999)


@pytest.mark.parametrize(
    "config",
    [
        {"path": "dead.csv"},
        {"path": "dead.jsonl", "mode": "atomic"},
        {"path": "dead.jsonl.gz", "mode": "atomic"},
        {"path": "dead.txt", "format": "lines"},
    ],
)
def test_a_file_that_cannot_be_appended_to_line_by_line_holds_no_letters(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cannot hold dead letters"):
        FilesSink.dead_letters(FilesSinkConfig(**config))  # type: ignore[arg-type] - literals by value


async def test_a_path_outside_the_roots_is_refused(tmp_path: Path) -> None:
    store = FileLetters(str(tmp_path / "elsewhere.jsonl"))
    with pytest.raises(PathRefusedError):
        await store.open(StandaloneSinkContext(roots=[str(tmp_path / "allowed")]))
