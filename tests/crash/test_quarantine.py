"""A record that kills its process is put aside after some restarts; no other record is lost for it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from flowcore import Workflow, node
from flowruntime.runtime import FlowRuntime

@node("killer.work")
async def work(record: dict) -> dict:
    await asyncio.sleep(0)
    if record["kills"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return record

async def main() -> int:
    settings = {"max_redelivery": 40, "commit_interval": "5ms", "max_frame": 10, "quarantine_after": 2}
    if "letters" in sys.argv:
        place = {"type": "files.sink", "config": {"path": "dead.jsonl"}}
        settings |= {"on_error": "dead_letter", "dead_letter": place}
    wf = Workflow("killer", settings=settings)
    source = wf.add("files.source", id="s", config={"path": "in.jsonl"})
    wf.chain(source, wf.add(work), wf.add("files.sink", id="k", config={"path": "out.jsonl"}))
    async with FlowRuntime() as rt:
        result = await (await rt.start(wf)).wait()
    return 0 if result.ok or result.handled else 1

sys.exit(asyncio.run(main()))
"""
RECORDS = 150


def restarted(folder: Path, *arguments: str, most: int = 12) -> list[int]:
    """Run the program until it ends by itself; how each run ended."""
    (folder / "program.py").write_text(PROGRAM)
    ended: list[int] = []
    while not ended or ended[-1] == -signal.SIGKILL:
        assert len(ended) < most, f"it died {len(ended)} times"
        run = subprocess.run(
            [sys.executable, "program.py", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        ended.append(run.returncode)
        assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return ended


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def prepared(folder: Path, culprits: set[int]) -> None:
    records = [{"id": number, "kills": number in culprits} for number in range(RECORDS)]
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", ["letters", "no_place"])
def test_the_culprit_has_one_letter_and_the_others_are_written(tmp_path: Path, seed: int, place: str) -> None:
    culprit = random.Random(seed).randrange(RECORDS)
    prepared(tmp_path, {culprit})
    ended = restarted(tmp_path, place)
    # twice unnoticed among others, twice alone
    assert ended == [-signal.SIGKILL] * 4 + [0]
    written = Counter(record["id"] for record in lines(tmp_path / "out.jsonl"))
    assert set(written) == set(range(RECORDS)) - {culprit}
    assert sum(written.values()) - len(written) <= 40 * 4
    file = tmp_path / ("dead.jsonl" if place == "letters" else ".flow/quarantine.jsonl")
    letters = lines(file)
    assert len(letters) == 1
    assert file.stat().st_size > 0
    (letter,) = letters
    assert letter["record"]["id"] == culprit
    assert letter["error"]["kind"] == "ProcessKilledError"
    assert letter["attempts"] == 2
    assert letter["origin"]["source"] == "s"
    assert restarted(tmp_path, place) == [0]
    assert len(lines(file)) == 1


@pytest.mark.long
def test_two_culprits_are_put_aside_one_after_the_other(tmp_path: Path) -> None:
    prepared(tmp_path, {20, 90})
    restarted(tmp_path, "letters")
    written = {record["id"] for record in lines(tmp_path / "out.jsonl")}
    assert written == set(range(RECORDS)) - {20, 90}
    assert sorted(letter["record"]["id"] for letter in lines(tmp_path / "dead.jsonl")) == [20, 90]
