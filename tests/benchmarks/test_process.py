"""A contender's process, as its parent sees it: every end has a reason, none leaves a process behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.process import ContenderError, WorkerProcess

PYTHON = Path(sys.executable)
DOUBLES = "tests.benchmarks.doubles"


def worker(work: str, *, timeout_s: float = 20.0, **params: object) -> WorkerProcess:
    return WorkerProcess(PYTHON, f"{DOUBLES}:{work}", params, timeout_s=timeout_s)


def test_each_run_answers_with_times_digest_and_facts() -> None:
    with worker("counting") as process:
        first, second = process.run(), process.run()
    assert first.preview == "[1]"
    assert second.preview == "[2]"
    assert first.digest != second.digest
    assert second.facts == {"peak": 2}
    assert first.seconds == 0.5


def test_a_coroutine_workload_runs_on_one_loop_from_start_to_end() -> None:
    with worker("counting_async") as process:
        assert [process.run().preview for _ in range(2)] == ["True", "True"]


def test_what_an_engine_prints_does_not_spoil_the_answers() -> None:
    with worker("noisy") as process:
        assert process.run().preview == "'quiet'"


def test_a_workload_that_raises_is_reported_with_its_error() -> None:
    with worker("raising") as process, pytest.raises(ContenderError, match="ValueError: not today"):
        process.run()


def test_a_workload_that_cannot_be_set_up_is_reported_at_the_start() -> None:
    with pytest.raises(ContenderError, match="ModuleNotFoundError"), worker("needing"):
        pass


def test_a_process_that_dies_is_reported_with_its_code_and_last_words() -> None:
    with worker("dying") as process, pytest.raises(ContenderError, match="ended with code 7: last words"):
        process.run()


def test_a_run_that_hangs_is_given_up() -> None:
    with (
        worker("hanging", timeout_s=1.0) as process,
        pytest.raises(ContenderError, match="no answer within 1 s"),
    ):
        process.run()
