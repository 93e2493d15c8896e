"""Killed while an execution waits, is answered, or goes on: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from tests.crash.waiting import (
    PARTS,
    RUN,
    Left,
    begin,
    checked,
    killed_after,
    left,
    lines,
    resume,
    to_the_end,
    write_waiting,
)

_IN_RUN = [
    "execution.after_create", "node.before_call:1", "node.before_call:3", "node.after_call:4",
    "journal.before_put:1", "journal.after_put:1", "journal.before_put:4", "journal.after_put:5",
    "sink.before_write:1", "sink.after_write:1", "waits.before_open", "waits.after_open",
    "execution.after_pause",
]  # fmt: skip
_IN_RESUME = [
    "waits.after_answer", "execution.after_claim", "node.after_call:1", "journal.before_put:1",
    "journal.after_put:1", "journal.after_put:2", "execution.after_pause",
]  # fmt: skip
_AT_THE_END = ["sink.after_write:1", "execution.before_end", "execution.after_end"]


def _ended(folder: Path, end: tuple[str, Left], kills: int) -> None:
    """The execution has come to its end with the right result."""
    execution, last = end
    (head,) = last.heads
    assert (head.id, head.state.name) == (execution, "completed")
    expected = [[number, f"a{number}"] for number in range(PARTS)]
    late, early = lines(folder, "late.jsonl"), lines(folder, "early.jsonl")
    assert late[0] == expected
    assert len(late) <= 1 + kills
    assert set(early) == set(range(PARTS))
    assert len(early) <= PARTS + kills * PARTS
    counted = {call: last.calls.count(call) for call in last.calls}
    assert max(counted.values()) <= 1 + kills
    assert last.waits == []


def test_the_harness_finds_a_call_that_is_made_although_its_result_was_kept() -> None:
    kept = Left([], [], frozenset({("work", "1")}), [("work", "1")])
    checked(kept, kept._replace(calls=[*kept.calls, ("work", "2")]))
    for wrong in ([("work", "1")], [("work", "2"), ("work", "2")]):
        with pytest.raises(AssertionError):
            checked(kept, kept._replace(calls=[*kept.calls, *wrong]))
    with pytest.raises(AssertionError, match="is gone"):
        checked(kept, kept._replace(kept=frozenset()))


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", _IN_RUN)
def test_a_run_killed_anywhere_goes_on_where_it_was(tmp_path: Path, point: str) -> None:
    write_waiting(tmp_path)
    killed = begin(tmp_path, point)
    assert killed.returncode == -signal.SIGKILL, f"{point} was never reached: {killed.stderr}"
    found = checked(Left([], [], frozenset(), []), left(tmp_path))
    _ended(tmp_path, to_the_end(tmp_path, found, random.Random(point)), kills=1)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", _IN_RESUME)
def test_a_resume_killed_anywhere_keeps_its_answer(tmp_path: Path, point: str) -> None:
    write_waiting(tmp_path)
    assert begin(tmp_path).returncode == 0
    found = left(tmp_path)
    answered = found.waits[1]
    killed = resume(tmp_path, answered.execution_id, answered, point)
    assert killed.returncode == -signal.SIGKILL, f"{point} was never reached: {killed.stderr}"
    after = checked(found, left(tmp_path))
    assert answered.id not in [wait.id for wait in after.waits], "the answer is lost"
    _ended(tmp_path, to_the_end(tmp_path, after, random.Random(point)), kills=1)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", _AT_THE_END)
def test_a_kill_at_the_last_moment_changes_nothing(tmp_path: Path, point: str) -> None:
    write_waiting(tmp_path)
    assert begin(tmp_path).returncode == 0
    for number in range(PARTS):
        found = left(tmp_path)
        last = number == PARTS - 1
        went = resume(tmp_path, found.heads[0].id, found.waits[0], point if last else "")
        assert went.returncode == (-signal.SIGKILL if last else 0), went.stderr
        checked(found, left(tmp_path))
    _ended(tmp_path, to_the_end(tmp_path, left(tmp_path), random.Random(1)), kills=1)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(8))
def test_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_at_work(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    write_waiting(tmp_path)
    found, kills = Left([], [], frozenset(), []), 0
    for _ in range(6):
        if not found.heads:
            command = RUN
        elif found.heads[0].state.finished:
            break
        else:
            answered = rng.choice(found.waits) if found.waits else None
            given = (
                ()
                if answered is None
                else ("--wait", answered.id, "--input", json.dumps(f"a{answered.title}"))
            )
            command = ("resume", found.heads[0].id, "--nodes", "kwait", *given)
        kills += killed_after(tmp_path, command, rng.uniform(0.3, 1.6)) == -signal.SIGKILL
        found = checked(found, left(tmp_path))
    _ended(tmp_path, to_the_end(tmp_path, found, rng), kills)
