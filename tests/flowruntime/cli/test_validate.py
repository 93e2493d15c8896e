"""flow validate: every problem as `file:line: path: problem; remedy`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_form_and_meaning_are_told_together_in_the_order_of_the_file(flow: Flow, workflow: Path) -> None:
    text = (
        workflow.read_text()
        .replace("params: {least: 1}", "params: {least: {kind: int}}\nsettings: {on_error: x}")
        .replace("transform.filter,", "transform.filter, timeout: 3,")
        .replace("files.source", "files.sorce")
        .replace("{path: odd.jsonl}", "{path: '${NOT_SET_ANYWHERE}'}")
        .replace("- src -> keep", "- src => keep")
    )
    workflow.write_text(text)
    ran = flow("validate", str(workflow))
    *problems, last = ran.out.splitlines()
    places = [line.removeprefix(f"{workflow}:").partition(": ")[0::2] for line in problems]
    assert [(place, rest.partition(": ")[0]) for place, rest in places] == [
        ("2", "params.least"),
        ("3", "settings.on_error"),
        ("5", "nodes.src.type"),
        ("6", "nodes.keep.timeout"),
        ("8", "nodes.odd.config.path"),
        ("10", "connections[0]"),
    ]
    assert (ran.code, last) == (2, f"{workflow}: 6 problems")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_plan_and_run_tell_the_same_on_standard_error_and_do_nothing(
    flow: Flow, workflow: Path, command: str
) -> None:
    workflow.write_text(
        workflow.read_text().replace("files.source", "files.sorce").replace("src -> keep", "src => keep")
    )
    ran = flow(command, str(workflow))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == flow("validate", str(workflow)).out.splitlines()[:-1]
    assert not Path("even.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("made_up_flow:raises", "'made_up_flow:raises' failed: ValueError: no luck ("),
        ("made_up_flow:exits", "'made_up_flow:exits' failed: it ends the process, with 'bye' ("),
        ("made_up_flow:needs", "'made_up_flow:needs' needs arguments (name)"),
        ("made_up_flow:waits", "'made_up_flow:waits' is a coroutine"),
        ("made_up_flow:three", "'made_up_flow:three' is 3, no Workflow"),
        ("made_up_flow:twice", "'made_up_flow:twice' is a node"),
        ("made_up_flow:Holder.iner", "did you mean 'inner'?"),
        ("made_up_nodes:x", "module 'made_up_nodes' cannot be imported: there is no module 'made_up_nodes'"),
        ("made_up_flow.py", "is a Python file; name the workflow in it: made_up_flow:NAME"),
        ("", "FILE is empty"),
    ],
)
def test_what_is_no_workflow_of_a_module_is_one_line(
    flow: Flow, tmp_path: Path, given: str, said: str
) -> None:
    (tmp_path / "made_up_flow.py").write_text(
        "from flowcore import Workflow, node\n"
        "def raises():\n    raise ValueError('no luck')\n"
        "def exits():\n    raise SystemExit('bye')\n"
        "def needs(name, *more, other=1):\n    ...\n"
        "async def waits():\n    ...\n"
        "three = 3\n"
        "@node('made.twice')\ndef twice(value: int) -> int:\n    return 2 * value\n"
        "class Holder:\n    inner = Workflow('w')\n"
    )
    ran = flow("validate", given)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_problems_of_a_workflow_in_a_module_name_it(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "made_up_flow.py").write_text(
        "from flowcore import Workflow\ndemo = Workflow('demo')\ndemo.add('memory.sorce', id='src')\n"
    )
    for command in ("validate", "plan", "run"):
        ran = flow(command, "made_up_flow:demo")
        assert (ran.out + ran.err).startswith("made_up_flow:demo: nodes.src.type: unknown node type")


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("ww.yaml", "did you mean 'w.yaml'?"),
        ("json", "to name a workflow in a module, write MODULE:NAME"),
        ("x/w.yaml", "check the path"),
    ],
)
def test_a_file_that_is_not_there_comes_with_what_may_have_been_meant(
    flow: Flow, workflow: Path, given: str, remedy: str
) -> None:
    assert workflow.name == "w.yaml"
    ran = flow("validate", given)
    assert ran.code == 2
    assert ran.out.splitlines()[0] == f"{given}: workflow: there is no such file; {remedy}"
