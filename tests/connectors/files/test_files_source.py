"""files.source: which files, what is wrong with them, and where it may resume."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard

from connectors.files.source import FilesSource, FilesSourceConfig
from flowcore.connector import Assigned, Credit, Position
from flowcore.errors import ConfigError, PathRefusedError, PositionLostError, SourceError
from flowruntime.testing.contexts import StandaloneSourceContext


def source(path: object, **config: Any) -> FilesSource:
    return FilesSource(FilesSourceConfig(path=str(path), **config))


async def partitions(made: FilesSource, ctx: StandaloneSourceContext | None = None) -> list[str]:
    changes = made.assignments(ctx or StandaloneSourceContext())
    return [change.partition async for change in changes if isinstance(change, Assigned)]


async def read(
    made: FilesSource,
    path: object,
    resume: Position | None = None,
    *,
    ctx: StandaloneSourceContext | None = None,
    rows: int = 1000,
) -> tuple[list[object], Position | None]:
    """All rows, or the first `rows`, and the position after them."""
    reader = await made.open(str(path), resume, ctx or StandaloneSourceContext())
    values: list[object] = []
    position = resume
    try:
        while len(values) < rows and (got := await reader.read(Credit(rows=rows - len(values)))) is not None:
            values.extend(got.values)
            position = got.next
    finally:
        await reader.close()
    return values, position


async def test_a_folder_is_its_files_of_known_formats_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv.gz", ".hidden.jsonl", "notes.pdf"):
        (tmp_path / name).touch()
    assert await partitions(source(tmp_path)) == [f"{tmp_path}/a.csv.gz", f"{tmp_path}/b.jsonl"]


async def test_a_pattern_descends_and_a_file_whose_name_looks_like_one_is_itself(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.jsonl").touch()
    (tmp_path / "[x].jsonl").touch()
    assert await partitions(source(tmp_path / "**" / "x.jsonl")) == [f"{tmp_path}/deep/x.jsonl"]
    assert await partitions(source(tmp_path / "[x].jsonl")) == [f"{tmp_path}/[x].jsonl"]


@pytest.mark.parametrize("name", ["gone.jsonl", "gone-*.jsonl", ""])
async def test_nothing_to_read_is_an_error_that_names_the_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="check path"):
        await partitions(source(tmp_path / name))


async def test_files_outside_the_allowed_roots_are_refused_links_included(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.jsonl").touch()
    (inside / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    ctx = StandaloneSourceContext(roots=[str(inside)])
    for path in (tmp_path / "secret.jsonl", inside / "link.jsonl", inside / "*.jsonl", inside):
        with pytest.raises(PathRefusedError):
            await partitions(source(path), ctx)


async def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe.jsonl", "folder.jsonl"):
        with pytest.raises(SourceError, match="reads regular files"):
            await read(source(tmp_path / name), tmp_path / name)


async def test_an_unknown_extension_or_encoding_says_what_to_set(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_text("x\n")
    with pytest.raises(ConfigError, match="set format to jsonl, csv or lines"):
        await read(source(path), path)
    with pytest.raises(ConfigError, match="encoding 'utf-9' is not known"):
        source(path, encoding="utf-9")


async def test_utf_16_read_as_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("hällo\n", encoding="utf-16")
    with pytest.raises(SourceError, match="set encoding: utf-16"):
        await read(source(path), path)
    assert await read(source(path, encoding="latin-1"), path) != []


async def test_utf_16_without_its_byte_order_mark_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("hällo\n".encode("utf-16-le"))
    with pytest.raises(SourceError, match=r"not utf-16 text near byte .* \(.*BOM.*\); set encoding"):
        await read(source(path, encoding="utf-16"), path)


@pytest.mark.parametrize("extension", ["gz", "zst"])
async def test_compressed_data_cut_short_gives_its_rows_and_then_an_error(
    tmp_path: Path, extension: str
) -> None:
    path = tmp_path / f"data.txt.{extension}"
    data = b"".join(b"line %d %s\n" % (number, os.urandom(40).hex().encode()) for number in range(20_000))
    compress = gzip.compress if extension == "gz" else zstandard.ZstdCompressor().compress
    path.write_bytes(compress(data)[:-5])
    reader = await source(path).open(str(path), None, StandaloneSourceContext())
    counts: list[int] = []

    async def drain() -> None:
        while (rows := await reader.read(Credit(rows=1000))) is not None:
            counts.append(len(rows))

    with pytest.raises(SourceError, match="damaged or cut short"):
        await drain()
    await reader.close()
    assert sum(counts) > 10_000


async def test_a_file_that_grew_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1\n2")
    values, position = await read(source(path), path)
    assert values == ["1", "2"]
    with path.open("a") as file:
        file.write("\n3\n")
    assert (await read(source(path), path, position))[0] == ["3"]


async def test_a_last_line_that_was_continued_since_is_a_lost_position(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1\n2")
    _, position = await read(source(path), path)
    with path.open("a") as file:
        file.write("34\n")
    with pytest.raises(PositionLostError, match="line 2 had no newline when it was read"):
        await read(source(path), path, position)


def truncate(path: Path) -> None:
    path.write_text("1\n")


def rewrite(path: Path) -> None:
    path.write_text("another file, longer than before\n")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize("change", [truncate, rewrite, replace, Path.unlink])
async def test_a_truncated_or_replaced_file_is_a_lost_position(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1\n2\n3\n")
    _, position = await read(source(path), path, rows=2)
    change(path)
    with pytest.raises(PositionLostError, match="cannot resume after line 2"):
        await read(source(path), path, position)
    if path.exists():
        ctx = StandaloneSourceContext()
        values, _ = await read(source(path, on_lost_position="restart"), path, position, ctx=ctx)
        assert values == path.read_text().split("\n")[:-1]
        assert "cannot resume" in ctx.logs[0].message


@pytest.mark.parametrize(
    "position", [7, "x", {}, {"offset": -1, "line": 0, "inode": 1, "head": "", "head_bytes": 0}]
)
async def test_a_position_of_something_else_is_refused(tmp_path: Path, position: Position) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1\n")
    with pytest.raises(PositionLostError, match="is no position of a file"):
        await read(source(path), path, position)


async def test_given_columns_replace_the_header(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("x\ty\n1\t2\n")
    assert (await read(source(path, columns=("a", "b"), header=True), path))[0] == [{"a": "1", "b": "2"}]
    assert (await read(source(path, columns=("a", "b")), path))[0][0] == {"a": "x", "b": "y"}
    assert (await read(source(path, header=False), path))[0] == [["x", "y"], ["1", "2"]]


async def test_origin_says_in_each_row_where_it_begins(tmp_path: Path) -> None:
    """A quoted line break and a blank line are counted; so is what a position had passed over."""
    path = tmp_path / "a.csv"
    path.write_text('text,kind\none,a\n"two\nlines",b\n\nthree,c\n')
    made = source(path, origin="at")
    rows, _ = await read(made, path)
    assert [row["at"] for row in rows if isinstance(row, dict)] == [
        {"path": str(path), "line": 2},
        {"path": str(path), "line": 3},
        {"path": str(path), "line": 6},
    ]
    _, after = await read(made, path, rows=2)
    assert await read(made, path, after) == (rows[2:], (await read(made, path))[1])


async def test_a_row_that_cannot_take_its_origin_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n[2]\n{"at": 3}\n')
    reader = await source(path, origin="at").open(str(path), None, StandaloneSourceContext())
    got = await reader.read(Credit(rows=9))
    await reader.close()
    assert got is not None
    assert got.values == [{"a": 1, "at": {"path": str(path), "line": 1}}, [2], {"at": 3}]
    assert got.errors is not None
    assert "a.jsonl:2: the row has no fields" in str(got.errors[1])
    assert "a.jsonl:3: the row has a field 'at' already" in str(got.errors[2])


def test_origin_is_refused_for_rows_of_text() -> None:
    with pytest.raises(ConfigError, match="needs rows with fields"):
        source("a.txt", format="lines", origin="at")
