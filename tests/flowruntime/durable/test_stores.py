"""One story of an execution that waits, over each store: paused, closed, answered elsewhere, gone on with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowcore import NodeContext, WaitRequest, Workflow, node
from flowcore.errors import ValidationFailedError
from flowcore.store_errors import ExecutionEndedError
from flowcore.values import same_value
from flowruntime.runtime import FlowRuntime
from flowruntime.state.store.memory import MemoryStore
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.protocol import Store
from flowruntime.state.store.sqlite import SqliteStore

CALLS: Counter[str] = Counter()
ODD: dict[str, Any] = {"$key": [1, 1.0, True, None, b"\x00", 2**70, float("nan")], "text": "ü\ud800"}


@node("st.make")
def make(value: int) -> dict[str, Any]:
    CALLS["make"] += 1
    return {"number": value, "odd": ODD}


@node("st.ask", waits=True)
async def ask(value: dict[str, Any], ctx: NodeContext) -> list[Any]:
    schema = {"type": "object", "required": ["ok"]}
    return [value, await ctx.wait(WaitRequest(kind="form", title="ok?", schema=schema))]


@node("st.end")
def end(value: list[Any]) -> Any:
    CALLS["end"] += 1
    return value


NODES = [make, ask, end]


def _workflow() -> Workflow:
    wf = Workflow("story")
    wf.chain(wf.add(make, id="make"), wf.add(ask, id="ask"), wf.add(end, id="end"))
    return wf


async def _story(first: Store, second: Store, execution: str) -> None:
    CALLS.clear()
    async with first, FlowRuntime(NODES, store=first, state_dir=None) as rt:
        paused = await rt.execute(_workflow(), {"make": {"value": 7}}, execution_id=execution)
        assert [wait.title for wait in paused.waits] == ["ok?"]
        if first is second:
            await _resumed(first, execution)
    if first is not second:
        async with second:
            await _resumed(second, execution)
    assert CALLS == {"make": 1, "end": 1}


async def _resumed(store: Store, execution: str) -> None:
    async with FlowRuntime(NODES, store=store, state_dir=None) as rt:
        with pytest.raises(ValidationFailedError, match="is required"):
            await rt.resume(execution, {})
        done = await rt.resume(execution, {"ok": b"yes"}, by="ann")
        assert same_value(done.outputs["end"]["out"], [{"number": 7, "odd": ODD}, {"ok": b"yes"}])
        stored = await store.executions.get(execution)
        assert stored.state.name == "completed"
        assert same_value(stored.result["outputs"]["make"]["out"], {"number": 7, "odd": ODD})
        with pytest.raises(ExecutionEndedError):
            await rt.resume(execution, {"ok": 1})


async def test_memory() -> None:
    store = MemoryStore()
    await _story(store, store, "e")


async def test_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "flow.sqlite"
    await _story(SqliteStore(file), SqliteStore(file), "e")


async def test_postgres(postgres_url: str) -> None:
    await _story(PostgresStore(postgres_url), PostgresStore(postgres_url), "e")
