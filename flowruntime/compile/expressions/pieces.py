"""What generated source is made of: operands, scopes, and the names it refers to.

Owns: the vocabulary shared by the writers, and the rules about literals.
Does not own: which code an expression becomes (operands, operators, translate).

Always holds: a rule here is conservative: where Python and the library might differ, it says no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flowruntime.compile.expressions import semantics
from flowruntime.compile.expressions.checked import Constant, Expr, ListOf
from flowruntime.compile.expressions.plain import INT_MAX, INT_MIN, NOTHING, UINT_MAX, field_of, is_unicode

NO_VALUE: Final = "_x_nothing"
"""Name of `NOTHING` in generated source."""

_EXACT: Final = 1 << 53

HELPERS: Final[Mapping[str, object]] = {
    NO_VALUE: NOTHING,
    "_x_field": field_of,
    "_x_unicode": is_unicode,
    "_x_clean": semantics.is_clean,
    "_x_equal": semantics.equal,
    "_x_contains": semantics.contains,
    "_x_in_constants": semantics.in_constants,
    "_x_has": semantics.has,
    "_x_element": semantics.element_of,
    "_x_size": semantics.size,
    "_x_comparable": semantics.comparable,
    "_x_add": semantics.add,
    "_x_subtract": semantics.subtract,
    "_x_multiply": semantics.multiply,
    "_x_divide": semantics.divide,
    "_x_remainder": semantics.remainder,
    "_x_negate": semantics.negate,
    "_x_to_text": semantics.to_text,
    "_x_to_int": semantics.to_int,
    "_x_to_double": semantics.to_double,
}
"""What generated source may call, by name; the same objects for every expression."""


class UntranslatableError(Exception):
    """The expression, or the part at hand, has a form only the library evaluates; the message names it."""


def marker(name: str) -> str:
    """How a variable stands in source until `CompiledExpression.source` names it; never part of `ascii()`."""
    return (
        f"\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}{name}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    )


@dataclass(slots=True)
class Operand:
    """A value at run time: `first` is its text at its first mention, `again` at every later one.

    `kind` is what is known of it: int (64 bits), float, bool, str (valid), null, number (an int of 64 bits or
    a float), clean (any value the library reads as it is) or any. `known` marks a literal and its value.
    """

    first: str
    again: str
    kind: str
    literal: Constant | None = None


@dataclass(slots=True)
class Scope:
    """What is certain where the code runs: conditions to emit, fields at hand, kinds of temporaries."""

    guards: list[str] = field(default_factory=list[str])
    loaded: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])
    kinds: dict[str, str] = field(default_factory=dict[str, str])

    def inner(self) -> Scope:
        """A scope for code that runs only sometimes: knows what this one knows, and keeps what it learns."""
        return Scope([], dict(self.loaded), dict(self.kinds))

    def guarded(self, text: str, otherwise: str) -> str:
        """`text` when all guards hold."""
        return f"({text} if {' and '.join(self.guards)} else {otherwise})" if self.guards else text


def number_guard(operand: Operand, value: object) -> str:
    """That the operand is a number the library takes; the literal's own type is tried first."""
    first, again = operand.first, operand.again
    if isinstance(value, float):
        return f"type({first}) is float or type({again}) is int and {INT_MIN} <= {again} <= {UINT_MAX}"
    return f"type({first}) is int and {INT_MIN} <= {again} <= {UINT_MAX} or type({again}) is float"


def int_bounds(sign: str, value: object) -> tuple[int, int] | None:
    """Between which ints `operand sign value` stays within 64 bits; None when it is not that simple."""
    if type(value) is not int:
        return None
    match sign:
        case "+":
            return max(INT_MIN, INT_MIN - value), min(INT_MAX, INT_MAX - value)
        case "-" if value >= 0:
            return INT_MIN + value, INT_MAX
        case "*" if value > 0:
            return -(-INT_MIN // value), INT_MAX // value
        case _:
            return None


def is_simple(constant: Constant) -> bool:
    """Whether Python compares the literal as the library does: a number must be exact as int and double."""
    value = constant.value
    if isinstance(value, int | float):
        return -_EXACT <= value <= _EXACT and not (isinstance(value, float) and abs(value) == _EXACT)
    return not isinstance(value, bytes)


def constants_of(holder: Expr) -> frozenset[object] | None:
    """The elements of a list of text literals only, or of small int literals only."""
    if not isinstance(holder, ListOf) or not holder.elements:
        return None
    values = [
        element.value for element in holder.elements if isinstance(element, Constant) and is_simple(element)
    ]
    kinds = {type(value) for value in values}
    return frozenset(values) if len(values) == len(holder.elements) and kinds in ({str}, {int}) else None
