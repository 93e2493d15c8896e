"""Stores are alike: whatever is asked of them in whatever order, all answer the same, refusals included."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.errors import FlowError
from flowcore.states import Cancelled, Completed, Failed, Partial, Paused, Pending, Running
from flowruntime.state.store.entries import (
    ExecutionFilter,
    ExecutionHead,
    JournalEntry,
    WaitFilter,
    WorkflowHead,
    new_execution,
)
from flowruntime.state.store.memory import MemoryStore
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.protocol import Store
from flowruntime.state.store.sqlite import SqliteStore
from flowruntime.testing.conformance.store_subject import a_wait, workflow
from tests.servers.postgres import PostgresServer

_QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a file is on no disk: durability is looked at elsewhere."""

Operation = tuple[str, tuple[Any, ...]]

_EXECUTIONS = st.sampled_from(["e1", "e2", "é"])
_WAITS = st.sampled_from(["w1", "w2", "w3"])
BEGINNING: list[Operation] = [
    ("put", ("shop", None, 0, 0.0)),
    ("create", ("e1", 1, 1.0, True)),
    ("create", ("e2", 2, 1.0, False)),
    ("open", ("w1", "e1", 1.0, 2.0)),
    ("open", ("w2", "e1", 1.0, None)),
    ("journal", ("e1", [(0, 1)])),
]
"""Without it, most of what is drawn would only meet an empty store."""
_NAMES = st.sampled_from(["shop", "a", "b"])
_TIMES = st.integers(0, 3).map(float)
_VALUES = st.sampled_from([None, 1, 1.0, b"x", {"a": [True]}, object()])
_STATES = st.sampled_from(
    [Pending(), Running(), Paused("p"), Completed(), Partial(), Failed({"kind": "X"}), Cancelled()]
)
_LIMITS = st.integers(1, 3)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.tuples(_NAMES, st.none() | st.just("shop"), st.integers(0, 2), _TIMES)),
    st.tuples(st.just("get_workflow"), st.tuples(_NAMES, st.none() | st.integers(1, 3))),
    st.tuples(st.just("delete"), st.tuples(_NAMES, st.none() | st.integers(1, 3))),
    st.tuples(st.just("versions"), st.tuples(_NAMES, _LIMITS)),
    st.tuples(st.just("create"), st.tuples(_EXECUTIONS, _VALUES, _TIMES, st.booleans())),
    st.tuples(st.just("step"), st.tuples(_EXECUTIONS, _STATES, _TIMES, _VALUES, st.sampled_from(["", "me"]))),
    st.tuples(st.just("executions"), st.tuples(_LIMITS, st.none() | _TIMES)),
    st.tuples(st.just("prune"), st.tuples(_TIMES)),
    st.tuples(st.just("open"), st.tuples(_WAITS, _EXECUTIONS, _TIMES, st.none() | _TIMES)),
    st.tuples(st.just("answer"), st.tuples(_WAITS, _VALUES, _TIMES)),
    st.tuples(st.just("expire"), st.tuples(_WAITS, _TIMES)),
    st.tuples(st.just("cancel"), st.tuples(_EXECUTIONS, _TIMES)),
    st.tuples(st.just("due"), st.tuples(_TIMES, _LIMITS)),
    st.tuples(st.just("waits"), st.tuples(_LIMITS)),
    st.tuples(
        st.just("journal"),
        st.tuples(_EXECUTIONS, st.lists(st.tuples(st.integers(0, 2), _VALUES), max_size=3)),
    ),
    st.tuples(st.just("entries"), st.tuples(_EXECUTIONS)),
    st.tuples(st.just("drop"), st.tuples(_EXECUTIONS)),
)


