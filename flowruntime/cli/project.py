"""flow.toml: what holds for all workflows of a project.

Owns: finding the file (upward from a workflow), reading it, importing the modules and middleware it names.
Does not own: what its settings mean (flowcore.settings), the runtime's use of the rest.

The file, every key optional:

    nodes = ["myapp.nodes"]             # modules whose node types workflows may use
    roots = ["data", "out"]             # folders connectors may touch; none: any. Relative to this file
    allow_private_networks = false      # outbound HTTP may reach private addresses
    allowed_hosts = ["intranet.example", "127.0.0.1:11434"]   # with a port: on that port only
    store = "sqlite:.flow/store.sqlite" # workflows, executions, waits, journals; none: in memory. A relative
                                        # path begins at this file; ${NAME} is taken from the environment
    middleware = ["myapp.guards:audit"] # around runs and node calls, outermost first; see flowcore.Middleware
    [prices."gpt-4o"]                   # of models, US dollars per million tokens: input, output, cached
    input = 2.5
    [settings]                          # defaults of workflow settings; what a workflow says wins
    max_in_flight = 1000

Always holds: an unknown key is refused with the nearest known one; every problem is listed at once.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import msgspec

from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Findings, Mark
from flowcore.findings import Path as KeyPath
from flowcore.middleware import Middleware
from flowcore.references import ReferenceFault, substitute
from flowcore.settings import Settings
from flowcore.shapes import Declared, Flag, Maybe, Shape, Text, TextList, read_declared
from flowcore.store_errors import StoreUrlError
from flowruntime.cli.failures import UsageError
from flowruntime.cli.modules import imported, with_folders
from flowruntime.state.store.url import StoreUrl, read_store_url

if TYPE_CHECKING:
    from flowruntime.models.pricing import Price

FILE_NAME: Final = "flow.toml"
_AT_LINE: Final = re.compile(r"at line (?P<line>\d+)")
_TABLE: Final = re.compile(r"\s*\[(?P<name>[^\[\]]+)\]")
_KEY: Final = re.compile(r"""\s*["']?(?P<name>[A-Za-z0-9_-]+)["']?\s*=""")
_SETTINGS: Final = "settings"
_PRICES: Final = "prices"


class _Top(Declared, frozen=True, kw_only=True):
    """The keys beside `settings`."""

    nodes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    allow_private_networks: bool = False
    allowed_hosts: tuple[str, ...] = ()
    store: str | None = None
    middleware: tuple[str, ...] = ()

    title: ClassVar[str] = FILE_NAME
    shapes: ClassVar[Mapping[str, Shape]] = {
        "nodes": TextList(),
        "roots": TextList(),
        "allow_private_networks": Flag(),
        "allowed_hosts": TextList(),
        "store": Maybe(Text()),
        "middleware": TextList(),
    }


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What flow.toml says; the defaults where there is none."""

    file: Path | None = None
    nodes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    """Absolute."""
    allow_private_networks: bool = False
    allowed_hosts: tuple[str, ...] = ()
    store: StoreUrl | None = None
    middleware: tuple[str, ...] = ()
    """`module:name` each, outermost first."""
    prices: Mapping[str, Price] = {}
    """Of models."""
    settings: Settings = Settings()
    said: frozenset[str] = frozenset()
    """Names of the settings the file states."""
    marks: Mapping[KeyPath, Mark] = {}
    """Where its keys stand."""

    def import_nodes(self, more: Iterable[str] = ()) -> list[ModuleType]:
        """The modules of the project's nodes, then those named by `more`.

        Raises:
            ValidationFailedError: some that flow.toml names cannot be imported; every one is listed.
            UsageError: one of `more` cannot.
        """
        with_folders([Path.cwd()] if self.file is None else [self.file.parent, Path.cwd()])
        findings = Findings(marks=self.marks, file=str(self.file))
        found: list[ModuleType] = []
        for index, name in enumerate(self.nodes):
            try:
                found.append(imported(name))
            except UsageError as fault:
                findings.add(("nodes", index), str(fault))
        findings.raise_if_any(FILE_NAME)
        return [*found, *(_given(name) for name in more)]

    def import_middleware(self) -> list[Middleware]:
        """The middleware the project names; a class or function is called without arguments.

        Raises:
            UsageError: one cannot be imported or made, or is no middleware.
        """
        if not self.middleware or self.file is None:
            return []
        with_folders([self.file.parent, Path.cwd()])
        return [_middleware(name, str(self.file)) for name in self.middleware]


def _given(name: str) -> ModuleType:
    try:
        return imported(name)
    except UsageError as fault:
        raise UsageError(f"--nodes: {fault}") from fault


def project_of(start: Path) -> Project:
    """The project of a workflow file or folder: the nearest flow.toml in its folder or above.

    Raises:
        ValidationFailedError: the file is wrong; every problem is listed.
    """
    folder = start.resolve()
    for place in (folder, *folder.parents):
        candidate = place / FILE_NAME
        if candidate.is_symlink() or candidate.exists():
            return _read(candidate)
    return Project()


def _read(file: Path) -> Project:
    text = _text(file)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        found = _AT_LINE.search(str(fault))
        line = int(found["line"]) if found else text.count("\n") + 1
        raise _refused(file, f"is not TOML: {fault}", line=line) from fault
    marks = _marks(text, str(file))
    findings = Findings(marks=marks, file=str(file))
    said = data.pop(_SETTINGS, {})
    prices = _read_prices(data.pop(_PRICES, {}), findings)
    unknown = [key for key in data if key not in _Top.shapes]
    for key in unknown:
        findings.add_unknown((), key, [*_Top.shapes, _PRICES, _SETTINGS], what="key")
        del data[key]
    top = read_declared(_Top, data, (), findings)
    settings = read_declared(Settings, said, (_SETTINGS,), findings)
    store = _store_url(data.get("store"), file, findings)
    findings.raise_if_any(FILE_NAME)
    top, settings = cast("_Top", top), cast("Settings", settings)  # no problem was found
    return Project(
        file=file,
        nodes=top.nodes,
        roots=tuple(str((file.parent / root).resolve()) for root in top.roots),
        allow_private_networks=top.allow_private_networks,
        allowed_hosts=top.allowed_hosts,
        store=store,
        middleware=top.middleware,
        prices=prices,
        settings=settings,
        said=frozenset(said),
        marks=marks,
    )


def _read_prices(said: object, findings: Findings) -> Mapping[str, Price]:
    if not said:
        return {}
    from flowruntime.models.pricing import read_prices

    if not isinstance(said, dict):
        findings.add((_PRICES,), "must be a table", value=said, remedy='write [prices."MODEL"]')
        return {}
    return read_prices(cast("dict[str, Any]", said), findings)


def _store_url(said: object, file: Path, findings: Findings) -> StoreUrl | None:
    """The url, `${NAME}` resolved; a wrong one is not shown, for it may hold a password."""
    if not isinstance(said, str):
        return None  # not there, or its shape was refused already
    try:
        return read_store_url(str(substitute(said, os.environ)), base=file.parent)
    except ReferenceFault as fault:
        findings.add(("store",), str(fault), remedy=fault.remedy)
    except StoreUrlError as fault:
        findings.add(("store",), fault.message)
    return None


def _middleware(name: str, where: str) -> Middleware:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"{where}: middleware {name!r} must be written module:name")
    try:
        found: Any = imported(module)
    except UsageError as fault:
        raise UsageError(f"{where}: middleware {name!r}: {fault}") from fault
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{where}: middleware {name!r}: {found!r} has no {part!r}")
        found = getattr(found, part)
    if not isinstance(found, Middleware) and callable(found):
        try:
            found = found()
        except Exception as fault:
            raise UsageError(
                f"{where}: middleware {name!r} cannot be made: {type(fault).__name__}: {fault}; name an"
                " instance, or a class or function that takes no arguments"
            ) from fault
    if not isinstance(found, Middleware):
        raise UsageError(
            f"{where}: middleware {name!r} is a {type(found).__name__}; derive its class from"
            " flowcore.Middleware"
        )
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        message = f"is not UTF-8: byte {fault.object[fault.start]:#04x} at position {fault.start}"
        raise _refused(file, message) from fault
    except OSError as fault:
        raise _refused(file, f"cannot be read: {fault.strerror or fault}") from fault


def _refused(file: Path, message: str, *, line: int | None = None) -> ValidationFailedError:
    problem = Problem(path=FILE_NAME, message=message, file=str(file), line=line)
    return ValidationFailedError([problem], what=FILE_NAME)


def _marks(text: str, file: str) -> dict[KeyPath, Mark]:
    """The lines of keys and tables; the parser of the standard library tells none."""
    marks: dict[KeyPath, Mark] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = tuple(part.strip() for part in header["name"].split("."))
            marks.setdefault(table, Mark(file, number))
        elif key := _KEY.match(line):
            marks.setdefault((*table, key["name"]), Mark(file, number))
    return marks
