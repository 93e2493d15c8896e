"""Values: the plain Python objects that flow between nodes, and their lossless plain form.

Owns: the closed set of value kinds, `Json`, `Stream`, `Secret` and `SecretRef`, equality that keeps kinds apart,
and the mapping to data that JSON, YAML and msgpack carry without loss.
Does not own: conversion between kinds (flowcore.coercion), resolving a secret (the runtime).

Always holds: `from_plain(to_plain(value))` is the same value, kinds included (1, 1.0 and True stay apart);
what has no plain form is an error with its path, never a near miss.
"""

from __future__ import annotations

import base64
import json
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from flowcore.errors import BuildError, ContractError
from flowcore.findings import Path, path_text, shown

T_co = TypeVar("T_co", covariant=True)

Kind = Literal["null", "bool", "int", "float", "str", "bytes", "json", "list", "dict", "stream"]

MAX_DEPTH: Final = 200
"""Nesting a value may have; deeper ones are refused with their path."""


class ValueFormError(BuildError, ValueError):
    """A value has no plain form, or plain data is no value's form; attributes `path`, `reason`."""


class Json:
    """JSON as it was received: encoded bytes, parsed when first asked for.

    Equal when the bytes are equal: comparing is cheap, total and never parses, so `Json(b'1')` and `Json(b' 1')`
    differ. Compare `.parse()` where the meaning counts. The bytes are not checked until `parse`.
    """

    __slots__ = ("_parsed", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw
        self._parsed: object = _UNPARSED

    @classmethod
    def of(cls, value: object) -> Json:
        """Encode a plain value; whole numbers of any size are exact.

        Raises:
            ValueFormError: the value holds something JSON has no form for (bytes, NaN, a Stream, a lone surrogate).
        """
        _check_jsonable(value, ())
        return cls(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())

    def parse(self) -> Value:
        """The value the bytes stand for, parsed once; do not change what it returns.

        Raises:
            ValueFormError: the bytes are not JSON (NaN and Infinity are not), or are nested too deep.
        """
        if self._parsed is _UNPARSED:
            try:
                self._parsed = json.loads(self.raw.decode(), parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as fault:
                message = f"not valid JSON: {fault}; the bytes start with {shown(self.raw[:60])}"
                raise ValueFormError(message, path="", reason=str(fault)) from fault
        return cast("Value", self._parsed)

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Json) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Json({shown(self.raw)})"


class Stream(ABC, Generic[T_co]):
    """A live sub-stream as a value: iterate it once, or `share` it first.

    One consumer: a second iteration of an unshared stream is a ContractError, not a split. A stream never enters
    state, a checkpoint or an outside system; its row settles when the stream has ended or was cancelled.
    """

    __slots__ = ("_taken", "shared")

    def __init__(self, *, shared: bool = False) -> None:
        self.shared: Final = shared
        self._taken = False

    def __aiter__(self) -> AsyncIterator[T_co]:
        if self._taken and not self.shared:
            raise ContractError(
                "this Stream already has its one consumer; call share() before connecting it to several", stream=self
            )
        self._taken = True
        return self._consume()

    @abstractmethod
    def _consume(self) -> AsyncIterator[T_co]:
        """A new consumer; called once, or once per consumer of a shared stream."""

    @abstractmethod
    def share(self, capacity: int = 64) -> Stream[T_co]:
        """A stream of the same items for several consumers; the slowest may lag `capacity` items, then all wait."""

    @abstractmethod
    def cancel(self) -> None:
        """No more items are wanted; idempotent."""


Value: TypeAlias = "None | bool | int | float | str | bytes | Json | list[Value] | dict[str, Value] | Stream[Any]"


class Secret:
    """A resolved secret: its text appears only where `reveal` is called."""

    __slots__ = ("_text", "name")

    def __init__(self, text: str, *, name: str = "") -> None:
        self._text: Final = text
        self.name: Final = name

    def reveal(self) -> str:
        """The secret text itself; keep it out of messages, logs and attributes."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str, /) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __reduce__(self) -> str:
        raise TypeError("a Secret is never pickled or copied out; pass its SecretRef and resolve it late")


class SecretRef:
    """Name of a secret in a configuration, `{$secret: NAME}`; resolved by the runtime when the node is made."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not name:
            raise ValueFormError("a secret needs a name, as in {$secret: OPENAI_API_KEY}", path="", reason="no name")
        self.name: Final = name

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, SecretRef) else NotImplemented

    def __hash__(self) -> int:
        return hash(("SecretRef", self.name))

    def __repr__(self) -> str:
        return f"SecretRef({self.name!r})"


