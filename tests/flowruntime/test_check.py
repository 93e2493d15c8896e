"""`check_workflow`: everything wrong with a workflow, as data, whatever it is given as."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowcore.draft import Draft
from flowcore.errors import Problem, ValidationFailedError
from flowcore.node import node
from flowcore.workflow import Workflow
from flowruntime import check_workflow, run
from flowruntime.definition.load import load_draft


def told(problems: tuple[Problem, ...]) -> list[str]:
    return [f"{Path(each.file or '').name}:{each.line}: {each.path}" for each in problems]


OUTER = """\
name: outer
params: {least: {kind: int}, most: {kind: nubmer}}
settings: {max_in_flight: none}
nodes:
  src: {type: memory.source, config: {values: "${NOT_SET}"}}
  src: {type: memory.source}
  keep: {type: transform.filter, config: {where: 'value > ${params.least} && value < ${params.most}'}}
  sub: {type: workflow, config: {file: inner.yaml, params: {wrod: "${params.least}"}}}
  again: {type: workflow, config: {file: inner.yaml, params: {word: x}}}
  gone: {type: workflow, config: {file: nowhere.yaml}}
  torn: {type: workflow, config: {file: torn.yaml}}
  whole: {type: control.collect}
  out: {type: memory.sink}
connections:
  - keep -> whole
  - src -> sub
  - sub -> again
  - again => gone
  - gone -> torn
  - torn -> out
"""
INNER = """\
name: inner
params: {word: {kind: str}}
nodes:
  clean: {type: text.clean, timeout: 3}
  text: {type: text.template, config: {tempalte: "${params.word}"}}
connections:
  - clean -> txet
"""


@pytest.fixture(name="outer")
def _outer(tmp_path: Path) -> Path:
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "torn.yaml").write_text("name: torn\nnodes: [")
    (tmp_path / "outer.yaml").write_text(OUTER)
    return tmp_path / "outer.yaml"


def test_nested_files_params_and_the_environment_are_in_one_report(outer: Path) -> None:
    assert told(check_workflow(outer, env={})) == [
        "outer.yaml:2: params.most.kind",
        "outer.yaml:2: params.least",
        "outer.yaml:3: settings.max_in_flight",
        "outer.yaml:6: nodes.src",
        "outer.yaml:8: nodes.sub.config.params.wrod",
        "outer.yaml:10: nodes.gone.config.file",
        "outer.yaml:12: nodes.whole",
        "outer.yaml:18: connections[3]",
        "torn.yaml:2: workflow",
        "inner.yaml:4: nodes.sub.config.workflow.nodes.clean.timeout",
        "inner.yaml:5: nodes.sub.config.workflow.nodes.text.config.tempalte",
        "inner.yaml:7: nodes.sub.config.workflow.connections[0]",
    ]


def test_params_given_are_checked_with_the_rest(outer: Path) -> None:
    found = told(check_workflow(outer, params={"laest": 1}, env={}))
    assert "outer.yaml:2: params.laest" in found
    assert "outer.yaml:2: params.least" not in found  # it was meant


@pytest.mark.parametrize("form", ["path", "text", "workflow"])
def test_a_workflow_is_given_as_path_text_or_object(tmp_path: Path, form: str) -> None:
    text = "name: w\nnodes: {src: {type: memory.source, config: {values: [a]}}, out: memory.snik}\n"
    (tmp_path / "w.yaml").write_text(f"{text}connections: [src -> out]\n")
    workflow = Workflow("w")
    workflow.add("memory.source", id="src", config={"values": ["a"]})
    workflow.add("memory.snik", id="out")
    workflow.chain("src", "out")
    given = {"path": tmp_path / "w.yaml", "text": f"{text}connections: [src -> out]\n", "workflow": workflow}
    (problem,) = check_workflow(given[form])
    assert problem.path == "nodes.out.type"
    assert "did you mean 'memory.sink'" in problem.remedy


def test_a_valid_workflow_has_no_problems_but_warnings() -> None:
    @node("mine.twice")
    def twice(value: int) -> int:
        return 2 * value

    text = "name: w\nnodes: {src: {type: memory.source, config: {values: [1]}}, twice: mine.twice}\n"
    assert check_workflow(f"{text}connections: [src -> twice]\n", nodes=[twice]) == ()
    (warning,) = check_workflow(text.replace(", twice: mine.twice", ""), nodes=[twice])
    assert warning.severity == "warning"


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_workflow(tmp_path / "none.yaml")
    assert problem.message == "there is no such file"


def test_rows_that_do_not_belong_together_are_part_of_the_report() -> None:
    text = """\
name: w
nodes:
  src: {type: memory.source, config: {values: [[1]]}}
  whole: {type: control.collect}
  out: {type: memory.sink}
connections: [src -> whole, whole -> out]
"""
    (problem,) = check_workflow(text)
    assert (problem.path, problem.line) == ("nodes.whole", 4)
    assert "nothing to collect" in problem.message


def test_a_draft_is_checked_and_never_run() -> None:
    text = "name: w\nnodes: {tap: {type: debug.tap, timeout: 3}}\n"
    draft = load_draft(text)
    assert isinstance(draft, Draft)
    with pytest.raises(ValidationFailedError, match="give it a unit"):
        draft.finished()
    with pytest.raises(ValidationFailedError) as caught:
        run(draft, value=1)
    assert [problem.path for problem in caught.value.problems] == ["nodes.tap.timeout"]
