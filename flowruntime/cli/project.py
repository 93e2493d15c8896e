"""flow.toml: what holds for all workflows of a project.

Owns: finding the file (upward from a workflow), reading it, importing the modules it names.
Does not own: what its settings mean (flowcore.settings), the runtime's use of the rest.

The file, every key optional:

    nodes = ["myapp.nodes"]             # modules whose node types workflows may use
    roots = ["data", "out"]             # folders connectors may touch; none: any. Relative to this file
    allow_private_networks = false      # outbound HTTP may reach private addresses
    allowed_hosts = ["intranet.example"]
    [settings]                          # defaults of workflow settings; what a workflow says wins
    max_in_flight = 1000

Always holds: an unknown key is refused with the nearest known one; every problem is listed at once.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Final, cast

import msgspec

from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Findings
from flowcore.settings import Settings
from flowcore.shapes import Declared, Flag, Shape, TextList, read_declared
from flowruntime.cli.failures import UsageError

FILE_NAME: Final = "flow.toml"
_SETTINGS: Final = "settings"


class _Top(Declared, frozen=True, kw_only=True):
    """The keys beside `settings`."""

    nodes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    allow_private_networks: bool = False
    allowed_hosts: tuple[str, ...] = ()

    title: ClassVar[str] = FILE_NAME
    shapes: ClassVar[Mapping[str, Shape]] = {
        "nodes": TextList(),
        "roots": TextList(),
        "allow_private_networks": Flag(),
        "allowed_hosts": TextList(),
    }


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What flow.toml says; the defaults where there is none."""

    file: Path | None = None
    nodes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    """Absolute."""
    allow_private_networks: bool = False
    allowed_hosts: tuple[str, ...] = ()
    settings: Settings = Settings()
    said: frozenset[str] = frozenset()
    """Names of the settings the file states."""

    def import_nodes(self, more: Iterable[str] = ()) -> list[ModuleType]:
        """The modules of the project's nodes, then those named by `more`.

        Raises:
            UsageError: one cannot be imported.
        """
        folders = [Path.cwd()] if self.file is None else [self.file.parent, Path.cwd()]
        with_folders(folders)
        here = "--nodes" if self.file is None else str(self.file)
        found = [_imported(name, here) for name in self.nodes]
        return [*found, *(_imported(name, "--nodes") for name in more)]


def project_of(start: Path) -> Project:
    """The project of a workflow file or folder: the nearest flow.toml in its folder or above.

    Raises:
        ValidationFailedError: the file is wrong; every problem is listed.
    """
    folder = start.resolve()
    for place in (folder, *folder.parents):
        candidate = place / FILE_NAME
        if candidate.is_file():
            return _read(candidate)
    return Project()


def with_folders(folders: Iterable[Path]) -> None:
    """Let modules be imported from these folders, after what is installed.

    After it, so that a project's own folder named like one of our packages hides nothing.
    """
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _read(file: Path) -> Project:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        problem = Problem(path=FILE_NAME, message=f"is not TOML: {fault}", file=str(file))
        raise ValidationFailedError([problem], what=FILE_NAME) from fault
    findings = Findings(file=str(file))
    said = data.pop(_SETTINGS, {})
    unknown = [key for key in data if key not in _Top.shapes]
    for key in unknown:
        findings.add_unknown((), key, [*_Top.shapes, _SETTINGS], what="key")
        del data[key]
    top = read_declared(_Top, data, (), findings)
    settings = read_declared(Settings, said, (_SETTINGS,), findings)
    findings.raise_if_any(FILE_NAME)
    top, settings = cast("_Top", top), cast("Settings", settings)  # no problem was found
    return Project(
        file=file,
        nodes=top.nodes,
        roots=tuple(str((file.parent / root).resolve()) for root in top.roots),
        allow_private_networks=top.allow_private_networks,
        allowed_hosts=top.allowed_hosts,
        settings=settings,
        said=frozenset(said),
    )


def _imported(name: str, where: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as fault:
        kind = "" if isinstance(fault, ImportError) else f"{type(fault).__name__}: "
        raise UsageError(
            f"{where}: node module {name!r} cannot be imported: {kind}{fault}; modules are looked for"
            " where they are installed, beside flow.toml, and in the current folder"
        ) from fault
