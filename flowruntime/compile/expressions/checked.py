"""The checked syntax tree of a CEL expression, read from the library's serialised form.

Owns: the tree's node types and the reader of the `cel.expr.CheckedExpr` message (protobuf wire format).
Does not own: parsing and type checking (the library does both) or what the tree means (translate, library).

Always holds: a form this reader does not know becomes `Unsupported` with its name, never a guess; a malformed
message raises `ValueError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Expr: TypeAlias = (
    "Constant | Unsigned | Identifier | Select | Call | ListOf | MapOf | Comprehension | Unsupported"
)


LiteralValue: TypeAlias = "bool | int | float | str | bytes | None"


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: null, bool, int, double, string or bytes."""

    value: LiteralValue


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A literal of CEL's uint type, such as `1u`."""

    value: int


@dataclass(frozen=True, slots=True)
class Identifier:
    """A variable, a comprehension's variable, or a type; `.name` where a comprehension hides the variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)` when `test` is set."""

    operand: Expr
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function, operator (`_+_`, `_&&_`, `@in`, `_[_]`, ...) or method (`target` is not None)."""

    function: str
    target: Expr | None
    arguments: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list display."""

    elements: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map display."""

    entries: tuple[tuple[Expr, Expr], ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What the macros all, exists, exists_one, map and filter expand to."""

    bound: frozenset[str]
    """Names of the iteration variables and the accumulator: free in the body, not in `range_`."""
    range_: Expr
    initial: Expr
    body: tuple[Expr, ...]
    """Loop condition, loop step and result."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A form that only the library evaluates; `parts` are its operands."""

    what: str
    parts: tuple[Expr, ...]


def read_checked(serialised: bytes) -> Expr:
    """The tree in a serialised checked expression (an `Any` that holds a `cel.expr.CheckedExpr`).

    Raises:
        ValueError: the bytes are not such a message.
    """
    wrapper = _message(serialised)
    checked = _message(_bytes(wrapper, 2))
    return _expr(_bytes(checked, 4))


# --- messages -----------------------------------------------------------------------------------------


def _expr(data: bytes) -> Expr:
    for number, value in _fields(data):
        if number in _READERS:
            if not isinstance(value, bytes):
                break
            return _READERS[number](value)
    raise ValueError(f"malformed checked expression: no known kind in {data!r}")


class _Number:
    """Field numbers of `cel.expr.Constant`."""

    NULL, BOOL, INT, UINT, DOUBLE, STRING, BYTES = range(1, 8)


_OPTIONAL_INDICES, _MAP_KEY, _OPTIONAL_ENTRY = 2, 3, 5  # field numbers of the list, map and entry messages


def _constant(data: bytes) -> Expr:  # noqa: PLR0911 - one return per kind of literal
    for number, value in _fields(data):
        match number, value:
            case _Number.NULL, int():
                return Constant(None)
            case _Number.BOOL, int():
                return Constant(bool(value))
            case _Number.INT, int():
                return Constant(value - (1 << 64) if value >> 63 else value)
            case _Number.UINT, int():
                return Unsigned(value)
            case (_Number.DOUBLE, float()) | (_Number.BYTES, bytes()):
                return Constant(value)
            case _Number.STRING, bytes():
                return Constant(value.decode())
            case _:
                return Unsupported("a literal of an unknown type", ())
    raise ValueError("malformed checked expression: an empty literal")


def _identifier(data: bytes) -> Expr:
    return Identifier(_text(_message(data), 1))


def _select(data: bytes) -> Expr:
    fields = _message(data)
    return Select(_expr(_bytes(fields, 1)), _text(fields, 2), bool(fields.get(3, [0])[0]))


def _call(data: bytes) -> Expr:
    fields = _message(data)
    target = _expr(_bytes(fields, 1)) if 1 in fields else None
    return Call(_text(fields, 2), target, _exprs(fields, 3))


def _list(data: bytes) -> Expr:
    fields = _message(data)
    elements = _exprs(fields, 1)
    return Unsupported("an optional element", elements) if _OPTIONAL_INDICES in fields else ListOf(elements)


def _struct(data: bytes) -> Expr:
    fields = _message(data)
    entries: list[tuple[Expr, Expr]] = []
    plain = 1 not in fields
    for raw in fields.get(2, []):
        entry = _message(raw) if isinstance(raw, bytes) else {}
        plain = plain and _MAP_KEY in entry and _OPTIONAL_ENTRY not in entry
        key = _expr(_bytes(entry, _MAP_KEY)) if _MAP_KEY in entry else Constant(_text(entry, 2))
        entries.append((key, _expr(_bytes(entry, 4))))
    if plain:
        return MapOf(tuple(entries))
    return Unsupported("a message or an optional entry", tuple(part for entry in entries for part in entry))


def _comprehension(data: bytes) -> Expr:
    fields = _message(data)
    bound = frozenset(_text(fields, number) for number in (1, 3, 8) if number in fields)
    body = tuple(_expr(_bytes(fields, number)) for number in (5, 6, 7))
    return Comprehension(bound, _expr(_bytes(fields, 2)), _expr(_bytes(fields, 4)), body)


_READERS = {
    3: _constant,
    4: _identifier,
    5: _select,
    6: _call,
    7: _list,
    8: _struct,
    9: _comprehension,
}


# --- wire format --------------------------------------------------------------------------------------

_Field: TypeAlias = int | float | bytes

_FIXED64 = 1  # wire type
_MAX_VARINT_BYTES = 10


def _fields(data: bytes) -> Iterator[tuple[int, _Field]]:
    """Every field in order: its number and its value (varint as int, 64-bit as double, the rest as bytes)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case kind:
                raise ValueError(f"malformed checked expression: wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError(
                f"malformed checked expression: {size} bytes expected at byte {at} of {len(data)}"
            )
        chunk = data[at : at + size]
        at += size
        yield tag >> 3, struct.unpack("<d", chunk)[0] if tag & 7 == _FIXED64 else chunk


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if at + count >= len(data):
            raise ValueError(f"malformed checked expression: it ends inside a number at byte {at}")
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
            return value, at + count + 1
    raise ValueError(
        f"malformed checked expression: a number of more than {_MAX_VARINT_BYTES} bytes at byte {at}"
    )


def _message(data: bytes) -> dict[int, list[_Field]]:
    fields: dict[int, list[_Field]] = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _bytes(fields: dict[int, list[_Field]], number: int) -> bytes:
    value = fields.get(number, [b""])[0]
    if not isinstance(value, bytes):
        raise ValueError(  # noqa: TRY004 - the data is malformed, not the caller's type
            f"malformed checked expression: field {number} is {value!r}, not a message"
        )
    return value


def _text(fields: dict[int, list[_Field]], number: int) -> str:
    return _bytes(fields, number).decode()


def _exprs(fields: dict[int, list[_Field]], number: int) -> tuple[Expr, ...]:
    return tuple(_expr(raw) for raw in fields.get(number, []) if isinstance(raw, bytes))
