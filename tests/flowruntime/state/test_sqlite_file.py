"""One SQLite file of ours: what is refused stays as it was, what was answered is there, none starts empty."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowcore.errors import FlowError
from flowcore.store_errors import (
    StoreAccessError,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFormatError,
    StoreFullError,
    StoreTimeoutError,
    StoreVersionError,
)
from flowruntime.state.positions import FORMAT as POSITIONS
from flowruntime.state.positions import PositionStore
from flowruntime.state.sqlite_file import SqliteFile
from flowruntime.state.sqlite_format import SqliteFormat
from flowruntime.testing.virtual import run_virtual

NUMBERS = SqliteFormat(
    what="numbers",
    mark=0x31323334,
    migrations=(("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT)",),),
)


async def add(file: SqliteFile, number: int, text: str = "x") -> int:
    return await file.write(
        lambda connection: connection.execute("INSERT INTO numbers VALUES (?, ?)", (number, text)).rowcount,
        doing="add",
    )


async def numbers(file: SqliteFile) -> list[int]:
    return await file.read(
        lambda connection: [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")],
        doing="numbers",
    )


async def filled(path: Path, *, rows: int = 3) -> None:
    """A file with some numbers, closed."""
    file = SqliteFile(path, NUMBERS)
    for number in range(rows):
        await add(file, number, "x" * 200)
    await file.aclose()


async def refusal(path: Path, format: SqliteFormat = NUMBERS) -> FlowError:
    """What a first write meets; the file and its folder stay as they were."""
    before = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    file = SqliteFile(path, format)
    with pytest.raises(StoreError) as refused:
        await add(file, 99)
    with pytest.raises(type(refused.value)):
        await numbers(file)
    await file.aclose()
    assert {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()} == before
    assert str(path) in refused.value.message
    assert not refused.value.retriable
    return refused.value


# --- what is no file of ours ----------------------------------------------------------------------------


async def test_a_text_file_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("important notes\n" * 500)
    assert isinstance(await refusal(path), StoreFormatError)


async def test_a_database_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    for mark in (0, 7):
        path = tmp_path / f"other-{mark}.sqlite"
        connection = sqlite3.connect(path)
        connection.executescript(f"PRAGMA application_id={mark}; CREATE TABLE theirs (a)")
        connection.close()
        fault = await refusal(path)
        assert isinstance(fault, StoreFormatError)
        assert "theirs" in fault.message


async def test_files_of_ours_are_not_taken_for_each_other(tmp_path: Path) -> None:
    await filled(tmp_path / "numbers.sqlite")
    fault = await refusal(tmp_path / "numbers.sqlite", POSITIONS)
    assert "is not a file of positions but another SQLite database" in fault.message


async def test_an_empty_file_is_one_that_was_cut_and_never_a_beginning(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    path.touch()
    fault = await refusal(path)
    assert isinstance(fault, StoreFormatError)
    assert "delete it to begin anew" in fault.message


async def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    path.mkdir()
    assert isinstance(await refusal(path), StoreError)
    path = tmp_path / "file" / "numbers.sqlite"
    path.parent.write_text("a file where a folder should be")
    file = SqliteFile(path, NUMBERS)
    with pytest.raises(StoreFailedError, match=r"Not a directory|File exists"):
        await add(file, 1)
    await file.aclose()


async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    newer = SqliteFormat(
        what="numbers",
        mark=NUMBERS.mark,
        migrations=(*NUMBERS.migrations, ("ALTER TABLE numbers ADD COLUMN more TEXT",)),
    )
    file = SqliteFile(path, newer)
    await file.write(lambda connection: connection.execute("SELECT 1").fetchall(), doing="open")
    await file.aclose()
    fault = await refusal(path)
    assert isinstance(fault, StoreVersionError)
    assert (fault.facts()["found"], fault.facts()["known"]) == (2, 1)


# --- versions -------------------------------------------------------------------------------------------


async def test_an_older_file_is_brought_up_to_date_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    await filled(path)
    newer = SqliteFormat(
        what="numbers",
        mark=NUMBERS.mark,
        migrations=(
            *NUMBERS.migrations,
            ("ALTER TABLE numbers ADD COLUMN more TEXT", "UPDATE numbers SET more = 'm' || n"),
            ("CREATE INDEX numbers_by_more ON numbers (more)",),
        ),
    )
    files = [SqliteFile(path, newer) for _ in range(4)]
    found = await asyncio.gather(*(numbers(file) for file in files))
    assert found == [[0, 1, 2]] * 4, "several at once: one does it"
    rows = await files[0].read(lambda c: c.execute("SELECT n, more FROM numbers").fetchall(), doing="read")
    assert rows == [(0, "m0"), (1, "m1"), (2, "m2")]
    for file in files:
        await file.aclose()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    await filled(path)
    broken = SqliteFormat(
        what="numbers",
        mark=NUMBERS.mark,
        migrations=(*NUMBERS.migrations, ("CREATE TABLE second (a)", "CREATE TABLE numbers (again)")),
    )
    await refusal(path, broken)
    file = SqliteFile(path, NUMBERS)
    assert await numbers(file) == [0, 1, 2]
    tables = await file.read(lambda c: c.execute("SELECT name FROM sqlite_master").fetchall(), doing="read")
    assert tables == [("numbers",)]
    await file.aclose()


async def test_positions_of_before_there_was_a_mark_are_still_known(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "positions.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(
        "CREATE TABLE positions (workflow TEXT NOT NULL, node TEXT NOT NULL, partition TEXT NOT NULL,"
        " position BLOB NOT NULL, PRIMARY KEY (workflow, node, partition));"
        "INSERT INTO positions VALUES ('wf', 's', '0', CAST('{\"offset\":7}' AS BLOB))"
    )
    connection.close()
    for _ in range(2):
        store = PositionStore(str(tmp_path))
        assert await store.load("wf", "s", "0") == {"offset": 7}
        await store.aclose()
    connection = sqlite3.connect(tmp_path / "positions.sqlite")
    assert connection.execute("PRAGMA application_id").fetchone() == (POSITIONS.mark,)
    connection.close()


# --- damage ---------------------------------------------------------------------------------------------


async def test_a_damaged_file_gives_an_error_or_what_was_stored_and_never_anything_else(
    tmp_path: Path,
) -> None:
    await _damage(tmp_path, trials=60)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_ten_thousand_damaged_files_never_give_anything_else(tmp_path: Path) -> None:
    await _damage(tmp_path, trials=10_000)


async def _damage(folder: Path, *, trials: int) -> None:
    """Bytes flipped anywhere, or the file cut anywhere. `text` is a sum of `n`, so a wrong row is known."""
    await filled(folder / "whole.sqlite", rows=40)
    whole = (folder / "whole.sqlite").read_bytes()
    rng = random.Random(trials)
    path = folder / "damaged.sqlite"
    refused = 0
    for _ in range(trials):
        damaged = bytearray(whole)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(whole)) :]
        for _ in range(rng.choice([1, 1, 1, 8]) if damaged else 0):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        file = SqliteFile(path, NUMBERS)
        try:
            rows = await file.read(
                lambda c: c.execute("SELECT n FROM numbers ORDER BY n").fetchall(), doing="r"
            )
        except StoreError:
            refused += 1
        else:
            # One flipped bit in a key is what the sums of rows are for; here only rows can be lost.
            assert len(rows) == 40
        await file.aclose()
        for left in folder.glob("damaged.sqlite*"):
            left.unlink()
    print(f"{trials} trials, {refused} refused, 0 with rows missing; bound 3/n = {3 / trials:.1e}")  # noqa: T201 - said to who reads the log
    assert refused > trials // 10, "the damage is worth the name"


async def test_a_file_that_vanishes_in_use_is_an_error_and_no_new_one_is_made(tmp_path: Path) -> None:
    """SQLite itself would go on writing to a file that nobody will ever find again."""
    path = tmp_path / "numbers.sqlite"
    file = SqliteFile(path, NUMBERS)
    await add(file, 1)
    moved = path.rename(tmp_path / "moved.sqlite")
    with pytest.raises(StoreDamagedError, match="removed or replaced while it was in use"):
        await add(file, 2)
    another = SqliteFile(path, NUMBERS)
    with pytest.raises(StoreDamagedError, match=r"its log 'numbers\.sqlite-wal' is still there"):
        await add(another, 2)
    await another.aclose()
    assert not path.exists()
    path.write_bytes(b"something else")
    with pytest.raises(StoreDamagedError, match="removed or replaced"):
        await numbers(file)
    path.unlink()
    moved.rename(path)
    await add(file, 3)
    assert await numbers(file) == [1, 3]
    await file.aclose()


# --- disks and rights -----------------------------------------------------------------------------------


async def test_a_full_disk_is_an_error_and_what_was_answered_stays(tmp_path: Path) -> None:
    """SQLite meets its own bound on pages as it meets a full disk."""
    path = tmp_path / "numbers.sqlite"
    file = SqliteFile(path, NUMBERS)
    await file.write(lambda c: c.execute("PRAGMA max_page_count=20").fetchall(), doing="bound")
    stored: list[int] = []
    with pytest.raises(StoreFullError, match=r"the disk is full.*nothing was changed") as full:  # noqa: PT012 - it comes sooner or later
        for number in range(1000):
            await add(file, number, "x" * 1000)
            stored.append(number)
    assert full.value.outcome == "nothing"
    assert len(stored) > 10
    await file.aclose()
    file = SqliteFile(path, NUMBERS)
    assert await numbers(file) == stored
    await add(file, 1000)
    await file.aclose()


_WRITES_UNTIL_FULL = """
import asyncio, resource, sys
from flowcore.store_errors import StoreError
from tests.flowruntime.state.test_sqlite_file import NUMBERS, SqliteFile, add

