"""Finding node types by entry point: which namespace is which package, which module holds a type.

Owns: reading the entry point groups `flowrx.nodes` and `flowrx.connectors`, naming the module of a type,
listing types without importing them, and the check that the package `connectors` is ours.
Does not own: what was registered by hand, and looking types up (flowruntime.registry).

Always holds: nothing is imported but the packages themselves until a type is asked for. Type `text.clean`
lives in module `clean` of the package that namespace `text` names; a module counts when its source names the
type.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, cast

from flowcore.connector import ConnectorDefinition
from flowcore.definition import Definition, NodeDefinition
from flowcore.errors import BuildError, DefinitionError

GROUPS: Final = ("flowrx.nodes", "flowrx.connectors")


class NodeImportError(BuildError, ImportError):
    """The module of a node type cannot be imported; attributes `type`, `module`; `__cause__` says why."""


class ShadowedPackageError(BuildError, ImportError):
    """Another package is imported under the name of one of ours; attributes `found`, `expected`."""


class _HasSource(Protocol):
    def get_source(self, fullname: str) -> str | None: ...


class Namespaces:
    """Packages by namespace; a namespace may be spread over several packages.

    Args:
        packages: pairs of namespace and package, such as ("text", "flownodes.text").
    """

    def __init__(self, packages: Iterable[tuple[str, str]]) -> None:
        found: dict[str, list[str]] = {}
        for namespace, package in packages:
            known = found.setdefault(namespace, [])
            if package not in known:
                known.append(package)
        self._packages: Final[Mapping[str, list[str]]] = found
        self._types: frozenset[str] | None = None

    @classmethod
    def installed(cls) -> Namespaces:
        """What the installed distributions declare; read again only when something was installed since."""
        return cls(_declared(tuple((folder, _changed_at(folder)) for folder in sys.path)))

    def module_of(self, type_name: str) -> str | None:
        """The module that would hold the type, if there is one; it is not imported."""
        parts = type_name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            for package in self._packages.get(".".join(parts[:end]), ()):
                module = ".".join((package, *parts[end:]))
                if _spec(module) is not None:
                    return module
        return None

    def type_names(self) -> frozenset[str]:
        """Every type of every namespace; no node module is imported, sources are read once."""
        if self._types is None:
            self._types = frozenset(self._list_types())
        return self._types

    def _list_types(self) -> Iterator[str]:
        for namespace, packages in self._packages.items():
            for package in packages:
                spec = _spec(package)
                for name in _modules(spec) if spec is not None else ():
                    if _names(f"{package}.{name}", f"{namespace}.{name}"):
                        yield f"{namespace}.{name}"


@functools.lru_cache(maxsize=4)
def _declared(folders: tuple[tuple[str, int], ...]) -> tuple[tuple[str, str], ...]:
    """Namespace and package of every entry point; takes some 15 ms, as all distributions are opened."""
    del folders  # the key: installing or removing a distribution changes the folder it lies in
    return tuple((point.name, point.value) for group in GROUPS for point in entry_points(group=group))


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def definition_of(thing: object) -> Definition | None:
    """The definition a function or class carries itself; None when it is neither node nor connector.

    A subclass of a node without a type of its own is none: the definition it inherits is its parent's.
    """
    found = getattr(thing, "__flow_node__", None) or getattr(thing, "__flow_connector__", None)
    if isinstance(found, NodeDefinition | ConnectorDefinition) and found.implementation is thing:
        return found
    return None


def definitions_in(module: ModuleType) -> list[Definition]:
    """Definitions of everything a module holds, those it imported included."""
    found = (definition_of(thing) for thing in list(vars(module).values()))
    return [definition for definition in found if definition is not None]


def load_type(type_name: str, module_name: str) -> Definition:
    """Import a module and give the definition of the type that lives in it.

    Raises:
        NodeImportError: the module cannot be imported, often because an extra is not installed.
        DefinitionError: the module does not declare the type.
    """
    try:
        module = importlib.import_module(module_name)
    except ImportError as fault:
        remedy = f"install what it needs ({fault.name!r} is missing)" if fault.name else "see the error above"
        raise NodeImportError(
            f"node type {type_name!r} cannot be used: importing {module_name!r} failed: {fault}; {remedy}",
            type=type_name,
            module=module_name,
        ) from fault
    definitions = definitions_in(module)
    for definition in definitions:
        if definition.type == type_name:
            return definition
    declared = ", ".join(repr(definition.type) for definition in definitions) or "none"
    raise DefinitionError(
        f"module {module_name!r} should declare node type {type_name!r}, but the types it declares are:"
        f" {declared}; rename the type or the module",
        type=type_name,
        module=module_name,
    )


def check_connectors_package() -> None:
    """Check that the package `connectors`, a common name, is the one installed beside this one.

    Raises:
        ShadowedPackageError: it is another one, or there is none; the message says where it comes from.
    """
    expected = Path(__file__).resolve().parent.parent / "connectors"
    spec = _spec("connectors")
    if spec is None:
        raise ShadowedPackageError(
            f"package 'connectors' was not found; it belongs at {str(expected)!r}: install flowrx again",
            found=None,
            expected=str(expected),
        )
    places = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    if expected not in places:
        found = str(places[0]) if places else str(spec.origin)
        raise ShadowedPackageError(
            f"package 'connectors' at {found!r} hides FlowRx's own at {str(expected)!r}; rename it, or take"
            " its folder off PYTHONPATH and out of the directory you start from",
            found=found,
            expected=str(expected),
        )


def _spec(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a parent is not there or no package, or a module made by hand
        return None


def _modules(package: ModuleSpec) -> Iterator[str]:
    for info in pkgutil.iter_modules(package.submodule_search_locations or ()):
        if not info.ispkg and not info.name.startswith("_"):
            yield info.name


def _names(module: str, type_name: str) -> bool:
    """Whether the module's source names the type; True when there is no source to look into."""
    spec = _spec(module)
    if spec is None or not hasattr(spec.loader, "get_source"):
        return spec is not None
    source = cast("_HasSource", spec.loader).get_source(module)
    return source is None or f'"{type_name}"' in source or f"'{type_name}'" in source
