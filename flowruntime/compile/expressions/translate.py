"""A checked expression as Python source.

Owns: the generated source: one Python expression, inlined where it is used.
Does not own: the meaning of operators (semantics), parsing and errors (library).

The form: fast inline code behind guards, and where a guard fails, a call that lets the library evaluate the whole
expression. So the source never has to produce an error itself, and `&&` and `||` absorb errors as CEL says:

    value.amount > 10   ->   (x0 > 10 if type((x0 := ...)) is int and ... else slow(value))

Always holds: each temporary is assigned before it is read, on every path; a guard that fails leaves the answer to
the library; text of the user enters the source only through `ascii()`. Temporaries are `_x0`, `_x1`, ...: the source
may stand anywhere a walrus may (not in the iterable of a comprehension, not in a class body).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flowruntime.compile.expressions import semantics
from flowruntime.compile.expressions.checked import (
    Call,
    Comprehension,
    Constant,
    Expr,
    Identifier,
    ListOf,
    MapOf,
    Select,
    Unsigned,
    Unsupported,
)
from flowruntime.compile.expressions.plain import INT_MAX, INT_MIN, NOTHING, UINT_MAX, field_of, is_unicode
from flowruntime.compile.expressions.reads import path_of

MAX_SOURCE: Final = 64 * 1024
"""Characters of generated source; a longer expression is left to the library."""

_CHUNK: Final = 16
"""Operands of one inline chain of `&&`; Python bounds the nesting of parentheses."""

_NOTHING: Final = "_x_nothing"
_EXACT: Final = 1 << 53
_COMPARE: Final = {"_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_ARITHMETIC: Final = {
    "_+_": ("+", "_x_add"),
    "_-_": ("-", "_x_subtract"),
    "_*_": ("*", "_x_multiply"),
    "_/_": ("/", "_x_divide"),
    "_%_": ("%", "_x_remainder"),
}
_TEXT_METHODS: Final = {
    "contains": "({1} in {0})",
    "startsWith": "{0}.startswith({1})",
    "endsWith": "{0}.endswith({1})",
}
_CONVERSIONS: Final = {
    "string": ("_x_to_text", "str"),
    "int": ("_x_to_int", "int"),
    "double": ("_x_to_double", "float"),
}
_MATCH_LITERAL: Final = re.compile(r"(\^?)([A-Za-z0-9 _:;,@#%&=<>!~'\"/-]*)(\$?)", re.ASCII)

HELPERS: Final[Mapping[str, object]] = {
    _NOTHING: NOTHING,
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
    """The expression, or the part at hand, has a form that only the library evaluates; the message names it."""


def marker(name: str) -> str:
    """How a variable appears in generated source until `CompiledExpression.source` names it; `ascii()` never emits it."""
    return (
        f"\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}{name}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    )


@dataclass(frozen=True, slots=True)
class Translation:
    """Python source with markers for variables, what it refers to, and which parts stay with the library."""

    source: str
    constants: Mapping[str, object]
    left_out: tuple[str, ...]


@dataclass(slots=True)
class Operand:
    """A value at run time: `first` is its text at its first mention, `again` at every later one.

    `kind` is what is known of it: int (64 bits), float, bool, str (valid), null, number (an int of 64 bits or a
    float), clean (any value the library reads as it is) or any. `known` marks a literal and its value.
    """

    first: str
    again: str
    kind: str
    literal: Constant | None = None


@dataclass(slots=True)
class Scope:
    """What is certain where the code at hand runs: conditions to emit, fields at hand, kinds of temporaries."""

    guards: list[str] = field(default_factory=list[str])
    loaded: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])
    kinds: dict[str, str] = field(default_factory=dict[str, str])

    def inner(self) -> Scope:
        """A scope for code that runs only sometimes: knows what this one knows, and keeps what it learns."""
        return Scope([], dict(self.loaded), dict(self.kinds))

    def guarded(self, text: str, otherwise: str) -> str:
        """`text` when all guards hold."""
        return f"({text} if {' and '.join(self.guards)} else {otherwise})" if self.guards else text


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


class _Writer:
    """Writes one expression's source; keeps its temporaries and constants."""

    def __init__(self, variables: frozenset[str], prefix: str) -> None:
        self._variables: Final = variables
        self._prefix: Final = prefix
        self._temporaries = 0
        self.constants: dict[str, object] = {}
        self.left_out: list[str] = []

    # --- control: code that produces the value or `otherwise` ------------------------------------------------

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
                    scope.guards.append(f"{operand.first} is not {_NOTHING}")
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

    def _truth(self, expr: Expr, scope: Scope) -> str:
        """Source that is True or False for sure once the scope's guards hold."""
        return self._bool(self.operand(expr, scope), scope)

    def _bool(self, operand: Operand, scope: Scope) -> str:
        if operand.kind != "bool":
            self._require(operand, "bool", scope)
            return operand.again
        return operand.first

    # --- operands: values under the scope's guards -----------------------------------------------------------

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
            case Call("_&&_" | "_||_" | "_?_:_", None, _):
                return self._checked(
                    self.branch(expr, scope.inner(), _NOTHING, boolean=False), _kind(expr), scope
                )
            case Call(function, target, arguments):
                operands = arguments if target is None else (target, *arguments)
                return self._call(function, operands, scope)
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
        scope.guards.append(f"{operand.first} is not {_NOTHING}")
        scope.kinds[operand.again] = kind
        return Operand(operand.again, operand.again, kind)

    def _atom(self, expr: Expr, scope: Scope) -> str:
        """The value as text to mention any number of times, certain not to be `NOTHING`."""
        operand = self.operand(expr, scope)
        if operand.kind == "any":
            scope.guards.append(f"{operand.first} is not {_NOTHING}")
            return operand.again
        return operand.first if operand.literal else self._settled(operand, scope)

    def _settled(self, operand: Operand, scope: Scope) -> str:
        if operand.first == operand.again:
            return operand.first
        scope.guards.append(f"{operand.first} is not {_NOTHING}")
        return operand.again

    def _constant(self, value: bool | int | float | str | bytes | None) -> Operand:
        kind = {type(None): "null", bytes: "clean"}.get(type(value), type(value).__name__)
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
        get = f"{above.again}.get({ascii(name)}, {_NOTHING})"
        operand = self._fresh(
            f"{get} if type({above.first}) is dict else _x_field({above.again}, {ascii(name)})", "any"
        )
        if path is not None:
            scope.loaded[path] = operand.again
        return operand

    def _has(self, holder: Expr, name: str, scope: Scope) -> Operand:
        above = self.operand(holder, scope)
        text = f"{ascii(name)} in {above.again} if type({above.first}) is dict else _x_has({above.again}, {ascii(name)})"
        return self._checked(text, "bool", scope)

    def _map(self, entries: tuple[tuple[Expr, Expr], ...], scope: Scope) -> Operand:
        keys = [key.value for key, _ in entries if isinstance(key, Constant) and isinstance(key.value, str)]
        if len(set(keys)) != len(entries):
            raise UntranslatableError("a map whose keys are not distinct literals of text")
        items = [
            f"{ascii(key)}: {self._atom(value, scope)}" for key, (_, value) in zip(keys, entries, strict=True)
        ]
        return self._fresh("{" + ", ".join(items) + "}", "any")

    # --- guards ----------------------------------------------------------------------------------------------

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
            scope.guards.append(f"{operand.first} is not {_NOTHING}")

    # --- operators and functions -----------------------------------------------------------------------------

    def _call(self, function: str, operands: tuple[Expr, ...], scope: Scope) -> Operand:
        match function, operands:
            case "!_", (inner,):
                return self._text(f"(not {self._truth(inner, scope)})", "bool")
            case (("_==_" | "_!=_"), (left, right)):
                return self._equality(function, left, right, scope)
            case (("_<_" | "_<=_" | "_>_" | "_>=_"), (left, right)):
                return self._order(function, left, right, scope)
            case (("_+_" | "_-_" | "_*_" | "_/_" | "_%_"), (left, right)):
                return self._arithmetic(function, left, right, scope)
            case "-_", (inner,):
                return self._helper("_x_negate", (inner,), "clean", scope)
            case "@in", (element, holder):
                return self._membership(element, holder, scope)
            case "_[_]", (holder, index):
                return self._helper("_x_element", (holder, index), "any", scope)
            case "size", (inner,):
                return self._helper("_x_size", (inner,), "int", scope)
            case (("contains" | "startsWith" | "endsWith"), (text, part)):
                return self._text_method(_TEXT_METHODS[function], text, part, scope)
            case (("string" | "int" | "double"), (inner,)):
                helper, kind = _CONVERSIONS[function]
                return self._helper(helper, (inner,), kind, scope)
            case "matches", (text, Constant(str(pattern))):
                return self._matches(text, pattern, scope)
            case "dyn", (inner,):
                return self.operand(inner, scope)
            case _:
                raise UntranslatableError(_named(function))

    def _text(self, text: str, kind: str) -> Operand:
        return Operand(text, text, kind)

    def _helper(self, helper: str, operands: tuple[Expr, ...], kind: str, scope: Scope) -> Operand:
        """A call of a function of `semantics`, in the order of the operands."""
        arguments = [operand.first for operand in self._operands(operands, scope)]
        return self._checked(f"{helper}({', '.join(arguments)})", kind, scope)

    def _operands(self, exprs: tuple[Expr, ...], scope: Scope) -> list[Operand]:
        """Several operands, whose first mentions come next in this order.

        Guards of a later operand run before the code that mentions them all, so what earlier ones assign is then
        assigned in a guard before those.
        """
        operands: list[Operand] = []
        for expr in exprs:
            before = len(scope.guards)
            operand = self.operand(expr, scope)
            if len(scope.guards) > before:
                for index, earlier in enumerate(operands):
                    if earlier.first != earlier.again:
                        scope.guards.insert(before, f"{earlier.first} is not {_NOTHING}")
                        operands[index] = Operand(earlier.again, earlier.again, earlier.kind, earlier.literal)
                        before += 1
            operands.append(operand)
        return operands

    def _text_method(self, form: str, text: Expr, part: Expr, scope: Scope) -> Operand:
        whole = self.operand(text, scope)
        self._require(whole, "str", scope)
        piece = self.operand(part, scope)
        self._require(piece, "str", scope)
        return self._text(form.format(whole.again, piece.again), "bool")

    def _matches(self, text: Expr, pattern: str, scope: Scope) -> Operand:
        """Patterns without metacharacters only: RE2 and Python's re differ in too much else."""
        literal = _MATCH_LITERAL.fullmatch(pattern)
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

    def _equality(self, function: str, left: Expr, right: Expr, scope: Scope) -> Operand:
        same = function == "_==_"
        if isinstance(left, Constant):
            left, right = right, left
        if not isinstance(right, Constant) or not _is_simple(right):
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
            ready = _number_guard(operand, value)
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

    def _order(self, function: str, left: Expr, right: Expr, scope: Scope) -> Operand:
        sign = _COMPARE[function]
        literal = right if isinstance(right, Constant) else left
        value = literal.value if isinstance(literal, Constant) and _is_simple(literal) else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return self._compare(sign, left, right, scope)
        operand = self.operand(left if literal is right else right, scope)
        text = self._constant(value).again
        if isinstance(value, str):
            self._require(operand, "str", scope)
        elif operand.kind in ("any", "clean"):
            scope.guards.append(f"({_number_guard(operand, value)})")
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

    def _arithmetic(self, function: str, left: Expr, right: Expr, scope: Scope) -> Operand:
        sign, helper = _ARITHMETIC[function]
        value = right.value if isinstance(right, Constant) else None
        if isinstance(value, str) and sign == "+":
            operand = self.operand(left, scope)
            self._require(operand, "str", scope)
            return self._fresh(f"{operand.again} + {ascii(value)}", "str")
        if isinstance(value, float) and math.isfinite(value) and sign != "%" and (value or sign != "/"):
            operand = self.operand(left, scope)
            self._require(operand, "float", scope)
            return self._fresh(f"{operand.again} {sign} {self._constant(value).again}", "float")
        bounds = _bounds(sign, value)
        if bounds is None:
            return self._helper(helper, (left, right), "clean", scope)
        operand = self.operand(left, scope)
        if operand.kind not in ("any", "clean", "number", "int"):
            raise UntranslatableError(f"a {operand.kind} where an int is needed")
        known = operand.kind == "int" and operand.first == operand.again
        ready = "" if known else f"type({operand.first}) is int and "
        scope.guards.append(f"{ready}{bounds[0]} <= {operand.again} <= {bounds[1]}")
        scope.kinds[operand.again] = "int"
        return self._fresh(f"{operand.again} {sign} {value}", "int")

    def _membership(self, element: Expr, holder: Expr, scope: Scope) -> Operand:
        constants = _constants_of(holder)
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


