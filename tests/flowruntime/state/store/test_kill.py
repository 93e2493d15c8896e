"""kill -9 at random moments: what was answered is there, nothing is there in part, nothing nobody wrote.

0 failures in n kills bound the rate below 3/n; each test prints its n. The harness is tested, too: it must
find writers that are broken on purpose (see `writes`).
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowcore.states import Completed, Paused, Running
from flowcore.store_errors import NotStoredError
from flowruntime.state.store.opening import open_store
from flowruntime.state.store.protocol import Store
from flowruntime.testing.conformance.store_subject import workflow
from tests.flowruntime.state.store.writes import BATCH, LANES, LEVELS, a_wait_of, entries
from tests.servers.postgres import PostgresServer, make_server, private_folder, remove

SEED = 20261127
ROOT = Path(__file__).parents[4]


@contextmanager
def writer(url: str, run: str, broken: str = "") -> Generator[subprocess.Popen[bytes]]:
    """The program; killed at the end of the block."""
    program = str(Path(__file__).with_name("writes.py"))
    with subprocess.Popen(
        [sys.executable, program, url, run, broken], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answers(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """The next ones; fewer when it ends before."""
    assert process.stdout is not None
    return [line for line in (process.stdout.readline() for _ in range(count)) if line.endswith(b"\n")]


def rest(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it had said before it was killed."""
    assert process.stdout is not None
    return [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]


def levels(said: list[bytes]) -> dict[str, int]:
    """How far each execution was answered for: 1 for created, ... 6 for completed."""
    reached: dict[str, int] = {}
    for line in said:
        word, id = line.decode().split()
        level = LEVELS.index(word) + 1
        assert reached.get(id, 0) == level - 1
        reached[id] = level
    return reached


async def faults(store: Store, run: str, answered: dict[str, int]) -> list[str]:
    """What is wrong with what is stored of one run."""
    found: list[str] = []
    stored: dict[str, int] = {}
    after: str | None = None
    while True:
        page = await store.executions.list(limit=1000, after=after)
        for head in page.items:
            if head.id.startswith(f"{run}-"):
                stored[head.id] = await _level(store, head.id, found)
        after = page.after
        if after is None:
            break
    found += [f"lost: {id} at {level}, stored {stored.get(id, 0)}" for id, level in answered.items()
              if stored.get(id, 0) < level]  # fmt: skip
    found += [f"phantom: {id} stored {level}, answered {answered.get(id, 0)}" for id, level in stored.items()
              if level > answered.get(id, 0) + 1]  # fmt: skip
    return found


async def _level(store: Store, id: str, found: list[str]) -> int:
    """How far one execution is; what does not belong together is a fault."""
    execution = await store.executions.get(id)
    journal = list(await store.journal.get_all(id))
    try:
        wait = await store.waits.get(f"w-{id}")
    except NotStoredError:
        wait = None
    match execution.state:
        case Completed():
            level = 6
        case Paused():
            level = 5 if wait is not None and wait.state == "answered" else 4
        case Running():
            level = 3 if wait is not None else 2 if journal else 1
        case other:
            found.append(f"half: {id} is {other}")
            level = 0
    whole = (
        execution.inputs == {"id": id},
        execution.result == (id if level == 6 else None),
        journal == (entries(id) if level >= 2 else []),
        (wait is not None) == (level >= 3),
        wait is None or level >= 5 or wait == a_wait_of(id),
        wait is None or level < 5 or wait.answer == {"answer": id},
    )
    if not all(whole):
        found.append(f"half: {id} at level {level}: {whole}, {len(journal)} of {BATCH} entries")
    return level


async def kill_writers(url: str, kills: int, *, broken: str = "", stop_at_fault: bool = False) -> list[str]:
    """Kill as many writers, one after the other; what is wrong after each of them."""
    rng = random.Random(SEED)
    found: list[str] = []
    total = 0
    done = 0
    while done < kills and not (found and stop_at_fault):
        done += 1
        run = f"run{done}"
        with writer(url, run, broken) as process:
            said = await asyncio.to_thread(answers, process, rng.randrange(1, 150))
            process.kill()
            said += await asyncio.to_thread(rest, process)
        total += len(said)
        async with open_store(url) as store:
            found += await faults(store, run, levels(said))
    _tell(done, total, found)
    return found


def _tell(kills: int, answered: int, found: list[str]) -> None:
    """The last line of every test of delivery."""
    bound = f"bound 3/n = {3 / kills:.2f}"
    print(f"seed {SEED}: {kills} kills, {answered} answered writes, {len(found)} faults; {bound}")  # noqa: T201 - said to who reads the log


async def test_what_was_answered_survives_a_few_kills(tmp_path: Path) -> None:
    assert await kill_writers(f"sqlite:{tmp_path / 'store.sqlite'}", 3) == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_was_answered_survives_kills_on_sqlite(tmp_path: Path) -> None:
    """All of them on one file, each followed by SQLite's own recovery."""
    assert await kill_writers(f"sqlite:{tmp_path / 'store.sqlite'}", 40) == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_kill_while_the_file_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number}" / "store.sqlite"
        with writer(f"sqlite:{path}", "run") as process:
            await asyncio.to_thread(_wait_for_any, path.parent, process)
        assert process.wait() == -signal.SIGKILL
        async with open_store(f"sqlite:{path}") as store:
            for head in (
                await store.executions.list()
            ).items:  # the writer may have been quicker than its death
                assert (await store.executions.get(head.id)).id == head.id
            assert (await store.workflows.put(workflow())).version == 1


def _wait_for_any(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the first file is there, or the draft of one; busily, since it is not there for long."""
    while process.poll() is None and not (folder.exists() and any(folder.iterdir())):
        pass


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broken", ["early", "piecemeal"])
async def test_writers_that_are_broken_on_purpose_are_found(tmp_path: Path, broken: str) -> None:
    found = await kill_writers(f"sqlite:{tmp_path / 'store.sqlite'}", 40, broken=broken, stop_at_fault=True)
    assert {each.partition(":")[0] for each in found} == {"lost" if broken == "early" else "half"}


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_was_answered_survives_kills_on_postgres(postgres_url: str) -> None:
    assert await kill_writers(postgres_url, 15) == []


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_was_answered_survives_kills_of_the_server() -> None:
    """Its processes one time, all of it the other; the writer goes on by itself each time."""
    rng = random.Random(SEED)
    folder = private_folder()
    server = make_server(folder)
    server.start()
    url = server.url(server.create_database())
    database = url.partition("@/")[2].partition("?")[0]
    said: list[bytes] = []
    kills = 0
    with writer(url, "run") as process:
        for number in range(12):
            said += await asyncio.to_thread(answers, process, rng.randrange(1, 150))
            await asyncio.to_thread(_strike, server, database, whole=number % 3 == 2)
            kills += 1
        said += await asyncio.to_thread(answers, process, 100)
        process.kill()
        said += await asyncio.to_thread(rest, process)
    async with open_store(url) as store:
        found = await faults(store, "run", levels(said))
    server.stop()
    remove(folder)
    _tell(kills, len(said), found)
    assert found == []
    assert len(levels(said)) > LANES


def _strike(server: PostgresServer, database: str, *, whole: bool) -> None:
    """Kill all of it, or what serves the database; and wait until it is there again."""
    if whole:
        server.kill()
        server.start()
    else:
        assert server.kill_backends(database)
        server.wait_until_ready()
