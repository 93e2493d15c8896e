"""Killed at every crash point, then started again: nothing is lost, little comes twice, no line is torn."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from flowcore.errors import ConfigError
from flowruntime.crashpoints import POINTS, armed
from tests.crash.pipeline import WINDOW, Mode, counted, nth_times, run, write_project, written

_ONCE = frozenset({"source.assigned", "sink.before_finish", "sink.after_finish"})
"""Places a run passes once: there is no second time to crash at."""
_CASES = [
    (mode, point, nth)
    for mode in ("append", "atomic")
    for point in POINTS
    if not point.startswith(
        ("letters.", "execution.", "journal.", "waits.", "calls.", "hold.")
    )  # test_letters, test_waits, test_paid_once, test_holds
    for nth in ([1] if point in _ONCE or mode == "atomic" else nth_times(POINTS.index(point), 5))
    # An atomic sink is committed at its end, so that is when positions are written.
]


@pytest.mark.long
@pytest.mark.parametrize(("mode", "point", "nth"), _CASES)
def test_a_crash_loses_nothing_and_repeats_at_most_the_window(
    tmp_path: Path, mode: Mode, point: str, nth: int
) -> None:
    write_project(tmp_path, mode)
    killed = run(tmp_path, crash_at=f"{point}:{nth}")
    assert killed.returncode == -signal.SIGKILL, f"{point}:{nth} was never reached: {killed.stderr}"
    before = written(tmp_path)
    if mode == "atomic" and not point.startswith(("commit", "positions")) and point != "sink.after_finish":
        assert before == [], "nothing may be seen before the rename"
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    counters = counted(written(tmp_path))
    assert counters.lost == counters.phantom == counters.reordered == 0, counters
    assert counters.dup <= WINDOW, counters


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_process_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    """Each time at another place; every crash may repeat a window of records, and none may lose one."""
    write_project(tmp_path, "append")
    crashes = ["sink.after_write:2", "node.after_call:9", "commit.between:3", "source.after_read:2"]
    for number, crash in enumerate(crashes, 1):
        assert run(tmp_path, crash_at=crash).returncode == -signal.SIGKILL, crash
        assert counted(written(tmp_path)).dup <= number * WINDOW
    assert run(tmp_path).returncode == 0
    counters = counted(written(tmp_path))
    assert counters.lost == counters.phantom == 0
    assert counters.dup <= len(crashes) * WINDOW


def test_a_place_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"FLOW_CRASHPOINT='sink.afterwards'.*sink.after_write"):
        armed({"FLOW_CRASHPOINT": "sink.afterwards"})


@pytest.mark.parametrize("text", ["sink.after_write:0", "sink.after_write:x", "sink.after_write:-1"])
def test_a_count_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="how manieth"):
        armed({"FLOW_CRASHPOINT": text})


def test_without_the_variable_nothing_happens() -> None:
    reached = armed({})
    for point in POINTS:
        reached(point)