# --- rules about trees and literals --------------------------------------------------------------------------


def _number_guard(operand: Operand, value: float) -> str:
    """That the operand is a number the library takes; the literal's own type is tried first."""
    first, again = operand.first, operand.again
    if isinstance(value, float):
        return f"type({first}) is float or type({again}) is int and {INT_MIN} <= {again} <= {UINT_MAX}"
    return f"type({first}) is int and {INT_MIN} <= {again} <= {UINT_MAX} or type({again}) is float"


def _bounds(sign: str, value: object) -> tuple[int, int] | None:
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


def _is_simple(constant: Constant) -> bool:
    """Whether Python compares the literal as the library does: numbers that are the same as int and as double."""
    value = constant.value
    if isinstance(value, int | float):
        return -_EXACT <= value <= _EXACT and not (isinstance(value, float) and abs(value) == _EXACT)
    return not isinstance(value, bytes)


def _constants_of(holder: Expr) -> frozenset[object] | None:
    """The elements of a list of text literals only, or of small int literals only."""
    if not isinstance(holder, ListOf) or not holder.elements:
        return None
    values = [
        element.value for element in holder.elements if isinstance(element, Constant) and _is_simple(element)
    ]
    kinds = {type(value) for value in values}
    return frozenset(values) if len(values) == len(holder.elements) and kinds in ({str}, {int}) else None


