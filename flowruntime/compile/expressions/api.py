"""Expressions, compiled: from CEL text to something that answers for a row.

Owns: `CompiledExpression` and `compile_expression`, what validator, code generator and nodes use.
Does not own: templates of expressions (template), where an expression stands in a workflow (validate).

Always holds: results and errors are the library's, whether the expression was compiled or is interpreted; an
error raises and is never true or false. Only what the expression reads of its variables can fail it. A value
that is only carried (a field, a branch of a ternary, an element of a list or map display) comes out as the
very object it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from flowcore.errors import ExpressionError, ExpressionEvaluationError
from flowruntime.compile.expressions.library import LibraryExpression
from flowruntime.compile.expressions.pieces import HELPERS, UntranslatableError, marker
from flowruntime.compile.expressions.translate import translate

Result = Literal["bool", "any"]

_MARKED: Final = re.compile(marker("([^\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}]*)"))
_HELPER: Final = re.compile(r"_x_[a-z_0-9]+")
_NO_VALUE: Final = frozenset({"TIMESTAMP", "DURATION", "TYPE", "ERROR"})


@dataclass(frozen=True, slots=True, eq=False)
class CompiledExpression:
    """One expression, checked and ready; made by `compile_expression`.

    Calling it evaluates; `source` gives the Python expression to inline in generated code, with `bindings`
    among that code's globals. A text compiled twice is the same object.
    """

    text: str
    """As the user wrote it."""
    names: frozenset[str]
    """The variables it reads."""
    result: Result
    python: str | None
    """Readable Python source, variables under their own names; None when only the library evaluates it."""
    interpreted_because: str | None
    """What keeps it, or (then it starts with "in part") a branch of it, from being compiled; else None."""
    bindings: Mapping[str, object]
    """What the source refers to; equal names mean equal objects, so those of several expressions merge."""
    _source: str = field(repr=False)
    _function: Callable[..., Any] = field(repr=False)

    def source(self, variables: Mapping[str, str]) -> str:
        """Python source of the value, with each variable replaced by the Python expression given for it.

        A variable's expression is evaluated several times: give names, or cheap and pure expressions. The
        source assigns temporaries `_x0`, `_x1`, ... with `:=`; it may stand in a function, a lambda, or the
        body or condition of a comprehension, not in the iterable of one. It calls the builtins type, dict,
        str, int, float and bool by name. Where there is no value it raises ExpressionEvaluationError.
        """
        return _named(self._source, variables)

    def __call__(self, **variables: object) -> Any:
        """The value for these variables; more than those in `names` may be given.

        Raises:
            ExpressionEvaluationError: a variable is not given, a field is missing, types do not fit, ...
        """
        try:
            values = [variables[name] for name in sorted(self.names)]
        except KeyError as missing:
            reason = f"variable {missing.args[0]!r} was not given"
            raise ExpressionEvaluationError(self.text, reason=reason) from None
        return self._function(*values)


def compile_expression(
    text: str, *, variables: Collection[str], result: Result = "any"
) -> CompiledExpression:
    """Check an expression over these variables and compile it.

    Args:
        text: CEL.
        variables: names it may read, of any type; names that are not CEL identifiers cannot be referred to.
        result: `bool` for conditions: anything else is an error, at compile time where it can be known.

    Raises:
        ExpressionError: a syntax error, an unknown name, types that cannot fit, too long, nested too deep.
    """
    return _compiled(text, frozenset(variables), result)


@lru_cache(maxsize=4096)
def _compiled(text: str, variables: frozenset[str], result: Result) -> CompiledExpression:
    library = LibraryExpression(text, variables)
    _check_result(library, result)
    names = sorted(library.names)
    digest = hashlib.sha256(repr((text, sorted(variables), result)).encode()).hexdigest()[:12]
    prefix = f"_x_{digest}"
    slow = f"{prefix}_library"
    evaluate = _evaluator(library, names, result)
    call = f"{slow}({', '.join(marker(name) for name in names)})"
    reason = None
    source = call
    constants: Mapping[str, object] = {}
    try:
        translation = translate(library.tree, variables, slow=call, prefix=prefix, boolean=result == "bool")
        source, constants = translation.source, translation.constants
        reason = f"in part: {', '.join(translation.left_out)}" if translation.left_out else None
        function = _function(source, names, {**HELPERS, **constants, slow: evaluate}, prefix)
    except (UntranslatableError, SyntaxError, RecursionError, MemoryError) as untranslatable:
        source, function = call, evaluate
        reason = str(untranslatable) if isinstance(untranslatable, UntranslatableError) else "nested too deep"
    used = {name: HELPERS[name] for name in _HELPER.findall(source) if name in HELPERS}
    return CompiledExpression(
        text=text,
        names=library.names,
        result=result,
        python=None if source == call else _named(source, {name: name for name in names}),
        interpreted_because=reason,
        bindings={**used, **constants, slow: evaluate} if slow in source else {**used, **constants},
        _source=source,
        _function=function,
    )


def _check_result(library: LibraryExpression, result: Result) -> None:
    if result == "bool" and library.returns not in ("BOOL", "DYN"):
        reason = f"a condition must be true or false, and this is {library.returns.lower()}"
        raise ExpressionError(
            library.text, reason=reason, remedy="compare it, for example with != null or > 0"
        )
    kind = library.returns.partition("<")[0]
    if kind in _NO_VALUE:
        reason = f"its result is a {kind.lower()}, which is no value"
        raise ExpressionError(library.text, reason=reason, remedy="wrap it in string()")


def _evaluator(library: LibraryExpression, names: list[str], result: Result) -> Callable[..., object]:
    """The library's evaluation, by position in the order of `names`."""

    def evaluate(*values: object) -> object:
        answer = library.evaluate(dict(zip(names, values, strict=True)))
        if result == "bool" and not isinstance(answer, bool):
            raise library.failed(f"a condition must be true or false, and this is {type(answer).__name__}")
        return answer

    return evaluate


def _function(source: str, names: list[str], namespace: dict[str, object], prefix: str) -> Callable[..., Any]:
    """The source as a function of the variables, in the order of `names`."""
    parameters = {name: f"v_{name}" for name in names}
    code = f"lambda {', '.join(parameters.values())}: {_named(source, parameters)}"
    compiled = compile(code, f"<expression {prefix}>", "eval")
    return eval(compiled, {"__builtins__": _BUILTINS, **namespace})  # noqa: S307 - written by us from a checked tree


_BUILTINS: Final = {"type": type, "dict": dict, "str": str, "int": int, "float": float, "bool": bool}


def _named(source: str, variables: Mapping[str, str]) -> str:
    def put(found: re.Match[str]) -> str:
        given = variables[found[1]]
        return given if given.isidentifier() else f"({given})"

    return _MARKED.sub(put, source)