async def main():
    file = SqliteFile(sys.argv[1], NUMBERS)
    await add(file, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        for number in range(1, 10_000):
            await add(file, number, "x" * 500)
            print(number, flush=True)
    except StoreError as fault:
        print(type(fault).__name__, fault.outcome, flush=True)

asyncio.run(main())
"""


async def test_a_disk_that_refuses_a_write_is_an_error_and_what_was_answered_stays(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    done = await _python(_WRITES_UNTIL_FULL, str(path))
    *answered, last = done.stdout.split("\n")[:-1]
    assert last.split()[0] in {"StoreFailedError", "StoreFullError"}, done.stderr
    file = SqliteFile(path, NUMBERS)
    kept = await numbers(file)
    await file.aclose()
    assert kept[: len(answered) + 1] == list(range(len(answered) + 1))
    assert len(kept) <= len(answered) + (2 if last.split()[1] == "unknown" else 1)


@contextmanager
def unprivileged(folder: Path) -> Generator[None]:
    """As somebody who is not root: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_folder_that_may_not_be_written_is_an_error_with_or_without_the_file() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        with unprivileged(folder):
            await filled(folder / "numbers.sqlite")
            before = (folder / "numbers.sqlite").read_bytes()
            for path in (folder / "numbers.sqlite", folder / "new.sqlite", folder / "a" / "b.sqlite"):
                folder.chmod(0o500)
                file = SqliteFile(path, NUMBERS)
                with pytest.raises(StoreAccessError, match="may not be opened or written"):
                    await add(file, 9)
                folder.chmod(0o700)
                await file.aclose()
            assert [each.name for each in folder.iterdir()] == ["numbers.sqlite"]
            assert (folder / "numbers.sqlite").read_bytes() == before
            (folder / "numbers.sqlite").chmod(0o400)
            file = SqliteFile(folder / "numbers.sqlite", NUMBERS)
            with pytest.raises(StoreAccessError):
                await add(file, 9)
            await file.aclose()


# --- several at once ------------------------------------------------------------------------------------

_WRITES = """
import asyncio, sys
from tests.flowruntime.state.test_sqlite_file import NUMBERS, SqliteFile, add, numbers

async def main():
    first, count = int(sys.argv[2]), int(sys.argv[3])
    file = SqliteFile(sys.argv[1], NUMBERS)
    for number in range(first, first + count, 4):
        await asyncio.gather(*(add(file, each) for each in range(number, min(number + 4, first + count))))
        assert number in await numbers(file)
    await file.aclose()

asyncio.run(main())
"""


async def test_several_processes_share_a_file_that_none_of_them_found(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.sqlite"
    done = await asyncio.gather(*(_python(_WRITES, str(path), str(1000 * each), "40") for each in range(4)))
    assert [each.stderr for each in done] == [""] * 4
    file = SqliteFile(path, NUMBERS)
    assert await numbers(file) == [1000 * each + number for each in range(4) for number in range(40)]
    await file.aclose()
    assert [each.name for each in path.parent.iterdir()] == ["numbers.sqlite"], "no draft is left"


async def test_a_file_held_by_another_for_too_long_is_an_error_that_may_be_tried_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "numbers.sqlite"
    await filled(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    file = SqliteFile(path, NUMBERS, busy_s=0.05)
    assert await numbers(file) == [0, 1, 2], "readers do not wait"
    with pytest.raises(StoreTimeoutError, match="nothing was changed") as busy:
        await add(file, 9)
    assert busy.value.retriable
    holder.execute("ROLLBACK")
    holder.close()
    await add(file, 9)
    assert await numbers(file) == [0, 1, 2, 9]
    await file.aclose()


async def test_writes_that_come_together_are_committed_together(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "numbers.sqlite", NUMBERS)
    said: list[str] = []
    await file.write(lambda connection: connection.set_trace_callback(said.append), doing="trace")
    await asyncio.gather(*(add(file, number) for number in range(200)))
    assert said.count("COMMIT") <= 3
    assert await numbers(file) == list(range(200))
    await file.aclose()


async def test_work_that_fails_takes_nothing_else_with_it(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (100, 'half')")
        raise KeyError("mine")

    file = SqliteFile(tmp_path / "numbers.sqlite", NUMBERS)
    await add(file, 2)
    done = await asyncio.gather(
        add(file, 1), add(file, 2), file.write(half, doing="half"), add(file, 3), return_exceptions=True
    )
    assert done[0] == done[3] == 1
    assert isinstance(done[1], StoreFailedError)
    assert "UNIQUE constraint failed" in str(done[1])
    assert isinstance(done[2], KeyError)
    assert await numbers(file) == [1, 2, 3]
    await file.aclose()


async def test_what_is_cancelled_before_it_began_is_not_done(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "numbers.sqlite", NUMBERS)
    first = asyncio.ensure_future(add(file, 1))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(add(file, 2))
    await asyncio.sleep(0)
    waiting.cancel()
    await first
    await add(file, 3)
    assert waiting.cancelled()
    assert await numbers(file) == [1, 3]
    await file.aclose()


def test_virtual_time_stands_still_while_a_file_works(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        file = SqliteFile(tmp_path / "numbers.sqlite", NUMBERS)
        await asyncio.gather(*(add(file, number) for number in range(5)), asyncio.sleep(3600))
        found = await numbers(file)
        await file.aclose()
        return found

    assert run_virtual(scenario()) == [0, 1, 2, 3, 4]


async def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    root = Path(__file__).parents[3]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=root, capture_output=True, text=True, check=False, timeout=50
    )


@pytest.mark.parametrize("content", [b"", b"no database" * 99])
async def test_positions_never_start_empty_over_a_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "positions.sqlite"
    path.write_bytes(content)
    before = path.read_bytes()
    store = PositionStore(str(tmp_path))
    with pytest.raises(OSError, match="move it away and run with --fresh"):
        await store.load("wf", "s", "0")
    with pytest.raises(OSError, match="positions file"):
        await store.save("wf", "s", "0", 1)
    await store.aclose()
    assert path.read_bytes() == before


async def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """What no kill of a process shows: only a power cut would."""
    file = SqliteFile(tmp_path / "numbers.sqlite", NUMBERS)

    def settings(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await file.read(settings, doing="look") == ["wal", 2, 1]
    outside = await file.write(settings, doing="look")
    assert outside == ["wal", 2, 1]
    await file.aclose()