def _chain(expr: Expr, function: str) -> tuple[Expr, ...]:
    if isinstance(expr, Call) and expr.function == function:
        return tuple(operand for argument in expr.arguments for operand in _chain(argument, function))
    return (expr,)


def _joined(function: str, operands: tuple[Expr, ...]) -> Expr:
    return operands[0] if len(operands) == 1 else Call(function, None, operands)


def _kind(expr: Call) -> str:
    return "any" if expr.function == "_?_:_" else "bool"


_NAMES: Final[Mapping[str, str]] = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/", "_%_": "%"}


def _named(function: str) -> str:
    return f"operator {_NAMES[function]}" if function in _NAMES else f"{function}()"


_REASONS: Final[tuple[tuple[type, Callable[[Expr], str]], ...]] = (
    (Comprehension, lambda _: "a macro over elements (all, exists, exists_one, map, filter)"),
    (Unsigned, lambda expr: f"the unsigned literal {expr.value}u" if isinstance(expr, Unsigned) else ""),
    (Unsupported, lambda expr: expr.what if isinstance(expr, Unsupported) else ""),
    (Identifier, lambda expr: f"the type {expr.name!r}" if isinstance(expr, Identifier) else ""),
)


def _what(expr: Expr) -> str:
    return next((reason(expr) for kind, reason in _REASONS if isinstance(expr, kind)), type(expr).__name__)
