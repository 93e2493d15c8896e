"""Middleware named in flow.toml: the operator's, around what `flow run` does and `flow plan` shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Flow = Callable[..., Any]

GUARDS = """\
import asyncio
from flowcore import Middleware, RefusedError, Substitute

class Double(Middleware):
    def covers(self, node):
        return node.type == "text.clean"

    def after_node(self, call, output):
        return Substitute(output * 2)

class Slow(Double):
    waits = True

    async def before_node(self, call):
        await asyncio.sleep(0)

class Refuse(Middleware):
    def before_run(self, call):
        raise RefusedError("not today")

double = Double()

def make():
    return Double()

def broken():
    raise KeyError("lost")

number = 5
"""
WORKFLOW = (
    "name: r\nnodes: {clean: {type: text.clean}, again: {type: text.clean}}\nconnections: [clean -> again]\n"
)


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    (tmp_path / "made_up_nodes.py").write_text(GUARDS)
    (tmp_path / "r.yaml").write_text(WORKFLOW)
    return tmp_path


def using(project: Path, *names: str) -> None:
    listed = ", ".join(f'"made_up_nodes:{name}"' for name in names)
    (project / "flow.toml").write_text(f"middleware = [{listed}]\n")


@pytest.mark.parametrize("name", ["Double", "double", "make"])
def test_an_instance_a_class_and_a_function_can_be_named(flow: Flow, project: Path, name: str) -> None:
    using(project, name)
    ran = flow("run", "r.yaml", "--input", '{"text": " a "}')
    assert ran.code == 0
    assert json.loads(ran.out)["outputs"]["again"]["out"] == "aaaa"


def test_a_run_the_operator_refuses_fails_and_says_why(flow: Flow, project: Path) -> None:
    using(project, "Refuse")
    ran = flow("run", "r.yaml", "--input", '{"text": "a"}')
    assert ran.code == 1
    assert "middleware 'Refuse' refused a request of workflow 'r': not today" in ran.err


def test_the_plan_says_what_stands_around_a_node_and_what_it_changes(flow: Flow, project: Path) -> None:
    using(project, "double")
    out = flow("plan", "r.yaml").out
    assert "inside middleware Double" in out
    assert "fused    clean, again" in out
    using(project, "double", "Slow")
    out = flow("plan", "r.yaml").out
    assert "inside middleware Double, Slow" in out
    assert "boundary: middleware around 'clean' waits" in out


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("made_up_nodes", "must be written module:name"),
        ("made_up_nowhere:x", "module 'made_up_nowhere' cannot be imported"),
        ("made_up_nodes:nothing", "has no 'nothing'"),
        ("made_up_nodes:broken", "cannot be made: KeyError"),
        ("made_up_nodes:number", "is a int; derive its class from flowcore.Middleware"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_runs(
    flow: Flow, project: Path, entry: str, message: str
) -> None:
    (project / "flow.toml").write_text(f'middleware = ["{entry}"]\n')
    for command in (("run", "r.yaml", "--input", '{"text": "a"}'), ("plan", "r.yaml")):
        ran = flow(*command)
        assert ran.code == 2
        assert message in ran.err


def test_doctor_looks_at_it_too(flow: Flow, project: Path) -> None:
    using(project, "double")
    assert "1 middleware" in flow("doctor").out
    using(project, "broken")
    ran = flow("doctor")
    assert ran.code == 1
    assert "cannot be made" in ran.out
