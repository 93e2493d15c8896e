"""The project whose process is killed: numbered lines, a plain node, one that waits, a file.

Owns: writing the project, running it in a process of its own, reading what it left.
Does not own: when it is killed, what must hold (test_crash_points).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

RECORDS = 120
WINDOW = 24
"""`max_redelivery`: records that may come again after a crash."""

NODES = """
import asyncio
import random
from flowcore import node

@node("crash.label")
def label(record: dict) -> dict:
    return record | {"label": f"n{record['seq']}"}

@node("crash.wait", concurrency=8)
async def wait(record: dict) -> dict:
    await asyncio.sleep(random.random() * 0.002)
    return record
"""

Mode = Literal["append", "atomic"]


class Counters(NamedTuple):
    """What every delivery test counts."""

    lost: int
    dup: int
    phantom: int
    reordered: int


def write_project(folder: Path, mode: Mode) -> None:
    """The workflow, its node module and its input."""
    (folder / "crashing.py").write_text(NODES)
    (folder / "in.jsonl").write_text("".join(f'{{"run": "r", "seq": {seq}}}\n' for seq in range(RECORDS)))
    (folder / "flow.yaml").write_text(
        f"""
name: crash
settings: {{max_frame: 8, max_in_flight: 16, max_redelivery: {WINDOW}, commit_interval: 5ms}}
nodes:
  records: {{type: files.source, config: {{path: in.jsonl, format: jsonl}}}}
  label: {{type: crash.label}}
  wait: {{type: crash.wait}}
  kept: {{type: files.sink, config: {{path: out.jsonl, mode: {mode}}}}}
connections:
  - records -> label
  - label -> wait
  - wait -> kept
"""
    )


RUN = ("run", "flow.yaml", "--nodes", "crashing", "--events", "none")


def run(
    folder: Path, *, crash_at: str = "", arguments: Sequence[str] = RUN
) -> subprocess.CompletedProcess[str]:
    """One `flow run`, or another command; a negative return code is the signal that ended it."""
    environment = {key: value for key, value in os.environ.items() if key != "FLOW_CRASHPOINT"}
    if crash_at:
        environment["FLOW_CRASHPOINT"] = crash_at
    return subprocess.run(
        [sys.executable, "-m", "flowruntime.cli.main", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join((str(folder), *sys.path))},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def written(folder: Path) -> list[int]:
    """The numbers in the output, in order; every line must be whole."""
    out = folder / "out.jsonl"
    if not out.exists():
        return []
    return [json.loads(line)["seq"] for line in out.read_text().splitlines()]


def counted(numbers: list[int]) -> Counters:
    """The four counters of what came out."""
    seen = Counter(numbers)
    first = list(dict.fromkeys(numbers))
    return Counters(
        lost=sum(seq not in seen for seq in range(RECORDS)),
        dup=sum(times - 1 for times in seen.values()),
        phantom=sum(seq not in range(RECORDS) for seq in seen),
        reordered=sum(later < earlier for earlier, later in pairwise(first)),
    )


def nth_times(seed: int, most: int) -> list[int]:
    """How manieth times to crash at: the first, and some later one."""
    return [1, random.Random(seed).randint(2, most)]
