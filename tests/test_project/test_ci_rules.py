"""In CI a skipped test fails the session (tests/conftest.py); and what `make` and CI run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ONE_SKIP = (
    "import pytest\n\ndef test_passes(): pass\n\n@pytest.mark.skip(reason='no')\ndef test_left_out(): pass\n"
)


def _session(folder: Path, *options: str, ci: bool) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_it.py").write_text(_ONE_SKIP, encoding="utf-8")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST_"))
    }
    if ci:
        environment["CI"] = "true"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_a_skipped_test_fails_a_session_in_ci(tmp_path: Path, options: tuple[str, ...]) -> None:
    finished = _session(tmp_path, *options, ci=True)
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED
    assert "CI accepts no skipped test, 1 skipped" in finished.stdout


def test_a_skipped_test_is_accepted_outside_ci(tmp_path: Path) -> None:
    assert _session(tmp_path, ci=False).returncode == pytest.ExitCode.OK


def test_ci_runs_check_test_and_test_long() -> None:
    steps = re.findall(r"^step (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["env", "check", "test", "test-long"]


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(re.findall(r"^([a-z-]+):.* ## \S", text, re.MULTILINE)) == set(phony.split())
