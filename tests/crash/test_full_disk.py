"""A real disk of 8 MiB that is full: the run says so, keeps what it had, and goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.full_disk import WINDOW, write_project

_MOUNTED = "mount -t tmpfs -o size=8m none {disk} && exec {python} -m tests.crash.full_disk {disk}"
_ALONE = ("unshare", "--user", "--map-root-user", "--mount", "--")
"""In namespaces of its own: needs no rights, and nothing of it is seen elsewhere."""


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("disk", ["out", "dead", ".flow"])
def test_a_full_disk_loses_nothing_and_damages_nothing(tmp_path: Path, disk: str) -> None:
    """What is on it: the output, the dead letters, the positions."""
    write_project(tmp_path)
    allowed = subprocess.run([*_ALONE, "mount", "-t", "tmpfs", "none", str(tmp_path / disk)], check=False)
    if allowed.returncode:
        pytest.skip("this machine lets nobody mount a small disk, so a full one was not proven")
    done = subprocess.run(
        [*_ALONE, "sh", "-c", _MOUNTED.format(disk=disk, python=sys.executable)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109 - the checkout the tests run in
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counters = json.loads(done.stdout)
    print(f"disk={disk} {done.stdout}")  # noqa: T201 - what a long test was run for
    assert counters["lost"] == counters["phantom"] == 0, counters
    assert counters["gave_up"] >= 1, "the disk was never full"
    assert counters["dup"] <= counters["gave_up"] * WINDOW, counters
