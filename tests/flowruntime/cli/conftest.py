"""The command line in this process: output and exit code of one call."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from flowruntime.cli.main import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Flow = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command sets up logging and lets project modules be imported; the next test must not see it."""
    root = logging.getLogger()
    handlers, level, modules = list(root.handlers), root.level, set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    for name in set(sys.modules) - modules:
        if name.split(".")[0] in PROJECT_PACKAGES:
            del sys.modules[name]


PROJECT_PACKAGES = {"shop", "made_up_nodes", "made_up_flow"}


@pytest.fixture(name="flow")
def _flow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Flow:
    """Run `flow` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def flow(*arguments: str) -> Ran:
        code = main(arguments)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return flow


@pytest.fixture(name="workflow")
def _workflow(tmp_path: Path) -> Path:
    """A stream with a param, a filter, two branches and two files."""
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": {n}, "text": "t{n}"}}\n' for n in range(6)))
    path = tmp_path / "w.yaml"
    path.write_text(WORKFLOW)
    return path


WORKFLOW = """\
name: demo
params: {least: 1}
nodes:
  src: {type: files.source, config: {path: in.jsonl}}
  keep: {type: transform.filter, config: {where: 'value.id > ${params.least}'}}
  even: {type: files.sink, config: {path: even.jsonl}}
  odd: {type: files.sink, config: {path: odd.jsonl}}
connections:
  - src -> keep
  - {from: keep, to: even, when: 'value.id % 2 == 0'}
  - {from: keep, to: odd, else: true}
"""
