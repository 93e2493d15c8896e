"""Types of configuration fields: their names in messages, and which of several a value was meant for.

Owns: the groups of types the reader and the schema share, their names in words, the order of trying a union.
Does not own: reading values (flowcore.config), their schema (flowcore.config_schema).

Pure: functions of annotations and values; nothing here knows a path or notes a finding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import msgspec

from flowcore.expression import Expression, Template
from flowcore.values import Secret

HOOKED: Final = (Template, Expression, Secret)
"""Types only the caller can read."""

SEQUENCES: Final = (list, Sequence, MutableSequence, Iterable)
MAPPINGS: Final = (dict, Mapping, MutableMapping)
ITEM_CONTAINERS: Final = (*SEQUENCES, tuple, set, frozenset)
UNIONS: Final = (Union, UnionType)


def mentions(annotation: Any, wanted: tuple[type, ...]) -> bool:
    """Whether one of the `wanted` classes occurs anywhere in the annotation."""
    if isinstance(annotation, type) and issubclass(annotation, wanted):
        return True
    return any(mentions(argument, wanted) for argument in get_args(annotation))


def describe_type(annotation: Any) -> str:  # noqa: PLR0911 - one return per kind of type
    """A type as users write it in a file: `text`, `a duration such as 30s`, `a list of text`."""
    names: dict[Any, str] = {
        Any: "any value", object: "any value", NoneType: "null", bool: "true or false", int: "a whole number",
        float: "a number", str: "text", bytes: "bytes", timedelta: "a duration such as '30s'",
        Expression: "an expression", Template: "a template of expressions", Secret: "{$secret: NAME}",
    }  # fmt: skip
    if get_origin(annotation) is Annotated:
        return describe_type(get_args(annotation)[0])
    if annotation in names:
        return names[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return " or ".join(describe_type(member) for member in arguments if member is not msgspec.UnsetType)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in ITEM_CONTAINERS or annotation in ITEM_CONTAINERS:
        return f"a list of {describe_type(arguments[0])}" if arguments else "a list"
    if origin in MAPPINGS or annotation in MAPPINGS:
        return "a mapping"
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        return f"a mapping of {annotation.__name__} fields"
    return str(cast("object", getattr(annotation, "__name__", annotation)))


def rank(member: Any, value: object) -> int:
    """Order in which a union is tried: members that keep the value's own type, then those declared first."""
    origin = get_origin(member) or member
    if origin is Annotated:
        return rank(get_args(member)[0], value)
    if origin is Literal or (origin is timedelta and isinstance(value, str)):
        return 0
    return 1 if origin is type(value) else 2


def resembles(member: Any, value: object) -> bool:
    """Whether a value was probably meant as this member of a union, so that its problems are shown."""
    origin = get_origin(member) or member
    if origin is Annotated:
        return resembles(get_args(member)[0], value)
    if isinstance(value, Mapping):
        return origin in MAPPINGS or (isinstance(origin, type) and issubclass(origin, msgspec.Struct))
    if isinstance(value, list | tuple):
        return origin in ITEM_CONTAINERS
    if isinstance(value, str):
        return origin is str or (isinstance(origin, type) and issubclass(origin, HOOKED))
    return origin is type(value)
