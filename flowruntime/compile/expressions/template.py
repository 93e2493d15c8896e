"""Templates: nested mappings and lists whose string leaves are expressions.

Owns: reading a template, and its Python source: one display of the whole result.
Does not own: single expressions (api).

The form, as in `transform.map`: a string is an expression; `{$literal: anything}` is that value as it is;
other scalars are literals; a key that starts with `$` is written `$$`.

Always holds: the result is a new object for every row, mappings and lists of `$literal` included; the first
leaf that fails, in order of writing, fails the whole.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from flowcore.errors import ExpressionError, ExpressionEvaluationError
from flowcore.findings import path_text, shown
from flowruntime.compile.expressions.api import CompiledExpression, compile_expression

MAX_LEAVES: Final = 2_000
MAX_DEPTH: Final = 32

_LITERAL: Final = "$literal"

Path = tuple[str | int, ...]


class TemplateError(ExpressionError):
    """A leaf or the shape of a template is wrong; attribute `path` says where."""

    path: str
    faults: tuple[tuple[Path, TemplateError], ...] = ()
    """Every leaf that does not compile, with its path; this error tells the first."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTemplate:
    """A template, checked and ready; made by `compile_template`."""

    leaves: Mapping[str, CompiledExpression]
    """The expressions by path (`customer.name`, `tags[0]`); a template that is one expression has path ""."""
    names: frozenset[str]
    """The variables it reads."""
    interpreted_because: str | None
    """Which leaves are not fully compiled, and why; None when all are."""
    bindings: Mapping[str, object]
    """What the source refers to; see `CompiledExpression.bindings`."""
    _pieces: tuple[str | CompiledExpression, ...] = field(repr=False)
    _function: Callable[..., Any] = field(repr=False)

    def source(self, variables: Mapping[str, str]) -> str:
        """Python source of the result; see `CompiledExpression.source`."""
        return "".join(piece if isinstance(piece, str) else piece.source(variables) for piece in self._pieces)

    @property
    def python(self) -> str:
        """Readable Python source, variables under their own names."""
        return self.source({name: name for name in self.names})

    def __call__(self, **variables: object) -> Any:
        """The result for these variables; more than those in `names` may be given.

        Raises:
            ExpressionEvaluationError: a leaf has no value.
        """
        missing = self.names - variables.keys()
        if missing:
            reader = next(leaf for leaf in self.leaves.values() if leaf.names & missing)
            name = min(reader.names & missing)
            raise ExpressionEvaluationError(reader.text, reason=f"variable {name!r} was not given")
        return self._function(*(variables[name] for name in sorted(self.names)))


def compile_template(value: object, *, variables: Collection[str]) -> CompiledTemplate:
    """Check and compile a template over these variables.

    Raises:
        TemplateError: an expression that does not compile, a value that is no template, more than
        `MAX_LEAVES`
            leaves or `MAX_DEPTH` levels.
    """
    reader = _Reader(frozenset(variables))
    reader.read(value, ())
    if reader.faults:
        place, first = reader.faults[0]
        error = _error(place, first.text, first.reason, first.remedy)
        error.line, error.column, error.faults = first.line, first.column, tuple(reader.faults)
        raise error
    names = frozenset(name for leaf in reader.leaves.values() for name in leaf.names)
    bindings = dict(reader.constants)
    for leaf in reader.leaves.values():
        bindings |= leaf.bindings
    held = [
        (path, leaf.interpreted_because) for path, leaf in reader.leaves.items() if leaf.interpreted_because
    ]
    pieces = tuple(reader.pieces)
    return CompiledTemplate(
        leaves=reader.leaves,
        names=names,
        interpreted_because="; ".join(f"{path or 'the template'}: {reason}" for path, reason in held) or None,
        bindings=bindings,
        _pieces=pieces,
        _function=_function(pieces, sorted(names), bindings),
    )


