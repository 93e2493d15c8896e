"""Files: YAML and JSON in, lines in every problem, nothing guessed, nothing lost."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from flowcore.errors import ValidationFailedError
from flowcore.ids import NodeId
from flowcore.workflow import Workflow
from flowruntime.check import check_workflow
from flowruntime.definition.files import MAX_BYTES
from flowruntime.definition.load import dump_workflow, load_text, load_workflow, save_workflow

YAML = """\
name: triage
settings: {max_in_flight: 2000}
nodes:
  tickets:
    type: kafka.source
    config:
      a: no
      b: 012
      c: 1:30
      d: 2001-01-01
      e: ${N:-8}
      f: "${N:-8}"
      g: 1e3
  alerts: {type: kafka.sink}
connections:
  - tickets -> alerts   # a comment
"""


def _problem(text: str | bytes) -> str:
    with pytest.raises(ValidationFailedError) as caught:
        load_text(text, file="w.yaml", env={})
    return str(caught.value.problems[0])


def test_scalars_are_what_they_look_like() -> None:
    wf = load_text(YAML, env={"N": "9"})
    assert wf.nodes[NodeId("tickets")].config == {
        "a": "no", "b": "012", "c": "1:30", "d": "2001-01-01", "e": 9, "f": "9", "g": 1000.0,
    }  # fmt: skip


def test_every_part_knows_its_line() -> None:
    wf = load_text(YAML, file="w.yaml", env={})
    assert wf.marks["nodes", "tickets", "config", "c"].line == 9
    assert wf.marks["connections", 0].line == 16


def test_a_problem_names_file_line_path_value_and_remedy() -> None:
    wrong = YAML.replace("type: kafka.sink", "typ: kafka.sink").replace("-> alerts", "-> alert")
    with pytest.raises(ValidationFailedError) as caught:
        load_text(wrong, file="w.yaml", env={})
    lines = [str(problem) for problem in caught.value.problems]
    assert lines == [
        "w.yaml:14: nodes.alerts.typ: unknown node field 'typ'; did you mean 'type'?",
        "w.yaml:16: connections[0]: connection tickets -> alert: no node 'alert'; did you mean 'alerts'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "w.yaml:1: workflow: not valid YAML"),
        ("a: 1\na: 2\n", "w.yaml:2: a: the key 'a' is there twice (first on line 1)"),
        ("a: !!python/object:os.system {}\n", "w.yaml:1: a: the tag"),
        ("!x\na: 1\n", "w.yaml:1: workflow: the tag '!x'"),
        ("a: &a [*a]\n", "stands inside its own anchor"),
        ("a: *b\n", "has no anchor before it"),
        ("<<: {a: 1}\n", "merge keys"),
        ("1: 2\n", "the key '1' is not text"),
        ("no: 2\n", "w.yaml:1: no: unknown workflow field 'no'"),
        ("? [a]\n: b\n", "a key must be text"),
        ("a: b\n---\nc: d\n", "w.yaml:2: workflow: there is a second document"),
        ("", "w.yaml:1: workflow: is empty; begin with name: ... and nodes: ..."),
        ("just text", "must be a mapping, not text"),
        ("a: " + "1" * 5_000 + "\n", "w.yaml:1: a: the number has too many digits"),
        ("\x00", "not valid YAML"),
        (b"name: \xff\n", "w.yaml:1: workflow: the text is not UTF-8: byte 0xff at position 6"),
        ("[" * 200_000, "more than 100 levels of nesting"),
        ("- " * 200_000, "more than 100 levels of nesting"),
        ("{a: " * 100_000, "more than 100 levels of nesting"),
        ("x" * (MAX_BYTES + 1), "at most 1048576 bytes"),
        ("settings: {max_in_flight: ${N}}\n", "put ${NAME} in quotes"),
        ('{"a": 1,\n "a": 2}', "w.yaml:2: a: the key 'a' is there twice (first on line 1)"),
        ('{"a": NaN}', "w.yaml:1: a: a JSON value is expected, found 'NaN}'"),
        ('{"a": 1e999}', "too large for a float"),
        ('{"a": 1 "b": 2}', "',' is expected"),
        ('{"a": "x\ny"}', "not valid JSON: Invalid control character"),
        ('{"a": 1} x', "after the end"),
        ('{"a"', "':' is expected, found the end of the text"),
        ('{"a":' * 100_000, "more than 100 levels of nesting"),
    ],
    ids=range(29),
)
def test_a_text_that_is_no_workflow_is_one_clear_problem(text: str | bytes, message: str) -> None:
    assert message in _problem(text)


def test_aliases_are_followed_within_limits() -> None:
    wf = load_text("name: w\nnodes:\n  a: &a {type: x.y, config: {n: 1}}\n  b: *a\n", env={})
    assert wf.nodes[NodeId("b")].config == {"n": 1}
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    assert "unfolded" in _problem(laughs)
    assert "more than 100 aliases" in _problem("a: &a 1\nb: [" + "*a, " * 101 + "]\n")


def test_a_file_is_written_whole_and_loads_as_its_equal(tmp_path: Path) -> None:
    wf = load_text(YAML, env={})
    for name in ("w.yaml", "w.yml", "w.json"):
        save_workflow(wf, tmp_path / name)
        assert load_workflow(tmp_path / name, env={}) == wf
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.json", "w.yaml", "w.yml"]
    with pytest.raises(ValidationFailedError, match="cannot tell the format"):
        save_workflow(wf, tmp_path / "w.txt")


def test_a_dump_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    wf = Workflow("w")
    wf.add("a.b", config={"f": object()})
    (tmp_path / "w.yaml").write_text("old", encoding="utf-8")
    with pytest.raises(ValidationFailedError, match="no plain form"):
        save_workflow(wf, tmp_path / "w.yaml")
    assert (tmp_path / "w.yaml").read_text(encoding="utf-8") == "old"


def test_params_are_filled_when_given_and_stay_open_otherwise() -> None:
    text = "name: w\nparams: {n: {kind: int}}\nnodes: {a: {type: x.y, config: {n: '${params.n}'}}}\n"
    assert load_text(text, params={"n": "3"}, env={}).nodes[NodeId("a")].config == {"n": 3}
    opened = load_text(text, env={})
    assert load_text(dump_workflow(opened), env={}) == opened
    with pytest.raises(ValidationFailedError, match="no default"):
        load_text(text, bind=True, env={})


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N", "5")
    assert load_text(YAML).nodes[NodeId("tickets")].config["e"] == 5


def test_inner_files_are_followed_with_their_own_lines(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "leaf.json").write_text('{"name": "leaf",\n "nodes": {"a": "x.y"}}', encoding="utf-8")
    outer = tmp_path / "w.yaml"
    outer.write_text(
        "name: w\nnodes:\n  sub: {type: workflow, config: {file: sub/leaf.json}}\n", encoding="utf-8"
    )
    wf = load_workflow(outer, env={})
    inner = wf.nodes[NodeId("sub")].workflow
    assert inner is not None
    assert list(inner.nodes) == ["a"]
    assert inner.marks["nodes", "a"].file == str(tmp_path / "sub" / "leaf.json")
    assert load_text(dump_workflow(wf), env={}) == wf
    (tmp_path / "sub" / "leaf.json").write_text('{"name": "leaf",\n "nods": {}}', encoding="utf-8")
    with pytest.raises(ValidationFailedError, match=r"leaf.json:2: nodes.sub.config.workflow.nods: unknown"):
        load_workflow(outer, env={})


@pytest.mark.parametrize(
    ("named", "message"),
    [("w.yaml", "contain each other: w.yaml -> w.yaml"), ("no.yaml", "no such file"), ("\0", "cannot be")],
)
def test_an_inner_file_that_cannot_be_followed_is_named_where_it_is_asked_for(
    tmp_path: Path, named: str, message: str
) -> None:
    outer = tmp_path / "w.yaml"
    outer.write_text(
        f'name: w\nnodes:\n  sub: {{type: workflow, config: {{file: "{named}"}}}}\n'.replace("\0", "\\0"),
        encoding="utf-8",
    )
    with pytest.raises(ValidationFailedError, match=message) as caught:
        load_workflow(outer, env={})
    assert caught.value.problems[0].line == 3
    assert caught.value.problems[0].path == "nodes.sub.config.file"


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationFailedError, match=r"no such file|cannot be read"):
        load_workflow(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: w\nnodes:\n\ta: x.y\n", "3: not valid YAML: a tab indents the line; indent with spaces"),
        ("name: w\nnodes:\n  a:\n    type: x.y\n\tb: 1\n", "5: not valid YAML: a tab indents the line"),
        ("name: @w\n", "1: not valid YAML: '@' cannot begin a text without quotes; put the text in quotes"),
        ("name: %w\n", "1: not valid YAML: '%' cannot begin a text without quotes"),
        (
            "name: my: w\n",
            "1: not valid YAML: a text without quotes cannot hold ': '; put the text in quotes",
        ),
        ("name:w\nnodes: {}\n", "2: not valid YAML: .*write a blank after ':' on the line before"),
        ("name: !w\nnodes: !a.b {c\n", "put a text that begins with '!' in quotes|close the bracket"),
        ("nodes: {a: {where: !value.ok}}\n", "1: .*put a text that begins with '!' in quotes"),
        ("name: w\nnodes: {a: b\nsettings: {}\n", "3: .*begun on line 2; close the bracket"),
        ('name: "w\n', "close the quotes"),
        ("name: w\nnodes:\n  a: 1\n   b: 2\n", "4: .*check the indentation"),
        ("name: w\nconnections:\n-a -> b\n", "3: .*write 'name: value', and items of a list as '- item'"),
        ("name: w\n...\njunk\n", "3: .*take out what stands after the end of the document"),
    ],
)
def test_a_slip_in_yaml_is_said_in_words_of_who_made_it(text: str, told: str) -> None:
    problem = _problem(text)
    assert re.search(told, problem.replace("w.yaml:", "").replace("workflow: ", "")), problem


def test_faults_of_one_place_keep_nothing_else_from_being_read() -> None:
    text = """\
