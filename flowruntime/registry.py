"""The registry: node types by name, found by entry point or registered by hand.

Owns: `Registry` and `Overlay`, the implementations of `flowcore.registry.NodeRegistry`.
Does not own: where installed types live (flowruntime.discovery), what a factory does (flowruntime.factories).

Always holds: a name means one implementation; registering the same one twice is fine; a module is imported
when its type is first asked for, outside the lock; safe to use from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Final

from flowcore.definition import Definition
from flowcore.errors import DefinitionError, DuplicateNodeTypeError, UnknownNodeTypeError
from flowcore.findings import did_you_mean
from flowcore.registry import NodeFactory, NodeRegistry
from flowcore.workflow import WORKFLOW_TYPE
from flowruntime.discovery import (
    Namespaces,
    check_connectors_package,
    definition_of,
    definitions_in,
    load_type,
)
from flowruntime.factories import DefinitionFactory


class Registry:
    """All node types this process knows.

    Args:
        things: what to register at once: decorated functions, classes, modules.
        namespaces: where installed types live; None: what the installed distributions declare.

    Raises:
        ShadowedPackageError: another package named `connectors` hides ours.
        DuplicateNodeTypeError, DefinitionError: as for `register`.
    """

    def __init__(self, things: Iterable[object] = (), *, namespaces: Namespaces | None = None) -> None:
        if namespaces is None:
            check_connectors_package()
        self._namespaces: Final = Namespaces.installed() if namespaces is None else namespaces
        self._factories: Final[dict[str, DefinitionFactory]] = {}
        self._lock: Final = threading.Lock()
        for thing in things:
            self.register(thing)

    def factory(self, type_name: str) -> NodeFactory:
        """The factory of a type, its module imported on first use.

        Raises:
            UnknownNodeTypeError: with the nearest known names.
            NodeImportError: the type's module cannot be imported.
        """
        found = self._factories.get(type_name)
        if found is not None:
            return found
        module = self._namespaces.module_of(type_name)
        if module is None:
            raise self._unknown(type_name)
        return self._add(load_type(type_name, module))

    def register(self, thing: object) -> None:
        """Add a decorated function, Node, Source or Sink class, or every one a module holds.

        Raises:
            DuplicateNodeTypeError: another implementation has the type already.
            DefinitionError: it is none of these.
        """
        if isinstance(thing, ModuleType):
            definitions = definitions_in(thing)
            if not definitions:
                raise DefinitionError(
                    f"module {thing.__name__!r} holds no node, source, sink or operator; decorate a function"
                    " with @node, or give a class a type",
                    module=thing.__name__,
                )
        else:
            definitions = [_own_definition(thing)]
        for definition in definitions:
            self._refuse_installed(definition)
            self._add(definition)

    def types(self) -> list[str]:
        """All known type names, sorted; node modules are not imported."""
        return sorted({*self._factories, *self._namespaces.type_names()})

    def _add(self, definition: Definition) -> DefinitionFactory:
        with self._lock:
            known = self._factories.get(definition.type)
            if known is not None and known.definition.implementation is definition.implementation:
                return known
            if known is not None and not _redefined(known.definition, definition):
                raise _duplicate(definition, location(known.definition))
            self._factories[definition.type] = DefinitionFactory(definition)
            return self._factories[definition.type]

    def _refuse_installed(self, definition: Definition) -> None:
        module = self._namespaces.module_of(definition.type)
        if module is not None and module != definition.implementation.__module__:
            raise _duplicate(definition, module)

    def _unknown(self, type_name: str) -> UnknownNodeTypeError:
        known = self.types()
        remedy = did_you_mean(type_name, [*known, WORKFLOW_TYPE] if known else [])
        if not known:
            remedy = "no installed distribution declares node types; install flowrx: pip install -e ."
        return UnknownNodeTypeError(
            f"unknown node type {type_name!r}; {remedy or 'see `flow nodes` for all types'}",
            type=type_name,
            remedy=remedy or "see `flow nodes` for all types",
        )


class Overlay:
    """A registry with a few types of its own on top: those of one workflow, or replacements in a test.

    Args:
        base: asked for every other type.
        things: by type name, the function or class that stands for it here.

    Raises:
        DefinitionError: a thing is no node.
    """

    def __init__(self, base: NodeRegistry, things: Mapping[str, object]) -> None:
        self._base: Final = base
        self._own: Final = {name: DefinitionFactory(_own_definition(thing)) for name, thing in things.items()}

    def factory(self, type_name: str) -> NodeFactory:
        """The factory of a type, its own ones first.

        Raises:
            UnknownNodeTypeError: with the nearest known names.
        """
        return self._own.get(type_name) or self._base.factory(type_name)

    def register(self, thing: object) -> None:
        """Add to the overlay only.

        Raises:
            DuplicateNodeTypeError: another implementation has the type in the overlay already.
        """
        definition = _own_definition(thing)
        known = self._own.get(definition.type)
        if known is not None and known.definition.implementation is not definition.implementation:
            raise _duplicate(definition, location(known.definition))
        self._own[definition.type] = DefinitionFactory(definition)

    def types(self) -> list[str]:
        """All known type names, sorted."""
        return sorted({*self._own, *self._base.types()})


def location(definition: Definition) -> str:
    """`module:qualname` of an implementation."""
    return f"{definition.implementation.__module__}:{definition.implementation.__qualname__}"


def _own_definition(thing: object) -> Definition:
    definition = definition_of(thing)
    if definition is None:
        inherited = getattr(thing, "__flow_node__", None) or getattr(thing, "__flow_connector__", None)
        remedy = "decorate the function with @node, or derive a class: class X(Node[...], type='...')"
        if inherited is not None:
            remedy = (
                f"it inherits {inherited.type!r} from its base; give it its own: class X(Base, type='...')"
            )
        raise DefinitionError(f"{thing!r} is no node, source, sink or operator; {remedy}", thing=repr(thing))
    return definition


def _redefined(known: Definition, new: Definition) -> bool:
    """The same place in the code, run again (a notebook cell, a reloaded module): the new one takes over."""
    return location(known) == location(new) and "<" not in location(new)


def _duplicate(definition: Definition, other: str) -> DuplicateNodeTypeError:
    return DuplicateNodeTypeError(
        f"node type {definition.type!r} of {location(definition)} is taken by {other}; give one another type",
        type=definition.type,
        implementation=location(definition),
        other=other,
    )
