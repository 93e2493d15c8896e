"""The CEL library: checking an expression, and evaluating what is not compiled to Python.

Owns: environments, the translation of the library's compile errors, evaluation with the parts of values in
use.
Does not own: the compiled form (translate) or the tree (checked).

Always holds: whatever way the library reports an error (a value of type ERROR, an exception), evaluation
raises `ExpressionEvaluationError`; a result is a plain value of ours. Bounds: `MAX_LENGTH` here; nesting (32)
and iterations of comprehensions (10,000 for one evaluation) by the library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

from cel_expr_python import cel

from flowcore.errors import ExpressionError, ExpressionEvaluationError
from flowcore.findings import did_you_mean, shown
from flowruntime.compile.expressions.checked import Expr, read_checked
from flowruntime.compile.expressions.plain import UnfitValueError, type_of
from flowruntime.compile.expressions.reads import reads_of

MAX_LENGTH: Final = 8_192
"""Characters of one expression."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED: Final = frozenset((
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
    "loop", "package", "namespace", "null", "return", "true", "var", "void", "while",
))  # fmt: skip
_TYPES: Final = frozenset((
    "bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint",
))  # fmt: skip
_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_STATUS: Final = re.compile(r"\A[A-Z_]+: |\s*\[[A-Z_]+\]\Z")
_REFUSED: Final = re.compile(r"Non-CEL value type for '([^']*)'")
_UNFIT: Final = object()
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_FUNCTIONS: Final = (
    "size", "contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one", "map",
    "filter", "int", "uint", "double", "string", "bytes", "bool", "timestamp", "duration", "type", "dyn",
    "getFullYear", "getMonth", "getDate", "getDayOfWeek", "getHours", "getMinutes", "getSeconds",
)  # fmt: skip


class LibraryExpression:
    """One expression, checked, as the library evaluates it."""

    __slots__ = ("_program", "_reads", "names", "returns", "text", "tree")

    def __init__(self, text: str, variables: frozenset[str]) -> None:
        self.text: Final = text
        self._program: Final = _checked_by_library(text, variables)
        self.tree: Final[Expr] = read_checked(self._program.serialize())
        self._refuse_hidden(variables & _TYPES)
        self._reads: Final = reads_of(self.tree, variables)
        self.names: Final = frozenset(self._reads)
        try:
            self.returns: Final[str] = self._program.return_type().name()
        except RuntimeError as fault:  # {[1]: 2} passes its checker and has no type
            raise _explained(text, str(fault), variables) from None

    def _refuse_hidden(self, hidden: frozenset[str]) -> None:
        """A variable named like a CEL type is never that variable: an error, not the type in its place."""
        for name in sorted(hidden & reads_of(self.tree, hidden).keys()):
            reason = f"{name!r} is a type of CEL, which hides the variable {name!r}"
            raise ExpressionError(self.text, reason=reason, remedy="rename the port or node")

    def evaluate(self, variables: Mapping[str, object]) -> object:
        """The value for these variables; those in `names` must be there.

        Raises:
            ExpressionEvaluationError: a missing field, a type mismatch, an overflow, a value CEL cannot hold,
            ...
        """
        data: dict[str, object] = {}
        unfit: dict[str, str] = {}
        for name, reads in self._reads.items():
            try:
                data[name] = reads.project(variables[name], name)
            except UnfitValueError as fault:  # an error where it is read, and `||` and `&&` may absorb it
                data[name], unfit[name] = _UNFIT, str(fault)
        try:
            result = self._program.eval(data=data)
            kind = result.type()
            value = (
                result.value()
                if kind in (_CEL.Type.ERROR, _CEL.Type.UNKNOWN)
                else _ours(result.plain_value())
            )
        except (RuntimeError, ValueError, TypeError, OverflowError) as fault:
            raise self.failed(_STATUS.sub("", str(fault))) from fault
        if kind in (_CEL.Type.ERROR, _CEL.Type.UNKNOWN):
            refused = _REFUSED.search(str(value))
            raise self.failed(
                unfit[refused[1]] if refused and refused[1] in unfit else _STATUS.sub("", str(value))
            )
        return value

    def failed(self, reason: str) -> ExpressionEvaluationError:
        """The error to raise, with a remedy where there is a usual one."""
        remedy = next((text for part, text in _WHEN_EVALUATED if part in reason), "")
        return ExpressionEvaluationError(self.text, reason=f"{reason}; {remedy}" if remedy else reason)


