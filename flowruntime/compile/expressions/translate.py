"""A checked expression as Python source.

Owns: the generated source: one Python expression, inlined where it is used.
Does not own: the meaning of operators (semantics), parsing and errors (library).

The form: fast inline code behind guards, and where a guard fails, a call that lets the library evaluate the
whole expression. So the source never has to produce an error itself, and `&&` and `||` absorb errors as CEL
says:

    value.amount > 10   ->   (x0 > 10 if type((x0 := ...)) is int and ... else slow(value))

Always holds: each temporary is assigned before it is read, on every path; a guard that fails leaves the
answer to the library; text of the user enters the source only through `ascii()`. Temporaries are `_x0`,
`_x1`, ...: the source may stand anywhere a walrus may (not in the iterable of a comprehension, not in a class
body).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowruntime.compile.expressions.checked import Call, Expr
from flowruntime.compile.expressions.operators import OperatorWriter
from flowruntime.compile.expressions.pieces import NO_VALUE, Scope, UntranslatableError

MAX_SOURCE: Final = 64 * 1024
"""Characters of generated source; a longer expression is left to the library."""

_CHUNK: Final = 16
"""Operands of one inline chain of `&&`; Python bounds the nesting of parentheses."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Python source with markers for variables, what it refers to, and which parts stay with the library."""

    source: str
    constants: Mapping[str, object]
    left_out: tuple[str, ...]


def translate(tree: Expr, variables: frozenset[str], *, slow: str, prefix: str, boolean: bool) -> Translation:
    """Python source for a checked tree.

    Args:
        tree: from the library.
        variables: names it may read.
        slow: source of the call that evaluates the whole expression by the library.
        prefix: unique to this expression, for the names of its constants.
        boolean: anything but a bool is left to the library (which then refuses it).

    Raises:
        UntranslatableError: nothing of it can be compiled, or the source is too long or too deeply nested.
    """
    writer = _Writer(variables, prefix)
    source = writer.branch(tree, Scope(), slow, boolean=boolean)
    if len(source) > MAX_SOURCE:
        raise UntranslatableError(f"its compiled form has more than {MAX_SOURCE} characters")
    return Translation(source, writer.constants, tuple(dict.fromkeys(writer.left_out)))


class _Writer(OperatorWriter):
    """Adds control flow: code that produces the value or `otherwise`."""

    def branch(self, expr: Expr, scope: Scope, otherwise: str, *, boolean: bool) -> str:
        """Source of the value of `expr`, or of `otherwise` where a guard fails."""
        match expr:
            case Call("_&&_" | "_||_", None, _):
                return self._logic(expr, scope, otherwise)
            case Call("_?_:_", None, (condition, then, else_)):
                test = self._truth(condition, scope)
                yes = self._lazy(then, scope, otherwise, boolean=boolean)
                no = self._lazy(else_, scope, otherwise, boolean=boolean)
                return scope.guarded(f"({yes} if {test} else {no})", otherwise)
            case _:
                operand = self.operand(expr, scope)
                if boolean:
                    return scope.guarded(self._bool(operand, scope), otherwise)
                if operand.kind == "any":
                    scope.guards.append(f"{operand.first} is not {NO_VALUE}")
                    return scope.guarded(operand.again, otherwise)
                return scope.guarded(operand.first, otherwise)

    def _lazy(self, expr: Expr, scope: Scope, otherwise: str, *, boolean: bool) -> str:
        """A branch that does not always run: what cannot be compiled in it becomes `otherwise`."""
        try:
            return self.branch(expr, scope.inner(), otherwise, boolean=boolean)
        except UntranslatableError as reason:
            self.left_out.append(str(reason))
            return otherwise

    def _logic(self, expr: Call, scope: Scope, otherwise: str) -> str:
        """A chain of `&&` or `||`: each operand under the guards of its own, evaluated only when reached."""
        operands = _chain(expr, expr.function)
        word = "and" if expr.function == "_&&_" else "or"
        if len(operands) > _CHUNK:
            middle = len(operands) // 2
            parts = (_joined(expr.function, operands[:middle]), _joined(expr.function, operands[middle:]))
            return self._steps(parts, word, scope, otherwise)
        return self._steps(operands, word, scope, otherwise)

    def _steps(self, operands: tuple[Expr, ...], word: str, scope: Scope, otherwise: str) -> str:
        first, *rest = operands
        truth = self._truth(first, scope)
        if not rest:
            return scope.guarded(truth, otherwise)
        inner = scope.inner()
        try:
            tail = self._steps(tuple(rest), word, inner, otherwise)
        except UntranslatableError as reason:
            self.left_out.append(str(reason))
            tail = otherwise
        return scope.guarded(f"({truth} {word} {tail})", otherwise)


def _chain(expr: Expr, function: str) -> tuple[Expr, ...]:
    if isinstance(expr, Call) and expr.function == function:
        return tuple(operand for argument in expr.arguments for operand in _chain(argument, function))
    return (expr,)


def _joined(function: str, operands: tuple[Expr, ...]) -> Expr:
    return operands[0] if len(operands) == 1 else Call(function, None, operands)
