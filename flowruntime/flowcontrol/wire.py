"""Values on their way into a worker process and back: msgpack, and nothing changes on the way.

Owns: `to_wire`, `from_wire`; exceptions as data (`error_as_data`, `rebuild_error`), `RemoteError`.
Does not own: who calls whom (processes), the values themselves (flowcore.values).

Always holds: what comes out is what went in, kinds included: 1, 1.0 and True stay apart, a tuple stays a
tuple, a struct comes back as its class; what cannot is refused with its path, never changed in silence.
Nothing is pickled: a class crosses by name, and only structs, dataclasses, enums and exceptions do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import sys
import traceback
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from flowcore.errors import ContractError, FlowError, RunError
from flowcore.findings import Path
from flowcore.values import MAX_DEPTH, Json, encodable, no_form, unsupported

_ARRAY, _ERROR, _JSON, _INT, _TEXT, _PAIRS, _UNSET, _TUPLE, _SET, _FROZENSET, _PLAIN, _OBJECT, _ENUM = range(
    1, 14
)
_LEAST_64, _MOST_64 = -(1 << 63), (1 << 64) - 1
_AS_THEY_ARE: Final = frozenset({type(None), bool, float, bytes})
_COLLECTIONS: Final[dict[type, int]] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
_PLAIN_FORMS: Final[dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]]] = {
    datetime: (lambda value: value.isoformat(), datetime.fromisoformat),
    date: (lambda value: value.isoformat(), date.fromisoformat),
    time: (lambda value: value.isoformat(), time.fromisoformat),
    timedelta: (
        lambda value: str(value // timedelta(microseconds=1)),
        lambda text: timedelta(microseconds=int(text)),
    ),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
}
_PLAIN_BY_NAME: Final = {kind.__name__: forms for kind, forms in _PLAIN_FORMS.items()}
_TRACE: Final = 4_000
"""Characters of a traceback that come back with an exception."""


class RemoteError(RunError):
    """An exception of a worker process whose class cannot be made here: attributes `kind`, `kinds`.

    `kind` is its class with the module, `kinds` the names of its class and all its bases, which `retry_on`
    asks for.
    """

    kinds: tuple[str, ...] = ()


def to_wire(value: object) -> bytes:
    """The value as msgpack.

    Raises:
        ValueFormError: it holds something that cannot cross, or is nested deeper than `MAX_DEPTH`; the
            message has the path and what to use instead.
    """
    return msgspec.msgpack.encode(_out(value, ()))


def from_wire(data: bytes) -> Any:
    """The value `to_wire` was given.

    Raises:
        ContractError: these are not its bytes, or a class in them is another one here.
    """
    try:
        return msgspec.msgpack.decode(data, ext_hook=_in)
    except ContractError:
        raise
    except Exception as fault:  # what a name or a number of a damaged message leads to may be any error
        raise ContractError(
            f"a message between this process and a worker process cannot be read: {type(fault).__name__}: "
            f"{fault}; is it the same version of everything on both sides?"
        ) from fault


# --- out ------------------------------------------------------------------------------------------------


def _out(value: Any, path: Path) -> Any:  # noqa: PLR0911 - one return per kind
    kind = cast("Any", type(value))
    if kind in _AS_THEY_ARE:
        return value
    if kind is int:
        return value if _LEAST_64 <= value <= _MOST_64 else _big(value)
    if kind is str:
        return value if encodable(value) else Ext(_TEXT, value.encode("utf-8", "surrogatepass"))
    if len(path) > MAX_DEPTH:
        raise no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        if set(map(type, value)) <= _AS_THEY_ARE:
            return value
        return [_out(item, (*path, index)) for index, item in enumerate(value)]
    if kind is dict:
        return _dict_out(value, path)
    if kind is Json:
        return Ext(_JSON, value.raw)
    return _other_out(value, kind, path)


def _big(number: int) -> Ext:
    return Ext(_INT, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def _dict_out(value: dict[Any, Any], path: Path) -> Any:
    if all(type(key) is str and encodable(key) for key in value):
        return {key: _out(item, (*path, key)) for key, item in value.items()}
    pairs = [[_out(key, (*path, repr(key))), _out(item, (*path, repr(key)))] for key, item in value.items()]
    return _packed(_PAIRS, pairs)


def _other_out(value: Any, kind: Any, path: Path) -> Ext:  # noqa: PLR0911 - as above
    if kind in _COLLECTIONS:
        return _packed(_COLLECTIONS[kind], [_out(item, (*path, index)) for index, item in enumerate(value)])
    if kind in _PLAIN_FORMS and _is_plain(value):
        return _packed(_PLAIN, [kind.__name__, _PLAIN_FORMS[kind][0](value)])
    if value is msgspec.UNSET:
        return Ext(_UNSET, b"")
    if isinstance(value, enum.Enum):
        return _packed(_ENUM, [*_name_of(kind, path), value.name])
    if isinstance(value, BaseException):
        return _packed(_ERROR, error_as_data(value))
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype"):
        return _array_out(value, kind, path)
    names = _fields_of(kind)
    if names is None:
        raise unsupported(value, path, "msgpack")
    fields = [_out(getattr(value, name), (*path, name)) for name in names]
    return _packed(_OBJECT, [*_name_of(kind, path), fields])


def _packed(code: int, data: Any) -> Ext:
    return Ext(code, msgspec.msgpack.encode(data))


def _is_plain(value: Any) -> bool:
    """Whether its text says all of it: a zone of a name does not come back from an offset."""
    zone, fold = getattr(value, "tzinfo", None), getattr(value, "fold", 0)
    return fold == 0 and (zone is None or type(zone) is timezone)


def _array_out(value: Any, kind: Any, path: Path) -> Ext:
    scalar = kind.__name__ != "ndarray"
    if value.dtype.hasobject or value.dtype.names is not None or (scalar and value.shape != ()):
        raise no_form(path, f"is a {kind.__name__} of {value.dtype}, which has no msgpack form; use tolist()")
    return _packed(_ARRAY, [value.dtype.str, list(value.shape), scalar, value.tobytes()])


def _fields_of(kind: Any) -> tuple[str, ...] | None:
    """Names of the fields of a struct or dataclass; None for anything else."""
    names = getattr(kind, "__struct_fields__", None)
    if names is None and dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    return names


def _name_of(kind: Any, path: Path) -> tuple[str, str]:
    """Module and name by which the other side finds a class."""
    module, qualname = kind.__module__, kind.__qualname__
    if "<locals>" in qualname or module == "__main__":
        reason = f"is of the class {module}.{qualname}, which a worker process cannot find by its name"
        raise no_form(path, f"{reason}; define it at the top level of a module that can be imported")
    return module, qualname


# --- in -------------------------------------------------------------------------------------------------


def _in(code: int, data: memoryview) -> Any:
    read = _READERS.get(code)
    if read is None:
        raise ContractError(f"unknown extension {code} from a worker process")
    return read(bytes(data))


def _unpacked(data: bytes) -> Any:
    return msgspec.msgpack.decode(data, ext_hook=_in)


def _array_in(data: bytes) -> Any:
    import numpy as np

    dtype, shape, scalar, raw = _unpacked(data)
    array: Any = np.frombuffer(raw, dtype=dtype).reshape(shape).copy()
    return array[()] if scalar else array


def _plain_in(data: bytes) -> Any:
    kind, text = _unpacked(data)
    return _PLAIN_BY_NAME[kind][1](text)


def _enum_in(data: bytes) -> Any:
    module, qualname, name = _unpacked(data)
    return _found(module, qualname)[name]


def _object_in(data: bytes) -> Any:
    """A struct or dataclass with the fields it had."""
    module, qualname, values = _unpacked(data)
    kind = _found(module, qualname)
    names = _fields_of(kind)
    if names is None or len(names) != len(values):
        raise ContractError(f"{module}.{qualname} is another class in this process than where it came from")
    fields = dict(zip(names, values, strict=True))
    struct = issubclass(kind, msgspec.Struct)
    made = kind(**fields) if struct else object.__new__(kind)
    setter = msgspec.structs.force_setattr if struct else object.__setattr__
    for name, value in fields.items():  # whatever a __post_init__ has made of them
        setter(made, name, value)
    return made


def _found(module: str, qualname: str) -> Any:
    """What a name stands for here."""
    target: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in qualname.split("."):
        target = getattr(target, part)
    return target


# --- exceptions -----------------------------------------------------------------------------------------


def error_as_data(error: BaseException) -> Any:
    """An exception as plain data: class, bases, arguments, attributes, where it was raised."""
    kind = type(error)
    return {
        "module": kind.__module__,
        "name": kind.__qualname__,
        "kinds": [base.__name__ for base in kind.__mro__],
        "text": _text_of(error),
        "args": _crossing(list(error.args)),
        "facts": {name: fact for name, fact in vars(error).items() if _crossing(fact) is not None},
        "retriable": error.retriable if isinstance(error, FlowError) else None,
        "trace": "".join(traceback.format_exception(error))[-_TRACE:],
    }


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - another's __str__; the error it hides is told all the same
        text = f"<its __str__ raised {type(broken).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _crossing(value: Any) -> Any:
    """The value when msgpack has a form for it as it is, else None."""
    with contextlib.suppress(TypeError, ValueError, OverflowError, RecursionError):
        return value if msgspec.msgpack.decode(msgspec.msgpack.encode(value)) == value else None
    return None


def rebuild_error(data: Any) -> Exception:
    """The exception again: of its own class when this process knows it, else a RemoteError."""
    error = _rebuilt(data)
    if error is None:
        facts: dict[str, object] = {} if data["retriable"] is None else {"retriable": data["retriable"]}
        error = RemoteError(
            f"{data['name']}: {data['text']}", kind=f"{data['module']}.{data['name']}", **facts
        )
        error.kinds = tuple(data["kinds"])
    error.add_note(f"raised in a worker process:\n{data['trace']}")
    return error


def _rebuilt(data: Any) -> Exception | None:
    kind: Any = sys.modules.get(data["module"])
    for part in data["name"].split("."):
        kind = getattr(kind, part, None)
    arguments = data["args"]
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or arguments is None:
        return None
    ways: list[Callable[[], Exception]] = [lambda: kind(*arguments)]
    if kind.__module__ != "builtins":  # first without its constructor, which may take other arguments
        ways.insert(0, lambda: kind.__new__(kind, *arguments))
    for make in ways:
        with contextlib.suppress(Exception):  # a class with ways of its own comes as RemoteError
            error = make()
            error.args = tuple(arguments)
            error.__dict__.update(data["facts"])
            if _text_of(error) == data["text"]:
                return error
    return None


_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    _ARRAY: _array_in,
    _ERROR: lambda data: rebuild_error(_unpacked(data)),
    _JSON: Json,
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    _PAIRS: lambda data: dict(_unpacked(data)),
    _UNSET: lambda _: msgspec.UNSET,
    _TUPLE: lambda data: tuple(_unpacked(data)),
    _SET: lambda data: set(_unpacked(data)),
    _FROZENSET: lambda data: frozenset(_unpacked(data)),
    _PLAIN: _plain_in,
    _OBJECT: _object_in,
    _ENUM: _enum_in,
}
