"""flow nodes, flow schema, flow doctor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowcore.schema import workflow_schema
from flowruntime.cli import doctor as doctor_module

Flow = Callable[..., Any]


def test_types_are_listed_by_category(flow: Flow) -> None:
    out = flow("nodes").out
    assert "\ntext\n  text.clean " in out
    assert "files.source  source  " in out


def test_one_type_shows_ports_configuration_and_description(flow: Flow) -> None:
    out = flow("nodes", "text.clean").out
    assert out.startswith("text.clean  (map)\n")
    assert "Inputs\n  text  str" in out
    assert 'default "NFC"' in out
    assert "Fails when" in out


def test_an_unknown_type_is_refused_with_the_nearest(flow: Flow) -> None:
    ran = flow("nodes", "text.claen")
    assert ran.code == 2
    assert "did you mean 'text.clean'" in ran.err


def test_types_as_json_are_their_metadata(flow: Flow) -> None:
    assert json.loads(flow("nodes", "text.clean", "--json").out)["type"] == "text.clean"
    assert {each["type"] for each in json.loads(flow("nodes", "--json").out)} >= {"text.clean", "files.sink"}


def test_the_schema_is_printed(flow: Flow) -> None:
    assert json.loads(flow("schema").out) == workflow_schema()


def test_the_doctor_finds_this_installation_well(flow: Flow) -> None:
    ran = flow("doctor")
    assert ran.code == 0
    assert "everything needed is here" in ran.out
    assert "package connectors" in ran.out


def test_the_doctor_says_what_is_broken_and_exits_with_1(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('nodes = ["nowhere.to_be_found"]\n')
    ran = flow("doctor")
    assert ran.code == 1
    assert "broken" in ran.out
    assert "'nowhere.to_be_found' cannot be imported" in ran.out


def test_the_doctor_asks_the_store_of_the_project_and_makes_none(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('store = "sqlite:kept.sqlite"\n')
    assert "is made when it is first used" in flow("doctor").out
    assert not (tmp_path / "kept.sqlite").exists()
    (tmp_path / "kept.sqlite").write_text("this is no database, though it is long enough to be looked at")
    ran = flow("doctor")
    assert ran.code == 1
    assert "broken  health store" in ran.out


def test_the_doctor_answers_a_probe_in_json(flow: Flow, tmp_path: Path) -> None:
    checks = json.loads(flow("doctor", "--json").out)
    assert {"name", "status", "found", "remedy"} == set(checks[0])
    assert {"health memory", "health event loop", "python"} <= {check["name"] for check in checks}
    (tmp_path / "flow.toml").write_text('nodes = ["nowhere.to_be_found"]\n')
    ran = flow("doctor", "--json")
    assert ran.code == 1
    assert [check["name"] for check in json.loads(ran.out) if check["status"] == "broken"] == ["flow.toml"]


def test_the_doctor_asks_what_a_workflow_is_connected_to(flow: Flow, workflow: Path) -> None:
    ran = flow("doctor", str(workflow))
    assert ran.code == 0
    lines = [line.split(maxsplit=2) for line in ran.out.splitlines() if line.startswith("ok  health")]
    found = {line[2].split()[0] for line in lines}
    assert {"memory", "demo/src", "demo/even", "demo/odd"} <= found
    assert not (workflow.parent / "even.jsonl").exists()
    (workflow.parent / "in.jsonl").unlink()
    ran = flow("doctor", str(workflow))
    assert ran.code == 1
    assert "broken  health demo/src" in ran.out
    assert "does not exist" in ran.out
    workflow.write_text(workflow.read_text().replace("path: in.jsonl", "path: in.jsonl, mode: tail"))
    ran = flow("doctor", str(workflow))
    assert ran.code == 0
    assert "everything needed is here, 1 degraded" in ran.out


@pytest.mark.parametrize("timeout", ["0", "-1", "nan"])
def test_the_doctor_refuses_a_timeout_that_is_none(flow: Flow, timeout: str) -> None:
    ran = flow("doctor", "--timeout", timeout)
    assert ran.code == 2
    assert "--timeout takes seconds" in ran.err


def test_the_doctor_sees_a_clock_that_is_behind(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module.time, "time", lambda: 0.0)
    ran = flow("doctor")
    assert ran.code == 1
    assert "the clock is behind" in ran.out


def test_a_category_lists_its_types(flow: Flow) -> None:
    ran = flow("nodes", "text")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["text", "text.clean", "text.template"]
    assert "2 types" in ran.err
    assert [each["type"] for each in json.loads(flow("nodes", "files", "--json").out)] == [
        "files.sink",
        "files.source",
    ]


def test_a_workflow_as_a_node_is_explained_and_suggested(flow: Flow, tmp_path: Path) -> None:
    assert "file      text     a workflow file" in flow("nodes", "workflow").out
    (tmp_path / "w.yaml").write_text("name: w\nnodes: {a: {type: worklfow}}\n")
    assert "did you mean 'workflow'?" in flow("validate", "w.yaml").out


def test_the_doctor_finds_a_type_of_the_project_that_is_taken(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "made_up_nodes.py").write_text(
        "from flowcore import node\n@node('text.clean')\ndef clean(text: str) -> str:\n    return text\n"
    )
    (tmp_path / "flow.toml").write_text('nodes = ["made_up_nodes"]\n')
    ran = flow("doctor")
    assert ran.code == 1
    assert "flow.toml: node type 'text.clean' of made_up_nodes:clean is taken" in ran.out
