"""Which outputs fit which inputs: the type rule between the two ends of a connection.

Owns: `mismatch`, what is known of a field inside an annotated value (`follow`), and whether it is a Stream.
Does not own: which ports are joined (the compiler), converting values (flowcore.coercion).

Always holds: only what cannot work is refused. Whatever is not known (Any, an unresolved name, a type
variable, a protocol) is accepted; of a union on either side one fitting member is enough. Python's own rule
holds between numbers: a bool is an int, an int does for a float, never the reverse.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import msgspec

from flowcore.values import SharedStream, Stream

_UNIONS: Final = (Union, types.UnionType)
_WRAPPERS: Final = (Annotated, Required, NotRequired, typing.Final, typing.ClassVar)
_WIDENS: Final = {float: (int,), complex: (int, float), bytes: (bytearray, memoryview)}
_FIELDLESS: Final = (str, bytes, bytearray, int, float, complex, bool, type(None), set, frozenset)


class Unknown(msgspec.Struct, frozen=True):
    """There is no such field: `name` is the one missing, `known` what there is instead."""

    name: str
    holder: str
    known: tuple[str, ...]


def mismatch(source: Any, target: Any) -> str | None:
    """Why a value of type `source` can never serve where `target` is asked for; None when it may.

    The reason names the part that does not fit: `list[str] is not list[int]: str is not int`.
    """
    source, target = bare(source), bare(target)
    if _accepts_all(source) or _accepts_all(target) or source is target or source == target:
        return None
    members = _members(source)
    if members != (source,):
        faults = [mismatch(member, target) for member in members]
        return None if None in faults else _not(source, target)
    targets = _members(target)
    if targets != (target,):
        faults = [mismatch(source, member) for member in targets]
        return None if None in faults else _not(source, target)
    if get_origin(source) is Literal or get_origin(target) is Literal:
        return _literal_mismatch(source, target)
    return _class_mismatch(source, target)


def follow(annotation: Any, path: Sequence[str]) -> Any | Unknown:
    """The type of a field inside a value of type `annotation`; `Unknown` when there can be no such field."""
    for name in path:
        found = _field(bare(annotation), name)
        if isinstance(found, Unknown):
            return found
        annotation = found
    return annotation


def element(annotation: Any) -> Any:
    """The type of one item of a list or sequence; Any when that is not said. Text is no sequence here."""
    inner = bare(annotation)
    origin, arguments = get_origin(inner) or inner, get_args(inner)
    if origin is tuple:
        kinds = [argument for argument in arguments if argument is not Ellipsis]
        return Union[tuple(kinds)] if kinds else Any  # noqa: UP007 - members known at run time only
    sequence = (
        inspect.isclass(origin)
        and issubclass(origin, Iterable)
        and not issubclass(origin, str | bytes | Mapping)
    )
    return arguments[0] if sequence and len(arguments) == 1 else Any


def is_stream(annotation: Any, *, shared: bool | None = None) -> bool:
    """Whether a value of that type is a Stream for sure: null or not, every member of a union is one.

    Args:
        annotation: of a port.
        shared: ask for a shared stream, or for one that has a single consumer; None: either.
    """
    members = [bare(member) for member in _members(bare(annotation)) if bare(member) is not type(None)]
    classes = [_class_of(member) for member in members]
    if not all(cls is not None and issubclass(cls, Stream) for cls in classes) or not classes:
        return False
    every_shared = all(cls is not None and issubclass(cls, SharedStream) for cls in classes)
    return shared is None or shared is every_shared


def type_text(annotation: Any) -> str:
    """An annotation as people write it: `list[str]`, `Place`, `str | None`."""
    annotation = bare(annotation)
    if annotation is type(None):
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in _UNIONS:
        return " | ".join(type_text(member) for member in _members(annotation))
    if origin is not None and arguments:
        inner = ", ".join("..." if each is Ellipsis else type_text(each) for each in arguments)
        return f"{_name(origin)}[{inner}]"
    return _name(annotation)


def bare(annotation: Any) -> Any:
    """The annotation without `Annotated`, `Required` and the like, aliases and NewTypes opened."""
    while True:
        if get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = ...`, Python 3.12
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation


# --- classes ---


def _class_mismatch(source: Any, target: Any) -> str | None:
    from_class, to_class = _class_of(source), _class_of(target)
    if from_class is None or to_class is None or _is_protocol(from_class) or _is_protocol(to_class):
        return None
    if issubclass(from_class, _WIDENS.get(to_class, ())):
        return None
    if issubclass(from_class, to_class) or (issubclass(to_class, from_class) and to_class is not bool):
        return _argument_mismatch(source, target, from_class, to_class)
    return None if _behaves_like(from_class, to_class) else _not(source, target)


def _class_of(annotation: Any) -> type[Any] | None:
    found = get_origin(annotation) or annotation
    if not inspect.isclass(found):
        return None
    return dict if typing.is_typeddict(found) else found


def _is_protocol(cls: type[Any]) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def _behaves_like(from_class: type[Any], to_class: type[Any]) -> bool:
    """Classes of other libraries, such as arrays, that serve as a collection or number without being one."""
    if from_class.__module__ == "builtins" or issubclass(from_class, msgspec.Struct | enum.Enum):
        return False
    if to_class in (int, float, complex):
        return hasattr(from_class, "__float__") or hasattr(from_class, "__index__")
    collection = to_class in (list, tuple) or to_class.__module__ == "collections.abc"
    return collection and (hasattr(from_class, "__iter__") or hasattr(from_class, "__getitem__"))


def _argument_mismatch(source: Any, target: Any, from_class: type[Any], to_class: type[Any]) -> str | None:
    """Between containers that fit: do their items, too?"""
    if issubclass(from_class, Stream) and issubclass(to_class, Stream):
        fault = mismatch(_item_of(source), _item_of(target))
        return None if fault is None else f"{_not(source, target)}: {fault}"
    if not _is_collection(from_class) or not _is_collection(to_class):  # pyright: ignore[reportUnknownArgumentType] - narrowed by the test above to a Stream of something
        return None
    if issubclass(from_class, Mapping) and issubclass(to_class, Mapping):
        pairs = list(zip(_mapping_types(source), _mapping_types(target), strict=True))
    elif issubclass(from_class, Mapping) or issubclass(to_class, Mapping):
        return None
    elif from_class is tuple and to_class is tuple and _is_fixed(source) and _is_fixed(target):
        if len(get_args(source)) != len(get_args(target)):
            return _not(source, target)
        pairs = list(zip(get_args(source), get_args(target), strict=True))
    else:
        pairs = [(element(source), element(target))]
    for given, wanted in pairs:
        fault = mismatch(given, wanted)
        if fault is not None:
            return f"{_not(source, target)}: {fault}"
    return None


def _item_of(annotation: Any) -> Any:
    return (*get_args(annotation), Any)[0]


def _mapping_types(annotation: Any) -> tuple[Any, Any]:
    arguments = get_args(annotation)
    return (arguments[0], arguments[1]) if len(arguments) == 2 else (Any, Any)  # noqa: PLR2004 - key, value


def _is_collection(cls: type) -> bool:
    return cls in (list, tuple, set, frozenset, dict) or cls.__module__ in ("collections.abc", "collections")


def _is_fixed(annotation: Any) -> bool:
    return bool(get_args(annotation)) and Ellipsis not in get_args(annotation)


def _literal_mismatch(source: Any, target: Any) -> str | None:
    if get_origin(source) is not Literal:  # text where one of a few texts is asked for: it may be one of them
        faults = [mismatch(source, type(choice)) for choice in get_args(target)]
        return None if None in faults else _not(source, target)
    given = get_args(source)
    if get_origin(target) is Literal:
        return (
            None
            if any(_same(one, other) for one in given for other in get_args(target))
            else _not(source, target)
        )
    return None if any(mismatch(type(choice), target) is None for choice in given) else _not(source, target)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) not in _UNIONS:
        return (annotation,)
    return tuple(member for member in get_args(annotation) if member is not msgspec.UnsetType)


def _accepts_all(annotation: Any) -> bool:
    if annotation in (Any, object, inspect.Parameter.empty, typing.Never, typing.NoReturn):
        return True
    if isinstance(annotation, TypeVar | str | typing.ForwardRef):
        return True
    origin = get_origin(annotation)
    if origin in _UNIONS:
        return any(_accepts_all(bare(member)) for member in get_args(annotation))
    return origin is None and annotation is not None and not inspect.isclass(annotation)


# --- fields ---


def _field(annotation: Any, name: str) -> Any | Unknown:  # noqa: PLR0911 - one return per kind of type
    if _accepts_all(annotation):
        return Any
    if get_origin(annotation) in _UNIONS:
        members = [member for member in _members(annotation) if member is not type(None)]
        found = [_field(bare(member), name) for member in members]
        known = [each for each in found if not isinstance(each, Unknown)]
        return Union[tuple(known)] if known else found[0]  # noqa: UP007 - as in element
    origin = get_origin(annotation) or annotation
    if not inspect.isclass(origin):
        return Any
    fields = known_fields(origin)
    if fields is not None:
        return fields[name] if name in fields else Unknown(name, type_text(annotation), tuple(fields))
    if issubclass(origin, Mapping):
        return _mapping_types(annotation)[1]
    if issubclass(origin, list | tuple | Sequence) and not issubclass(origin, str | bytes):
        return element(annotation) if name.isdigit() else Unknown(name, type_text(annotation), ("0",))
    if origin in _FIELDLESS or issubclass(origin, Stream | enum.Enum):
        return Unknown(name, type_text(annotation), ())
    return Any


def known_fields(cls: type[Any]) -> Mapping[str, Any] | None:
    """Fields of a struct, dataclass, TypedDict or NamedTuple by name, or None when they are not declared."""
    try:
        if issubclass(cls, msgspec.Struct):
            declared = {field.name: field.type for field in msgspec.structs.fields(cls)}
        elif typing.is_typeddict(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "_field_defaults"):
            declared = typing.get_type_hints(cls, include_extras=True)
        else:
            return None
    except Exception:  # noqa: BLE001 - another library's class may raise anything; then nothing is declared
        return None
    derived = [name for name, member in inspect.getmembers_static(cls) if isinstance(member, property)]
    return dict.fromkeys(derived, Any) | declared


def _name(annotation: Any) -> str:
    return cast("str", getattr(annotation, "__name__", None) or repr(annotation).removeprefix("typing."))


def _not(source: Any, target: Any) -> str:
    return f"{type_text(source)} is not {type_text(target)}"
