"""Killed while rows of a run wait, are answered, or come back: none is lost, none is asked twice."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowcore.waits import Wait
from flowruntime.durable.held import DONE, READY
from flowruntime.runtime import FlowRuntime
from flowruntime.state.store.entries import ExecutionHead, WaitFilter
from flowruntime.state.store.opening import open_store
from tests.crash.pipeline import run

RECORDS = 20
NODES = """
from flowcore import NodeContext, WaitRequest, node

@node("kh.ask", waits=True)
async def ask(record: dict, ctx: NodeContext) -> dict:
    return record | {"answer": await ctx.wait(WaitRequest(kind="form", title=str(record["seq"])))}
"""
FLOW = """
name: holding
settings: {max_frame: 4, max_in_flight: 8, max_redelivery: 12, commit_interval: 5ms, max_hold: 1ms}
nodes:
  records: {type: files.source, config: {path: in.jsonl, format: jsonl}}
  hold: HOLD
  kept: {type: files.sink, config: {path: out.jsonl}}
connections: [records -> hold, hold -> kept]
"""
ASK, DELAY = "{type: kh.ask}", "{type: control.delay, config: {duration: 150ms}}"
RUN = ("run", "flow.yaml", "--nodes", "kholds", "--events", "none")

_WHILE_STORED = [
    "hold.before_store:1", "hold.before_store:3", "hold.after_store:1", "hold.after_store:2",
    "commit.before:1", "commit.between:2", "commit.after:1",
]  # fmt: skip
_WHILE_BACK = [
    "hold.after_claim:1", "hold.after_claim:7", "sink.before_write:1", "sink.before_write:2",
    "sink.after_write:1", "sink.after_write:2", "hold.before_done:1", "hold.after_done:1",
]  # fmt: skip
_WHILE_DUE = ["waits.after_expire:1", "waits.after_expire:9"]
_QUICK = (
    "hold.before_store:1",
    "hold.after_store:1",
    "hold.after_claim:1",
    "sink.after_write:1",
    "hold.before_done:1",
)


def _points(points: list[str], quick: tuple[str, ...] = _QUICK) -> list[Any]:
    """Crash points as parameters; only some of them in the quick tests."""
    return [pytest.param(at, marks=[] if at in quick else pytest.mark.long) for at in points]


def write(folder: Path, hold: str) -> None:
    """The project."""
    (folder / "kholds.py").write_text(NODES)
    (folder / "in.jsonl").write_text("".join(f'{{"seq": {seq}}}\n' for seq in range(RECORDS)))
    (folder / "flow.yaml").write_text(FLOW.replace("HOLD", hold))


def written(folder: Path) -> list[dict[str, object]]:
    """What the sink has, every line whole."""
    out = folder / "out.jsonl"
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def killed(folder: Path, at: str, *arguments: str) -> None:
    """A command that is killed there."""
    went = run(folder, crash_at=at, arguments=arguments or RUN)
    assert went.returncode == -signal.SIGKILL, f"{at} was not hit: {went.stderr}"


def finished(folder: Path) -> dict[str, object]:
    """A run that nobody disturbs: its result."""
    went = run(folder, arguments=RUN)
    assert went.returncode == 0, went.stderr
    result = json.loads(went.stdout)
    assert result["state"] == "completed"
    return result


async def _rows(folder: Path) -> tuple[list[Wait], list[ExecutionHead]]:
    async with open_store(f"sqlite:{folder}/.flow/flow.sqlite") as store:
        waits = await store.waits.list(WaitFilter(states=frozenset({"open"})), limit=1_000)
        return list(waits.items), list((await store.executions.list(limit=1_000)).items)


def rows(folder: Path) -> tuple[list[Wait], list[ExecutionHead]]:
    """Open waits, and all rows there ever were."""
    return asyncio.run(_rows(folder))


def answer_all(folder: Path) -> None:
    """Every open wait, with its title."""

    async def answer() -> None:
        waits, _ = await _rows(folder)
        async with FlowRuntime(store=f"sqlite:{folder}/.flow/flow.sqlite", watchdog=None) as rt:
            for wait in waits:
                await rt.resume(wait.execution_id, f"a{wait.title}")

    asyncio.run(answer())


def check_delivered(folder: Path, *, most_twice: int) -> None:
    """Every record came out, with its own answer, and few of them twice."""
    seen = Counter(record["seq"] for record in written(folder))
    assert set(seen) == set(range(RECORDS)), "lost, or from nowhere"
    assert sum(seen.values()) - RECORDS <= most_twice
    _, heads = rows(folder)
    assert len(heads) == RECORDS, "asked twice"
    assert {(head.state.name, head.owner) for head in heads} == {("completed", DONE)}


@pytest.mark.parametrize("at", _points(_WHILE_STORED))
def test_killed_while_rows_are_stored_each_is_asked_once(at: str, tmp_path: Path) -> None:
    write(tmp_path, ASK)
    killed(tmp_path, at)
    result = finished(tmp_path)
    waits, heads = rows(tmp_path)
    assert (result["held"], len(heads)) == (RECORDS, RECORDS)
    assert sorted(int(wait.title) for wait in waits) == list(range(RECORDS))
    answer_all(tmp_path)
    assert finished(tmp_path)["returned"] == RECORDS
    check_delivered(tmp_path, most_twice=0)
    assert all(record["answer"] == f"a{record['seq']}" for record in written(tmp_path))


@pytest.mark.parametrize("at", _points(_WHILE_BACK))
def test_killed_while_rows_come_back_they_come_back_again(at: str, tmp_path: Path) -> None:
    write(tmp_path, ASK)
    finished(tmp_path)
    answer_all(tmp_path)
    killed(tmp_path, at)
    done = sum(head.owner == DONE for head in rows(tmp_path)[1])
    before = len(written(tmp_path))
    assert finished(tmp_path)["returned"] == RECORDS - done
    check_delivered(tmp_path, most_twice=before - done)


def test_killed_behind_an_answer_the_row_goes_on_in_the_next_run(tmp_path: Path) -> None:
    write(tmp_path, ASK)
    finished(tmp_path)
    waits, _ = rows(tmp_path)
    killed(tmp_path, "waits.after_answer", "resume", waits[0].execution_id, "--input", '"now"')
    left, heads = rows(tmp_path)
    assert len(left) == RECORDS - 1
    assert not [head for head in heads if head.owner == READY], "the answer is all that was stored"
    assert finished(tmp_path)["returned"] == 1
    assert [record["answer"] for record in written(tmp_path)] == ["now"]


@pytest.mark.parametrize(
    "at", _points(["hold.after_store:1", *_WHILE_DUE, *_WHILE_BACK], quick=("waits.after_expire:1",))
)
def test_killed_while_rows_are_delayed_none_is_lost(at: str, tmp_path: Path) -> None:
    write(tmp_path, DELAY)
    killed(tmp_path, at)
    assert finished(tmp_path)["held"] == 0
    check_delivered(tmp_path, most_twice=RECORDS)


def test_the_harness_finds_what_is_lost_and_what_is_asked_twice(tmp_path: Path) -> None:
    write(tmp_path, DELAY)
    finished(tmp_path)
    check_delivered(tmp_path, most_twice=0)
    whole = (tmp_path / "out.jsonl").read_text()
    (tmp_path / "out.jsonl").write_text(whole + whole)
    with pytest.raises(AssertionError):
        check_delivered(tmp_path, most_twice=RECORDS - 1)
    (tmp_path / "out.jsonl").write_text(whole.partition("\n")[2])
    with pytest.raises(AssertionError, match="lost"):
        check_delivered(tmp_path, most_twice=0)
