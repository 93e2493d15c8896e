"""What operators of compiled expressions do with operands whose types are known only at run time.

Owns: the functions that generated code calls when an inline check is not enough.
Does not own: errors. A function returns `NOTHING` for every combination it does not answer with certainty
(errors included), and the library then evaluates the whole expression: its result and its errors are the
reference.

Always holds: an answer other than `NOTHING` is the library's answer. Notably: int and double compare as
doubles (the library rounds the int, Python does not), bool is never a number, ints are 64 bits, division
truncates.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from flowruntime.compile.expressions.plain import (
    INT_MAX,
    INT_MIN,
    MAX_DEPTH,
    NOTHING,
    UINT_MAX,
    Nothing,
    field_of,
    is_record,
    is_unicode,
    type_of,
)

Answer: TypeAlias = "bool | Nothing"

_SURE: Final = frozenset({type_of(None), bool, float, bytes})
_EXACT: Final = 1 << 53
_INT_TEXT: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_DOUBLE_TEXT: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)


def is_clean(value: Any, depth: int = 0) -> bool:  # noqa: PLR0911 - one return per kind of value
    """Whether the library reads the value as it is: exact builtins, 64-bit ints, valid text, text keys."""
    kind = type_of(value)
    if kind is str:
        return is_unicode(value)
    if kind is int:
        return INT_MIN <= value <= UINT_MAX
    if kind in _SURE:
        return True
    if depth > MAX_DEPTH:
        return False
    if kind is list:
        return all(is_clean(item, depth + 1) for item in value)
    if kind is dict:
        items = value.items()
        return all(type_of(key) is str and is_clean(key) and is_clean(item, depth + 1) for key, item in items)
    return False


# --- equality and membership --------------------------------------------------------------------------


def equal(left: Any, right: Any) -> Answer:
    """`left == right`."""
    if type_of(left) is str and type_of(right) is str and left.isascii() and right.isascii():
        return left == right
    return _same(left, right) if is_clean(left) and is_clean(right) else NOTHING


def _same(left: Any, right: Any) -> bool:
    kind = type_of(left)
    other = type_of(right)
    if kind is other:
        if kind is list:
            return len(left) == len(right) and all(map(_same, left, right))
        if kind is dict:
            return left.keys() == right.keys() and all(_same(item, right[key]) for key, item in left.items())
        return left == right
    if (kind is int and other is float) or (kind is float and other is int):
        return float(left) == float(right)
    return False


def contains(element: Any, holder: Any) -> Answer:
    """`element in holder`; of a map only the key is read, of a list every element."""
    if type_of(holder) is list:
        if is_clean(element) and is_clean(holder):
            return any(_same(element, item) for item in holder)
        return NOTHING
    return has(holder, element) if type_of(element) is str and is_clean(element) else NOTHING


def in_constants(element: object, constants: frozenset[object]) -> Answer:
    """`element in [...]` for text only, or numbers of at most 53 bits only."""
    if not is_clean(element):
        return NOTHING
    return type_of(element) in (str, int, float) and element in constants


def has(holder: Any, name: str) -> Answer:
    """`has(holder.name)`."""
    if type_of(holder) is dict:
        return name in holder
    return field_of(holder, name) is not NOTHING if is_record(holder) else NOTHING


def element_of(holder: Any, index: Any) -> object:
    """`holder[index]`, or `NOTHING`."""
    if type_of(holder) is list:
        return holder[index] if type_of(index) is int and 0 <= index < len(holder) else NOTHING
    return field_of(holder, index) if type_of(index) is str and is_clean(index) else NOTHING


def size(value: Any) -> int | Nothing:
    """`size(value)`: code points, bytes, elements or entries."""
    if type_of(value) is str:
        return len(value) if is_unicode(value) else NOTHING
    kind = type_of(value)
    return len(value) if kind is list or kind is dict or kind is bytes else NOTHING


# --- order --------------------------------------------------------------------------------------------


def comparable(left: Any, right: Any) -> bool:
    """Whether Python's `<` answers as the library's does (an int beside a double: up to 53 bits)."""
    kind = type_of(left)
    other = type_of(right)
    if kind is other:
        return kind in _ORDERED and is_clean(left) and is_clean(right)
    if kind is int and other is float:
        return -_EXACT <= left <= _EXACT
    return kind is float and other is int and -_EXACT <= right <= _EXACT


_ORDERED: Final = frozenset({bool, int, float, str, bytes})


# --- arithmetic ---------------------------------------------------------------------------------------


def _bounded(left: Any, right: Any, answer: int) -> int | Nothing:
    """The answer when it and both operands are ints of 64 bits."""
    bounded = INT_MIN <= left <= INT_MAX and INT_MIN <= right <= INT_MAX and INT_MIN <= answer <= INT_MAX
    return answer if bounded else NOTHING


def add(left: Any, right: Any) -> object:
    """`left + right` of two ints, doubles, strings or bytes."""
    kind = type_of(left)
    if kind is not type_of(right):
        return NOTHING
    if kind is int:
        return _bounded(left, right, left + right)
    if kind is float or kind is bytes or (kind is str and is_clean(left) and is_clean(right)):
        return left + right
    return NOTHING


def subtract(left: Any, right: Any) -> object:
    """`left - right` of two ints or doubles."""
    if type_of(left) is float and type_of(right) is float:
        return left - right
    return _bounded(left, right, left - right) if type_of(left) is int and type_of(right) is int else NOTHING


def multiply(left: Any, right: Any) -> object:
    """`left * right` of two ints or doubles."""
    if type_of(left) is float and type_of(right) is float:
        return left * right
    return _bounded(left, right, left * right) if type_of(left) is int and type_of(right) is int else NOTHING


def divide(left: Any, right: Any) -> object:
    """`left / right` of two ints (towards zero) or doubles; by zero is left to the library."""
    if type_of(left) is float and type_of(right) is float:
        return left / right if right else NOTHING
    if type_of(left) is not int or type_of(right) is not int or right == 0:
        return NOTHING
    quotient = abs(left) // abs(right)
    return _bounded(left, right, quotient if (left < 0) == (right < 0) else -quotient)


def remainder(left: Any, right: Any) -> object:
    """`left % right` of two ints; the sign is the left one's."""
    if type_of(left) is not int or type_of(right) is not int or right in (0, -1):
        return NOTHING
    rest = abs(left) % abs(right)
    return _bounded(left, right, -rest if left < 0 else rest)


