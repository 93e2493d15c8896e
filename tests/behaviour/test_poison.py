"""Poison: records that raise, hang or kill their process cost their own row; each of them has one letter."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from connectors.files.letters import FileLetters
from connectors.sqlite.letters import SqliteLetters
from flowcore import Batch, RetryPolicy, Workflow, node
from flowcore.dead_letters import DeadLetter, DeadLetterStore
from flowcore.errors import NodeTimeoutError
from flowruntime.flowcontrol.offload import WorkerProcessDiedError
from flowruntime.testing.contexts import StandaloneSinkContext
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.virtual import run_virtual
from tests.behaviour.harness import Script, kept, runtime

RECORDS = 6_000
PARTITIONS = 3


class Id(NamedTuple):
    """Who a record is, in every delivery test."""

    run: str
    producer: int
    seq: int
    key: int


def records(seed: int) -> dict[str, list[dict[str, Any]]]:
    """By partition: 1 % raise at once, 1 % after waiting, 0.1 % hang, each somewhere."""
    chance = random.Random(seed)
    made: dict[str, list[dict[str, Any]]] = {}
    for producer in range(PARTITIONS):
        made[str(producer)] = [
            {
                "id": Id(f"seed{seed}", producer, seq, chance.randrange(50)),
                "fate": chance.choices(["good", "raise", "raise_later", "hang"], [979, 10, 10, 1])[0],
            }
            for seq in range(RECORDS // PARTITIONS)
        ]
    made["0"][7]["fate"] = "hang"  # whatever the seed says
    return made


@node("poison.plain")
def plain(record: dict[str, Any]) -> dict[str, Any]:
    """Raises where it is told to."""
    if record["fate"] == "raise":
        raise ValueError(f"poison {record['id']}")
    return record


RETRY = RetryPolicy(
    max_attempts=3, initial=timedelta(milliseconds=10), retry_on=("KeyError", "NodeTimeoutError")
)


@node("poison.waits", concurrency=64, timeout=timedelta(seconds=2), retry=RETRY)
async def waits(record: dict[str, Any]) -> dict[str, Any]:
    """Raises or hangs where it is told to, a little later."""
    await asyncio.sleep(0.001)
    if record["fate"] == "raise_later":
        raise KeyError(f"poison {record['id']}")
    if record["fate"] == "hang":
        await asyncio.Event().wait()
    return record


@node("poison.batch", batch=Batch(max_items=16), timeout=timedelta(seconds=2))
async def batched(given: list[dict[str, Any]]) -> list[Any]:
    """As `waits`, several at once; one that hangs takes its batch with it until that is divided."""
    await asyncio.sleep(0.001)
    if any(record["fate"] == "hang" for record in given):
        await asyncio.Event().wait()
    return [
        KeyError(f"poison {record['id']}") if record["fate"] == "raise_later" else record for record in given
    ]


Make = Callable[[Path], DeadLetterStore]
STORES: dict[str, Make] = {
    "collected": lambda _: CollectedLetters(),
    "files": lambda folder: FileLetters(str(folder / "dead.jsonl")),
    "sqlite": lambda folder: SqliteLetters(str(folder / "dead.sqlite")),
}


async def letters_of(store: DeadLetterStore) -> list[DeadLetter]:
    await store.open(StandaloneSinkContext())
    page = await store.list(limit=RECORDS)
    await store.close()
    assert not page.broken
    return [filed.letter for filed in page.letters]


async def went(seed: int, store: DeadLetterStore, waiting: Any) -> tuple[Any, list[dict[str, Any]], Any]:
    """A run over the poisoned records: its result, what was written, what was committed."""
    sink = kept(name="poison.sink")
    wf = Workflow("poison", settings={"on_error": "dead_letter", "dead_letter": {"type": "poison.letters"}})
    wf.chain(
        wf.add(Script, id="s"), wf.add(plain, id="plain"), wf.add(waiting, id="waits"), wf.add(sink, id="k")
    )
    given = records(seed)
    source = Script(**{partition: [rows] for partition, rows in given.items()})
    async with runtime(nodes=[place_of(store)]) as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    return result, sink.rows, source.committed


def place_of(store: DeadLetterStore) -> Any:
    from tests.behaviour.harness import graveyard

    return graveyard(store, "poison.letters")  # type: ignore[arg-type] - any store will do


@pytest.mark.parametrize("waiting", [waits, batched])
@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("seed", [1, 2])
def test_good_records_are_all_written_and_each_poison_has_one_letter(
    tmp_path: Path, seed: int, kind: str, waiting: Any
) -> None:
    """Two per cent raise, a thousandth hangs and is cut at its timeout; no good one is lost or doubled."""
    store = STORES[kind](tmp_path)
    result, written, committed = run_virtual(went(seed, store, waiting), seed=seed)
    letters = run_virtual(letters_of(STORES[kind](tmp_path) if kind != "collected" else store))
    everything = [row for rows in records(seed).values() for row in rows]
    good = [row["id"] for row in everything if row["fate"] == "good"]
    poison = {row["id"]: row["fate"] for row in everything if row["fate"] != "good"}
    seen = Counter(tuple(row["id"]) for row in written)
    buried = Counter(tuple(letter.record["id"]) for letter in letters)
    counters = {
        "lost": sum(seen[each] == 0 for each in good) + sum(buried[each] == 0 for each in poison),
        "dup": sum(seen.values()) + sum(buried.values()) - len(seen) - len(buried),
        "phantom": len(seen.keys() - set(good)) + len(buried.keys() - poison.keys()),
    }
    print(f"seed={seed} store={kind} {counters} poison={len(poison)} of {len(everything)}")  # noqa: T201 - the last line of every delivery test
    assert counters == {"lost": 0, "dup": 0, "phantom": 0}
    assert (result.state.name, result.handled, result.dead_letters) == ("partial", True, len(poison))
    expected = {
        "raise": ("plain", "ValueError", 1),
        "raise_later": ("waits", "KeyError", 3 if waiting is waits else None),
        "hang": ("waits", NodeTimeoutError.__name__, 3 if waiting is waits else None),
    }
    for letter in letters:
        who = Id(*letter.record["id"])
        at, error, attempts = expected[poison[who]]
        assert (letter.node, letter.error.kind) == (at, error)
        assert attempts is None or letter.attempts == attempts
        assert (letter.origin.source, letter.origin.partition) == ("s", str(who.producer))
        assert letter.origin.position == who.seq + 1
    assert {name: rows[-1] for name, rows in committed.items()} == {
        str(producer): RECORDS // PARTITIONS for producer in range(PARTITIONS)
    }


@node("poison.kills", offload="process", concurrency=2)
def kills(value: int) -> int:
    """Kills its own process on multiples of 7."""
    if value % 7 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


async def test_a_record_that_kills_its_process_has_a_letter_and_takes_no_other_with_it() -> None:
    letters = CollectedLetters()
    sink = kept(name="poison.survivors")
    wf = Workflow("kills", settings={"on_error": "dead_letter", "dead_letter": {"type": "poison.letters"}})
    retry = RetryPolicy(max_attempts=4, initial=timedelta(0), retry_on=("WorkerProcessDiedError",))
    wf.chain(wf.add(Script, id="s"), wf.add(kills, id="n", concurrency=1, retry=retry), wf.add(sink, id="k"))
    async with runtime(nodes=[place_of(letters)]) as rt:
        run = await rt.start(wf, sources={"s": Script([list(range(1, 16))])})
        result = await run.wait()
    assert result.handled
    assert sorted(sink.rows) == [value for value in range(1, 16) if value % 7]
    assert [(letter.record, letter.error.kind, letter.attempts) for letter in letters.letters] == [
        (7, WorkerProcessDiedError.__name__, 4),
        (14, WorkerProcessDiedError.__name__, 4),
    ]
