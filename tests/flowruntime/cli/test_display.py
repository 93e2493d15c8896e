"""What is shown while a run goes on."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowcore.events import LlmCall, RowCounts, StageProgress
from flowruntime.cli.eventlines import seconds
from flowruntime.cli.progress import HEAD, MOST_SHOWN, Progress, columns_for

SLOW = """\
name: slow
nodes:
  src: {type: timer.source, config: {interval: 20ms, count: 50}}
  wait: {type: control.delay, config: {duration: 300ms}}
  out: {type: files.sink, config: {path: out.jsonl}}
connections: [src -> wait, wait -> out]
"""


def _stage(
    name: str, *, completed: int = 0, failed: int = 0, in_flight: int = 0, p99_s: float | None = None
) -> StageProgress:
    return StageProgress(
        workflow_id="w",
        stage=name,
        nodes=(name,),
        counts=RowCounts(completed=completed, failed=failed),
        rate_per_s=float(completed),
        interval_s=1.0,
        in_flight=in_flight,
        p50_s=None if p99_s is None else p99_s / 2,
        p99_s=p99_s,
    )


def test_records_are_what_sources_hand_over_and_sinks_say_what_was_written() -> None:
    progress = Progress(["src"], ["out", "bad"])
    for stage in (
        _stage("src", completed=1_200, in_flight=64),
        _stage("embed", completed=1_100, failed=3, in_flight=40, p99_s=0.25),
        _stage("out", completed=1_050),
    ):
        progress.see(stage)
    line = progress.line(12.0)
    assert line.startswith("12 s  1,200 records  1,200/s  64 in flight  3 failed")
    assert "slowest embed p50 125 ms p99 250 ms" in line
    assert line.endswith("out 1,050")


def test_only_the_newest_figures_count() -> None:
    progress = Progress(["src"], [])
    progress.see(_stage("src", completed=10))
    progress.see(_stage("src", completed=30))
    assert progress.records == 30
    assert len(progress.rows()) == 1


def test_a_rate_is_that_of_the_last_seconds_because_batches_are_done_at_once() -> None:
    progress = Progress(["embed"], [])
    for rate in (9_999, 9_999, 256, 0, 0, 256, 0):
        event = _stage("embed", completed=1, p99_s=0.5 if rate else None)
        progress.see(msgspec.structs.replace(event, rate_per_s=float(rate)))
    assert progress.rate_per_s == pytest.approx(512 / 5)
    assert progress.rows()[0][HEAD.index("p99")] == "500 ms", "of the last interval that had a row"


def test_of_many_stages_those_with_failures_and_work_are_shown_and_the_others_counted() -> None:
    progress = Progress([], [])
    for number in range(200):
        progress.see(_stage(f"n{number}", failed=int(number == 150), in_flight=int(number == 99)))
    rows = progress.rows()
    assert len(rows) == MOST_SHOWN + 1
    assert {"n150", "n99"} <= {row[0] for row in rows}
    assert rows[-1][0] == "and 180 more"
    assert {len(row) for row in rows} == {len(HEAD)}


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(None, "-"), (0.0000004, "0 us"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (75.4, "1m15s"), (3725, "1h02m")],
)
def test_durations_are_short(duration_s: float | None, text: str) -> None:
    assert seconds(duration_s) == text


def test_on_a_terminal_a_live_table_is_drawn_and_the_summary_follows(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "slow.yaml"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # the other end was closed: that is how a terminal ends
        pass
    os.close(ours)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    text = shown.decode()
    assert "in flight" in text
    assert "p99" in text
    assert "completed: " in text


def test_elsewhere_there_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "slow.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "\x1b" not in ran.stderr
    assert "completed: " in ran.stderr


def test_a_narrow_terminal_shows_fewer_columns_and_never_half_a_figure() -> None:
    progress = Progress(["src"], [])
    for stage in (_stage("src", completed=1_000, in_flight=3), _stage("embed", completed=900, p99_s=0.25)):
        progress.see(stage)
    rows = progress.rows()
    shown = {width: [HEAD[column] for column in columns_for(rows, width)] for width in range(0, 140, 2)}
    assert shown[138] == list(HEAD)
    assert shown[0] == []
    counts = [len(names) for names in shown.values()]
    assert counts == sorted(counts)
    for names in shown.values():
        assert not names or {"stage", "rows", "failed"} <= set(names)
    assert "dropped" not in shown[70]  # it has no figure to show
    assert "p99" in shown[70]


def test_a_terminal_that_cannot_draw_gets_lines(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "slow.yaml"]
    environment = {**os.environ, "TERM": "dumb"}
    ran = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 65_536)
    os.close(ours)
    assert ran.returncode == 0
    assert b"\x1b" not in shown
    assert b"completed: " in shown


def test_calls_of_models_are_told_with_tokens_and_cost_once_they_count() -> None:
    progress = Progress(["src"], ["out"])

    def call(**fields: Any) -> None:
        said: dict[str, Any] = {"node": "ask", "operation": "chat", "provider": "p", "model": "m", **fields}
        progress.models.see(LlmCall(workflow_id="w", **said))

    call(attempts=1, cost_usd=0.0)
    assert "models" not in progress.line(1.0)
    call(attempts=1, input_tokens=1_000, output_tokens=200, cost_usd=0.0123)
    call(attempts=0, cached=True, cost_usd=0.0)
    call(attempts=2, error="RateLimitedError")
    told = "models: 4 calls, 1 kept, 1 failed, 1,200 tokens, $0.0123 (1 of unknown price)"
    assert told in progress.line(1.0)
