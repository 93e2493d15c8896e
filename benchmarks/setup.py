"""Makes `.venv-peers`: an environment of its own for the libraries we are measured against.

Owns: creating it, installing what `peers/requirements.txt` pins, recording what came of each peer.
Does not own: anything of our environment; the two share no package.

    python -m benchmarks.setup          # nothing to do when the pins have not changed
    python -m benchmarks.setup --fresh  # from nothing

All pins are installed at once. Where that fails (a peer has no wheel for this machine or Python), each peer
is installed by itself under the same pins, so that one that cannot be had leaves the others in the race, and
is reported with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import (
    COMPANIONS,
    DISTRIBUTIONS,
    PEERS_ENVIRONMENT,
    RECORD,
    Environment,
    python_of,
)

HERE = Path(__file__).resolve().parent
PINS = HERE / "peers" / "requirements.txt"
DECORATION = " \u00d7\u2570\u2500\u25b6\u251c\u2502"
"""What uv draws around its messages."""

STAMP = PEERS_ENVIRONMENT / "pins.sha256"

VERSIONS = (
    "import importlib.metadata as m, json, sys; print(json.dumps({d: m.version(d) for d in sys.argv[1:]}))"
)


def _installer() -> Sequence[str]:
    """What installs into the peers' environment: uv where there is one, else the environment's pip."""
    python = str(python_of(Environment.PEERS))
    if uv := shutil.which("uv"):
        return (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python)
    return (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def _index_settings() -> dict[str, str]:
    """This process's environment; where it names an index for pip only, uv is given the same."""
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    return environment


def _create() -> None:
    if uv := shutil.which("uv"):
        subprocess.run(
            [uv, "venv", "--quiet", "--python", sys.executable, str(PEERS_ENVIRONMENT)], check=True
        )
    else:
        subprocess.run([sys.executable, "-m", "venv", str(PEERS_ENVIRONMENT)], check=True)


def _install(arguments: Sequence[str]) -> str | None:
    """None when it worked, else the last lines of what the installer said."""
    done = subprocess.run(
        [*_installer(), *arguments], check=False, capture_output=True, text=True, env=_index_settings()
    )
    return None if done.returncode == 0 else reason(done.stderr)


def reason(complaint: str) -> str:
    """The installer's complaint in one line: its last two lines that say something."""
    lines = [line.strip(DECORATION) for line in complaint.splitlines() if line.strip(DECORATION)]
    return " ".join(lines[-2:]) or "the installer failed and said nothing"


def pinned(distribution: str, pins: str) -> str:
    """The requirement line of a distribution, such as `bytewax==0.21.1`.

    Raises:
        LookupError: it is not pinned.
    """
    for line in pins.splitlines():
        name, separator, _ = line.partition("==")
        if separator and name == distribution:
            return line.split()[0]
    raise LookupError(f"{distribution!r} is not pinned in {PINS.name}; compile it again from requirements.in")


def _install_each() -> dict[str, str]:
    """Every peer by itself, under the pins; the reasons of those that failed."""
    pins = PINS.read_text(encoding="utf-8")
    failures: dict[str, str] = {}
    for peer, distribution in DISTRIBUTIONS.items():
        wanted = [pinned(name, pins) for name in (distribution, *COMPANIONS.get(peer, ()))]
        if complaint := _install(["--constraint", str(PINS), *wanted]):
            failures[peer] = complaint
    return failures


def _versions(distributions: Sequence[str]) -> Mapping[str, str]:
    command = [str(python_of(Environment.PEERS)), "-c", VERSIONS, *distributions]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def set_up(*, fresh: bool = False) -> dict[str, dict[str, Any]]:
    """Make or complete the environment; what came of each peer, also written to `peers.json` in it."""
    stamp = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()
    if not fresh and RECORD.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == stamp:
        return json.loads(RECORD.read_text(encoding="utf-8"))
    if PEERS_ENVIRONMENT.exists():
        shutil.rmtree(PEERS_ENVIRONMENT)
    _create()
    failures = _install_each() if _install(["--requirement", str(PINS)]) else {}
    versions = _versions([name for peer, name in DISTRIBUTIONS.items() if peer not in failures])
    record: dict[str, dict[str, Any]] = {
        peer: {"error": failures[peer]} if peer in failures else {"version": versions[name]}
        for peer, name in DISTRIBUTIONS.items()
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    STAMP.write_text(stamp, encoding="utf-8")
    return record


def main() -> int:
    """Set up and say what came of each peer; 0 also when some cannot be installed: the race goes on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.setup", description="Install the peers.")
    parser.add_argument("--fresh", action="store_true", help="remove the environment first")
    for peer, entry in set_up(fresh=parser.parse_args().fresh).items():
        print(f"{peer}: {entry.get('version') or 'not installed: ' + entry['error']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
