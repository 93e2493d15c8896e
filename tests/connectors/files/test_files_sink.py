"""files.sink: whole lines or none, one writer, and what a crash left is repaired and said."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.output import AppendFile
from connectors.files.sink import FilesSink, FilesSinkConfig
from connectors.files.source import FilesSource, FilesSourceConfig
from connectors.formats.encoding import CsvEncoder
from flowcore.connector import Credit, Rows
from flowcore.errors import ConfigError, PathRefusedError, SinkError
from flowruntime.testing.contexts import StandaloneSinkContext, StandaloneSourceContext


def bytes_of(path: object) -> bytes | None:
    file = Path(str(path))
    return file.read_bytes() if file.exists() else None


def sink(path: object, **config: Any) -> FilesSink:
    return FilesSink(FilesSinkConfig(path=str(path), **config))


async def opened(path: object, ctx: StandaloneSinkContext | None = None, **config: Any) -> FilesSink:
    made = sink(path, **config)
    await made.open(ctx or StandaloneSinkContext())
    return made


@contextmanager
def file_size_limit(limit: int) -> Generator[None]:
    """The system refuses to make a file larger: what a full disk does, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("mode", ["append", "atomic"])
async def test_a_full_disk_leaves_no_half_line_and_the_rows_can_be_written_again(
    tmp_path: Path, mode: Any
) -> None:
    path = tmp_path / "out.txt"
    made = await opened(path, mode=mode)
    await made.write(Rows(["first"]))
    with (
        file_size_limit(1000),
        pytest.raises(SinkError, match="the file would be larger"),
    ):
        await made.write(Rows(["x" * 2000]))
    assert not await made.write(Rows(["x" * 2000]))
    await made.finish()
    await made.close()
    assert path.read_text() == "first\n" + "x" * 2000 + "\n"


@contextmanager
def failing_fsync(path: Path) -> Generator[None]:
    """The next fsync of that file fails, those after it succeed: what the system does when a disk fails."""
    real = os.fsync
    failed: list[int] = []

    def fsync(descriptor: int) -> None:
        if not failed and path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
            failed.append(descriptor)
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield
    assert failed


async def test_after_a_failed_fsync_nothing_more_is_written_and_a_new_sink_goes_on(tmp_path: Path) -> None:
    """A second fsync succeeds, whatever has become of what the first one could not put on the disk."""
    path = tmp_path / "out.txt"
    made = await opened(path)
    await made.write(Rows(["first"]))
    with failing_fsync(path), pytest.raises(SinkError, match="what of it is there cannot be known"):
        await made.write(Rows(["second"]))
    for _ in range(2):
        with pytest.raises(SinkError, match="cannot be written any more: the disk did not take"):
            await made.write(Rows(["third"]))
    await made.finish()
    await made.close()
    assert path.read_text() == "first\n"
    again = await opened(path)
    assert not await again.write(Rows(["second"]))
    await again.close()
    assert path.read_text() == "first\nsecond\n"


async def test_an_atomic_file_whose_fsync_failed_is_never_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    made = await opened(path, mode="atomic")
    await made.write(Rows(["new"]))
    with (
        failing_fsync(tmp_path / ".out.txt.partial"),
        pytest.raises(SinkError, match="what of it is there cannot be known"),
    ):
        await made.finish()
    for call in (made.finish(), made.write(Rows(["more"]))):
        with pytest.raises(SinkError, match="the disk did not take"):
            await call
    await made.close()
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["out.txt"]  # noqa: PTH208 - names are what is compared


@pytest.mark.parametrize("first", ["append", "atomic"])
@pytest.mark.parametrize("second", ["append", "atomic"])
async def test_two_sinks_never_write_one_file(tmp_path: Path, first: str, second: str) -> None:
    path = tmp_path / "out.jsonl"
    path.touch()
    one = await opened(path, mode=first)
    two = sink(path, mode=second)
    with pytest.raises(SinkError, match="is being written by another sink"):
        await two.open(StandaloneSinkContext())
    await two.close()
    await one.close()
    three = await opened(path, mode=second)
    await three.close()


@pytest.mark.parametrize(
    ("left", "kept", "torn"),
    [
        (b'{"a": 1}\n{"b', b'{"a": 1}\n', b'{"b\n'),
        (b"torn from the start", b"", b"torn from the start\n"),
        (b"1\n12", b"1\n", b"12\n"),
        (b'{"a": 1}\n{"b": 2}', b'{"a": 1}\n{"b": 2}\n', None),
        (b'{"a": 1}\n', b'{"a": 1}\n', None),
    ],
)
async def test_a_torn_last_line_is_moved_aside_and_reported(
    tmp_path: Path, left: bytes, kept: bytes, torn: bytes | None
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(left)
    ctx = StandaloneSinkContext()
    made = await opened(path, ctx)
    await made.write(Rows([{"c": 3}]))
    await made.close()
    assert path.read_bytes() == kept + b'{"c":3}\n'
    assert bytes_of(f"{path}.torn") == torn
    assert bool(ctx.logs) == (left[-1:] != b"\n")


async def test_a_csv_record_torn_inside_a_quoted_newline_is_moved_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b'a,b\n1,"x\ny"\n2,"torn\n')
    made = await opened(path)
    await made.write(Rows([{"b": "z", "a": 3}]))
    await made.close()
    assert path.read_bytes() == b'a,b\n1,"x\ny"\n3,z\n'
    assert bytes_of(f"{path}.torn") == b'2,"torn\n\n'


