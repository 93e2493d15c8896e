"""flow.toml: found upward, refused when wrong, and weaker than what a workflow says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import ValidationFailedError
from flowruntime.cli.project import project_of
from flowruntime.cli.target import load_target

Flow = Callable[..., Any]

NODES = """\
from flowcore.node import node

@node("made_up.double")
def double(value: int) -> int:
    return 2 * value
"""
USES_NODES = """\
name: uses
nodes:
  src: {type: memory.source, config: {values: [1, 2]}}
  twice: {type: made_up.double}
  out: {type: memory.sink}
connections: [src -> twice, twice -> out]
"""


def test_the_nearest_file_above_the_workflow_is_taken(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('roots = ["data"]\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    project = project_of(inner)
    assert project.file == tmp_path / "flow.toml"
    assert project.roots == (str(tmp_path / "data"),)


def test_unknown_keys_and_wrong_values_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text("rotos = []\nnodes = 5\n[settings]\nmax_in_flite = 3\n")
    with pytest.raises(ValidationFailedError) as refused:
        project_of(tmp_path)
    text = str(refused.value)
    assert "did you mean 'roots'?" in text
    assert "did you mean 'max_in_flight'?" in text
    assert len(refused.value.problems) == 3


def test_toml_that_is_none_names_the_file(flow: Flow, workflow: Path) -> None:
    (workflow.parent / "flow.toml").write_text("nodes = [\n")
    ran = flow("plan", str(workflow))
    assert ran.code == 2
    assert "flow.toml" in ran.err
    assert "is not TOML" in ran.err


def test_nodes_of_the_project_are_known_to_its_workflows(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "made_up_nodes.py").write_text(NODES)
    (tmp_path / "uses.yaml").write_text(USES_NODES)
    assert flow("validate", "uses.yaml").code == 2
    assert flow("validate", "uses.yaml", "--nodes", "made_up_nodes").code == 0
    (tmp_path / "flow.toml").write_text('nodes = ["made_up_nodes"]\n')
    assert flow("validate", "uses.yaml").code == 0
    assert "made_up.double" in flow("nodes").out


def test_a_node_module_that_cannot_be_imported_is_named(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "uses.yaml").write_text(USES_NODES)
    (tmp_path / "made_up_nodes.py").write_text("1 / 0\n")
    ran = flow("validate", "uses.yaml", "--nodes", "made_up_nodes")
    assert ran.code == 2
    assert "'made_up_nodes' cannot be imported: ZeroDivisionError" in ran.err


def test_a_workflow_wins_over_the_project_and_an_option_over_both(workflow: Path) -> None:
    (workflow.parent / "flow.toml").write_text('[settings]\nmax_in_flight = 7\ndelivery = "at_most_once"\n')
    settings = load_target(str(workflow)).workflow.settings
    assert (settings.max_in_flight, settings.delivery) == (7, "at_most_once")
    workflow.write_text(workflow.read_text() + "settings: {max_in_flight: 9, delivery: at_least_once}\n")
    settings = load_target(str(workflow)).workflow.settings
    assert (settings.max_in_flight, settings.delivery) == (9, "at_least_once")
    settings = load_target(str(workflow), delivery="at_most_once").workflow.settings
    assert settings.delivery == "at_most_once"


def test_set_changes_one_field_of_one_node(workflow: Path) -> None:
    target = load_target(
        str(workflow), overrides=["src.path=other.jsonl", "src.max_line_bytes=2048", "even.a.b=true"]
    )
    nodes = {str(node_id): dict(spec.config) for node_id, spec in target.workflow.nodes.items()}
    assert nodes["src"] == {"path": "other.jsonl", "max_line_bytes": 2048}
    assert nodes["even"] == {"path": "even.jsonl", "a": {"b": True}}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("srcc.path=x", "there is no node 'srcc'; did you mean 'src'"),
        ("src=x", "name a configuration field"),
        ("src.path", "--set takes node.key=value"),
        ("src.path.deep=x", "which has no fields"),
    ],
)
def test_a_wrong_set_says_what_to_write(flow: Flow, workflow: Path, option: str, said: str) -> None:
    ran = flow("run", str(workflow), "--set", option)
    assert ran.code == 2
    assert said in ran.err
