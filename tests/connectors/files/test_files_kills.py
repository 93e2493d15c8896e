"""`flow run` as its own process, killed in its work: nothing lost, repeats bounded, no torn line.

0 failures in n kills bounds the rate of failing kills only below 3/n; each test prints its seed and figures.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.connectors.files.rotating import Log

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

KILLS = 20
ROWS = 120_000
MAX_REDELIVERY = 2_000

WORKFLOW = """
name: kills
settings: {{max_redelivery: {redelivery}, max_in_flight: 500, commit_interval: 50ms}}
nodes:
  rows: {{type: files.source, config: {{path: in.jsonl{source}}}}}
  out: {{type: files.sink, config: {{path: out.jsonl{sink}}}}}
connections: [rows -> out]
"""


class Runs:
    """A folder with a workflow that is run again and again."""

    def __init__(self, folder: Path, *, source: str = "", sink: str = "") -> None:
        self.folder = folder
        self.out = folder / "out.jsonl"
        text = WORKFLOW.format(redelivery=MAX_REDELIVERY, source=source, sink=sink)
        (folder / "w.yaml").write_text(text)
        self.seed = int(os.environ.get("FLOW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        self.chance = random.Random(self.seed)

    def start(self, limit_bytes: int | None = None) -> subprocess.Popen[bytes]:
        """A run; `limit_bytes`: no file it writes may become larger."""

        def restrict() -> None:
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        return subprocess.Popen(
            [sys.executable, "-m", "flowruntime.cli.main", "run", "w.yaml"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109 - the checkout the tests run in
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=restrict,  # noqa: PLW1509 - this process has no other thread that matters
        )

    def run(self, limit_bytes: int | None = None) -> tuple[int, str]:
        process = self.start(limit_bytes)
        _, err = process.communicate(timeout=300)
        return process.returncode, err.decode()

    def kill_while_it_writes(self, growing: Path, *, within: int) -> bool:
        """Kill a run once the file grew by up to `within` bytes; False: it had ended by itself.

        Bytes, not seconds: how much is written in a while depends on the machine.
        """
        before = growing.stat().st_size if growing.exists() else 0
        until = before + self.chance.randrange(within)
        process = self.start()
        try:
            while process.poll() is None and not (growing.exists() and growing.stat().st_size > until):
                time.sleep(0.001)
            killed = process.poll() is None
        finally:
            process.kill()
            process.communicate()
        return killed

    def numbers(self) -> list[int]:
        """What is in the output; every line must be whole."""
        data = self.out.read_bytes()
        assert data.endswith(b"\n")
        return [json.loads(line)["n"] for line in data.splitlines()]

    def tell(self, kills: int, figures: str) -> None:
        print(f"seed={self.seed} kills={kills} {figures}")  # noqa: T201 - what a long test was run for

    def verdict(self, numbers: list[int], expected: int, kills: int) -> None:
        counts = Counter(numbers)
        lost = sum(number not in counts for number in range(expected))
        phantom = sum(not 0 <= number < expected for number in counts)
        dup = len(numbers) - len(counts)
        self.tell(kills, f"lost={lost} dup={dup} phantom={phantom}")
        assert lost == phantom == 0
        assert dup <= kills * MAX_REDELIVERY


def write_rows(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.writelines(f'{{"n": {number}, "pad": "{"x" * (number % 200)}"}}\n' for number in range(count))


def test_a_run_killed_while_it_appends_loses_nothing_and_leaves_no_torn_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", ROWS)
    runs = Runs(tmp_path)
    # as much as comes in and goes out: the last runs find some left
    share = (tmp_path / "in.jsonl").stat().st_size // KILLS
    kills = sum(runs.kill_while_it_writes(runs.out, within=share) for _ in range(KILLS))
    code, err = runs.run()
    assert code == 0, err
    assert kills >= KILLS // 2, "most runs ended before they could be killed: the machine looks too seldom"
    runs.verdict(runs.numbers(), ROWS, kills)


def test_a_run_killed_while_it_replaces_a_file_leaves_the_old_one_until_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "in.jsonl", ROWS // 4)
    runs = Runs(tmp_path, sink=", mode: atomic")
    runs.out.write_text("the old file\n")
    whole = (tmp_path / "in.jsonl").stat().st_size
    kills = 0
    for _ in range(KILLS):
        killed = runs.kill_while_it_writes(tmp_path / ".out.jsonl.partial", within=whole)
        kills += killed
        if runs.out.read_text() != "the old file\n":
            # it was put in place; whether the positions were committed, too, the next run will tell
            assert runs.numbers() == list(range(ROWS // 4))
            for left in (tmp_path / ".flow").iterdir():
                left.unlink()
            runs.out.write_text("the old file\n")
    code, err = runs.run()
    assert code == 0, err
    assert runs.numbers() == list(range(ROWS // 4))
    assert sorted(os.listdir(tmp_path)) == [".flow", "in.jsonl", "out.jsonl", "w.yaml"]  # noqa: PTH208 - names are what is compared
    runs.tell(kills, "lost=0 dup=0 phantom=0")
    assert kills >= KILLS // 2


def test_a_run_killed_while_the_file_it_follows_is_rotated_and_compressed_loses_nothing(
    tmp_path: Path,
) -> None:
    """The log is written, renamed and compressed while runs come and go, also while there is none."""
    log = Log(tmp_path, name="in.jsonl")
    runs = Runs(tmp_path, source=", mode: tail, rotate_wait: 50ms, poll: 10ms")
    written = 0

    def write(count: int) -> None:
        nonlocal written
        with log.path.open("a") as file:
            file.writelines(f'{{"n": {number}}}\n' for number in range(written, written + count))
        written += count

    def change() -> None:
        write(runs.chance.randrange(500, 3_000))
        if runs.chance.random() < 0.7:
            log.rename(create=runs.chance.random() < 0.5)
            plain = [path for path in log.rotations() if path.suffix not in (".gz", ".zst")]
            for path in plain[1:]:
                log.compress(path, runs.chance.choice(["gz", "zst"]))

    # What was renamed before the first look of the first run is not its business.
    write(1)
    process = runs.start()
    while process.poll() is None and not (runs.out.exists() and runs.out.stat().st_size):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    kills = 1
    for _ in range(KILLS):
        process = runs.start()
        until = time.monotonic() + 1.2 + runs.chance.random()
        while time.monotonic() < until and process.poll() is None:
            change()
            time.sleep(0.02 + runs.chance.random() / 10)
        assert process.poll() is None, process.communicate()[1].decode()
        process.kill()
        process.communicate()
        kills += 1
        change()
    write(1)
    process = runs.start()
    while process.poll() is None and f'"n":{written - 1}}}\n'.encode() not in _last(runs.out):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    runs.verdict(runs.numbers(), written, kills)


def _last(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()


@pytest.mark.parametrize("sink", ["", ", mode: atomic"])
def test_a_disk_that_fills_up_fails_the_run_and_the_next_one_goes_on(tmp_path: Path, sink: str) -> None:
    """The size a process may give a file stands for the disk: the answer of the system is one of its kind."""
    write_rows(tmp_path / "in.jsonl", 20_000)
    runs = Runs(tmp_path, sink=sink)
    code, err = runs.run(limit_bytes=1 << 20)
    assert code == 1
    assert "SinkError: cannot write" in err
    if sink:
        assert not runs.out.exists()
    else:
        first = runs.numbers()
        assert first == list(range(len(first)))
        assert 0 < len(first) < 20_000
    code, err = runs.run()
    assert code == 0, err
    runs.verdict(runs.numbers(), 20_000, 1)
