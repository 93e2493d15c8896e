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


def test_problems_of_the_file_have_their_line_and_come_with_those_of_the_workflow(
    flow: Flow, workflow: Path
) -> None:
    toml = workflow.parent / "flow.toml"
    toml.write_text('roots = ["data"]\n\n[settings]\nmax_in_flight = 0\n')
    workflow.write_text(workflow.read_text().replace("src -> keep", "src => keep"))
    out = flow("validate", str(workflow)).out.splitlines()
    assert out[0].startswith(f"{toml}:4: settings.max_in_flight: must be a whole number")
    assert out[1].startswith(f"{workflow}:9: connections[0]: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\nraise RuntimeError('boom')\n", "RuntimeError: boom ({file}:2)"),
        ("x = (\n", "SyntaxError: '(' was never closed ({file}:1)"),
        ("import sys\nsys.exit(3)\n", "it ends the process, with 3 ({file}:2)"),
        (
            "import nothing_of_that_name\n",
            "it needs 'nothing_of_that_name', which is not installed ({file}:1)",
        ),
        ("from flowcore import node\n@node('a b')\ndef f(v: int) -> int: ...\n", "({file}:2)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_problem_with_the_line_that_is_wrong(
    flow: Flow, workflow: Path, text: str, said: str
) -> None:
    module = workflow.parent / "made_up_nodes.py"
    module.write_text(text)
    (workflow.parent / "flow.toml").write_text('\nnodes = ["made_up_nodes"]\n')
    ran = flow("validate", str(workflow))
    assert ran.code == 2
    assert (
        f"{workflow.parent / 'flow.toml'}:2: nodes[0]: module 'made_up_nodes' cannot be imported:" in ran.out
    )
    assert said.format(file=module) in ran.out
    named = flow("validate", str(workflow), "--nodes", "made_up_nodes")
    assert named.code == 2


def test_what_a_module_prints_when_it_is_imported_is_no_result(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "made_up_nodes.py").write_text(f"print('hello')\n{NODES}")
    (tmp_path / "uses.yaml").write_text(USES_NODES)
    ran = flow("plan", "uses.yaml", "--nodes", "made_up_nodes", "--format", "mermaid")
    assert ran.out.startswith("flowchart LR\n")
    assert ran.err == "hello\n"


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_a_flow_toml_that_is_no_file_is_not_passed_over(flow: Flow, workflow: Path, kind: str) -> None:
    toml = workflow.parent / "flow.toml"
    if kind == "folder":
        toml.mkdir()
    else:
        toml.symlink_to("nowhere")
    ran = flow("validate", str(workflow))
    assert ran.code == 2
    assert f"{toml}: flow.toml: cannot be read: " in ran.out


def test_prices_of_models_are_read_and_wrong_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "flow.toml"
    file.write_text('[prices."gpt-4o"]\ninput = 2.5\noutput = 10\n')
    price = project_of(tmp_path).prices["gpt-4o"]
    assert (price.input, price.output, price.cached) == (2.5, 10.0, None)
    file.write_text('[prices."gpt-4o"]\ninput = -1\n[prices.other]\nouput = 1\n')
    with pytest.raises(ValidationFailedError) as refused:
        project_of(tmp_path)
    assert [problem.path for problem in refused.value.problems] == ["prices.gpt-4o", "prices.other"]
    file.write_text("prices = 3\n")
    with pytest.raises(ValidationFailedError, match="must be a table"):
        project_of(tmp_path)
