"""Rotation of every kind, real files: what was written is read, or it is said what is gone."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.files.finding import Rotation
from connectors.files.opening import Layout, OpenFile
from connectors.files.rotation import is_rotation_of, siblings_of
from connectors.formats.csv_decoding import CsvDialect
from flowcore.errors import PositionLostError, SourceError
from tests.connectors.files.rotating import Follower, Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
async def follow(log: Log) -> AsyncIterator[Callable[..., Follower]]:
    """Makes followers of the log, and closes them whatever happens."""
    made: list[Follower] = []

    def make(**config: Any) -> Follower:
        made.append(Follower(log, **config))
        return made[-1]

    yield make
    for follower in made:
        await follower.crash()


Follow = Callable[..., Follower]


def rename(log: Log) -> None:
    log.rename()


def rename_twice(log: Log) -> None:
    log.rename()
    log.write(2)
    log.rename(create=False)


def rename_and_compress(log: Log) -> None:
    log.compress(log.rename())


def rename_twice_and_compress_both(log: Log) -> None:
    rename_twice(log)
    log.compress(log.path.with_name("app.log.2"), "zst", keep_time=False)
    log.compress(log.path.with_name("app.log.1"), "gz", keep_time=False)


def copy_and_truncate(log: Log) -> None:
    log.copy_and_truncate()


def copy_and_truncate_twice(log: Log) -> None:
    log.copy_and_truncate()
    log.write(3)
    log.copy_and_truncate()


def copy_truncate_and_compress(log: Log) -> None:
    log.copy_and_truncate()
    log.compress(log.path.with_name("app.log.1"), "zst")


ROTATIONS: list[Any] = [
    rename, rename_twice, rename_and_compress, rename_twice_and_compress_both,
    copy_and_truncate, copy_and_truncate_twice, copy_truncate_and_compress,
]  # fmt: skip


@pytest.mark.parametrize("rotate", ROTATIONS)
async def test_a_rotation_and_a_crash_before_the_first_commit_lose_nothing(
    log: Log, follow: Follow, rotate: Any
) -> None:
    """Where a run begins is kept before it reads; it is not the file that bears the name afterwards."""
    log.write(5)
    follower = follow()
    await follower.start()
    assert await follower.take(2) == 2
    log.write(2)
    rotate(log)
    log.write(3)
    await follower.restart()
    await follower.finish()


@pytest.mark.parametrize("rotate", ROTATIONS)
@pytest.mark.parametrize("is_down", [True, False])
async def test_what_was_unread_at_a_rotation_is_read_from_where_it_is_now(
    log: Log, follow: Follow, rotate: Any, *, is_down: bool
) -> None:
    follower = follow()
    log.write(5, width=100)
    await follower.start()
    assert await follower.take(2) == 2
    follower.commit()
    if is_down:
        await follower.crash()
    log.write(2)
    rotate(log)
    log.write(3)
    rotate(log)
    log.write(1)
    if is_down:
        await follower.start()
    await follower.finish()
    assert follower.warnings == []


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("rotate", ROTATIONS)
async def test_a_file_that_was_empty_or_absent_at_the_first_start_is_read_whole(
    log: Log, follow: Follow, rotate: Any, *, exists: bool
) -> None:
    """Rotations from before the first start are not read; those since are."""
    log.path.write_text("from before\n")
    log.compress(log.rename(create=exists))
    follower = follow()
    await follower.start()
    await follower.take_all()
    log.write(3)
    rotate(log)
    log.write(2)
    await follower.restart()
    await follower.finish()


async def test_reading_stops_and_goes_on_inside_a_compressed_file(log: Log, follow: Follow) -> None:
    log.write(2000, width=200)
    follower = follow()
    await follower.start()
    await follower.take(10)
    follower.commit()
    await follower.crash()
    log.compress(log.rename())
    log.write(1)
    while follower.read < 2001:
        await follower.start()
        assert await follower.take(700)
        follower.commit()
        await follower.crash()
    await follower.start()
    await follower.finish()


async def test_the_oldest_rotation_is_begun_with_when_asked_for(log: Log, follow: Follow) -> None:
    log.write(2)
    log.compress(log.rename())
    log.write(2)
    log.rename()
    log.write(2)
    follower = follow(begin="oldest")
    await follower.start()
    await follower.finish()


# --- compressed files that are not whole ------------------------------------------------------------------


async def cut_short(log: Log, follow: Follow, **config: Any) -> tuple[Follower, Path, bytes]:
    """A follower whose file has become a compressed one that is still being written."""
    log.write(4000, width=300)
    follower = follow(**config)
    await follower.start()
    await follower.take(1)
    follower.commit()
    await follower.crash()
    compressed = log.compress(log.rename())
    whole = compressed.read_bytes()
    compressed.write_bytes(whole[: len(whole) // 2])
    await follower.start()
    return follower, compressed, whole


async def test_a_compressed_file_in_the_making_is_waited_for(log: Log, follow: Follow) -> None:
    follower, compressed, whole = await cut_short(log, follow, rotate_wait=timedelta(hours=1))
    waiting = asyncio.create_task(follower.take(3999))
    await follower.looked(3)
    assert 0 < follower.read < 4000
    compressed.write_bytes(whole)
    assert await waiting == 3999
    await follower.finish()


async def test_a_compressed_file_that_stays_cut_short_is_an_error_that_names_it(
    log: Log, follow: Follow
) -> None:
    follower, _, _ = await cut_short(log, follow)
    follower.patience_s = 3600
    with pytest.raises(SourceError, match=r"app\.log\.1\.gz: the gzip data is damaged or cut short"):
        await follower.take(4000)


async def test_a_file_is_not_read_from_its_half_compressed_form_while_it_is_there_itself(
    log: Log, follow: Follow
) -> None:
    log.write(5)
    follower = follow()
    await follower.start()
    await follower.take(1)
    follower.commit()
    await follower.crash()
    rotated = log.rename()
    rotated.with_name("app.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes())[:12])
    log.write(1)
    await follower.start()
    await follower.finish()


# --- what is lost, and said -------------------------------------------------------------------------------


async def test_what_is_in_an_unknown_compression_or_gone_is_a_lost_position_that_says_so(
    log: Log, follow: Follow
) -> None:
    log.write(5)
    follower = follow()
    await follower.start()
    await follower.take(2)
    follower.commit()
    rotated = log.rename()
    rotated.rename(rotated.with_name("app.log.1.xz"))
    (log.path.with_name("app.log.2.gz")).write_bytes(b"no gzip at all")
    await follower.restart()
    with pytest.raises(PositionLostError) as caught:
        await follower.take(1)
    await follower.crash()
    assert "cannot resume after line 2" in str(caught.value)
    assert "app.log.1.xz (its compression is not known)" in str(caught.value)
    assert "app.log.2.gz (" in str(caught.value)
    assert "on_lost_position: restart" in str(caught.value)


async def test_lines_written_to_a_rotated_file_after_it_was_left_are_never_passed_over_in_silence(
    log: Log,
    follow: Follow,
) -> None:
    """The writer kept the old file open for longer than `rotate_wait`."""
    log.write(2)
    follower = follow()
    await follower.start()
    rotated = log.rename()
    log.write(1)
    await follower.take_all()
    late = "late\n"
    with rotated.open("a") as file:
        file.write(late)
    with pytest.raises(PositionLostError, match=f"{len(late)} bytes were added .* Raise rotate_wait"):
        await follower.take(1)
    log.write(1)
    await follower.finish()


async def test_a_rotated_file_is_kept_until_the_writer_has_gone_on(log: Log, follow: Follow) -> None:
    """As long as the new file is empty, the old one may still be written, however long it was quiet."""
    log.write(2)
    follower = follow()
    await follower.start()
    rotated = log.rename()
    await follower.take_all()
    log.write(2, to=rotated)
    await follower.take_all()
    log.write(1)
    await follower.finish()


async def test_a_rotation_after_a_long_lull_still_waits_for_the_writer(log: Log, follow: Follow) -> None:
    """The wait counts from when the rotation is noticed, not from the last line."""
    log.write(1)
    follower = follow(rotate_wait=timedelta(seconds=20))
    await follower.start()
    await follower.take_all()
    follower.pass_time(3600)
    rotated = log.rename()
    log.path.write_text("new\n")
    waiting = asyncio.create_task(follower.take(1))
    await follower.looked(20)
    log.write(1, to=rotated)
    assert await waiting == 1
    log.lines.append("new")
    await follower.finish()


async def test_a_truncated_file_that_grew_past_the_old_place_with_the_same_head_is_noticed(
    log: Log, follow: Follow
) -> None:
    """Logs whose files all begin with the same banner: the bytes before the position decide."""
    banner = "# the same banner in every file ".ljust(300, "#")
    log.path.write_text(banner + "\n")
    log.lines.append(banner)
    log.write(20)
    follower = follow()
    await follower.start()
    await follower.take(15)
    follower.commit()
    for restart in (False, True):
        log.copy_and_truncate()
        with log.path.open("a") as file:
            file.write(banner + "\n")
        log.lines.append(banner)
        log.write(100)
        if restart:
            await follower.restart()
        assert await follower.take(30) == 30
        follower.commit()
    await follower.finish()


async def test_files_that_begin_alike_are_read_from_the_older_one_with_a_warning(
    log: Log, follow: Follow
) -> None:
    """Repeating lines is the lesser evil; which of the two it was cannot be known."""
    log.write(3)
    follower = follow()
    await follower.start()
    await follower.take(2)
    follower.commit()
    await follower.crash()
    log.copy_and_truncate()
    log.make_room()
    shutil.copy2(log.path.with_name("app.log.2"), log.path.with_name("app.log.3"))
    log.lines[3:] = log.lines[:3]
    log.write(1)
    await follower.start()
    await follower.take_all()
    await follower.crash()
    assert "hold the same bytes up to line 2" in follower.warnings[0]


async def test_a_deleted_file_is_let_go_and_its_successor_read_with_a_warning(
    log: Log, follow: Follow
) -> None:
    """Rotation that keeps nothing: the lines are read, and what cannot be known is said."""
    log.write(2)
    follower = follow()
    await follower.start()
    await follower.take(2)
    log.path.unlink()
    log.write(2)
    await follower.take_all()
    await follower.crash()
    assert "was deleted after its 2 lines were read" in follower.warnings[0]


# --- order and names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rotated"),
    [
        ("app.log.1", True), ("app.log.10.gz", True), ("app.log-20260101.zst", True), ("app.log.old", True),
        ("app.log.2026-01-01T10:00:00", True), ("app.log.2026-01-01.2", True), ("app.log", False),
        ("app.log.1.gz.tmp", False), ("app.log.1.xz", False), ("app.log.txt", False), ("app.log2", False),
        ("app.log.gz", False), ("other.log.1", False),
    ],
)  # fmt: skip
def test_which_names_are_rotations(name: str, *, rotated: bool) -> None:
    assert is_rotation_of(name, "app.log") == rotated


def order(folder: Path, names: list[str], **options: Any) -> list[str]:
    """The names as they are ordered, when each is a second younger than the one before."""
    for at, name in enumerate(names):
        (folder / name).write_text(name)
        os.utime(folder / name, (at, at))
    return [Path(sibling.path).name for sibling in siblings_of(str(folder / "app.log"), **options)]


def test_the_number_decides_whatever_the_times_of_compressed_files_are(tmp_path: Path) -> None:
    names = ["app.log.2.gz", "app.log.3.gz", "app.log.4", "app.log.1", "app.log"]
    assert order(tmp_path, names) == ["app.log.4", "app.log.3.gz", "app.log.2.gz", "app.log.1", "app.log"]


def test_numbers_against_times_are_an_error_unless_it_is_said_what_they_mean(tmp_path: Path) -> None:
    names = ["app.log.1", "app.log.2", "app.log.10", "app.log"]
    with pytest.raises(SourceError, match="set numbered: up if the highest number is the youngest"):
        order(tmp_path, names)
    assert order(tmp_path, names, numbered="up") == names
    assert order(tmp_path, names, numbered="down") == ["app.log.10", "app.log.2", "app.log.1", "app.log"]


def test_dates_in_names_decide_and_names_of_several_forms_go_by_time(tmp_path: Path) -> None:
    dated = ["app.log-20260301.gz", "app.log-20260101", "app.log-20260201", "app.log"]
    assert order(tmp_path, dated) == [
        "app.log-20260101",
        "app.log-20260201",
        "app.log-20260301.gz",
        "app.log",
    ]
    mixed = ["app.log.old", "app.log.1", "app.log-20260101", "app.log-20260201", "app.log-20260301.gz"]
    assert order(tmp_path, [*mixed, "app.log"]) == [*mixed, "app.log"]


async def test_files_numbered_upward_are_followed(log: Log, follow: Follow, tmp_path: Path) -> None:
    follower = follow(numbered="up")
    log.write(2)
    await follower.start()
    await follower.take(1)
    follower.commit()
    for number in (1, 2, 3):
        log.path.rename(tmp_path / f"app.log.{number}")
        log.write(2)
    await follower.restart()
    await follower.finish()


# --- links and races --------------------------------------------------------------------------------------


async def test_a_link_among_the_rotations_is_never_followed(log: Log, follow: Follow, tmp_path: Path) -> None:
    """It could lead out of the allowed roots."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    log.write(1)
    follower = follow()
    await follower.start()
    await follower.take_all()
    log.rename(create=False)
    log.path.with_name("app.log.0").symlink_to(secret)
    log.path.symlink_to(secret)
    with pytest.raises(PositionLostError, match="leads to"):
        await follower.take(1)


