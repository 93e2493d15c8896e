"""flow run, waits and resume of an execution that waits: what is printed where, exit codes, what is made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Flow = Callable[..., Any]

ASKING = """\
name: asking
nodes:
  first: {type: text.template, config: {template: "{name}?"}}
  ask: {type: control.wait_for, config: {title: "let {value} in", timeout: 1h, on_timeout: cancel}}
  yes: {type: text.template, config: {template: "{value} yes"}}
connections: [first -> ask, ask.approved -> yes.value]
"""
TWO = """\
name: two
nodes:
  parts: {type: transform.split}
  ask: {type: control.wait_for, config: {kind: form, schema: {type: integer}}}
  all: {type: control.collect}
connections: [parts -> ask, ask.value -> all]
"""


@pytest.fixture(name="paused")
def _paused(flow: Flow, tmp_path: Path) -> str:
    """The id of an execution that waits."""
    (tmp_path / "asking.yaml").write_text(ASKING)
    ran = flow("run", "asking.yaml", "--input", '{"first": {"value": {"name": "Ann"}}}')
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["state"] == "paused"
    assert [wait["title"] for wait in result["waits"]] == ["let Ann? in"]
    assert f"execution {result['execution_id']}, kept in sqlite:" in ran.err
    assert f"flow resume {result['execution_id']} --input true" in ran.err
    return result["execution_id"]


def test_an_answer_goes_on_and_prints_the_result(flow: Flow, paused: str) -> None:
    assert (Path(".flow") / "flow.sqlite").exists()
    (listed,) = json.loads(flow("waits", "--json").out)
    assert (listed["execution"], listed["node"], listed["kind"]) == (paused, "ask", "approval")
    assert listed["expires_at"] - listed["created_at"] == 3600
    ran = flow("resume", paused, "--input", "true", "--by", "bob")
    assert ran.code == 0
    assert json.loads(ran.out)["outputs"] == {"yes": {"out": "Ann? yes"}}
    assert "nothing waits" in flow("waits").err


def test_a_wrong_answer_exits_2_and_leaves_it_open(flow: Flow, paused: str) -> None:
    refused = flow("resume", paused, "--input", '"yes"')
    assert (refused.code, refused.out) == (2, "")
    assert "the wait is still open" in refused.err
    assert paused in flow("waits").out


def test_what_has_ended_and_what_is_not_there_exit_1(flow: Flow, paused: str) -> None:
    assert flow("resume", paused, "--input", "false").code == 0
    ended = flow("resume", paused, "--input", "true")
    assert ended.code == 1
    assert "is completed since" in ended.err
    assert flow("resume", "nobody", "--input", "true").code == 1


def test_due_goes_on_with_nothing_before_the_time(flow: Flow, paused: str) -> None:
    ran = flow("resume", "--due")
    assert (ran.code, ran.out) == (0, "")
    assert paused in flow("waits").out


def test_several_waits_are_told_apart(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO)
    result = json.loads(flow("run", "two.yaml", "--input", '{"parts": {"value": [1, 2]}}').out)
    execution, (one, two) = result["execution_id"], result["waits"]
    unsaid = flow("resume", execution, "--input", "5")
    assert unsaid.code == 1
    assert "say which this is" in unsaid.err
    again = flow("resume", execution, "--input", "5", "--wait", one["id"])
    assert again.code == 0
    assert [wait["id"] for wait in json.loads(again.out)["waits"]] == [two["id"]]
    assert flow("waits", "--execution", execution).out.count("ask") == 1
    done = flow("resume", execution, "--input", "6")
    assert json.loads(done.out)["outputs"] == {"all": {"out": [5, 6]}}


@pytest.mark.parametrize(
    "arguments", [(), ("x", "--due"), ("--due", "--input", "1"), ("x", "--input", "{"), ("x",)]
)
def test_a_wrong_command_line_exits_2_and_makes_no_store(flow: Flow, arguments: tuple[str, ...]) -> None:
    assert flow("resume", *arguments).code == 2
    assert not Path(".flow").exists()


def test_a_workflow_that_does_not_wait_makes_no_store(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(
        'name: plain\nnodes: {t: {type: text.template, config: {template: "{value}!"}}}\nconnections: []\n'
    )
    ran = flow("run", "plain.yaml", "--input", '{"t": {"value": "a"}}')
    assert (ran.code, json.loads(ran.out)["outputs"]) == (0, {"t": {"out": "a!"}})
    assert ", kept in" not in ran.err
    assert not Path(".flow").exists()


def test_flow_toml_names_the_store_and_the_option_wins(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('store = "sqlite:mine/kept.sqlite"\n')
    (tmp_path / "asking.yaml").write_text(ASKING)
    ran = flow("run", "asking.yaml", "--input", '{"first": {"value": {"name": "Ann"}}}')
    assert (tmp_path / "mine" / "kept.sqlite").exists()
    execution = json.loads(ran.out)["execution_id"]
    assert execution in flow("waits").out
    assert "nothing waits" in flow("waits", "--store", "sqlite:other.sqlite").err
    assert not Path("other.sqlite").exists()
    assert flow("resume", execution, "--input", "true", "--store", "sqlite:mine/kept.sqlite").code == 0


STREAM = """\
name: stream
nodes:
  rows: {type: files.source, config: {path: rows.jsonl, format: jsonl}}
  ask: {type: control.wait_for, config: {title: "let {name} in?"}}
  yes: {type: files.sink, config: {path: yes.jsonl, format: jsonl}}
