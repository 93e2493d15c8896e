"""flow validate: every problem as `file:line: path: problem; remedy`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Flow = Callable[..., Any]


def test_a_valid_workflow_is_said_to_be_fine(flow: Flow, workflow: Path) -> None:
    ran = flow("validate", str(workflow))
    assert ran.code == 0
    assert "demo is valid: 4 nodes, 3 connections" in ran.out
    assert ran.err == ""


def test_every_problem_is_one_line_with_file_line_path_and_remedy(flow: Flow, workflow: Path) -> None:
    text = (
        workflow.read_text()
        .replace("transform.filter", "transform.fliter")
        .replace("{path: odd", "{paht: odd")
    )
    workflow.write_text(text)
    ran = flow("validate", str(workflow))
    *problems, last = ran.out.splitlines()
    assert ran.code == 2
    assert last == f"{workflow}: {len(problems)} problems"
    assert f"{workflow}:5: nodes.keep.type: unknown node type 'transform.fliter'" in problems[0]
    assert "did you mean 'transform.filter'" in problems[0]
    assert any(line.startswith(f"{workflow}:7: nodes.odd.config.paht") for line in problems)


def test_a_missing_file_is_a_problem_of_the_file(flow: Flow) -> None:
    ran = flow("validate", "nowhere.yaml")
    assert ran.code == 2
    assert "nowhere.yaml: workflow: there is no such file" in ran.out


def test_warnings_are_shown_and_do_not_count(flow: Flow, workflow: Path) -> None:
    text = workflow.read_text().replace(
        "  keep:", "  idle: {type: memory.source, config: {values: []}}\n  keep:"
    )
    workflow.write_text(text)
    ran = flow("validate", str(workflow))
    assert ran.code == 0
    assert f"warning: {workflow}:5: nodes.idle" in ran.out
    assert "1 warning" in ran.out


def test_a_param_without_default_must_be_given(flow: Flow, workflow: Path) -> None:
    workflow.write_text(workflow.read_text().replace("params: {least: 1}", "params: {least: {kind: int}}"))
    assert "--param least=..." in flow("validate", str(workflow)).out
    assert flow("validate", str(workflow), "--param", "least=3").code == 0
    assert "must be of kind int" in flow("validate", str(workflow), "--param", "least=many").out


def test_a_workflow_of_a_module_is_found(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "made_up_flow.py").write_text(
        "from flowcore.workflow import Workflow\n"
        "demo = Workflow('demo')\n"
        "demo.add('memory.source', id='src', config={'values': [1]})\n"
        "demo.add('memory.sink', id='out')\n"
        "demo.chain('src', 'out')\n"
        "def built():\n    return demo\n"
    )
    assert flow("validate", "made_up_flow:demo").code == 0
    assert flow("validate", "made_up_flow:built").code == 0
    missing = flow("validate", "made_up_flow:dmeo")
    assert missing.code == 2
    assert "did you mean 'demo'?" in missing.err
    assert "cannot be imported" in flow("validate", "no_such_module:demo").err


def test_a_folder_is_refused_and_its_workflows_are_named(flow: Flow, workflow: Path) -> None:
    ran = flow("validate", str(workflow.parent))
    assert ran.code == 2
    assert "is a folder" in ran.err
    assert "w.yaml" in ran.err