_UNPARSED: Final = object()
_KINDS: Final[dict[type, Kind]] = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", Json: "json",
    list: "list", dict: "dict",
}  # fmt: skip
_LEAST_64, _MOST_64 = -(1 << 63), (1 << 64) - 1
_ODD_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_REMEDIES: Final = {
    "tuple": "use a list", "set": "use a list", "frozenset": "use a list", "datetime": "use its isoformat() text",
    "date": "use its isoformat() text", "time": "use its isoformat() text", "Decimal": "use its text, or a float",
    "timedelta": "use its total_seconds()", "UUID": "use its text", "bytearray": "use bytes", "memoryview": "use bytes",
    "ndarray": "use tolist()", "Secret": "pass its SecretRef", "PosixPath": "use its text",
}  # fmt: skip


def kind_of(value: object) -> Kind | None:
    """The kind of a value; None for what is not a value at all (subclasses such as enums included)."""
    kind = _KINDS.get(type(value))
    return "stream" if kind is None and isinstance(value, Stream) else kind


def same_value(left: object, right: object) -> bool:
    """Equality that keeps kinds apart: 1, 1.0 and True differ, NaN equals NaN, 0.0 and -0.0 differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        mine, other = cast("dict[object, object]", left), cast("dict[object, object]", right)
        return mine.keys() == other.keys() and all(same_value(item, other[key]) for key, item in mine.items())
    if isinstance(left, list | tuple):
        pairs = cast("list[object]", left), cast("list[object]", right)
        return len(pairs[0]) == len(pairs[1]) and all(map(same_value, *pairs))
    if isinstance(left, float):
        number = cast("float", right)
        if math.isnan(left) or math.isnan(number):
            return math.isnan(left) and math.isnan(number)
        return left == number and math.copysign(1, left) == math.copysign(1, number)
    return bool(left == right)


def to_plain(value: object) -> object:
    """The value as data of None, bool, 64-bit int, finite float, str, list, dict: any codec carries it without loss.

    bytes become `{"$bytes": base64}`, larger ints `{"$int": text}`, NaN and infinities `{"$float": "nan"}`, Json
    `{"$json": text}`, SecretRef `{"$secret": name}`, text with lone surrogates `{"$wtf8": base64}`; a user's key
    that starts with `$` gets another `$`.

    Raises:
        ValueFormError: the value holds something else (a Stream, a tuple, a datetime, a key that is not text, ...) or
            is nested deeper than `MAX_DEPTH`.
    """
    return _to_plain(value, ())


def from_plain(data: object) -> Any:  # noqa: ANN401 - the kind is known only at run time
    """The value that `to_plain` turned into `data`; lists and dicts are new.

    Raises:
        ValueFormError: an unknown `$` form, a malformed one, or something that is no plain data.
    """
    return _from_plain(data, ())


def _to_plain(value: object, path: Path) -> object:  # noqa: PLR0911 - one return per kind is the clearest form
    if len(path) > MAX_DEPTH:
        raise _no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | bool():
            return value
        case int() if type(value) is int:
            return value if _LEAST_64 <= value <= _MOST_64 else {"$int": _int_text(value)}
        case float() if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        case str() if type(value) is str:
            return value if _encodable(value) else {"$wtf8": _b64(value.encode("utf-8", "surrogatepass"))}
        case bytes():
            return {"$bytes": _b64(value)}
        case Json():
            return {"$json": _json_text(value.raw)}
        case SecretRef():
            return {"$secret": value.name}
        case list():
            items = cast("list[object]", value)
            return [_to_plain(item, (*path, index)) for index, item in enumerate(items)]
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return {_plain_key(key, path): _to_plain(item, (*path, str(key))) for key, item in pairs}
        case _:
            raise _unsupported(value, path)


def _from_plain(data: object, path: Path) -> object:
    if len(path) > MAX_DEPTH:
        raise _no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(data, list):
        return [_from_plain(item, (*path, index)) for index, item in enumerate(cast("list[object]", data))]
    if isinstance(data, dict):
        mapping = cast("dict[object, object]", data)
        for key in mapping:
            if not isinstance(key, str):
                raise _no_form(path, f"has the key {shown(key)}, which is not text; put it in quotes")
        return _read_mapping(cast("dict[str, object]", mapping), path)
    if data is None or type(data) in {bool, int, float, str}:
        return data
    raise _unsupported(data, path)


def _read_mapping(mapping: dict[str, object], path: Path) -> object:
    if any(key.startswith("$") and not key.startswith("$$") for key in mapping):
        return _read_form(mapping, path)
    return {key.removeprefix("$") if key[:1] == "$" else key: _from_plain(v, (*path, key)) for key, v in mapping.items()}


def _read_form(mapping: dict[str, object], path: Path) -> object:
    form = next(key for key in mapping if key.startswith("$") and not key.startswith("$$"))
    reader = _FORMS.get(form)
    if reader is None:
        known = ", ".join(_FORMS)
        raise _no_form(path, f"has the key {shown(form)}; known forms are {known}; write '$${form[1:]}' for a plain key")
    if len(mapping) != 1:
        raise _no_form(path, f"has keys beside {form!r}, which must stand alone")
    content = mapping[form]
    try:
        return reader(content)
    except (ValueError, TypeError, AttributeError) as fault:
        raise _no_form((*path, form), f"has {shown(content)}, which is no {form} form ({fault})") from fault


def _read_bytes(content: object) -> bytes:
    if not isinstance(content, str):
        raise TypeError("base64 text expected")
    return base64.b64decode(content.encode("ascii"), validate=True)


def _read_int(content: object) -> int:
    if not isinstance(content, str) or content != content.strip() or "_" in content:
        raise TypeError("text of digits expected")
    return int(content, 16) if content.lstrip("-").startswith("0x") else int(content)


def _read_float(content: object) -> float:
    if not isinstance(content, str) or content not in _ODD_FLOATS:
        raise TypeError("one of nan, inf, -inf expected")
    return _ODD_FLOATS[content]


def _read_wtf8(content: object) -> str:
    return _read_bytes(content).decode("utf-8", "surrogatepass")


def _read_json(content: object) -> Json:
    return Json(content.encode() if isinstance(content, str) else _read_bytes(cast("dict[str, object]", content)["$bytes"]))


def _read_secret(content: object) -> SecretRef:
    if not isinstance(content, str):
        raise TypeError("the secret's name expected")
    return SecretRef(content)


_FORMS: Final = {
    "$bytes": _read_bytes, "$int": _read_int, "$float": _read_float, "$json": _read_json, "$secret": _read_secret,
    "$wtf8": _read_wtf8,
}  # fmt: skip
PLAIN_FORMS: Final = tuple(_FORMS)


def _plain_key(key: object, path: Path) -> str:
    if type(key) is not str:
        raise _no_form(path, f"has the key {shown(key)} of type {type(key).__name__}; keys must be text")
    if not _encodable(key):
        raise _no_form(path, f"has the key {shown(key)} with a lone surrogate, which no encoding carries")
    return f"${key}" if key.startswith("$") else key


def _check_jsonable(value: object, path: Path) -> None:
    if len(path) > MAX_DEPTH:
        raise _no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    kind = kind_of(value)
    if kind == "list":
        for index, item in enumerate(cast("list[object]", value)):
            _check_jsonable(item, (*path, index))
    elif kind == "dict":
        for key, item in cast("dict[object, object]", value).items():
            _check_jsonable(key, path) if isinstance(key, str) else _plain_key(key, path)
            _check_jsonable(item, (*path, str(key)))
    elif kind not in {"null", "bool", "int", "float", "str"}:
        raise _unsupported(value, path, "JSON")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _no_form(path, f"is {value!r}, which JSON cannot write")
    elif isinstance(value, str) and not _encodable(value):
        raise _no_form(path, f"is {shown(value)}, text with a lone surrogate, which UTF-8 cannot write")
    elif type(value) is int and value.bit_length() > _DECIMAL_BITS:
        raise _no_form(path, "is a whole number of more than 4,000 digits, which JSON readers refuse")


_DECIMAL_BITS: Final = 13_000  # Python refuses decimal text of more than 4,300 digits (14,284 bits)


def _int_text(value: int) -> str:
    return str(value) if value.bit_length() <= _DECIMAL_BITS else hex(value)


def _json_text(raw: bytes) -> object:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"$bytes": _b64(raw)}


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _unsupported(value: object, path: Path, form: str = "plain") -> ValueFormError:
    name = type(value).__name__
    if isinstance(value, Stream):
        return _no_form(path, "is a Stream, which is live and never stored; consume it first")
    remedy = _REMEDIES.get(name)
    if remedy is None:
        base = next((base.__name__ for base in type(value).__mro__[1:] if base in _KINDS), None)
        remedy = f"convert it with {base}(...)" if base else "use None, bool, int, float, str, bytes, Json, list or dict"
    return _no_form(path, f"is a {name}, {shown(value)}, which has no {form} form; {remedy}")


def _no_form(path: Path, reason: str) -> ValueFormError:
    where = path_text(path)
    return ValueFormError(f"value{f' at {where}' if where else ''} {reason}", path=where, reason=reason)


def as_mapping(value: object) -> Mapping[str, object] | None:
    """`value` as a mapping with text keys, or None when it is none."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in cast("Mapping[object, object]", value)):
        return cast("Mapping[str, object]", value)
    return None