_CEL: Final[Any] = cel

_WHEN_EVALUATED: Final = (
    ("Key not found in map", "test optional fields with has()"),
    ("SELECT to non-message", "a field is taken of a value that is no mapping"),
    ("No matching overloads", "convert one side, for example with double(), int() or string()"),
)
_EXPECTING: Final = re.compile(r" expecting \{.*\}")
"""The parser's list of everything that could stand there."""
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_ASSIGNED: Final = re.compile(r"(?<![=!<>])=(?!=)")
_IN_WORDS: Final = re.compile(r"\b(?:and|or|not)\b")


@lru_cache(maxsize=256)
def _environment(variables: frozenset[str]) -> Any:
    names = (name for name in sorted(variables) if _NAME.fullmatch(name) and name not in _RESERVED | _TYPES)
    return _CEL.NewEnv(variables=dict.fromkeys(names, _CEL.Type.DYN))


def _checked_by_library(text: str, variables: frozenset[str]) -> Any:
    if not text.strip():
        raise ExpressionError(
            text, reason="it is empty", remedy="write an expression such as value.amount > 10"
        )
    if len(text) > MAX_LENGTH:
        reason = f"it has {len(text)} characters, at most {MAX_LENGTH} are allowed"
        raise ExpressionError(text, reason=reason, remedy="move part of it into a node of its own")
    try:
        text.encode()
        return _environment(variables).compile(text)
    except UnicodeEncodeError as fault:
        reason = "it is not valid Unicode (a lone surrogate)"
        raise ExpressionError(text, reason=reason, line=1, column=fault.start + 1) from None
    except RuntimeError as fault:
        raise _explained(text, str(fault), variables) from None


def _explained(text: str, report: str, variables: frozenset[str]) -> ExpressionError:
    """The library's report as our error: its first finding that has a place, with a remedy."""
    findings = [(int(line), int(column), reason) for line, column, reason in _ERROR.findall(report)]
    placed = [finding for finding in findings if finding[1] > 0] or findings
    if not placed:
        reason = _STATUS.sub("", report)
        remedy = "move part of it into a node of its own" if "limit" in reason else ""
        return ExpressionError(text, reason=reason, remedy=remedy)
    line, column, reason = placed[0]
    reason = _STATUS.sub("", reason)
    undeclared = _UNDECLARED.match(reason)
    place = (line, column) if column > 0 else (None, None)
    remedy = ""
    if undeclared:
        name = undeclared[1].split(".")[0]
        called = re.search(rf"\b{re.escape(name)}\s*\(", text) is not None
        reason = f"{'no function' if called else 'no variable'} {name!r} is known here"
        remedy = did_you_mean(name, _FUNCTIONS if called else sorted(variables))
    elif "recursion" in reason:
        remedy = "split it: at most 32 levels of nesting, each step of a + b + c counts as one"
    elif "no matching overload" in reason:
        remedy = "convert one side, for example with double(), int() or string()"
    elif reason.startswith("Syntax error"):
        reason, remedy = _EXPECTING.sub("", reason), _misread(text, reason)
    return ExpressionError(text, reason=reason, line=place[0], column=place[1], remedy=remedy)


def _misread(text: str, reason: str) -> str:
    """What to write instead, in an expression that is none: the habits of other languages."""
    outside = _QUOTED.sub("''", text)
    if "'" in outside.replace("''", "") or '"' in outside:
        return "close the quotes"
    if _ASSIGNED.search(outside):
        return "compare with =="
    if _IN_WORDS.search(outside):
        return "write && for and, || for or, ! for not"
    return "it ends before it is complete" if "<EOF>" in reason and "expecting <EOF>" not in reason else ""


def _ours(value: Any) -> object:
    """The library's result with bytes for bytearray; dates, durations and types are no values of ours."""
    kind = type_of(value)
    if kind in _PLAIN:
        return value
    if kind is bytearray:
        return bytes(value)
    if kind is list:
        return [_ours(item) for item in cast("list[object]", value)]
    if kind is dict:
        return {_ours(key): _ours(item) for key, item in cast("dict[object, object]", value).items()}
    raise UnfitValueError(
        f"its result is a {kind.__name__} ({shown(value)}), which is no value; wrap it in string()"
    )


_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
