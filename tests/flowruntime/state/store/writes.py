"""A program that writes into a store until it is killed, and says what was answered.

Usage: writes.py URL RUN [BROKEN]

Owns: the order of the writes, and `LEVELS`, the words it says after each of them.
Does not own: killing and looking at what is there (test_kill).

BROKEN makes it one that must be found out: `early` says a word before its write, `piecemeal` stores a batch
entry by entry.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from flowcore.states import Completed, Paused
from flowcore.store_errors import StoreUnavailableError, WaitClosedError
from flowcore.waits import Wait
from flowruntime.state.store.entries import JournalEntry, WorkflowHead, new_execution
from flowruntime.state.store.opening import open_store
from flowruntime.state.store.protocol import Store
from flowruntime.testing.conformance.store_subject import workflow

T = TypeVar("T")

LEVELS = ("created", "journalled", "opened", "paused", "answered", "completed")
LANES = 4
BATCH = 5


def entries(id: str) -> list[JournalEntry]:
    """The batch of an execution."""
    return [
        JournalEntry(execution_id=id, node="n", call=call, value={"of": id, "pad": "x" * 100 * call})
        for call in range(BATCH)
    ]


def a_wait_of(id: str) -> Wait:
    """The wait of an execution."""
    return Wait(id=f"w-{id}", execution_id=id, node="ask", kind="approval", created_at=1.0)


async def again(write: Callable[[], Awaitable[T]]) -> T:
    """Until the server is there; each of these writes may be done twice."""
    while True:
        try:
            return await write()
        except StoreUnavailableError:
            await asyncio.sleep(0.01)


class Writer:
    """One execution after the other, several side by side."""

    def __init__(self, store: Store, head: WorkflowHead, run: str, broken: str) -> None:
        self._store = store
        self._head = head
        self._run = run
        self._broken = broken

    async def lane(self, number: int) -> None:
        """Until killed."""
        count = 0
        while True:
            await self._one(f"{self._run}-{number}-{count}")
            count += 1

    async def _one(self, id: str) -> None:
        executions, waits = self._store.executions, self._store.waits
        execution = new_execution(id, self._head, {"id": id}, at=1.0, running=True)
        await self._do("created", id, lambda: executions.create(execution))
        await self._do("journalled", id, lambda: self._journal(id))
        await self._do("opened", id, lambda: waits.open(a_wait_of(id)))
        paused = await self._do("paused", id, lambda: executions.step(execution, Paused(id), at=2.0, by=id))
        await self._do("answered", id, lambda: self._answer(id))
        await self._do(
            "completed", id, lambda: executions.step(paused, Completed(), at=3.0, by=id, result=id)
        )

    async def _do(self, word: str, id: str, write: Callable[[], Awaitable[T]]) -> T:
        if self._broken == "early":
            say(word, id)
        done = await again(write)
        if self._broken != "early":
            say(word, id)
        return done

    async def _journal(self, id: str) -> None:
        if self._broken != "piecemeal":
            return await self._store.journal.put(entries(id))
        for entry in entries(id):
            await self._store.journal.put([entry])
        return None

    async def _answer(self, id: str) -> None:
        try:
            await self._store.waits.answer(f"w-{id}", {"answer": id}, at=2.5)
        except WaitClosedError:  # an answer of ours whose own answer got lost
            assert (await self._store.waits.get(f"w-{id}")).answer == {"answer": id}


def say(*words: str) -> None:
    """One line, at once and as a whole."""
    os.write(1, f"{' '.join(words)}\n".encode())


async def main(url: str, run: str, broken: str) -> None:
    """Write until killed."""
    store = open_store(url)
    head = await again(lambda: store.workflows.put(workflow(), at=1.0))
    writer = Writer(store, head, run, broken)
    await asyncio.gather(*(writer.lane(number) for number in range(LANES)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
