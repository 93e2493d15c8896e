"""Killed while calls are being made, again and again: an answer a node has got is never paid for again.

    call  the provider is asked; this is what costs
    got   the node has the answer

The rule: after `got` no further `call` of that name, in any process. What may be paid twice are the calls
under way at a kill, at most as many as may be under way at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash import paying

WINDOW = 12
"""Records in flight at most."""


def started(folder: Path, crash_at: str = "") -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "FLOW_CRASHPOINT"}
    if crash_at:
        environment["FLOW_CRASHPOINT"] = crash_at
    return subprocess.Popen(
        [sys.executable, paying.__file__, str(folder)],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def lines(folder: Path) -> list[str]:
    log = folder / "calls.log"
    return log.read_text().splitlines() if log.exists() else []


def until(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many lines are written, or the process has ended."""
    while len(lines(folder)) < count and process.poll() is None:
        time.sleep(0.002)


def prepared(folder: Path) -> None:
    (folder / "in.jsonl").write_text("".join(f'{{"seq": {seq}}}\n' for seq in range(paying.RECORDS)))


def finished(folder: Path) -> None:
    process = started(folder)
    out, _ = process.communicate(timeout=40)
    assert process.returncode == 0, out.decode()


def check(folder: Path, kills: int) -> None:
    """Nothing a node has got was paid for again; all records are in the output."""
    got: set[str] = set()
    calls: Counter[str] = Counter()
    for line in lines(folder):
        what, name = line.split()
        if what == "got":
            got.add(name)
        else:
            assert name not in got, f"{name} was paid for, and then again"
            calls[name] += 1
    wanted = {f"{seq}/{part}" for seq in range(paying.RECORDS) for part in ("first", "second")}
    assert set(calls) == wanted
    assert sum(calls.values()) <= len(wanted) + kills * paying.CONCURRENCY
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert {row["seq"] for row in rows} == set(range(paying.RECORDS))
    for row in rows:
        assert row["answers"] == [f"answer to {row['seq']}/{part}" for part in ("first", "second")]
    with closing(sqlite3.connect(folder / ".flow" / "calls.sqlite")) as connection:
        (left,) = connection.execute("SELECT count(*) FROM calls").fetchone()
        assert left <= kills * 2 * WINDOW, (
            "let go of with the commits, but for those a kill came right behind"
        )


@pytest.mark.parametrize("point", ["calls.before_journal:7", "calls.after_journal:11", "sink.after_write:2"])
def test_killed_at_a_chosen_place_a_record_keeps_the_answers_it_has_paid_for(
    tmp_path: Path, point: str
) -> None:
    prepared(tmp_path)
    process = started(tmp_path, point)
    out, _ = process.communicate(timeout=40)
    assert process.returncode == -signal.SIGKILL, out.decode()
    finished(tmp_path)
    check(tmp_path, kills=1)


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_again_and_again(tmp_path: Path, seed: int) -> None:
    """5 kills in each of 4 runs: 20 kills without a second payment bound its rate by 3/20."""
    prepared(tmp_path)
    rng, kills = random.Random(seed), 0
    for _ in range(5):
        process = started(tmp_path)
        until(tmp_path, len(lines(tmp_path)) + rng.randint(5, 50), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    finished(tmp_path)
    check(tmp_path, kills)
