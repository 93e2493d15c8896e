"""The built wheel in a clean environment: what a user gets, with nothing of the checkout in reach."""

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"flowcore", "flowruntime", "flownodes", "connectors"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.xdist_group("wheel")]


def _run(command: list[str], folder: Path) -> str:
    """Run `command` in `folder` as a user's shell would; returns stdout, fails with all that was printed."""
    finished = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"{command} in {folder}:\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def _environment() -> Mapping[str, str]:
    dropped = ("PYTHON", "VIRTUAL_ENV", "PYTEST_", "CI", "COV")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    _run(command, folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(name="python", scope="module")
def _python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment that holds the wheel, what it requires, and what a user needs to run tests."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    _run([sys.executable, "-m", "venv", str(home)], home.parent)
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, str(wheel), "pytest", "pytest-asyncio"], home.parent)
    return python


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    missing = {
        path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    } - set(names)
    assert missing == set()


def test_the_wheel_describes_itself(wheel: Path) -> None:
    """Licence texts travel along, and the index page shows the README."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == ("flowrx", project["version"])
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert str(metadata.get_payload()).lstrip().startswith("# FlowRx")


def test_connectors_is_ours_in_a_clean_environment(python: Path, tmp_path: Path) -> None:
    """The name is common; another distribution's folder must not be the one that is found."""
    code = "import connectors, flowcore; print(connectors.__file__, flowcore.__file__, sep='\\n')"
    connectors, flowcore = _run([str(python), "-c", code], tmp_path).splitlines()
    assert Path(connectors).parents[1] == Path(flowcore).parents[1]
    _run([str(python.with_name("flow")), "doctor"], tmp_path)


def test_a_new_project_passes_its_test_and_runs(python: Path, tmp_path: Path) -> None:
    flow = str(python.with_name("flow"))
    _run([flow, "version"], tmp_path)
    _run([flow, "init", "first"], tmp_path)
    project = tmp_path / "first"
    _run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
    (workflow,) = [path.name for path in project.glob("*.yaml") if "compose" not in path.name]
    _run([flow, "validate", workflow], project)
    _run([flow, "run", workflow], project)
