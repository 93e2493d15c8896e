"""Writes operators, functions and methods.

Owns: the code for each, and the inline checks that make it fast.
Does not own: what they do with operands of unknown type (semantics).

Always holds: a function this module does not know is left to the library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from flowruntime.compile.expressions.checked import Constant, Expr
from flowruntime.compile.expressions.operands import OperandWriter
from flowruntime.compile.expressions.pieces import (
    NO_VALUE,
    Operand,
    Scope,
    UntranslatableError,
    constants_of,
    int_bounds,
    is_simple,
    number_guard,
)
from flowruntime.compile.expressions.plain import INT_MIN, UINT_MAX

Operands: TypeAlias = tuple[Expr, ...]

_COMPARE: Final = {"_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_ARITHMETIC: Final = {
    "_+_": ("+", "_x_add"),
    "_-_": ("-", "_x_subtract"),
    "_*_": ("*", "_x_multiply"),
    "_/_": ("/", "_x_divide"),
    "_%_": ("%", "_x_remainder"),
}
_SAFE: Final = {"+": 1 << 62, "-": 1 << 62, "*": 1 << 31}
"""Up to which size of both operands the result stays within 64 bits."""
_TEXT_METHODS: Final = {
    "contains": "({1} in {0})",
    "startsWith": "{0}.startswith({1})",
    "endsWith": "{0}.endswith({1})",
}
_FUNCTIONS: Final = {
    "string": ("_x_to_text", "str"),
    "int": ("_x_to_int", "int"),
    "double": ("_x_to_double", "float"),
    "size": ("_x_size", "int"),
    "-_": ("_x_negate", "clean"),
    "_[_]": ("_x_element", "any"),
}
_MATCH_LITERAL: Final = re.compile(r"(\^?)([A-Za-z0-9 _:;,@#%&=<>!~'\"/-]*)(\$?)", re.ASCII)


class OperatorWriter(OperandWriter):
    """Adds operators to operands."""

    def call(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """The value of an operator, function or method."""
        rule = _RULES.get((function, len(operands)))
        if rule is None:
            raise UntranslatableError(f"{function}()")
        return rule(self, function, operands, scope)

    def _helper(self, helper: str, operands: Operands, kind: str, scope: Scope) -> Operand:
        """A call of a function of `semantics`, in the order of the operands."""
        arguments = [operand.first for operand in self._operands(operands, scope)]
        return self._checked(f"{helper}({', '.join(arguments)})", kind, scope)

    def _operands(self, exprs: Operands, scope: Scope) -> list[Operand]:
        """Several operands, whose first mentions come next in this order.

        Guards of a later operand run before the code that mentions them all, so what earlier ones assign is
        then assigned in a guard before those.
        """
        operands: list[Operand] = []
        for expr in exprs:
            before = len(scope.guards)
            operand = self.operand(expr, scope)
            if len(scope.guards) > before:
                for index, earlier in enumerate(operands):
                    if earlier.first != earlier.again:
                        scope.guards.insert(before, f"{earlier.first} is not {NO_VALUE}")
                        operands[index] = Operand(earlier.again, earlier.again, earlier.kind, earlier.literal)
                        before += 1
            operands.append(operand)
        return operands

    def negation(self, _: str, operands: Operands, scope: Scope) -> Operand:
        """`!`."""
        return self._text(f"(not {self._truth(operands[0], scope)})", "bool")

    def same(self, _: str, operands: Operands, scope: Scope) -> Operand:
        """`dyn(x)` is x."""
        return self.operand(operands[0], scope)

    def text_method(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """Methods of two texts."""
        text, part = operands
        return self._text_method(_TEXT_METHODS[function], text, part, scope)

    def by_function(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """What a function of `semantics` does, whatever the types."""
        helper, kind = _FUNCTIONS[function]
        return self._helper(helper, operands, kind, scope)

    def _text_method(self, form: str, text: Expr, part: Expr, scope: Scope) -> Operand:
        whole = self.operand(text, scope)
        self._require(whole, "str", scope)
        piece = self.operand(part, scope)
        self._require(piece, "str", scope)
        return self._text(form.format(whole.again, piece.again), "bool")

    def matches(self, _: str, operands: Operands, scope: Scope) -> Operand:
        """Patterns without metacharacters only: RE2 and Python's re differ in too much else."""
        text, pattern = operands
        known = pattern.value if isinstance(pattern, Constant) else None
        literal = _MATCH_LITERAL.fullmatch(known) if isinstance(known, str) else None
        if literal is None:
            raise UntranslatableError("matches() with a pattern")
        start, part, end = literal.groups()
        form = {
            ("", ""): "({1} in {0})",
            ("^", ""): "{0}.startswith({1})",
            ("", "$"): "{0}.endswith({1})",
            ("^", "$"): "({0} == {1})",
        }[start, end]
        return self._text_method(form, text, Constant(part), scope)

    def equality(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """`==` and `!=`; with a literal inline."""
        left, right = operands
        same = function == "_==_"
        if isinstance(left, Constant):
            left, right = right, left
        if not isinstance(right, Constant) or not is_simple(right):
            result = self._helper("_x_equal", (left, right), "bool", scope)
            return result if same else self._text(f"(not {result.again})", "bool")
        operand = self.operand(left, scope)
        value = right.value
        text = self._constant(value).again
        if operand.literal is not None:
            return self._text(f"({'' if same else 'not '}_x_equal({operand.again}, {text}))", "bool")
        if value is None or isinstance(value, bool):
            self._either(operand, f"{operand.first} is {text}", scope)
            return self._text(f"({operand.again} {'is' if same else 'is not'} {text})", "bool")
        if isinstance(value, str):
            ready = f"type({operand.first}) is str and {operand.again}.isascii()"
        else:
            ready = number_guard(operand, value)
        self._either(operand, ready, scope)
        if value in (0, 1) and operand.kind not in ("int", "float", "number"):
            test = f"({operand.again} == {text} and type({operand.again}) is not bool)"
            return self._text(test if same else f"(not {test})", "bool")
        return self._text(f"({operand.again} {'==' if same else '!='} {text})", "bool")

    def _either(self, operand: Operand, ready: str, scope: Scope) -> None:
        """Guard: the cheap test, or else that the whole value is clean."""
        if operand.kind != "any":
            self._mention(operand, scope)
            return
        scope.guards.append(f"({ready} or _x_clean({operand.again}))")
        scope.kinds[operand.again] = "clean"

    def order(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """`<`, `<=`, `>` and `>=`; with a literal inline."""
        left, right = operands
        sign = _COMPARE[function]
        literal = right if isinstance(right, Constant) else left
        value = literal.value if isinstance(literal, Constant) and is_simple(literal) else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return self._compare(sign, left, right, scope)
        operand = self.operand(left if literal is right else right, scope)
        text = self._constant(value).again
        if isinstance(value, str):
            self._require(operand, "str", scope)
        elif operand.kind in ("any", "clean"):
            scope.guards.append(f"({number_guard(operand, value)})")
            scope.kinds[operand.again] = "number"
        elif operand.kind in ("int", "float", "number"):
            self._mention(operand, scope)
        else:
            raise UntranslatableError(f"a {operand.kind} compared with a number")
        pair = (operand.again, text) if literal is right else (text, operand.again)
        return self._text(f"({pair[0]} {sign} {pair[1]})", "bool")

    def _compare(self, sign: str, left: Expr, right: Expr, scope: Scope) -> Operand:
        """Two values of unknown type: two ints are compared inline, a function judges the rest."""
        one, two = self._operands((left, right), scope)
        ints = f"type({one.first}) is int and type({two.first}) is int"
        bounds = f"{INT_MIN} <= {one.again} <= {UINT_MAX} and {INT_MIN} <= {two.again} <= {UINT_MAX}"
        scope.guards.append(f"({ints} and {bounds} or _x_comparable({one.again}, {two.first}))")
        return self._text(f"({one.again} {sign} {two.again})", "bool")

    def arithmetic(self, function: str, operands: Operands, scope: Scope) -> Operand:
        """The five binary operators; with a literal on the right inline, bounds checked beforehand."""
        left, right = operands
        sign, helper = _ARITHMETIC[function]
        value = right.value if isinstance(right, Constant) else None
        if isinstance(value, str) and sign == "+":
            operand = self.operand(left, scope)
            self._require(operand, "str", scope)
            return self._fresh(f"{operand.again} + {value!a}", "str")
        if isinstance(value, float) and math.isfinite(value) and sign != "%" and (value or sign != "/"):
            operand = self.operand(left, scope)
            self._require(operand, "float", scope)
            return self._fresh(f"{operand.again} {sign} {self._constant(value).again}", "float")
        bounds = int_bounds(sign, value)
        if bounds is None and sign in _SAFE:
            return self._sum(sign, helper, operands, scope)
        if bounds is None:
            return self._helper(helper, operands, "clean", scope)
        operand = self.operand(left, scope)
        if operand.kind not in ("any", "clean", "number", "int"):
            raise UntranslatableError(f"a {operand.kind} where an int is needed")
        known = operand.kind == "int" and operand.first == operand.again
        ready = "" if known else f"type({operand.first}) is int and "
        scope.guards.append(f"{ready}{bounds[0]} <= {operand.again} <= {bounds[1]}")
        scope.kinds[operand.again] = "int"
        return self._fresh(f"{operand.again} {sign} {value}", "int")

    def _sum(self, sign: str, helper: str, operands: Operands, scope: Scope) -> Operand:
        """`+`, `-`, `*` of unknown types: ints that cannot overflow inline, a function for the rest."""
        one, two = self._operands(operands, scope)
        bound = _SAFE[sign]
        ints = f"type({one.first}) is int and type({two.first}) is int"
        small = f"-{bound} <= {one.again} <= {bound} and -{bound} <= {two.again} <= {bound}"
        fast = f"{one.again} {sign} {two.again} if {ints} and {small}"
        return self._checked(f"{fast} else {helper}({one.again}, {two.first})", "clean", scope)

    def membership(self, _: str, operands: Operands, scope: Scope) -> Operand:
        """`in`; in a list of literals inline."""
        element, holder = operands
        constants = constants_of(holder)
        if constants is None:
            return self._helper("_x_contains", (element, holder), "bool", scope)
        name = self._bind(constants)
        operand = self.operand(element, scope)
        if all(isinstance(constant, str) for constant in constants):
            ready = f"type({operand.first}) is str and {operand.again}.isascii()"
        else:
            ready = f"type({operand.first}) is int and {INT_MIN} <= {operand.again} <= {UINT_MAX}"
        fast = f"{operand.again} in {name} if {ready} else _x_in_constants({operand.again}, {name})"
        return self._checked(fast, "bool", scope)


_Rule: TypeAlias = Callable[[OperatorWriter, str, Operands, Scope], Operand]
_RULES: Final[Mapping[tuple[str, int], _Rule]] = {
    ("!_", 1): OperatorWriter.negation,
    ("@in", 2): OperatorWriter.membership,
    ("matches", 2): OperatorWriter.matches,
    ("dyn", 1): OperatorWriter.same,
    **{(function, 2): OperatorWriter.equality for function in ("_==_", "_!=_")},
    **{(function, 2): OperatorWriter.order for function in _COMPARE},
    **{(function, 2): OperatorWriter.arithmetic for function in _ARITHMETIC},
    **{(function, 2): OperatorWriter.text_method for function in _TEXT_METHODS},
    **{(function, 2 if function == "_[_]" else 1): OperatorWriter.by_function for function in _FUNCTIONS},
}
