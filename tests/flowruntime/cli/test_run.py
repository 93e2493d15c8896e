"""flow run: outcomes, exit codes, what is printed where, signals."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Flow = Callable[..., Any]

FAILING = """\
name: failing
nodes:
  src: {type: memory.source, config: {values: ["1", "x", "3"]}}
  parse: {type: transform.json_parse, on_error: continue}
  out: {type: memory.sink}
connections: [src -> parse, parse -> out]
"""
SLOW = """\
name: slow
settings: {drain_timeout: DRAIN}
nodes:
  src: {type: timer.source, config: {interval: 10ms}}
  wait: {type: control.delay, config: {duration: 500ms}}
  out: {type: files.sink, config: {path: out.jsonl}}
connections: [src -> wait, wait -> out]
"""


# --- streams ---


def test_a_stream_writes_and_prints_its_result_on_stdout_and_the_summary_on_stderr(
    flow: Flow, workflow: Path
) -> None:
    ran = flow("run", str(workflow))
    assert ran.code == 0
    result = json.loads(ran.out)
    assert (result["state"], result["records"]) == ("completed", 6)
    assert result["counts"]["keep"]["dropped"] == 2
    assert [json.loads(line)["id"] for line in Path("even.jsonl").read_text().splitlines()] == [2, 4]
    assert "completed: 6 records" in ran.err
    assert "keep" in ran.err


def test_positions_are_kept_and_fresh_begins_anew(flow: Flow, workflow: Path) -> None:
    flow("run", str(workflow))
    assert json.loads(flow("run", str(workflow)).out)["records"] == 0
    assert json.loads(flow("run", str(workflow), "--fresh").out)["records"] == 6


def test_a_limit_stops_after_that_many_records(flow: Flow, workflow: Path) -> None:
    assert json.loads(flow("run", str(workflow), "--limit", "4").out)["records"] == 4
    assert json.loads(flow("run", str(workflow), "--limit", "4").out)["records"] == 2


def test_params_and_configuration_can_be_given(flow: Flow, workflow: Path) -> None:
    assert flow("run", str(workflow), "--param", "least=3", "--set", "even.path=elsewhere.jsonl").code == 0
    assert [json.loads(line)["id"] for line in Path("elsewhere.jsonl").read_text().splitlines()] == [4]


def test_failed_rows_make_the_run_partial_and_exit_1(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(FAILING)
    ran = flow("run", "f.yaml")
    assert ran.code == 1
    assert json.loads(ran.out)["state"] == "partial"
    assert "partial: 3 records" in ran.err
    assert "parse: ParseError:" in ran.err


def test_failures_an_error_port_has_taken_are_handled_and_exit_0(flow: Flow, tmp_path: Path) -> None:
    text = FAILING.replace("out]", "out, parse.error -> bad]").replace(
        "  out:", "  bad: {type: memory.sink}\n  out:"
    )
    (tmp_path / "f.yaml").write_text(text)
    ran = flow("run", "f.yaml")
    assert ran.code == 0
    assert "every failure was handled" in ran.err


def test_a_run_that_fails_says_why(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(FAILING.replace("continue", "stop_workflow"))
    ran = flow("run", "f.yaml")
    assert ran.code == 1
    assert json.loads(ran.out)["state"] == "failed"
    assert "failed (" in ran.err


def test_a_workflow_that_writes_on_stdout_has_it_alone(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(FAILING.replace("memory.sink", "stdio.sink").replace('"x"', '"2"'))
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "s.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["1", "2", "3"]


def test_a_dry_run_plans_and_writes_nothing(flow: Flow, workflow: Path) -> None:
    before = sorted(Path().iterdir())
    ran = flow("run", str(workflow), "--dry-run")
    assert ran.code == 0
    assert "demo, as a stream" in ran.out
    assert sorted(Path().iterdir()) == before


def test_a_dry_run_finds_a_secret_that_is_not_set(flow: Flow, tmp_path: Path) -> None:
    call = "{type: http.request, config: {url: 'https://example.com', bearer: {$secret: NOT_SET_ANYWHERE}}}"
    (tmp_path / "h.yaml").write_text(f"name: h\nnodes:\n  call: {call}\nconnections: []\n")
    ran = flow("run", "h.yaml", "--dry-run")
    assert ran.code == 2
    assert "h.yaml:3: nodes.call.config.bearer" in ran.err
    assert "NOT_SET_ANYWHERE" in ran.err


# --- requests ---


def test_a_request_answers_and_writes_nothing(flow: Flow, workflow: Path) -> None:
    ran = flow("run", str(workflow), "--input", '{"id": 4}')
    result = json.loads(ran.out)
    assert (ran.code, result["ok"]) == (0, True)
    assert result["captured"] == {"even": [{"id": 4}]}
    assert result["outcomes"]["odd"]["state"] == "skipped"
    assert not Path("even.jsonl").exists()


def test_a_request_writes_when_told_to(flow: Flow, workflow: Path) -> None:
    assert flow("run", str(workflow), "--input", '{"id": 4}', "--write").code == 0
    assert json.loads(Path("even.jsonl").read_text()) == {"id": 4}


def test_inputs_come_from_a_file_or_standard_input_too(flow: Flow, workflow: Path, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"id": 4}')
    assert flow("run", str(workflow), "--input", "@one.json").code == 0
    missing = flow("run", str(workflow), "--input", "@none.json")
    assert (missing.code, "no such file" in missing.err) == (2, True)


def test_values_json_has_no_form_for_are_printed_by_the_plain_rules(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: r\nnodes: {tap: {type: debug.tap}}\nconnections: []\n")
    given = {"tap": {"value": {"nan": {"$float": "nan"}, "raw": {"$bytes": "AAE="}, "big": 1 << 70}}}
    ran = flow("run", "r.yaml", "--input", json.dumps(given))
    assert ran.code == 0
    out = json.loads(ran.out)["outputs"]["tap"]["out"]
    assert out == {"nan": {"$float": "nan"}, "raw": {"$bytes": "AAE="}, "big": {"$int": str(1 << 70)}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "{id: 4}"], "--input is no JSON: line 1: a key in double quotes is expected; quote it"),
        (["--input", " "], "--input is empty; give a JSON value"),
        (["--input", "@"], "--input @ names no file"),
        (["--input", "@."], "--input @. cannot be read: Is a directory"),
        (["--input", "@bytes"], "--input @bytes is not UTF-8: byte 0xff at position 3"),
        (["--input", "@text"], "--input @text is no JSON: line 1: a JSON value is expected"),
        (["--input", '{"keep": {"valeu": 3}}'], "'keep' has no open input port; give"),
        (["--set", "even.path=3"], "--set even.path=3: nodes.even.config.path: must be text"),
        (["--set", "even.paht=x"], "--set even.paht=x: nodes.even.config.paht: unknown configuration field"),
        (["--set", "evne.path=x"], "there is no node 'evne'; did you mean 'even'?"),
        (["--set", "even=x"], "name a configuration field: --set even.field=value"),
        (
            ["--param", "leats=3"],
            "--param leats=3: params.leats: unknown param 'leats'; did you mean 'least'?",
        ),
        (["--param", "least=x"], "--param least=x: params.least: must be of kind int"),
        (["--param", "least"], "--param takes name=value, got 'least'"),
        (["--input", "{}"], "a request needs a record for source 'src'"),
        (["--input", '{"id": 4}', "--limit", "1"], "--limit and --fresh are for streams"),
        (["--write"], "--write is for requests"),
    ],
)
def test_inputs_that_cannot_be_used_exit_2_and_run_nothing(
    flow: Flow, workflow: Path, arguments: list[str], said: str
) -> None:
    Path("bytes").write_bytes(b'{"a\xff"}')
    Path("text").write_text("hello")
    ran = flow("run", str(workflow), *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not Path("even.jsonl").exists()


def test_a_request_that_fails_exits_1_and_names_the_node(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(FAILING)
    ran = flow("run", "f.yaml", "--input", '"x"')
    assert ran.code == 1
    assert "parse  failed" in ran.err
    assert "out    skipped" in ran.err
    assert "because of parse" in ran.err


# --- events ---


def test_events_are_shown_as_lines(flow: Flow, workflow: Path) -> None:
    err = flow("run", str(workflow), "--events", "pretty").err
    assert "WorkflowStarted   demo as a stream, 4 nodes" in err
    assert "WorkflowCompleted" in err


def test_events_as_json_are_alone_on_stderr(flow: Flow, workflow: Path) -> None:
    ran = flow("run", str(workflow), "--events", "jsonl")
    kinds = [json.loads(line)["kind"] for line in ran.err.splitlines()]
    assert (kinds[0], kinds[-1]) == ("WorkflowStarted", "WorkflowCompleted")


def test_a_recorded_run_is_shown_again(flow: Flow, workflow: Path) -> None:
    flow("run", str(workflow), "--record", "events.jsonl")
    everything = flow("events", "events.jsonl")
    assert everything.code == 0
    assert "WorkflowStarted   demo as a stream" in everything.out
    assert "NodeCompleted" in everything.out
    only = flow("events", "events.jsonl", "--kind", "NodeCompleted", "--node", "even", "--format", "jsonl")
    assert {json.loads(line)["node"] for line in only.out.splitlines()} == {"even"}


def test_a_recording_is_never_overwritten(flow: Flow, workflow: Path) -> None:
    Path("events.jsonl").write_text("mine\n")
    ran = flow("run", str(workflow), "--record", "events.jsonl")
    assert ran.code == 1
    assert Path("events.jsonl").read_text() == "mine\n"
    assert not Path("even.jsonl").exists()


def test_a_recording_cut_short_is_shown_as_far_as_it_goes_and_exits_1(flow: Flow, workflow: Path) -> None:
    flow("run", str(workflow), "--record", "events.jsonl")
    whole = Path("events.jsonl").read_text()
    Path("events.jsonl").write_text(whole[: len(whole) // 2])
    ran = flow("events", "events.jsonl")
    assert ran.code == 1
    assert "WorkflowStarted" in ran.out
    assert "events.jsonl" in ran.err


def test_an_unknown_kind_is_refused_with_the_nearest(flow: Flow, workflow: Path) -> None:
    flow("run", str(workflow), "--record", "events.jsonl")
    ran = flow("events", "events.jsonl", "--kind", "NodeCompletd")
    assert ran.code == 2
    assert "did you mean 'NodeCompleted'" in ran.err


# --- signals ---


def _started(tmp_path: Path, *, drain: str) -> subprocess.Popen[str]:
    """A real process whose first row has been written."""
    (tmp_path / "slow.yaml").write_text(SLOW.replace("DRAIN", drain))
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "slow.yaml", "--events", "jsonl"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"out"' in line and "StageProgress" not in line:
            break
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_what_is_in_flight_and_exits_by_the_outcome(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = _started(tmp_path, drain="20s")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    result = json.loads(out)
    assert process.returncode == 0
    assert (result["state"], result["abandoned"]) == ("completed", 0)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == result["records"]
    assert f"{number.name}: finishing what is in flight" in err


def test_a_drain_cut_short_by_its_deadline_exits_130_and_says_what_was_left(tmp_path: Path) -> None:
    process = _started(tmp_path, drain="0s")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    result = json.loads(out)
    assert process.returncode == 130
    assert result["state"] == "cancelled"
    assert result["abandoned"] > 0


def test_the_second_signal_aborts(tmp_path: Path) -> None:
    text = SLOW.replace("500ms", "60s").replace("DRAIN", "60s")
    (tmp_path / "slow.yaml").write_text(text)
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "slow.yaml", "--events", "jsonl"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for wanted in ('"wait"', "finishing", "aborting"):
        for line in process.stderr:
            if wanted in line:
                break
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


STUCK = """\
import sys, time
from flowcore import node

