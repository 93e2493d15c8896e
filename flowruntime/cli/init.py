"""flow init: a project that runs, with a node of your own, a test of it, and a container.

Owns: which files a project begins with, and where each goes.
Does not own: their text (the folder starter).

Always holds: nothing that exists is overwritten; a project is there whole or not at all.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from flowcore.errors import RunError
from flowcore.ids import suggest_node_id
from flowruntime.cli.failures import UsageError
from flowruntime.installed import version as installed_version

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VERSION: Final = re.compile(r"[0-9][A-Za-z0-9.+!-]*")
_UNRELEASED: Final = "0"

_FILES: Final = {
    "workflow.yaml.txt": "%%PACKAGE%%.yaml",
    "nodes.py.txt": "%%PACKAGE%%/nodes.py",
    "test_nodes.py.txt": "tests/test_nodes.py",
    "flow.toml.txt": "flow.toml",
    "orders.jsonl.txt": "data/orders.jsonl",
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "Dockerfile.txt": "Dockerfile",
    "gitignore.txt": ".gitignore",
    "dockerignore.txt": ".dockerignore",
}


class ProjectNotMadeError(RunError):
    """The folder of a new project cannot be written."""


def init(name: str, /) -> int:
    """Make a project in a new folder NAME: a workflow, a node of your own and its test, data, a Dockerfile.

    Args:
        name: of the folder; its last part names the project.
    """
    target = Path(name)
    _check(target)
    words = {
        "%%NAME%%": target.name,
        "%%PACKAGE%%": _package(target.name),
        "%%IMAGE%%": target.name.lower(),
        "%%VERSION%%": _version(),
    }
    try:
        written = _write(target, words)
    except OSError as fault:
        place = f" ({fault.filename!r})" if fault.filename is not None else ""
        raise ProjectNotMadeError(
            f"cannot make {str(target)!r}: {fault.strerror or fault}{place}; nothing was written there"
        ) from fault
    print(f"{name}: {len(written)} files")
    print("\n".join(f"  {path}" for path in written))
    print(f"\nnext: cd {name} && flow run {words['%%PACKAGE%%']}.yaml")
    return 0


def _check(target: Path) -> None:
    name = target.name
    if name in ("", ".", ".."):
        raise UsageError(f"{str(target)!r} names no new folder; give the name of one: flow init shop")
    if not _NAME.fullmatch(name):
        suggested = suggest_node_id(name).strip("_")[:32]
        remedy = f"; try {suggested!r}" if _NAME.fullmatch(suggested) else ""
        raise UsageError(
            f"{name!r} cannot name a project: a letter, then at most 63 letters, digits, '_' or '-'{remedy}"
        )
    package = _package(name)
    if keyword.iskeyword(package) or importlib.util.find_spec(package) is not None:
        raise UsageError(f"{name!r} is taken: Python already knows {package!r}; try '{name}-flow'")
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise UsageError(
            f"{str(target)!r} is there already; nothing was written. Give another name, or remove it"
        )


def _write(target: Path, words: dict[str, str]) -> list[str]:
    """Write all files beside the target and move them there at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        building.chmod(0o755)
        written = {_filled(place, words): source for source, place in _FILES.items()}
        for place, source in written.items():
            path = building / place
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (files("flowruntime.cli") / "starter" / source).read_text(encoding="utf-8")
            path.write_text(_filled(text, words), encoding="utf-8")
        package = building / words["%%PACKAGE%%"] / "__init__.py"
        package.write_text(f'"""{target.name}."""\n', encoding="utf-8")
        building.rename(target)  # replaces an empty folder, nothing else
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return sorted([*written, f"{words['%%PACKAGE%%']}/__init__.py"])


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def _package(name: str) -> str:
    return name.lower().replace("-", "_")


def _version() -> str:
    version = installed_version()
    return version if _VERSION.fullmatch(version) else _UNRELEASED
