"""Writes operands: variables, fields, literals and displays, and the guards they need.

Owns: temporaries, constants, and the rule that each is assigned before it is read.
Does not own: operators (operators), control flow (translate).

Always holds: an operand's first mention comes next in the code, after the guards of its scope.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from flowruntime.compile.expressions.checked import (
    Call,
    Comprehension,
    Constant,
    Expr,
    Identifier,
    ListOf,
    LiteralValue,
    MapOf,
    Select,
    Unsigned,
    Unsupported,
)
from flowruntime.compile.expressions.pieces import (
    NO_VALUE,
    Operand,
    Scope,
    UntranslatableError,
    marker,
)
from flowruntime.compile.expressions.plain import INT_MAX, INT_MIN
from flowruntime.compile.expressions.reads import path_of


class OperandWriter(ABC):
    """Writes one expression's source; keeps its temporaries and constants."""

    def __init__(self, variables: frozenset[str], prefix: str) -> None:
        self._variables: Final = variables
        self._prefix: Final = prefix
        self._temporaries = 0
        self.constants: dict[str, object] = {}
        self.left_out: list[str] = []

    @abstractmethod
    def branch(self, expr: Expr, scope: Scope, otherwise: str, *, boolean: bool) -> str:
        """Source of the value of `expr`, or of `otherwise` where a guard fails."""

    @abstractmethod
    def call(self, function: str, operands: tuple[Expr, ...], scope: Scope) -> Operand:
        """The value of an operator, function or method."""

    # --- operands: values under the scope's guards ----------------------------------------------------

    def operand(self, expr: Expr, scope: Scope) -> Operand:
        """The value of `expr`; its first mention must come next in the code."""
        match expr:
            case Constant(value):
                return self._constant(value)
            case Identifier(name) if name in self._variables:
                return self._known(marker(name), scope)
            case Select(holder, name, test=True):
                return self._has(holder, name, scope)
            case Select(holder, name, test=False) | Call("_[_]", None, (holder, Constant(str(name)))):
                return self._field(expr, holder, name, scope)
            case Call(function, target, arguments):
                operands = arguments if target is None else (target, *arguments)
                return (
                    self._control(expr, scope)
                    if function in _CONTROL
                    else self.call(function, operands, scope)
                )
            case _:
                return self._display(expr, scope)

    def _control(self, expr: Call, scope: Scope) -> Operand:
        """`&&`, `||` or a ternary inside something else."""
        kind = "any" if expr.function == "_?_:_" else "bool"
        return self._checked(self.branch(expr, scope.inner(), NO_VALUE, boolean=False), kind, scope)

    def _display(self, expr: Expr, scope: Scope) -> Operand:
        match expr:
            case ListOf(elements):
                items = [self._atom(element, scope) for element in elements]
                return self._fresh(f"[{', '.join(items)}]", "any")
            case MapOf(entries):
                return self._map(entries, scope)
            case _:
                raise UntranslatableError(_what(expr))

    def _known(self, text: str, scope: Scope) -> Operand:
        return Operand(text, text, scope.kinds.get(text, "any"))

    def _fresh(self, text: str, kind: str) -> Operand:
        name = self._temporary()
        return Operand(f"({name} := {text})", name, kind)

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"_x{self._temporaries - 1}"

    def _checked(self, text: str, kind: str, scope: Scope) -> Operand:
        """A temporary for what may be `NOTHING`, with the guard that it is not."""
        operand = self._fresh(text, kind)
        scope.guards.append(f"{operand.first} is not {NO_VALUE}")
        scope.kinds[operand.again] = kind
        return Operand(operand.again, operand.again, kind)

    def _atom(self, expr: Expr, scope: Scope) -> str:
        """The value as text to mention any number of times, certain not to be `NOTHING`."""
        operand = self.operand(expr, scope)
        if operand.kind == "any":
            scope.guards.append(f"{operand.first} is not {NO_VALUE}")
            return operand.again
        return operand.first if operand.literal else self._settled(operand, scope)

    def _settled(self, operand: Operand, scope: Scope) -> str:
        if operand.first == operand.again:
            return operand.first
        scope.guards.append(f"{operand.first} is not {NO_VALUE}")
        return operand.again

    def _constant(self, value: LiteralValue) -> Operand:
        kind = {"NoneType": "null", "bytes": "clean"}.get(type(value).__name__, type(value).__name__)
        text = ascii(value)
        if isinstance(value, float) and not math.isfinite(value):
            text = self._bind(value)
        elif isinstance(value, int | float) and value < 0:
            text = f"({text})"
        return Operand(text, text, kind, Constant(value))

    def _bind(self, value: object) -> str:
        name = f"{self._prefix}_{len(self.constants)}"
        self.constants[name] = value
        return name

    def _field(self, expr: Expr, holder: Expr, name: str, scope: Scope) -> Operand:
        path = path_of(expr, self._variables)
        if path is not None and path in scope.loaded:
            return self._known(scope.loaded[path], scope)
        above = self.operand(holder, scope)
        get = f"{above.again}.get({name!a}, {NO_VALUE})"
        operand = self._fresh(
            f"{get} if type({above.first}) is dict else _x_field({above.again}, {name!a})", "any"
        )
        if path is not None:
            scope.loaded[path] = operand.again
        return operand

    def _has(self, holder: Expr, name: str, scope: Scope) -> Operand:
        above = self.operand(holder, scope)
        text = (
            f"{name!a} in {above.again} if type({above.first}) is dict else _x_has({above.again}, {name!a})"
        )
        return self._checked(text, "bool", scope)

    def _map(self, entries: tuple[tuple[Expr, Expr], ...], scope: Scope) -> Operand:
        keys = [key.value for key, _ in entries if isinstance(key, Constant) and isinstance(key.value, str)]
        if len(set(keys)) != len(entries):
            raise UntranslatableError("a map whose keys are not distinct literals of text")
        items = [
            f"{key!a}: {self._atom(value, scope)}" for key, (_, value) in zip(keys, entries, strict=True)
        ]
        return self._fresh("{" + ", ".join(items) + "}", "any")

    # --- guards ---------------------------------------------------------------------------------------

    def _require(self, operand: Operand, kind: str, scope: Scope) -> None:
        """Guard that the operand is of this kind, unless that is known; mentions it first."""
        if operand.kind == kind:
            self._mention(operand, scope)
            return
        if operand.kind not in ("any", "clean", "number"):
            raise UntranslatableError(f"a {operand.kind} where a {kind} is needed")
        first, again, unsure = operand.first, operand.again, operand.kind == "any"
        guard = f"type({first}) is {kind}"
        if unsure and kind == "str":
            guard = f"{guard} and ({again}.isascii() or _x_unicode({again}))"
        if kind == "int":
            guard = f"{guard} and {INT_MIN} <= {again} <= {INT_MAX}"
        scope.guards.append(guard)
        scope.kinds[again] = kind

    def _mention(self, operand: Operand, scope: Scope) -> None:
        if operand.first != operand.again:
            scope.guards.append(f"{operand.first} is not {NO_VALUE}")

    def _truth(self, expr: Expr, scope: Scope) -> str:
        """Source that is True or False for sure once the scope's guards hold."""
        return self._bool(self.operand(expr, scope), scope)

    def _bool(self, operand: Operand, scope: Scope) -> str:
        if operand.kind != "bool":
            self._require(operand, "bool", scope)
            return operand.again
        return operand.first

    def _text(self, text: str, kind: str) -> Operand:
        return Operand(text, text, kind)


_CONTROL: Final = frozenset({"_&&_", "_||_", "_?_:_"})

_REASONS: Final[tuple[tuple[type, Callable[[Expr], str]], ...]] = (
    (Comprehension, lambda _: "a macro over elements (all, exists, exists_one, map, filter)"),
    (Unsigned, lambda expr: f"the unsigned literal {expr.value}u" if isinstance(expr, Unsigned) else ""),
    (Unsupported, lambda expr: expr.what if isinstance(expr, Unsupported) else ""),
    (Identifier, lambda expr: f"the type {expr.name!r}" if isinstance(expr, Identifier) else ""),
)


def _what(expr: Expr) -> str:
    return next((reason(expr) for kind, reason in _REASONS if isinstance(expr, kind)), type(expr).__name__)