@node("stuck.loop")
def loop(value: int) -> int:
    print("here", file=sys.stderr, flush=True)
    time.sleep(120)
    return value

@node("stuck.thread", offload="thread")
def thread(value: int) -> int:
    print("here", file=sys.stderr, flush=True)
    time.sleep(120)
    return value
"""


def _stuck(tmp_path: Path, kind: str, *, leave_after_s: float) -> subprocess.Popen[str]:
    """A process in which a node is at work that nothing can stop."""
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "s.yaml").write_text(
        "name: s\nsettings: {drain_timeout: 60s}\nnodes:\n"
        f"  src: {{type: memory.source, config: {{values: [1]}}}}\n  n: stuck.{kind}\n"
        "  out: {type: memory.sink}\nconnections: [src -> n, n -> out]\n"
    )
    code = (
        "import sys; from flowruntime.cli import main, signals\n"
        f"signals.LEAVE_AFTER_S = {leave_after_s}\nsys.exit(main.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "s.yaml", "--nodes", "stuck"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("here"):
            break
    return process


@pytest.mark.parametrize("kind", ["loop", "thread"])
def test_after_the_second_signal_the_process_ends_whatever_is_stuck_in_it(tmp_path: Path, kind: str) -> None:
    process = _stuck(tmp_path, kind, leave_after_s=0.2)
    for number in (signal.SIGINT, signal.SIGTERM):  # two of one kind might be taken for one
        process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    # threads of nodes are daemons: the run is cancelled without them, and the interpreter does not wait
    wanted = "left behind what cannot be stopped" if kind == "loop" else "1 records were left unfinished"
    assert wanted in err
    assert "Traceback" not in err


def test_a_further_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    process = _stuck(tmp_path, "loop", leave_after_s=1_000.0)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
    assert process.stderr is not None
    assert "leaving at once" in process.stderr.read()
    process.stderr.close()
    assert process.returncode == 130


def test_signals_are_obeyed_when_nobody_reads_standard_error_any_more(tmp_path: Path) -> None:
    process = _started(tmp_path, drain="20s")
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    result = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    assert result["state"] == "completed"
