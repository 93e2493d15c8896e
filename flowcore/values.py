"""Values: the plain Python objects that flow between nodes.

Owns: the closed set of value kinds, `Json`, `Stream`, `Secret` and `SecretRef`, and equality that keeps
kinds apart.
Does not own: the lossless plain form (flowcore.plain), conversion between kinds (flowcore.coercion),
resolving a secret, producing what a Stream carries (the runtime).

Always holds: 1, 1.0 and True are three values; subclasses (enums, numpy numbers) are none.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, Generic, Literal, NoReturn, TypeAlias, TypeVar, cast

import msgspec

from flowcore.errors import BuildError, ContractError, DefinitionError
from flowcore.findings import Path, path_text, shown

T_co = TypeVar("T_co", covariant=True)

Kind = Literal["null", "bool", "int", "float", "str", "bytes", "json", "list", "dict", "stream"]

DECIMAL_BITS: Final = 13_000
"""Beyond, an int is not written in decimal: Python refuses texts of more than 4,300 digits (14,284 bits)."""
MAX_DEPTH: Final = 100
"""Nesting a value may have; deeper ones are refused with their path."""


class ValueFormError(BuildError, ValueError):
    """A value has no plain form, or plain data is no value's form; attributes `path`, `reason`."""


class Json:
    """JSON as it was received: encoded bytes, parsed when first asked for.

    Equal when the bytes are equal: comparing is cheap, total and never parses, so `1` and `1.0` differ, and
    so do spellings with other spaces. Compare `.parse()` where the meaning counts. The bytes are not checked
    until `parse`.
    """

    __slots__ = ("_parsed", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = raw
        self._parsed: object = _UNPARSED

    @classmethod
    def of(cls, value: object) -> Json:
        """Encode a plain value; whole numbers of any size are exact.

        Raises:
            ValueFormError: the value holds something JSON has no form for (bytes, NaN, a Stream, a lone
                surrogate).
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
    """A live sub-stream as a value: iterate it once with `async for`, or `share` it first.

    A node makes one with `ctx.stream(items)`. One consumer: a second iteration of an unshared stream is a
    ContractError, not a split. A stream never enters state, a checkpoint or an outside system; its row
    settles when the stream has ended or was cancelled. Only the engine subclasses it: a class of a user's
    own is nothing it could follow, and is refused where it is defined.
    """

    __slots__ = ("_taken", "shared")

    def __init_subclass__(cls, *, engine: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not engine:
            raise DefinitionError(
                f"class {cls.__qualname__!r} derives from Stream, but the engine could not tell when one of "
                "that class has ended; give what it yields to ctx.stream(...), and pass on what that returns"
            )

    def __init__(self, *, shared: bool = False) -> None:
        self.shared: Final = shared
        self._taken = False

    def __aiter__(self) -> AsyncIterator[T_co]:
        if self._taken and not self.shared:
            raise ContractError(
                f"{self!r} already has its one consumer; call share() before connecting it to several "
                "(in a workflow, put stream.share in between), or collect it once",
                stream=self,
            )
        self._taken = True
        return self._consume()

    @abstractmethod
    def _consume(self) -> AsyncIterator[T_co]:
        """A new consumer; called once, or once per consumer of a shared stream."""

    @abstractmethod
    def share(self, capacity: int = 64) -> SharedStream[T_co]:
        """The same items for several consumers; the slowest may lag `capacity` items, then all wait.

        It takes this stream's place: share it before anything is read. A shared stream gives itself.

        Raises:
            ContractError: the stream has its consumer already.
        """

    @abstractmethod
    def cancel(self) -> None:
        """No more items are wanted: the producer is closed; idempotent, and nothing once it has ended."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is live and never copied or pickled; consume it first")


