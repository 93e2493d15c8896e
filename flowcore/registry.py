"""How node types are looked up: the protocol the compiler asks and the runtime implements.

Owns: `NodeRegistry`, `NodeFactory`. Does not own: discovery by entry points (flowruntime.registry).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from flowcore.definition import Definition


class NodeFactory(Protocol):
    """One node type: makes instances and describes itself."""

    @property
    def definition(self) -> Definition: ...

    def create(self, config: Mapping[str, Any]) -> Any:
        """An instance with this configuration.

        Raises:
            ConfigError: with every problem found.
        """
        ...

    def metadata(self) -> Mapping[str, Any]:
        """Description, category, ports with types, config schema: plain JSON-able data."""
        ...


class NodeRegistry(Protocol):
    """Node types by name. Thread-safe; refuses duplicates."""

    def factory(self, type_name: str) -> NodeFactory:
        """The factory of a type, its module imported on first use.

        Raises:
            UnknownNodeTypeError: with the nearest known names.
        """
        ...

    def register(self, thing: object) -> None:
        """Add a decorated function, Node, Source or Sink class, or a module of them.

        Raises:
            DuplicateNodeTypeError: another implementation has the type already.
        """
        ...

    def types(self) -> Iterable[str]:
        """All known type names, sorted."""
        ...
