"""The command itself: what is found, what is imported, how it ends."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import pytest

from flowruntime.cli import main as main_module

Flow = Callable[..., Any]
HEAVY = {"asyncio", "reactivex", "rich", "msgspec", "cyclopts", "flowruntime.runtime", "structlog"}


def _imported(*arguments: str) -> set[str]:
    """Modules a real process has imported when the command is done."""
    code = "import sys\nfrom flowruntime.cli.main import main\nmain(sys.argv[1:])\nprint('', *sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("argument", ["version", "--version", "--help"])
def test_version_and_help_import_nothing_of_the_engine(argument: str) -> None:
    """`flow version` costs at most 1.25 times `import cyclopts`; what is not imported costs nothing."""
    assert _imported(argument) & HEAVY == set()


def test_a_command_imports_no_other_command() -> None:
    commands = {name for name in _imported("schema") if name.startswith("flowruntime.cli.")}
    assert commands == {
        f"flowruntime.cli.{name}" for name in ("main", "failures", "parsing", "schema", "streams")
    }


def test_the_version_is_that_of_the_distribution(flow: Flow) -> None:
    assert flow("version") == (0, f"flowrx {version('flowrx')}\n", "")


def test_help_lists_every_command_and_exits_with_0(flow: Flow) -> None:
    ran = flow("--help")
    assert ran.code == 0
    assert all(f"  {name}" in ran.out for name in main_module.COMMANDS)


def test_no_command_at_all_is_a_wrong_command_line(flow: Flow) -> None:
    ran = flow()
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: flow COMMAND" in ran.err


def test_help_of_a_command_is_what_its_option_shows(flow: Flow) -> None:
    assert flow("help", "run") == flow("run", "--help")
    assert flow("help", "nope").code == 2


def test_an_unknown_command_is_refused_with_the_nearest_known_one(flow: Flow) -> None:
    ran = flow("vaildate")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown command 'vaildate'; did you mean 'validate'?" in ran.err
    assert "did you mean 'run'?" in flow("RUN").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "FILE"),
        (["run", "w.yaml", "--evnts", "none"], "Did you mean --events?"),
        (["run", "w.yaml", "--events", "loud"], '"pretty", "jsonl", "none"'),
        (["run", "w.yaml", "--limit", "many"], "--limit takes a whole number, at least 1, got 'many'"),
        (["run", "w.yaml", "--limit", "0"], "at least 1, got '0'"),
        (["run", "w.yaml", "--limit", "1.5"], "got '1.5'"),
        (["run", "w.yaml", "--limit", "1e3"], "got '1e3'"),
        (["run", "w.yaml", "--limit", "-1"], "got '-1'"),
        (["schema", "surplus"], "'surplus' is more than it takes"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(flow: Flow, arguments: list[str], said: str) -> None:
    ran = flow(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("command", list(main_module.COMMANDS))
def test_every_command_explains_itself(flow: Flow, command: str) -> None:
    ran = flow(command, "--help")
    assert ran.code == 0
    assert f"Usage: flow {command}" in ran.out


def test_help_is_written_for_the_width_of_the_terminal(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = flow("run", "--help").out.splitlines()
    prose = [line for line in lines if line.startswith(("The result", "not to a", "where the"))]
    assert max(map(len, lines)) <= 60
    assert all(len(line) > 40 for line in prose)  # no line ends where that of the docstring did


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_before_anything_runs_is_no_traceback(tmp_path: Path, number: str) -> None:
    """Here while the modules of the project are imported."""
    # In a job of the background, which the tests may be, nobody hears SIGINT.
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)\n" if number == "SIGINT" else ""
    struck = f"import os, signal\n{heard}os.kill(os.getpid(), signal.{number})\n"
    (tmp_path / "struck.py").write_text(struck)
    (tmp_path / "w.yaml").write_text("name: w\nnodes: {a: debug.tap}\n")
    command = [sys.executable, "-m", "flowruntime.cli.main", "validate", "w.yaml", "--nodes", "struck"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "flow: interrupted\n")


def test_a_command_of_another_package_is_found_by_entry_point(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("greet", "shouting:greet", main_module.GROUP)

    def greet(name: str, /, *, loud: bool = False) -> int:
        """Say hello."""
        sys.stdout.write(f"{name.upper() if loud else name}\n")
        return 0

    monkeypatch.setattr(main_module, "_plugins", lambda: [point])

    def load(point: EntryPoint) -> Callable[..., int]:
        del point
        return greet

    monkeypatch.setattr(EntryPoint, "load", load)
    assert flow("greet", "ada", "--loud").out == "ADA\n"
    assert "greet" in flow("--help").out
