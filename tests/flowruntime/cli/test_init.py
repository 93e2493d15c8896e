"""flow init: a project that runs, is tested, and overwrites nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Flow = Callable[..., Any]


def test_a_new_project_validates_runs_and_answers_one_record(
    flow: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flow("init", "shop").code == 0
    monkeypatch.chdir(tmp_path / "shop")
    assert flow("validate", "shop.yaml").code == 0
    ran = flow("run", "shop.yaml")
    assert ran.code == 0
    assert json.loads(ran.out)["records"] == 5
    lines = [line for file in Path("out").iterdir() for line in file.read_text().splitlines()]
    assert sorted(json.loads(line)["id"] for line in lines) == [1, 2, 3, 4, 5]
    answer = json.loads(flow("run", "shop.yaml", "--input", '{"id": 9, "items": []}').out)
    assert answer["captured"]["small"] == [{"id": 9, "items": [], "total": 0.0}]


def test_the_tests_of_a_new_project_pass(flow: Flow, tmp_path: Path) -> None:
    flow("init", "shop")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ran = subprocess.run(command, cwd=tmp_path / "shop", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


def test_the_root_holds_one_workflow_and_no_mark_is_left(flow: Flow, tmp_path: Path) -> None:
    flow("init", "my-shop")
    project = tmp_path / "my-shop"
    assert [path.name for path in project.glob("*.yaml")] == ["my_shop.yaml"]
    assert all("%%" not in path.read_text() for path in project.rglob("*") if path.is_file())
    assert "USER flow" in (project / "Dockerfile").read_text()


def test_nothing_is_overwritten(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")
    ran = flow("init", "shop")
    assert ran.code == 2
    assert "there already" in ran.err
    assert [path.name for path in tmp_path.rglob("*")] == ["shop", "mine.txt"]


def test_an_empty_folder_is_filled(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert flow("init", "shop").code == 0
    assert (tmp_path / "shop" / "shop.yaml").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "Python already knows 'json'"),
        ("5x", "cannot name a project"),
        ("connectors", "already knows"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused(flow: Flow, tmp_path: Path, name: str, said: str) -> None:
    ran = flow("init", name)
    assert ran.code == 2
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "'.' names no new folder"),
        ("..", "'..' names no new folder"),
        ("my shop", "try 'my_shop'"),
        ("x" * 65, "at most 63"),
        ("surplus/../", "names no new folder"),
    ],
)
def test_what_names_no_folder_is_refused(flow: Flow, tmp_path: Path, name: str, said: str) -> None:
    ran = flow("init", name)
    assert ran.code == 2
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "said"), [("/proc/shop", "No such file"), ("taken/shop", "File exists")])
def test_a_place_that_cannot_be_written_is_said_and_nothing_is_left(
    flow: Flow, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    ran = flow("init", name)
    assert ran.code == 1
    assert ran.err.startswith(f"flow init: cannot make '{name}': {said}")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_an_image_holds_neither_the_data_nor_the_positions_of_its_host(flow: Flow, tmp_path: Path) -> None:
    flow("init", "shop")
    ignored = (tmp_path / "shop" / ".dockerignore").read_text().split()
    assert {".flow", "out", "data"} <= set(ignored)
    readme = (tmp_path / "shop" / "README.md").read_text()
    assert all(f'-v "$PWD/{folder}:/app/{folder}' in readme for folder in ("data", "out", ".flow"))
