"""Values as expressions see them: field access, and conversion to what the CEL library takes.

Owns: which Python objects have fields (dict, msgspec Struct, dataclass, Json), and their plain form.
Does not own: the lossless plain form of codecs (flowcore.values), or the expression's meaning.

Always holds: conversion is total or an `UnfitValueError` with the path of the value; an int is never changed
to a float, text with lone surrogates or a NUL never reaches the library (it crashes there, or is cut off).

The rule for records: the fields of a Struct or dataclass are its Python field names (not encoded names), a
field that is `UNSET` is absent. Json is its parsed value. An enum is its value; int, float and str subclasses
are their base.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from flowcore.errors import FlowError
from flowcore.findings import shown
from flowcore.values import Json


class Nothing:
    """Type of `NOTHING`; falsy, so that nothing is ever taken for true."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING: Final = Nothing()
"""No value here: the field is absent, or the compiled form leaves the answer to the library."""

type_of: Final = cast("Callable[[object], type[object]]", type)
"""`type`, whose answer about an untyped value is typed."""

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1
UINT_MAX: Final = (1 << 64) - 1
MAX_DEPTH: Final = 64


class UnfitValueError(ValueError):
    """A value has no form the expression library takes; the message says where and why."""


def field_of(holder: object, name: str) -> object:
    """The field of a record, or `NOTHING` when it has none of that name or is no record."""
    if type(holder) is dict:
        return cast("dict[object, object]", holder).get(name, NOTHING)
    names = _record_fields(type(holder))
    if names is not None:
        value = getattr(holder, name, NOTHING) if name in names else NOTHING
        return NOTHING if value is msgspec.UNSET else value
    if type(holder) is Json:
        return field_of(_parsed(holder), name)
    if isinstance(holder, dict):
        return cast("dict[object, object]", holder).get(name, NOTHING)
    return NOTHING


def is_record(holder: object) -> bool:
    """Whether the object has named fields."""
    if type(holder) is Json:
        return isinstance(_parsed(holder), dict)
    return isinstance(holder, dict) or _record_fields(type(holder)) is not None


def plain_form(value: object, path: str, depth: int = 0) -> object:
    """The value as None, bool, 64-bit int, float, str, bytes, list and dict.

    Raises:
        UnfitValueError: it holds something else, or is nested deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise UnfitValueError(f"{path} is nested deeper than {MAX_DEPTH}")
    convert = _CONVERT.get(type(value))
    return value if convert is None and type(value) in _AS_IS else (convert or _other)(value, path, depth)


@lru_cache(maxsize=1024)
def _record_fields(kind: type[Any]) -> frozenset[str] | None:
    if issubclass(kind, msgspec.Struct):
        return frozenset(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return frozenset(field.name for field in dataclasses.fields(kind))
    return None


def _parsed(value: object) -> object:
    try:
        return cast("Json", value).parse()
    except FlowError:
        return NOTHING


def _int(value: Any, path: str, _: int) -> object:
    if INT_MIN <= value <= UINT_MAX:
        return value
    reason = (
        "is outside the 64 bits that expressions compute with; compare it as text, or scale it down before"
    )
    raise UnfitValueError(f"{path} {reason} (got {shown(value)})")


def _str(value: Any, path: str, _: int) -> object:
    if "\0" in value:
        raise UnfitValueError(
            f"{path} holds a NUL character, where the expression library would cut the text off "
            f"(got {shown(value)})"
        )
    if is_unicode(value):
        return value
    raise UnfitValueError(f"{path} is not valid Unicode: it holds lone surrogates (got {shown(value)})")


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list(value: Any, path: str, depth: int) -> object:
    return [plain_form(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]


def _dict(value: Any, path: str, depth: int) -> object:
    return {
        _key(key, path): plain_form(item, f"{path}[{shown(key)}]", depth + 1) for key, item in value.items()
    }


def _key(key: object, path: str) -> object:
    if isinstance(key, str):
        return _str(str.__str__(key), f"a key of {path}", 0)
    if type(key) is bool:
        return key
    if isinstance(key, int):
        return _int(int(key), f"a key of {path}", 0)
    raise UnfitValueError(f"a key of {path} is a {type(key).__name__}, not text (got {shown(key)})")


def _other(value: Any, path: str, depth: int) -> object:
    names = _record_fields(type_of(value))
    if names is not None:
        fields = {name: field_of(value, name) for name in sorted(names)}
        return _dict({name: field for name, field in fields.items() if field is not NOTHING}, path, depth)
    if isinstance(value, enum.Enum):
        return plain_form(value.value, path, depth + 1)
    for base in _BASES:
        if isinstance(value, base):
            return plain_form(base(value), path, depth + 1)
    raise UnfitValueError(
        f"{path} is a {type(value).__name__}, which expressions cannot read (got {shown(value)})"
    )


def _octets(value: Any, _path: str, _depth: int) -> object:
    return bytes(value)


def _json(value: Any, path: str, depth: int) -> object:
    parsed = _parsed(value)
    if parsed is NOTHING:
        raise UnfitValueError(f"{path} is not valid JSON (got {shown(value)})")
    return plain_form(parsed, path, depth + 1)


_BASES: Final[tuple[type[Any], ...]] = (int, float, str, dict, list)
_AS_IS: Final = frozenset({type(None), bool, float, bytes})
_CONVERT: Final[dict[type, Callable[[Any, str, int], object]]] = {
    int: _int,
    str: _str,
    list: _list,
    tuple: _list,
    dict: _dict,
    bytearray: _octets,
    memoryview: _octets,
    Json: _json,
}
