"""Which parts of its variables an expression reads, so that only these are converted for the library.

Owns: the analysis of a checked tree, and cutting a value down to what is read.
Does not own: conversion itself (plain).

Always holds: what is cut away cannot change the result. So a value nobody looks at (a 70-bit int, a Stream
beside the field that is read) never fails an expression, and a large record costs no more than the fields in
use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowruntime.compile.expressions.checked import (
    Call,
    Comprehension,
    Constant,
    Expr,
    Identifier,
    ListOf,
    MapOf,
    Select,
    Unsupported,
)
from flowruntime.compile.expressions.plain import NOTHING, field_of, is_record, plain_form


@dataclass(slots=True)
class Reads:
    """What is read of one value: all of it, some fields, or, with neither, only that it is there."""

    whole: bool = False
    fields: dict[str, Reads] = field(default_factory=dict[str, "Reads"])

    def project(self, value: object, path: str) -> object:
        """The plain form of the parts that are read.

        Raises:
            UnfitValueError: a part that is read has no plain form.
        """
        if self.whole or (self.fields and not is_record(value)):
            return plain_form(value, path)
        parts = {name: (reads, field_of(value, name)) for name, reads in self.fields.items()}
        shown = {
            name: reads.project(part, f"{path}.{name}")
            for name, (reads, part) in parts.items()
            if part is not NOTHING
        }
        return shown if self.fields else None


def reads_of(expr: Expr, variables: frozenset[str]) -> Mapping[str, Reads]:
    """What `expr` reads of each variable; variables it does not mention are absent."""
    found: dict[str, Reads] = {}
    _visit(expr, variables | {f".{name}" for name in variables}, found)
    return found


def path_of(expr: Expr, variables: frozenset[str]) -> tuple[str, ...] | None:
    """Variable and field names when `expr` is a variable or a field of a field of one; None otherwise."""
    match expr:
        case Identifier(name):
            return (name,) if name in variables else None
        case Select(operand, name, test=False) | Call("_[_]", None, (operand, Constant(str(name)))):
            above = path_of(operand, variables)
            return None if above is None else (*above, name)
        case _:
            return None


def _visit(expr: Expr, variables: frozenset[str], found: dict[str, Reads]) -> None:
    path = path_of(expr, variables)
    if path is not None:
        _reach(found, path).whole = True
        return
    match expr:
        case Select(operand, name, test=True) | Call("@in", None, (Constant(str(name)), operand)):
            path = path_of(operand, variables)
            if path is None:
                _visit(operand, variables, found)
            else:
                _reach(found, (*path, name))
        case Comprehension(bound, range_, initial, body):
            _visit(range_, variables, found)
            _visit(initial, variables, found)
            for part in body:
                _visit(part, variables - bound, found)
        case _:
            for part in parts_of(expr):
                _visit(part, variables, found)


def _reach(found: dict[str, Reads], path: tuple[str, ...]) -> Reads:
    reads = found.setdefault(path[0].removeprefix("."), Reads())
    for name in path[1:]:
        reads = reads.fields.setdefault(name, Reads())
    return reads


def parts_of(expr: Expr) -> tuple[Expr, ...]:
    """The operands of an expression that binds no names."""
    match expr:
        case Select(operand, _, _):
            return (operand,)
        case Call(_, target, arguments):
            return arguments if target is None else (target, *arguments)
        case ListOf(elements):
            return elements
        case MapOf(entries):
            return tuple(part for entry in entries for part in entry)
        case Unsupported(_, parts):
            return parts
        case _:
            return ()