connections: [rows -> ask, ask.approved -> yes]
"""


@pytest.fixture(name="rows")
def _rows(flow: Flow, tmp_path: Path) -> list[str]:
    """The ids of two rows of a run that wait."""
    (tmp_path / "stream.yaml").write_text(STREAM)
    (tmp_path / "rows.jsonl").write_text('{"name": "Ann"}\n{"name": "Bob"}\n')
    ran = flow("run", "stream.yaml")
    assert ran.code == 0, ran.err
    assert "2 rows wait, stored until the next run" in ran.err
    assert json.loads(ran.out)["held"] == 2
    listed = json.loads(flow("waits", "--json").out)
    return [wait["execution"] for wait in sorted(listed, key=lambda wait: wait["title"])]


def test_rows_of_a_run_are_listed_answered_and_go_on_in_the_next_run(flow: Flow, rows: list[str]) -> None:
    ann, bob = rows
    answered = flow("resume", ann, "--input", "true", "--by", "eve")
    assert (answered.code, json.loads(answered.out)["state"]) == (0, "paused")
    assert "goes on in a run of 'stream', or the next" in answered.err
    assert bob in flow("waits").out
    assert ann not in flow("waits").out
    ran = flow("run", "stream.yaml")
    assert (ran.code, json.loads(ran.out)["returned"], json.loads(ran.out)["held"]) == (0, 1, 1)
    assert "1 row that had waited came back" in ran.err
    assert Path("yes.jsonl").read_text() == '{"name":"Ann"}\n'
    again = flow("resume", ann)
    assert again.code == 1
    assert "never goes on" in again.err


def test_a_row_and_an_execution_are_given_up(flow: Flow, rows: list[str], paused: str) -> None:
    for execution in (rows[0], paused, paused):
        given_up = flow("waits", "--cancel", execution)
        assert (given_up.code, given_up.err) == (0, f"{execution} is cancelled\n")
    assert flow("waits", "--cancel", "nobody").code == 1
    listed = json.loads(flow("waits", "--json").out)
    assert [wait["execution"] for wait in listed] == [rows[1]]
    assert flow("resume", rows[0], "--input", "true").code == 1


def test_nothing_is_given_up_where_no_store_is(flow: Flow) -> None:
    given_up = flow("waits", "--cancel", "row-1")
    assert given_up.code == 2
    assert "there is no store" in given_up.err


def test_a_join_with_a_row_that_may_wait_is_refused_with_its_line(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "joined.yaml").write_text(
        "name: joined\nnodes:\n  rows: {type: memory.source, config: {values: [1]}}\n"
        "  ask: {type: control.wait_for}\n"
        "  both: {type: control.gather}\n"
        "connections: [rows -> ask, ask.value -> both, rows -> both]\n"
    )
    for command in (("run", "joined.yaml"), ("run", "joined.yaml", "--dry-run")):
        ran = flow(*command)
        assert ran.code == 2, command
        assert "joined.yaml:5" in ran.err
        assert "needs rows of 'rows' together with rows of 'ask'" in ran.err


def test_a_plan_shows_which_rows_are_held(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "stream.yaml").write_text(STREAM)
    assert (
        "ask may wait for an answer: rows that do are stored, their records settle"
        in flow("plan", "stream.yaml").out
    )
    (tmp_path / "late.yaml").write_text(
        "name: late\nsettings: {max_hold: 5m}\nnodes:\n  rows: {type: memory.source, config: {values: [1]}}\n"
        "  soon: {type: control.delay, config: {duration: 5m}}\n"
        "  later: {type: control.delay, config: {duration: 6m}}\nconnections: [rows -> soon, soon -> later]\n"
    )
    plan = flow("plan", "late.yaml").out
    assert "later holds its rows for 6m, longer than max_hold (5m)" in plan
    assert "soon holds" not in plan


def test_a_plan_shows_that_every_node_is_kept(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "asking.yaml").write_text(ASKING)
    ran = flow("plan", "asking.yaml")
    assert ran.code == 0
    assert "ask may wait for an answer: what each call gives is stored" in ran.out
    stages = json.loads(flow("plan", "asking.yaml", "--format", "json").out)["stages"]
    assert [stage["id"] for stage in stages if stage["kind"] == "async"] == ["first", "ask", "yes"]
