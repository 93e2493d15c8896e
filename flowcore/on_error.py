"""What a row does that failed for good: the words and forms of the policy `on_error`.

Owns: the words, `Fallback`, `RetryWorkflow`, how they are read, written and described as JSON Schema.
Does not own: which node may say which (flowruntime.compile), carrying it out (operators, execute).

Always holds: a fallback that was read is a value with a plain form, no Stream and no secret in it; it may
hold references to params until the workflow is bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

import msgspec

from flowcore.findings import NOTHING, Findings, Path, did_you_mean
from flowcore.plain import to_plain
from flowcore.references import ParamText
from flowcore.shapes import Choice, Declared, Maybe, Nested, Shape, Whole, type_name
from flowcore.values import SecretRef, Stream, ValueFormError

OnError = Literal["stop_workflow", "continue", "dead_letter"]
ON_ERROR_WORDS: Final = ("stop_workflow", "continue", "dead_letter")

_FALLBACK: Final = "fallback"
_RETRY: Final = "retry_workflow"
_ONE_NODE: Final = "say on_error: {fallback: ...} at the node whose output it takes the place of"


class Fallback(msgspec.Struct, frozen=True):
    """`on_error: {fallback: VALUE}`: the output of a row that failed is this value, and the row goes on."""

    value: Any


class RetryWorkflow(Declared, frozen=True, kw_only=True):
    """`on_error: retry_workflow`: the record goes through the whole workflow again, with a fresh state.

    Attributes:
        max_attempts: attempts in all, the first included; None: the setting `workflow_attempts`.
        then: what a row does that failed in the last one.
    """

    max_attempts: int | None = None
    then: OnError = "stop_workflow"

    title: ClassVar[str] = "retry_workflow"
    shapes: ClassVar[Mapping[str, Shape]] = {
        "max_attempts": Maybe(Whole(least=1, most=100)),
        "then": Choice(*ON_ERROR_WORDS),
    }


OnErrorPolicy: TypeAlias = OnError | Fallback | RetryWorkflow
OnErrorSetting: TypeAlias = OnError | RetryWorkflow
_ATTEMPTS: Final = Nested(RetryWorkflow, bare="max_attempts")


def word_of(on_error: OnErrorSetting) -> OnError:
    """What a row does in the end."""
    return on_error.then if isinstance(on_error, RetryWorkflow) else on_error


class OnErrorShape(Shape):
    """A word, or a mapping that names what is done.

    Args:
        of_node: of one node, which has an output a fallback can take the place of.
    """

    def __init__(self, *, of_node: bool) -> None:
        self._of_node = of_node

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if isinstance(value, RetryWorkflow):
            return value
        if value == _RETRY:
            return RetryWorkflow()
        if isinstance(value, Fallback):
            value = {_FALLBACK: value.value}
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), path, findings)
        if not isinstance(value, str) or value not in ON_ERROR_WORDS:
            near = did_you_mean(value, (*ON_ERROR_WORDS, _RETRY, _FALLBACK)) if isinstance(value, str) else ""
            remedy = near if near.startswith("did you") else ""
            if value == _FALLBACK:
                remedy = "a fallback needs its value: on_error: {fallback: VALUE}"
            words = ", ".join((*ON_ERROR_WORDS, _RETRY))
            findings.add(path, f"must be one of {words}{self._forms()}", remedy=remedy, value=value)
            return NOTHING
        return str.__str__(value)

    def _forms(self) -> str:
        return ", or {fallback: VALUE}" if self._of_node else ""

    def _mapping(self, given: Mapping[object, object], path: Path, findings: Findings) -> object:
        if list(given) == [_RETRY]:
            said = given[_RETRY]
            return _ATTEMPTS.read({"max_attempts": None} if said is None else said, (*path, _RETRY), findings)
        if list(given) != [_FALLBACK]:
            names = ", ".join(str(name) for name in given) or "nothing"
            forms = "{retry_workflow: {max_attempts: 3}}" + self._forms()
            remedy = did_you_mean(names, (_FALLBACK, _RETRY))
            if _RETRY in given:
                remedy = (
                    "write what belongs to it inside: {retry_workflow: {max_attempts: 3, then: continue}}"
                )
            message = f"must be a word, {forms}, not a mapping of {names}"
            findings.add(path, message, value=given, remedy=remedy)
            return NOTHING
        if not self._of_node:
            message = "a fallback is the output of one node, and this holds for all of them"
            findings.add(path, message, remedy=_ONE_NODE, value=given)
            return NOTHING
        return _read_fallback(given[_FALLBACK], (*path, _FALLBACK), findings)

    def write(self, value: object) -> object:
        if isinstance(value, RetryWorkflow):
            said = value.plain()
            return {_RETRY: said} if said else _RETRY
        return {_FALLBACK: value.value} if isinstance(value, Fallback) else value

    def schema(self) -> dict[str, object]:
        words: dict[str, object] = {"enum": [*ON_ERROR_WORDS, _RETRY]}
        attempts: dict[str, object] = {
            "type": "object",
            "required": [_RETRY],
            "additionalProperties": False,
            "properties": {_RETRY: _ATTEMPTS.schema()},
        }
        if not self._of_node:
            return {"anyOf": [words, attempts]}
        fallback = {
            "type": "object",
            "required": [_FALLBACK],
            "additionalProperties": False,
            "properties": {
                _FALLBACK: {"description": "output of a row that failed, by port where the node has several"}
            },
        }
        return {"anyOf": [words, attempts, fallback]}


def _read_fallback(value: object, path: Path, findings: Findings) -> object:
    """The fallback, or `NOTHING` after noting why it is no value that can flow on."""
    fault = _fault(value)
    if fault is None:
        return Fallback(value)
    message, remedy = fault
    findings.add(path, message, remedy=remedy, value=value)
    return NOTHING


def _fault(value: object) -> tuple[str, str] | None:
    """Why something cannot be a fallback, and what to do; None: it can."""
    inside = list(_leaves(value))
    if any(isinstance(each, SecretRef) for each in inside):
        return "holds a secret, which would flow on as data", "give a value that may be seen"
    if any(isinstance(each, Stream) for each in inside):
        return "holds a Stream, which is live and made anew for each row", "give the whole value, as a list"
    try:
        to_plain(_bound(value))
    except ValueFormError as fault:
        return str(fault).removeprefix("value "), f"give plain data; this is {type_name(value)}"
    return None


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    if isinstance(value, dict | list) and depth < _DEEP:
        given = cast("Mapping[object, object] | list[object]", value)
        for item in given.values() if isinstance(given, Mapping) else given:
            yield from _leaves(item, depth + 1)
    else:
        yield value


def _bound(value: object, depth: int = 0) -> object:
    """The value with a text for each reference to a param, which is filled in later."""
    if isinstance(value, ParamText):
        return value.source()
    if depth >= _DEEP:
        return value
    if type(value) is dict:
        return {key: _bound(item, depth + 1) for key, item in cast("dict[object, object]", value).items()}
    if type(value) is list:
        return [_bound(item, depth + 1) for item in cast("list[object]", value)]
    return value


_DEEP: Final = 200
"""Beyond what a value may be nested, so that the plain form refuses it, not the recursion."""