async def test_a_link_that_is_switched_is_an_error_and_not_a_standstill(
    log: Log, follow: Follow, tmp_path: Path
) -> None:
    real = tmp_path / "app-1.txt"
    log.path.symlink_to(real)
    log.write(1)
    follower = follow()
    await follower.start()
    await follower.take_all()
    log.path.unlink()
    log.path.symlink_to(tmp_path / "app-2.txt")
    with pytest.raises(PositionLostError, match="a link that is switched is not followed"):
        await follower.take(1)


def test_a_file_that_took_the_place_of_the_one_meant_is_as_good_as_absent(log: Log) -> None:
    """Between listing the folder and opening a file it may be rotated on."""
    log.write(1)
    dialect = CsvDialect()
    layout = Layout(format="lines", encoding="utf-8", max_line_bytes=1024, dialect=dialect, lossless=False)
    listed = Rotation(str(log.path), None).siblings()[0]
    log.rename()
    with pytest.raises(FileNotFoundError):
        OpenFile("app.log", listed.path, layout, None, inode=listed.inode)


@pytest.mark.parametrize("compress", [False, True])
async def test_rotating_as_fast_as_possible_while_it_is_read_loses_nothing(
    log: Log, follow: Follow, *, compress: bool
) -> None:
    """A thread writes and rotates in real time, between any two steps of the reader."""
    log.write(1)
    follower = follow()
    follower.patience_s = 1e9
    await follower.start()
    counts = [1 + turn % 3 for turn in range(120)]

    def rotate() -> None:
        for turn, count in enumerate(counts):
            log.write(count, width=turn)
            rotated = log.rename(create=turn % 2 == 0)
            if compress and turn % 4 == 0:
                log.compress(rotated, "gz" if turn % 8 else "zst")

    rotating = asyncio.create_task(asyncio.to_thread(rotate))
    while follower.read < 1 + sum(counts):
        await follower.take(1)
        if follower.read % 50 == 49:
            follower.commit()
            await follower.restart()
    await rotating
    await follower.take_all()
    await follower.crash()


