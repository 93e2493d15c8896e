"""The project whose process is killed while its execution waits, or goes on.

Owns: writing the project, running its commands, what each left: calls, lines of the sink, the store.
Does not own: when it is killed, what must hold (test_waits).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from flowcore.waits import Wait
from flowruntime.state.store.entries import ExecutionHead, WaitFilter
from flowruntime.state.store.opening import open_store
from tests.crash.pipeline import run

PARTS = 3
NODES = f"""
import asyncio
import os
from flowcore import NodeContext, WaitRequest, node

def called(name, key):
    log = os.open("calls.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{{name}} {{key}}\\n".encode())
    os.close(log)

@node("kw.first")
def first(value: int) -> int:
    called("first", "")
    return value

@node("kw.parts")
def parts(value: int):
    called("parts", "")
    yield from range({PARTS})

@node("kw.work", concurrency=2)
async def work(value: int) -> int:
    called("work", value)
    await asyncio.sleep(0.01)
    return value

@node("kw.ask", waits=True)
async def ask(value: int, ctx: NodeContext) -> list:
    return [value, await ctx.wait(WaitRequest(kind="form", title=str(value)))]

@node("kw.after")
async def after(pair: list) -> list:
    called("after", pair[0])
    await asyncio.sleep(0.01)
    return pair

@node("kw.total", kind="collect")
def total(items: list[list]) -> list:
    called("total", "")
    return items
"""
FLOW = """
name: waiting
nodes:
  start: {type: memory.source, config: {values: [1]}}
  first: {type: kw.first}
  parts: {type: kw.parts}
  work: {type: kw.work}
  early: {type: files.sink, config: {path: early.jsonl, format: jsonl}}
  ask: {type: kw.ask}
  after: {type: kw.after}
  total: {type: kw.total}
  late: {type: files.sink, config: {path: late.jsonl, format: jsonl}}
connections:
  - start -> first
  - first -> parts
  - parts -> work
  - work -> early
  - work -> ask
  - ask -> after
  - after -> total
  - total -> late
"""
RUN = ("run", "flow.yaml", "--nodes", "kwait", "--input", "1", "--write", "--events", "none")


class Left(NamedTuple):
    """What is there after a process has ended."""

    heads: list[ExecutionHead]
    waits: list[Wait]
    """Open ones."""
    kept: frozenset[tuple[str, str]]
    """Node and key of every call whose result is kept."""
    calls: list[tuple[str, str]]
    """Made so far, in order."""


def write_waiting(folder: Path) -> None:
    """The workflow and its node module."""
    (folder / "kwait.py").write_text(NODES)
    (folder / "flow.yaml").write_text(FLOW)


def begin(folder: Path, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    """`flow run`."""
    return run(folder, crash_at=crash_at, arguments=RUN)


def resume(
    folder: Path, execution: str, wait: Wait | None, crash_at: str = ""
) -> subprocess.CompletedProcess[str]:
    """`flow resume`, with an answer to one wait or without any."""
    given = () if wait is None else ("--wait", wait.id, "--input", json.dumps(f"a{wait.title}"))
    return run(folder, crash_at=crash_at, arguments=("resume", execution, "--nodes", "kwait", *given))


def killed_after(folder: Path, arguments: tuple[str, ...], seconds: float) -> int:
    """Run a command and kill it after a while; the return code."""
    with subprocess.Popen(
        [sys.executable, "-m", "flowruntime.cli.main", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(folder),
    ) as process:
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), *sys.path))}


def left(folder: Path) -> Left:
    """Look at what is there."""
    return asyncio.run(_left(folder))


async def _left(folder: Path) -> Left:
    log = folder / "calls.log"
    lines = log.read_text().splitlines() if log.exists() else []
    calls = [(name, key) for name, _, key in (line.partition(" ") for line in lines)]
    file = folder / ".flow" / "flow.sqlite"
    if not file.exists():
        return Left([], [], frozenset(), calls)
    async with open_store(f"sqlite:{file}") as store:
        heads = list((await store.executions.list()).items)
        waits = list((await store.waits.list(WaitFilter(states=frozenset({"open"})))).items)
        kept = [(entry.node, entry.path) for head in heads for entry in await store.journal.get_all(head.id)]
    return Left(heads, waits, frozenset(kept), calls)


def lines(folder: Path, name: str) -> list[Any]:
    """What a sink has written."""
    file = folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def to_the_end(folder: Path, before: Left, rng: random.Random) -> tuple[str, Left]:
    """Answer, undisturbed, until the execution has ended; its id and what is left.

    Raises:
        AssertionError: a command failed, or a call was made whose result was kept.
    """
    if not before.heads:
        began = begin(folder)
        assert began.returncode == 0, began.stderr
        before = checked(before, left(folder))
    (head,) = before.heads
    for _ in range(PARTS + 2):
        if before.heads[0].state.finished:
            break
        wait = rng.choice(before.waits) if before.waits else None
        went = resume(folder, head.id, wait)
        assert went.returncode == 0, went.stderr
        before = checked(before, left(folder))
    return head.id, before


def checked(before: Left, after: Left) -> Left:
    """What one process has done: no call whose result was kept when it began, and none twice."""
    made = after.calls[len(before.calls) :]
    assert len(made) == len(set(made)), made
    again = set(made) & before.kept
    assert not again, f"called again though their results were kept: {again}"
    assert before.kept <= after.kept, "what was kept is gone"
    return after
