"""One story of rows of a run that wait, over each store: held, answered elsewhere, back once in two runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from flowcore import NodeContext, WaitRequest, Workflow, node
from flowcore.values import same_value
from flowruntime.durable.held import DONE
from flowruntime.runtime import FlowRuntime
from flowruntime.state.store.memory import MemoryStore
from flowruntime.state.store.postgres import PostgresStore
from flowruntime.state.store.protocol import Store
from flowruntime.state.store.sqlite import SqliteStore
from flowruntime.testing.scripted import ScriptedSource, scripted

ROWS = 30
ODD: dict[str, Any] = {"$key": [1, 1.0, True, None, b"\x00", 2**70, float("nan")], "text": "ü\ud800"}
CAME: list[Any] = []


@node("sh.ask", waits=True)
async def ask(value: int, ctx: NodeContext) -> dict[str, Any]:
    answer = await ctx.wait(WaitRequest(kind="form", title=str(value)))
    return {"value": value, "answer": answer, "record": ctx.record, "headers": dict(ctx.headers)}


@node("sh.came")
async def came(value: dict[str, Any]) -> None:
    CAME.append(value)
    await asyncio.sleep(0)


def _workflow() -> Workflow:
    wf = Workflow("rows")
    wf.chain(wf.add("flow.scripted", id="source"), wf.add(ask, id="ask"), wf.add(came, id="came"))
    return wf


def _runtime(store: Store) -> FlowRuntime:
    return FlowRuntime([ask, came, ScriptedSource], store=store, state_dir=None, watchdog=None)


async def _story(first: Store, second: Store) -> None:
    CAME.clear()
    source = scripted(*range(ROWS))
    async with first, second:
        async with _runtime(first) as rt:
            held = await (await rt.start(_workflow(), sources={"source": source})).wait()
        assert (held.state.name, held.held) == ("completed", ROWS)
        async with _runtime(first) as one, _runtime(second) as other:
            waits = (await second.waits.list(limit=1_000)).items
            assert len(waits) == ROWS
            for wait in waits:
                await other.resume(wait.execution_id, ODD)
            runs = [await rt.start(_workflow(), sources={"source": scripted()}) for rt in (one, other)]
            results = [await run.wait() for run in runs]
        assert sum(result.returned for result in results) == ROWS
        assert sorted(row["value"] for row in CAME) == list(range(ROWS)), "each once, in one of the two"
        assert all(same_value(row["answer"], ODD) and row["record"] == row["value"] for row in CAME)
        heads = (await first.executions.list(limit=1_000)).items
        assert {(head.state.name, head.owner) for head in heads} == {("completed", DONE)}


async def test_memory() -> None:
    store = MemoryStore()
    await _story(store, store)


async def test_sqlite(tmp_path: Path) -> None:
    await _story(SqliteStore(tmp_path / "kept.sqlite"), SqliteStore(tmp_path / "kept.sqlite"))


async def test_postgres(postgres_url: str) -> None:
    await _story(PostgresStore(postgres_url), PostgresStore(postgres_url))