@settings(max_examples=60)
@given(
    table=st.lists(
        st.tuples(*[st.text(st.sampled_from('ab",\n\r ä'), max_size=4)] * 2), min_size=1, max_size=6
    ),
    cut=st.integers(0, 200),
)
def test_a_csv_file_cut_anywhere_keeps_its_whole_records_and_loses_no_byte(
    table: list[tuple[str, str]], cut: int
) -> None:
    encoder = CsvEncoder(columns=("a", "b"))
    records = [encoder.header(), *(encoder.encode({"a": a, "b": b}) for a, b in table)]
    data = b"".join(records)[: max(1, cut)]
    whole = b""
    for record in records:
        if len(whole) + len(record) > len(data):
            break
        whole += record
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.csv"
        path.write_bytes(data)
        file = AppendFile(str(path), format="csv", delimiter=",")
        file.open()
        file.close()
        assert path.read_bytes() == whole
        assert (bytes_of(f"{path}.torn") or b"\n") == data[len(whole) :] + b"\n"


async def test_a_quote_inside_a_cell_of_another_tool_is_text_and_nothing_is_moved(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    before = b"\xef\xbb\xbfa,b\r\n" + b'5" pipe,1\r\n' + b"x,2\r\n" * 1000
    path.write_bytes(before)
    ctx = StandaloneSinkContext()
    made = await opened(path, ctx)
    assert not await made.write(Rows([{"b": 3, "a": "y"}]))
    await made.close()
    assert path.read_bytes() == before + b"y,3\n"
    assert ctx.logs == []
    assert bytes_of(f"{path}.torn") is None


async def test_a_header_with_a_line_break_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    for _ in range(2):
        made = await opened(path)
        assert not await made.write(Rows([{"two\nlines": 1, "b": 2}]))
        await made.close()
    assert path.read_bytes() == b'"two\nlines",b\n1,2\n1,2\n'


async def test_a_file_that_is_no_csv_text_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"\xff\xfea\x00\n")
    with pytest.raises(SinkError, match="begins with no header that could be read"):
        await opened(path)
    assert path.read_bytes() == b"\xff\xfea\x00\n"


@pytest.mark.parametrize("name", ["out.jsonl", "out.txt", "out.csv"])
async def test_what_no_crash_can_have_left_is_not_moved_aside(tmp_path: Path, name: str) -> None:
    """A file of 65 MiB without a line end is something else; it stays as it is."""
    path = tmp_path / name
    size = 65 << 20
    with path.open("wb") as file:
        file.write(b'a,b\n"')
        file.truncate(size)
    with pytest.raises(SinkError, match=r"has no end after .* Repair it"):
        await opened(path)
    assert path.stat().st_size == size
    assert bytes_of(f"{path}.torn") is None


async def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    made = await opened(path)
    other = (
        "import asyncio, sys; from connectors.files.sink import FilesSink, FilesSinkConfig;"
        "from flowruntime.testing.contexts import StandaloneSinkContext;"
        "asyncio.run(FilesSink(FilesSinkConfig(path=sys.argv[1])).open(StandaloneSinkContext()))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", other, str(path), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    await made.close()
    assert process.returncode == 1
    assert b"is being written by another sink, here or in another process" in stderr


async def test_other_columns_than_those_of_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"a,b\n")
    made = sink(path, columns=("b", "a"))
    with pytest.raises(SinkError, match="has the columns a, b, configured are b, a"):
        await made.open(StandaloneSinkContext())
    await made.close()


async def test_an_atomic_file_replaces_the_old_one_at_the_end_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    path.chmod(0o640)
    (tmp_path / ".out.jsonl.partial").write_text("left by a crash\n")
    made = await opened(path, mode="atomic")
    await made.write(Rows([1]))
    assert path.read_text() == "old\n"
    await made.finish()
    await made.close()
    assert path.read_text() == "1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out.jsonl"]  # noqa: PTH208 - names are what is compared


async def test_an_atomic_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    made = await opened(tmp_path / "out.jsonl", mode="atomic")
    await made.write(Rows([1]))
    await made.close()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs here


async def test_places_that_cannot_be_written_say_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, why in [
        (tmp_path / "file" / "out.jsonl", "make the folder"),
        (tmp_path / "folder.jsonl", "is a folder"),
        (tmp_path / "pipe.jsonl", "no regular file"),
        (Path("/dev/full"), "no regular file"),
    ]:
        with pytest.raises(SinkError, match=why):
            await opened(path, format="jsonl")
    with pytest.raises(SinkError, match="create_folder: true"):
        await opened(tmp_path / "missing" / "out.jsonl", create_folder=False)
    with pytest.raises(PathRefusedError):
        await opened(tmp_path / "out.jsonl", StandaloneSinkContext(roots=[str(tmp_path / "inside")]))
    with pytest.raises(ConfigError, match="use mode: atomic"):
        sink(tmp_path / "out.jsonl.gz")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"])
async def test_what_the_sink_writes_lossless_the_source_reads_back(tmp_path: Path, name: str) -> None:
    rows: list[object] = [{"n": 2**70, "raw": b"\x00", "$x": 1}, "\ud800", [None, True, 1, 1.0], float("inf")]
    path = tmp_path / name
    made = await opened(path, mode="atomic", values="lossless")
    assert not await made.write(Rows(rows))
    await made.finish()
    await made.close()
    source = FilesSource(FilesSourceConfig(path=str(path), values="lossless"))
    reader = await source.open(str(path), None, StandaloneSourceContext())
    read = await reader.read(Credit(rows=10))
    await reader.close()
    assert read is not None
    assert read.values == rows