def negate(value: Any) -> object:
    """`-value` of an int or double."""
    if type_of(value) is float:
        return -value
    return -value if type_of(value) is int and -INT_MAX <= value <= INT_MAX else NOTHING


# --- conversions: only where Python and the library agree for certain ---------------------------------


def to_text(value: Any) -> str | Nothing:
    """`string(value)` of a string, bool or int; how doubles are written is left to the library."""
    kind = type_of(value)
    if kind is str:
        return value if is_clean(value) else NOTHING
    if kind is bool:
        return "true" if value else "false"
    return str(value) if kind is int and is_clean(value) else NOTHING


def to_int(value: Any) -> int | Nothing:
    """`int(value)` of an int, a double of at most 53 bits (towards zero), or plain decimal text."""
    kind = type_of(value)
    if kind is int:
        return value if INT_MIN <= value <= INT_MAX else NOTHING
    if kind is float:
        return int(value) if -_EXACT <= value <= _EXACT else NOTHING
    return int(value) if kind is str and _INT_TEXT.fullmatch(value) else NOTHING


def to_double(value: Any) -> float | Nothing:
    """`double(value)` of a double, int, or plain decimal text."""
    kind = type_of(value)
    if kind is float:
        return value
    if kind is int:
        return float(value) if is_clean(value) else NOTHING
    return float(value) if kind is str and _DOUBLE_TEXT.fullmatch(value) else NOTHING
