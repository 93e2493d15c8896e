"""What is special about the SQLite store: damage is never given out, several processes share a file."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from flowcore.states import Completed, Failed, Paused, Running
from flowcore.store_errors import StoreError, StoreFormatError, StoreFullError
from flowruntime.state.positions import PositionStore
from flowruntime.state.sqlite_file import SqliteFile
from flowruntime.state.store.entries import JournalEntry, new_execution
from flowruntime.state.store.protocol import Store
from flowruntime.state.store.sql import SqlStore
from flowruntime.state.store.sqlite import FORMAT, SqliteDatabase, SqliteStore
from flowruntime.testing.conformance.store_subject import a_wait, an_execution, workflow
from flowruntime.testing.virtual import run_virtual


async def fill(store: Store) -> None:
    """Some of everything."""
    heads = [await store.workflows.put(workflow(text=text), at=float(text)) for text in range(3)]
    for number in range(6):
        execution = new_execution(f"e{number}", heads[2], {"n": number}, at=float(number), running=True)
        await store.executions.create(execution)
        await store.waits.open(a_wait(f"w{number}", execution_id=f"e{number}", expires_at=number + 0.5))
        await store.journal.put(
            [
                JournalEntry(execution_id=f"e{number}", node="n", call=call, value=[number, call])
                for call in range(4)
            ]
        )
        end = [Completed(), Paused("p"), Failed({"kind": "X"})][number % 3]
        await store.executions.step(execution, end, at=9.0, result=number if end.finished else None)
        if number % 2:
            await store.waits.answer(f"w{number}", number, at=0.1)


async def everything(store: Store) -> object:
    """All there is to read, in a form that can be compared."""
    versions = await store.workflows.versions("triage")
    executions = [head.id for head in (await store.executions.list()).items]
    return (
        versions,
        [repr((await store.workflows.get("triage", head.version)).workflow.nodes) for head in versions.items],
        [repr(await store.executions.get(id)) for id in executions],
        [repr(wait) for wait in (await store.waits.list()).items],
        [wait.id for wait in await store.waits.due(100.0)],
        [list(await store.journal.get_all(id)) for id in executions],
    )


async def test_a_damaged_store_gives_out_what_was_stored_or_an_error(tmp_path: Path) -> None:
    await _damage(tmp_path, trials=40)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_thousands_of_damaged_stores_give_out_nothing_else(tmp_path: Path) -> None:
    await _damage(tmp_path, trials=3_000)


async def _damage(folder: Path, *, trials: int) -> None:
    async with SqliteStore(folder / "whole.sqlite") as store:
        await fill(store)
        expected = await everything(store)
    whole = (folder / "whole.sqlite").read_bytes()
    rng = random.Random(trials)
    refused = 0
    for _ in range(trials):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 30])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path = folder / "damaged.sqlite"
        path.write_bytes(damaged)
        store = SqliteStore(path)
        try:
            assert await everything(store) == expected
        except StoreError:
            refused += 1
        await store.aclose()
        for left in folder.glob("damaged.sqlite*"):
            left.unlink()
    print(f"{trials} trials, {refused} refused, 0 with anything else; bound 3/n = {3 / trials:.1e}")  # noqa: T201 - said to who reads the log
    assert refused > trials // 10, "the damage is worth the name"


async def test_a_file_of_positions_is_no_store(tmp_path: Path) -> None:
    positions = PositionStore(str(tmp_path))
    await positions.save("wf", "s", "0", 1)
    await positions.aclose()
    store = SqliteStore(tmp_path / "positions.sqlite")
    with pytest.raises(StoreFormatError, match="is not a store but another SQLite database"):
        await store.open()
    await store.aclose()


async def test_a_full_disk_keeps_what_was_answered_and_a_step_is_not_half_taken(tmp_path: Path) -> None:
    """SQLite meets its own bound on pages, which a connection has, as it meets a full disk."""
    file = SqliteFile(tmp_path / "store.sqlite", FORMAT)
    store = SqlStore(SqliteDatabase(file))
    execution = await an_execution(store, running=True)
    head = await store.workflows.put(workflow())

    async def no_more_room() -> None:
        await file.write(lambda c: c.execute("PRAGMA max_page_count=60").fetchall(), doing="bound")

    await no_more_room()
    with pytest.raises(StoreFullError, match=r"executions\.step: the disk is full .*nothing was changed"):
        await store.executions.step(execution, Completed(), at=2.0, result="x" * 300_000)
    await no_more_room()
    stored = 0
    with pytest.raises(StoreFullError):  # noqa: PT012 - it comes sooner or later
        for stored in range(1_000):
            await store.executions.create(new_execution(f"x{stored}", head, "y" * 2_000, at=1.0))
    await store.aclose()
    async with SqliteStore(tmp_path / "store.sqlite") as store:
        assert (await store.executions.get("e1")).state == Running()
        ids = {each.id for each in (await store.executions.list(limit=1000)).items}
        assert ids == {"e1", *(f"x{number}" for number in range(stored))}


_ANSWERS = """
import asyncio, sys
from flowcore.store_errors import WaitClosedError
from flowruntime.state.store.sql import SqlStore
from flowruntime.state.store.sqlite import FORMAT, SqliteDatabase, SqliteStore
from flowruntime.testing.conformance.store_subject import workflow

async def main():
    me = sys.argv[2]
    async with SqliteStore(sys.argv[1]) as store:
        sys.stdin.readline()
        for number in range(25):
            try:
                await store.waits.answer(f"w{number}", me, at=2.0)
                print(number)
            except WaitClosedError:
                pass
            await store.workflows.put(workflow("contended", text=f"{me} {number}"))

asyncio.run(main())
"""


async def test_of_answers_by_several_processes_exactly_one_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with SqliteStore(path) as store:
        await an_execution(store)
        for number in range(25):
            await store.waits.open(a_wait(f"w{number}"))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _ANSWERS,
            str(path),
            f"process {each}",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[4],
        )
        for each in range(3)
    ]
    said = [out.split() for out, _ in await asyncio.gather(*(each.communicate(b"\n") for each in processes))]
    assert [each.returncode for each in processes] == [0, 0, 0]
    async with SqliteStore(path) as store:
        for number in range(25):
            winners = [f"process {each}" for each in range(3) if str(number).encode() in said[each]]
            assert winners == [(await store.waits.get(f"w{number}")).answer]
        versions = (await store.workflows.versions("contended", limit=1000)).items
        assert [each.version for each in versions] == list(range(75, 0, -1))


def test_a_store_works_on_virtual_time(tmp_path: Path) -> None:
    async def scenario() -> object:
        async with SqliteStore(tmp_path / "store.sqlite") as store:
            await asyncio.gather(asyncio.sleep(3600), fill(store))
            return await store.waits.due(100.0)

    assert run_virtual(scenario())
