"""Who is blamed for a death: the record under the active note, and nobody where the process has survived."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from flowruntime.state.positions import PositionStore
from flowruntime.state.quarantine import Deaths, blamed


def test_the_record_that_was_worked_on_is_blamed_and_others_keep_what_they_had() -> None:
    one, two, three = (("s", "0", str(number).encode()) for number in range(3))
    assert blamed([(one, 2, True), (two, 1, False), (three, 0, False)]) == {one: 3, two: 1}


def dead_pid() -> int:
    """Of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def died(folder: Path) -> None:
    """As if the processes whose marks are there had died."""
    with sqlite3.connect(folder / "positions.sqlite") as connection:
        connection.execute("UPDATE running SET pid = ?", (dead_pid(),))
    connection.close()


async def begun(store: PositionStore, run: str, workflow: str = "w") -> Deaths:
    deaths = Deaths(store, workflow)
    await deaths.begin(run)
    return deaths


async def test_one_death_says_nothing_of_a_record_and_a_second_one_in_a_row_does(tmp_path: Path) -> None:
    store = PositionStore(str(tmp_path))
    found: list[tuple[int, bool]] = []
    for run in range(4):
        mine = await begun(store, f"r{run}")
        found.append((mine.in_a_row, mine.suspicious))
        died(tmp_path)
    assert found == [(0, False), (1, False), (2, True), (3, True)]
    await store.aclose()


async def test_progress_between_two_deaths_is_no_row_of_deaths(tmp_path: Path) -> None:
    store = PositionStore(str(tmp_path))
    for run in range(4):
        mine = await begun(store, f"r{run}")
        assert mine.in_a_row == min(run, 1)
        await mine.progressed()
        died(tmp_path)
    await store.aclose()


async def test_a_death_counts_for_the_record_under_the_note(tmp_path: Path) -> None:
    store = PositionStore(str(tmp_path))
    await begun(store, "r0")
    for deaths in range(3):
        died(tmp_path)
        mine = await begun(store, f"r{deaths + 1}")
        assert await mine.note("s", "0", 6) == 0  # read again before it, and settled
        await mine.clear("s", "0", 6)
        assert await mine.note("s", "0", 7) == deaths
    await store.aclose()


async def test_a_record_that_settled_is_not_blamed(tmp_path: Path) -> None:
    store = PositionStore(str(tmp_path))
    mine = await begun(store, "r1")
    await mine.note("s", "0", 7)
    await mine.clear("s", "0", 7)
    died(tmp_path)
    later = await begun(store, "r2")
    assert later.in_a_row == 1
    assert await later.note("s", "0", 7) == 0
    await store.aclose()


async def test_an_end_of_a_process_that_lives_is_clean(tmp_path: Path) -> None:
    store = PositionStore(str(tmp_path))
    mine = await begun(store, "r1")
    await mine.note("s", "0", 7)
    await mine.end()
    later = await begun(store, "r2")
    assert later.in_a_row == 0
    assert await later.note("s", "0", 7) == 0
    await later.end()
    await store.aclose()


async def test_a_run_beside_this_one_has_not_died(tmp_path: Path) -> None:
    """In this process, or in another one that lives: here the one that started the tests."""
    store = PositionStore(str(tmp_path))
    first, second = await begun(store, "r1"), await begun(store, "r2")
    assert (first.in_a_row, second.in_a_row) == (0, 0)
    await first.end()
    await second.end()
    await begun(store, "r3")
    with sqlite3.connect(tmp_path / "positions.sqlite") as connection:
        connection.execute("UPDATE running SET pid = ?", (os.getppid(),))
    connection.close()
    assert (await begun(store, "r4")).in_a_row == 0
    assert (await begun(store, "r5", "another")).in_a_row == 0
    await store.aclose()