name: !x w
nodes:
  a: {type: x.y, timeout: 3}
  a: {type: x.z}
  b: {type: x.y, <<: {timeout: 3s}}
  c: {type: x.y, config: {n: *nope, m: 1}}
  1: {type: x.y}
  d: {type: x.y, config: {n: %s}}
  e: &e {type: x.y, config: {n: *e}}
connections: [a -> b, a => c]
nodes: {}
""" % ("9" * 5_000)
    with pytest.raises(ValidationFailedError) as caught:
        load_text(text, file="w.yaml", env={})
    told = [(problem.line, problem.path, problem.message) for problem in caught.value.problems]
    assert [(line, path) for line, path, _ in told] == [
        (1, "name"),
        (4, "nodes.a"),
        (5, "nodes.b"),
        (6, "nodes.c.config.n"),
        (7, "nodes['1']"),
        (8, "nodes.d.config.n"),
        (9, "nodes.e.config.n"),
        (11, "nodes"),
        (10, "connections[1]"),
    ]


def test_json_tells_every_fault_of_one_place_too() -> None:
    with pytest.raises(ValidationFailedError) as caught:
        load_text(
            '{"name": "w", "name": "v",\n"nodes": {"a": {"type": "x.y", "config": {"n": 1e999}}, "b": 3}}'
        )
    assert [problem.path for problem in caught.value.problems] == ["name", "nodes.a.config.n", "nodes.b"]


def test_files_of_nested_workflows_are_bounded_together(tmp_path: Path) -> None:
    """Ten files that name each ten others are ten thousand after four steps."""
    (tmp_path / "leaf.yaml").write_text(
        "name: leaf\nnodes: {a: {type: x.y, description: %s}}\n" % ("x" * 5_000)
    )
    for depth, inner in enumerate(["leaf", "w0", "w1", "w2"]):
        nodes = "".join(f"  n{n}: {{type: workflow, config: {{file: {inner}.yaml}}}}\n" for n in range(10))
        (tmp_path / f"w{depth}.yaml").write_text(f"name: w\nnodes:\n{nodes}")
    with pytest.raises(ValidationFailedError, match="the files of nested workflows have more than"):
        load_workflow(tmp_path / "w3.yaml", env={})


def test_an_inner_file_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    outer = tmp_path / "w.yaml"
    outer.write_text(
        "name: w\nnodes:\n  sub: {type: workflow, config: {file: pipe.yaml}}\n", encoding="utf-8"
    )
    with pytest.raises(ValidationFailedError, match=r"w.yaml:3: nodes.sub.config.file: is no regular file"):
        load_workflow(outer, env={})


def test_keys_given_twice_in_json_are_told_with_their_lines_whatever_their_order() -> None:
    with pytest.raises(ValidationFailedError) as caught:
        load_text('{"name": "w",\n "nodes": {"a": "x.y",\n"a": "x.y"},\n\n"nodes": {}, "name": 1}', env={})
    told = [(problem.path, problem.line) for problem in caught.value.problems]
    assert told == [("nodes.a", 3), ("nodes", 5), ("name", 5)]


def test_a_workflow_has_at_most_ten_thousand_nodes() -> None:
    def text(count: int) -> str:
        return "name: w\nnodes:\n" + "".join(f"  n{number}: text.clean\n" for number in range(count))

    assert len(load_text(text(10_000), env={}).nodes) == 10_000
    assert "has 10001 nodes, more than 10000" in _problem(text(10_001))


def test_the_type_of_a_node_imports_no_python_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only modules of packages that were installed as node packages are looked into."""
    (tmp_path / "payload.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = ("payload", "payload.node", "x.payload", "text.payload", "text...payload", "text/../payload.x")
    nodes = "".join(f"  n{index}: {{type: '{name}'}}\n" for index, name in enumerate(names))
    found = check_workflow(f"name: w\nnodes:\n{nodes}", env={})
    assert {problem.path for problem in found} >= {f"nodes.n{index}.type" for index in range(len(names))}
    assert "payload" not in sys.modules


def test_a_policy_without_a_field_it_needs_is_a_problem_at_that_field() -> None:
    text = "name: w\nnodes:\n  a: {type: text.clean, rate: {}}\n"
    assert _problem(text) == "w.yaml:3: nodes.a.rate.rows: is missing; add it: rows: ..."
    with pytest.raises(ValidationFailedError) as caught:
        load_text(text.replace("{}", "{rwos: 3}"), env={})
    assert [problem.path for problem in caught.value.problems] == ["nodes.a.rate.rwos"]


@pytest.mark.parametrize("text", ["a: 1\nb: {c: 1, c: 1, c: 1}\n", '{"b": {"c": 1, "c": 1, "c": 1}}'])
def test_a_key_three_times_on_one_line_is_told_once(text: str) -> None:
    with pytest.raises(ValidationFailedError) as caught:
        load_text(text, env={})
    told = [problem.path for problem in caught.value.problems]
    assert told.count("b.c") == 1