def _function(
    pieces: tuple[str | CompiledExpression, ...], names: list[str], bindings: dict[str, object]
) -> Any:
    parameters = {name: f"v_{name}" for name in names}
    body = "".join(piece if isinstance(piece, str) else piece.source(parameters) for piece in pieces)
    code = f"lambda {', '.join(parameters.values())}: {body}"
    return eval(compile(code, "<template>", "eval"), dict(bindings))  # noqa: S307 - text of our own


class _Reader:
    """Walks a template once and collects the pieces of its source."""

    def __init__(self, variables: frozenset[str]) -> None:
        self._variables: Final = variables
        self.pieces: list[str | CompiledExpression] = []
        self.leaves: dict[str, CompiledExpression] = {}
        self.constants: dict[str, object] = {}
        self.faults: list[tuple[Path, TemplateError]] = []
        """Expressions that do not compile, and where they stand."""
        self._count = 0

    def read(self, value: object, path: Path) -> None:
        self._count += 1
        if self._count > MAX_LEAVES or len(path) > MAX_DEPTH:
            reason = f"a template has at most {MAX_LEAVES} leaves and {MAX_DEPTH} levels"
            raise _error(path, shown(value), reason, "split it over several nodes")
        if isinstance(value, str):
            self._expression(value, path)
        elif isinstance(value, Mapping):
            self._mapping(cast("Mapping[object, object]", value), path)
        elif isinstance(value, list | tuple):
            self._list(cast("list[object]", value), path)
        else:
            self._literal(value, path)

    def _expression(self, text: str, path: Path) -> None:
        try:
            leaf = compile_expression(text, variables=self._variables)
        except ExpressionError as fault:
            remedy = fault.remedy
            if "no variable" in fault.reason:
                remedy = (
                    f"{remedy} A text that is no expression is written {{$literal: {shown(text)}}}".strip()
                )
            error = _error((), text, fault.reason, remedy)
            error.line, error.column = fault.line, fault.column
            self.faults.append((path, error))
            return
        self.leaves[path_text(path)] = leaf
        self.pieces.append(leaf)

    def _mapping(self, value: Mapping[object, object], path: Path) -> None:
        if _LITERAL in value:
            if len(value) > 1:
                raise _error(
                    path, shown(value), "$literal stands alone", "put the other keys beside it, not in it"
                )
            self._literal(value[_LITERAL], path)
            return
        self.pieces.append("{")
        for key, item in value.items():
            self.pieces.append(f"{_key(key, path)!a}: ")
            self.read(item, (*path, str(key)))
            self.pieces.append(", ")
        self.pieces.append("}")

    def _list(self, value: list[object], path: Path) -> None:
        self.pieces.append("[")
        for index, item in enumerate(value):
            self.read(item, (*path, index))
            self.pieces.append(", ")
        self.pieces.append("]")

    def _literal(self, value: object, path: Path) -> None:
        if value is None or isinstance(value, bool | int | str | bytes):
            self.pieces.append(ascii(value))
        elif isinstance(value, float):
            self.pieces.append(ascii(value) if math.isfinite(value) else self._bound(value, path))
        elif isinstance(value, list | dict):
            self.constants["_x_copy"] = copy.deepcopy
            self.pieces.append(f"_x_copy({self._bound(copy.deepcopy(cast('object', value)), path)})")
        else:
            reason = f"a {type(value).__name__} is no part of a template"
            raise _error(path, shown(value), reason, "use text, numbers, mappings and lists")

    def _bound(self, value: object, path: Path) -> str:
        digest = hashlib.sha256(repr((path, value)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name = f"_x_literal_{digest}"
        self.constants[name] = value
        return name


def _key(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise _error(
            path, shown(key), f"a key of a template is text, not {type(key).__name__}", f"write '{key}'"
        )
    if key.startswith("$") and not key.startswith("$$"):
        raise _error(
            path, key, f"{key!r} has no meaning in a template", f"write '${key}' for a key that starts with $"
        )
    return key.removeprefix("$") if key.startswith("$$") else key


def _error(path: Path, text: str, reason: str, remedy: str) -> TemplateError:
    where = path_text(path)
    error = TemplateError(text, reason=f"{where}: {reason}" if where else reason, remedy=remedy)
    error.path = where
    return error