class _User:
    """Does operations on a store, and remembers what it read as a client would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._workflow = WorkflowHead(id="shop", version=1, name="shop", hash="h", created_at=0.0)
        self._read: dict[str, ExecutionHead] = {}

    async def do(self, operation: Operation) -> object:
        """What came of it, in a form that can be compared."""
        name, arguments = operation
        try:
            done: object = await getattr(self, f"_{name}")(*arguments)
        except FlowError as refusal:
            return {key: fact for key, fact in refusal.facts().items() if key not in {"url", "message"}}
        return _comparable(done)

    async def _put(self, id: str, name: str | None, text: int, at: float) -> object:
        head = await self._store.workflows.put(workflow(name or id, id=id, text=text), at=at)
        self._workflow = head
        return head

    async def _get_workflow(self, name: str, version: int | None) -> object:
        return (await self._store.workflows.get(name, version)).hash

    async def _delete(self, name: str, version: int | None) -> object:
        return await self._store.workflows.delete(name, version)

    async def _versions(self, name: str, limit: int) -> object:
        first = await self._store.workflows.versions(name, limit=limit)
        return first, await self._store.workflows.list(limit=limit)

    async def _create(self, id: str, inputs: object, at: float, running: bool) -> object:
        execution = new_execution(id, self._workflow, inputs, at=at, running=running)
        await self._store.executions.create(execution)
        self._read.setdefault(id, execution)
        return await self._store.executions.get(id)

    async def _step(self, id: str, state: Any, at: float, result: object, by: str) -> object:
        known = self._read.get(id) or new_execution(id, self._workflow, None, at=at)
        try:
            self._read[id] = await self._store.executions.step(known, state, at=at, result=result, by=by)
        except FlowError:
            # The second attempt of somebody who was too late begins with what is there.
            self._read[id] = await self._store.executions.get(id)
            raise
        return self._read[id], await self._store.executions.get(id)

    async def _executions(self, limit: int, created_from: float | None) -> object:
        wanted = ExecutionFilter(created_from=created_from)
        page = await self._store.executions.list(wanted, limit=limit)
        if page.after is None:
            return page
        return page, await self._store.executions.list(wanted, limit=limit, after=page.after)

    async def _prune(self, before: float) -> object:
        return await self._store.executions.prune(before)

    async def _open(self, id: str, execution_id: str, at: float, expires_at: float | None) -> object:
        await self._store.waits.open(
            a_wait(id, execution_id=execution_id, created_at=at, expires_at=expires_at)
        )
        return await self._store.waits.get(id)

    async def _answer(self, id: str, value: object, at: float) -> object:
        return await self._store.waits.answer(id, value, at=at, by="Ann")

    async def _expire(self, id: str, at: float) -> object:
        return await self._store.waits.expire(id, at=at)

    async def _cancel(self, execution_id: str, at: float) -> object:
        return await self._store.waits.cancel(execution_id, at=at)

    async def _due(self, now: float, limit: int) -> object:
        return await self._store.waits.due(now, limit=limit)

    async def _waits(self, limit: int) -> object:
        page = await self._store.waits.list(WaitFilter(states=frozenset({"open"})), limit=limit)
        return page, await self._store.waits.list(limit=limit, after=page.after)

    async def _journal(self, execution_id: str, calls: list[tuple[int, object]]) -> object:
        entries = [
            JournalEntry(execution_id=execution_id, node="n", call=call, value=value) for call, value in calls
        ]
        return await self._store.journal.put(entries)

    async def _entries(self, execution_id: str) -> object:
        return await self._store.journal.get_all(execution_id)

    async def _drop(self, execution_id: str) -> object:
        return await self._store.journal.drop(execution_id)


def _comparable(done: object) -> object:
    """Pages and structs by their `repr`: NaN is like itself there, and kinds are kept apart."""
    return None if done is None else repr(done)


def _compare(operations: list[Operation], *others: Callable[[], Store]) -> None:
    async def scenario() -> None:
        stores = [MemoryStore(), *(make() for make in others)]
        users = [_User(store) for store in stores]
        try:
            for operation in (*BEGINNING, *operations):
                expected, *found = [await user.do(operation) for user in users]
                for store, each in zip(stores[1:], found, strict=True):
                    assert each == expected, f"{store!r} differs at {operation}"
        finally:
            await _all(*(store.aclose() for store in stores))

    asyncio.run(scenario())


async def _all(*work: Awaitable[None]) -> None:
    for each in work:
        await each


@given(st.lists(OPERATIONS, min_size=15, max_size=30))
def test_memory_and_sqlite_answer_alike(operations: list[Operation]) -> None:
    with tempfile.TemporaryDirectory(dir=_QUICK) as folder:
        _compare(operations, lambda: SqliteStore(Path(folder) / "store.sqlite"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_sqlite_and_postgres_answer_alike(postgres_server: PostgresServer) -> None:
    """Each example in a schema of its own, which the option search_path names."""
    database = postgres_server.create_database()
    numbers = itertools.count()

    @settings(max_examples=100)
    @given(st.lists(OPERATIONS, min_size=10, max_size=60))
    def check(operations: list[Operation]) -> None:
        schema = f"example_{next(numbers)}"
        postgres_server.psql(f"CREATE SCHEMA {schema}", database=database)
        url = f"{postgres_server.url(database)}&search_path={schema}"
        with tempfile.TemporaryDirectory(dir=_QUICK) as folder:
            _compare(
                operations, lambda: SqliteStore(Path(folder) / "store.sqlite"), lambda: PostgresStore(url)
            )

    check()
    postgres_server.drop_database(database)