class Restless:
    """In place of os.listdir: before each look at the folder one more rotation comes, or goes."""

    def __init__(self, log: Log) -> None:
        self.turns = 0
        self._extra = log.path.with_name("app.log.9")
        self._listdir = os.listdir

    def __call__(self, folder: str) -> list[str]:
        if self.turns > 0:
            self.turns -= 1
            if self._extra.exists():
                self._extra.unlink()
            else:
                self._extra.touch()
        return self._listdir(folder)


async def test_a_folder_that_is_never_twice_alike_is_looked_at_again_later(
    log: Log, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    restless = Restless(log)
    monkeypatch.setattr(os, "listdir", restless)
    log.write(3)
    follower = follow()
    restless.turns = 1_000
    await follower.start()
    log.rename()
    log.write(2)
    restless.turns = 2_000
    await follower.finish()
    assert restless.turns == 0


@pytest.mark.parametrize("started", [False, True])
async def test_a_folder_that_is_never_twice_alike_for_a_minute_is_an_error(
    log: Log, follow: Follow, monkeypatch: pytest.MonkeyPatch, *, started: bool
) -> None:
    restless = Restless(log)
    monkeypatch.setattr(os, "listdir", restless)
    log.write(3)
    follower = follow()
    follower.patience_s = 1e9
    restless.turns = 0 if started else 1_000_000

    async def follow_on() -> None:
        await follower.start()
        restless.turns = 1_000_000
        await follower.take(1)

    with pytest.raises(SourceError, match="rotated faster than its folder can be listed"):
        await follow_on()
