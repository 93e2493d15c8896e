"""The small example gives the same greetings from its file and from Python, as a stream and as a request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.hello.hello import PEOPLE, workflow
from flowcore import Workflow
from flowruntime import FlowRuntime, load_workflow

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "examples" / "hello" / "hello.yaml"
GREETINGS = {"Hello Ada!", "Bonjour Émilie !"}


def both() -> list[Any]:
    return [pytest.param(load_workflow(HELLO), id="yaml"), pytest.param(workflow, id="python")]


@pytest.mark.parametrize("each", both())
async def test_people_are_greeted_in_their_language(each: Workflow) -> None:
    async with FlowRuntime(state_dir=None) as runtime:
        outcomes = [outcome async for outcome in runtime.stream(each, PEOPLE)]
        asked = await runtime.execute(each, {"name": "Grace", "language": "en"})
    assert [outcome.value for outcome in outcomes] == ["Hello Ada!", None, "Bonjour Émilie !"]
    assert [outcome.dropped for outcome in outcomes] == [False, True, False]
    assert asked.captured == {"screen": ["Hello Grace!"]}


@pytest.mark.parametrize("file", ["examples/hello/hello.yaml", "examples.hello.hello:workflow"])
def test_the_flow_command_prints_the_greetings(file: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "flowruntime.cli.main", "run", file],
        cwd=ROOT,
        env={"PATH": "", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.splitlines()) == GREETINGS


def test_the_python_form_runs_by_itself() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.hello.hello"],
        cwd=ROOT,
        env={"PATH": "", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "Hello Grace!\n"), ran.stderr
