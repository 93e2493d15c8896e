"""A project, one folder of which is a disk of 8 MiB: `python -m tests.crash.full_disk FOLDER` inside it.

Owns: filling that disk, running until everything went through, what must hold each time a run gives up.
Does not own: the mount (test_full_disk), running the command line (pipeline).

In a process of its own because the mount is seen from the process that made it, and no other.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash.pipeline import run

RECORDS = 3000
POISON = 7
"""Every so manieth record cannot be parsed, and becomes a dead letter."""
WINDOW = 200
SIZE = 4000
"""Bytes of a record: all of them take more than the disk has."""
_MOST_RUNS = 20
_ROOM = 1 << 20

_WORKFLOW = f"""
name: small
settings:
  max_frame: 16
  max_in_flight: 64
  max_redelivery: {WINDOW}
  commit_interval: 5ms
  dead_letter: {{type: files.sink, config: {{path: dead/letters.jsonl}}}}
nodes:
  records: {{type: files.source, config: {{path: in.txt, format: lines}}}}
  parse: {{type: transform.json_parse, on_error: dead_letter}}
  kept: {{type: files.sink, config: {{path: out/out.jsonl}}}}
connections: [records -> parse, parse -> kept]
"""


def write_project(folder: Path) -> None:
    """The workflow, its input and its folders."""
    for name in (".flow", "dead", "out"):
        (folder / name).mkdir()
    (folder / "flow.yaml").write_text(_WORKFLOW)
    (folder / "in.txt").write_text("".join(_line(seq) for seq in range(RECORDS)))


def main(disk: str) -> None:
    """Run until everything went through; each time the disk is full, see what is there and make room."""
    kept: Counter[int] = Counter()
    letters: Counter[int] = Counter()
    _fill(Path(disk))
    gave_up = 0
    said = ""
    for _ in range(_MOST_RUNS):
        done = run(Path(), arguments=("run", "flow.yaml", "--events", "none"))
        kept += _taken(Path("out/out.jsonl"), _seq_kept, away=disk == "out")
        letters += _taken(Path("dead/letters.jsonl"), _seq_of_letter, away=disk == "dead")
        if done.returncode == 0:
            break
        gave_up += 1
        said = done.stderr.lower()
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert "no space left" in said or "disk is full" in said, done.stderr
        _make_room(Path(disk) / "ballast")
    else:
        raise AssertionError(f"after {_MOST_RUNS} runs it has not come to its end: {said}")
    # What stays where it was is counted at each look: the last one says it all.
    good = {seq for seq in range(RECORDS) if seq % POISON}
    counters = {
        "gave_up": gave_up,
        "lost": len(good - set(kept)) + len(set(range(RECORDS)) - good - set(letters)),
        "phantom": len(set(kept) - good) + len(set(letters) & good),
        "dup": max(0, kept.total() - len(kept)) + max(0, letters.total() - len(letters)),
    }
    print(json.dumps(counters))  # noqa: T201 - what the test reads


def _line(seq: int) -> str:
    pad = "x" * SIZE
    return f'{{"seq": {seq}, "pad": "{pad}"' + ("}\n" if seq % POISON else "\n")


def _fill(disk: Path) -> None:
    """Take all there is: the first run meets a disk without a single block left."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"\0" * 4096)
        except OSError:
            return


def _make_room(ballast: Path) -> None:
    """A little more each time, so that the disk fills up in the middle of runs, too."""
    os.truncate(ballast, max(0, ballast.stat().st_size - _ROOM))


_SEEN: dict[Path, int] = {}


def _taken(path: Path, seq_of: Callable[[Any], int], *, away: bool) -> Counter[int]:
    """The numbers in the new lines of a file, all whole; `away`: take the file away, for room."""
    if not path.exists():
        return Counter()
    data = path.read_bytes()
    assert not data or data.endswith(b"\n"), f"{path} ends in a torn line"
    lines = data.splitlines()
    found = Counter(seq_of(json.loads(line)) for line in lines[_SEEN.get(path, 0) :])
    _SEEN[path] = 0 if away else len(lines)
    if away:
        os.unlink(path)  # noqa: PTH108 - as a program that ships files away does
    return found


def _seq_kept(line: dict[str, int]) -> int:
    return line["seq"]


def _seq_of_letter(line: object) -> int:
    text = json.dumps(line)
    return int(text.partition('\\"seq\\": ')[2].partition(",")[0])


if __name__ == "__main__":
    main(sys.argv[1])
