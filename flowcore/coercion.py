"""Coercions: turn a value into another kind without changing what it says, or say why not.

Owns: the table of conversions that lose nothing.
Does not own: when one is wanted (params, `transform.coerce`, port rules of the compiler).

Always holds: `coerce` is total over values and kinds: it returns a value of the kind asked for, or raises a
CoercionError with path, value, target and reason. No rounding, no truncation, no guess: `"1.5"` is no int,
2**53 + 1 is no float, 1 is no bool.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, cast

from flowcore.errors import CoercionError
from flowcore.findings import Path, path_text, shown
from flowcore.values import Json, Kind, ValueFormError, kind_of

_INT_TEXT = re.compile(r"[-+]?[0-9]{1,4000}")
_FLOAT_TEXT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ODD_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}


class _CannotError(ValueError):
    """Why a conversion is not possible; becomes the CoercionError's reason."""


def coerce(value: object, to: Kind, *, path: Path = ()) -> Any:
    """`value` as a value of kind `to`.

    Args:
        value: any value.
        to: the kind wanted; a value that has it is returned as it is.
        path: where the value stands, for the error.

    Raises:
        CoercionError: the kinds do not convert, or this value would be changed; attributes `path`, `value`
            (as shown), `target`, `reason`.
    """
    kind = kind_of(value)
    if kind == to:
        return value
    try:
        return _converted(value, kind, to)
    except _CannotError as fault:
        where = path_text(path)
        message = f"cannot turn {shown(value)}{f' at {where}' if where else ''} into {to}: {fault}"
        raise CoercionError(message, path=where, value=shown(value), target=to, reason=str(fault)) from None


def _converted(value: object, kind: Kind | None, to: Kind) -> object:
    if kind is None:
        raise _CannotError(f"{type(value).__name__} is no value")
    if kind == "json" and to not in {"str", "bytes"}:
        return _from_json(cast("Json", value), to)
    convert = _TABLE.get((kind, to))
    if convert is None:
        raise _CannotError(f"a {kind} has no {to} form")
    return convert(value)


def _from_json(value: Json, to: Kind) -> object:
    try:
        parsed = value.parse()
    except ValueFormError as fault:
        raise _CannotError(str(fault)) from fault
    kind = kind_of(parsed)
    if kind == "int" and to == "float":
        return _int_to_float(cast("int", parsed))
    if kind != to:
        raise _CannotError(f"the JSON holds a {kind}")
    return parsed


def _int_to_float(value: int) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise _CannotError("too large for a float") from None
    if int(number) != value:
        raise _CannotError(f"the nearest float is {number!r}, another number")
    return number


def _float_to_int(value: float) -> int:
    if not value.is_integer():
        raise _CannotError("not a whole number")
    if not value and math.copysign(1, value) < 0:
        raise _CannotError("-0.0 has a sign that 0 has not")
    return int(value)


def _text_to_int(value: str) -> int:
    if not _INT_TEXT.fullmatch(value):
        raise _CannotError("not the digits of a whole number")
    return int(value)


def _text_to_float(value: str) -> float:
    if value in _ODD_FLOATS:
        return _ODD_FLOATS[value]
    if not _FLOAT_TEXT.fullmatch(value):
        raise _CannotError("not a number")
    if _INT_TEXT.fullmatch(value):
        return _int_to_float(int(value))
    number = float(value)
    if math.isinf(number):
        raise _CannotError("too large for a float")
    return number


def _text_to_bool(value: str) -> bool:
    if value not in {"true", "false"}:
        raise _CannotError("neither 'true' nor 'false'")
    return value == "true"


def _text_to_bytes(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _CannotError("it holds a lone surrogate, which UTF-8 cannot write") from None


def _bytes_to_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as fault:
        raise _CannotError(f"not UTF-8 at byte {fault.start}") from None


def _bytes_to_json(value: bytes) -> Json:
    encoded = Json(value)
    try:
        encoded.parse()
    except ValueFormError as fault:
        raise _CannotError(str(fault)) from fault
    return encoded


def _to_json(value: object) -> Json:
    try:
        return Json.of(value)
    except ValueFormError as fault:
        raise _CannotError(str(fault)) from fault


def _int_to_text(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        raise _CannotError("too many digits to write") from None


def _bool_to_text(value: object) -> str:
    return "true" if value else "false"


def _json_raw(value: Json) -> bytes:
    return value.raw


def _json_text(value: Json) -> str:
    return _bytes_to_text(value.raw)


_TABLE: Final[dict[tuple[Kind, Kind], Callable[[Any], object]]] = {
    ("int", "float"): _int_to_float,
    ("float", "int"): _float_to_int,
    ("str", "int"): _text_to_int,
    ("str", "float"): _text_to_float,
    ("str", "bool"): _text_to_bool,
    ("str", "bytes"): _text_to_bytes,
    ("bytes", "str"): _bytes_to_text,
    ("bool", "str"): _bool_to_text,
    ("int", "str"): _int_to_text,
    ("float", "str"): repr,
    ("json", "str"): _json_text,
    ("json", "bytes"): _json_raw,
    ("bytes", "json"): _bytes_to_json,
    **{(kind, "json"): _to_json for kind in ("null", "bool", "int", "float", "str", "list", "dict")},
}