class SharedStream(Stream[T_co], engine=True):
    """A Stream for several consumers: each gets every item, or a ContractError when it comes too late.

    What `share()` returns. As an annotation it tells the compiler that a port may feed several nodes.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(shared=True)


Value: TypeAlias = (
    "bool | int | float | str | bytes | Json | list[Value] | dict[str, Value] | Stream[Any] | None"
)


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
    """Name of a secret in a configuration, `{$secret: NAME}`; the runtime resolves it late."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not name:
            raise ValueFormError(
                "a secret needs a name, as in {$secret: OPENAI_API_KEY}", path="", reason="no name"
            )
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
_HOLDERS: Final = (list, tuple, dict, msgspec.Struct)
"""What `streams_in` looks into."""
_REMEDIES: Final = {
    **dict.fromkeys(("tuple", "set", "frozenset"), "use a list"),
    **dict.fromkeys(("datetime", "date", "time"), "use its isoformat() text"),
    **dict.fromkeys(("bytearray", "memoryview"), "use bytes"),
    **dict.fromkeys(("UUID", "PosixPath"), "use its text"),
    "Decimal": "use its text, or a float",
    "timedelta": "use its total_seconds()",
    "ndarray": "use tolist()",
    "Secret": "pass its SecretRef",
}


def kind_of(value: object) -> Kind | None:
    """The kind of a value; None for what is not a value at all (subclasses such as enums included)."""
    kind = _KINDS.get(type(value))
    return "stream" if kind is None and isinstance(value, Stream) else kind


def streams_in(value: object) -> list[Stream[Any]]:
    """Every Stream a value is or holds, each once: lists, tuples, dicts and structs are looked into.

    Cost: O(parts of the value); nothing is consumed.
    """
    found: dict[int, Stream[Any]] = {}
    seen: set[int] = set()
    waiting: list[object] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Stream):
            found[id(cast("object", part))] = cast("Stream[Any]", part)
        elif isinstance(part, _HOLDERS) and id(cast("object", part)) not in seen:
            seen.add(id(cast("object", part)))
            waiting.extend(_parts_of(cast("object", part)))
    return list(found.values())


def _parts_of(holder: object) -> Iterable[object]:
    if isinstance(holder, dict):
        return cast("dict[object, object]", holder).values()
    if isinstance(holder, msgspec.Struct):
        return [getattr(holder, name) for name in holder.__struct_fields__]
    return cast("list[object]", holder)


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


def plain_key(key: object, path: Path) -> str:
    """The key as plain data holds it, its leading `$` doubled; refuses what is no text."""
    if type(key) is not str:
        raise no_form(path, f"has the key {shown(key)} of type {type(key).__name__}; keys must be text")
    if not encodable(key):
        raise no_form(path, f"has the key {shown(key)} with a lone surrogate, which no encoding carries")
    return f"${key}" if key.startswith("$") else key


def _check_jsonable(value: object, path: Path) -> None:
    if len(path) > MAX_DEPTH:
        raise no_form(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    kind = kind_of(value)
    if kind == "list":
        for index, item in enumerate(cast("list[object]", value)):
            _check_jsonable(item, (*path, index))
    elif kind == "dict":
        for key, item in cast("dict[object, object]", value).items():
            _check_jsonable(key, path) if isinstance(key, str) else plain_key(key, path)
            _check_jsonable(item, (*path, str(key)))
    elif kind not in {"null", "bool", "int", "float", "str"}:
        raise unsupported(value, path, "JSON")
    elif isinstance(value, float) and not math.isfinite(value):
        raise no_form(path, f"is {value!r}, which JSON cannot write")
    elif isinstance(value, str) and not encodable(value):
        raise no_form(path, f"is {shown(value)}, text with a lone surrogate, which UTF-8 cannot write")
    elif type(value) is int and value.bit_length() > DECIMAL_BITS:
        raise no_form(path, "is a whole number of more than 4,000 digits, which JSON readers refuse")


def encodable(text: str) -> bool:
    """Whether UTF-8 can write the text, that is, it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def unsupported(value: object, path: Path, form: str = "plain") -> ValueFormError:
    """The error for something that is no value, with what to use instead."""
    name = type(value).__name__
    if isinstance(value, Stream):
        return no_form(path, "is a Stream, which is live and never stored; consume it first")
    remedy = _REMEDIES.get(name)
    if remedy is None:
        base = next((base.__name__ for base in type(value).__mro__[1:] if base in _KINDS), None)
        remedy = (
            f"convert it with {base}(...)"
            if base
            else "use None, bool, int, float, str, bytes, Json, list or dict"
        )
    return no_form(path, f"is a {name}, {shown(value)}, which has no {form} form; {remedy}")


def no_form(path: Path, reason: str) -> ValueFormError:
    """The error for a value at `path` that cannot be written or read."""
    where = path_text(path)
    return ValueFormError(f"value{f' at {where}' if where else ''} {reason}", path=where, reason=reason)
