"""Answers of people and systems, checked against what was asked: a plain part of JSON Schema.

Owns: which keywords a schema of an answer may have, and what is wrong with an answer.
Does not own: waits (flowcore.waits), or the schema of workflow files (flowcore.schema).

Always holds: a keyword that would not be checked is refused when the schema is given, never passed over;
every problem of an answer is listed, by its path. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from flowcore.errors import Problem
from flowcore.findings import did_you_mean, shown

Schema: TypeAlias = Mapping[str, Any] | bool
Fault: TypeAlias = tuple[str, str]
"""Path and message."""

APPROVAL: Final[Mapping[str, Any]] = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "object", "required": ["approved"], "properties": {"approved": {"type": "boolean"}}},
    ]
}
"""What an approval is answered with: true or false, or an object that says so in `approved`."""

_ANNOTATIONS: Final = frozenset(
    {
        "title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly",
        "$schema", "$id", "$comment",
    }
)  # fmt: skip
_MAX_DEPTH: Final = 32


def answer_problems(answer: object, schema: Schema) -> list[Problem]:
    """Everything that is wrong with an answer; empty: nothing.

    Args:
        answer: a value.
        schema: one that has no `schema_faults`.
    """
    return [
        Problem(path=path, message=message, remedy="the wait is still open: answer again")
        for path, message in value_faults(answer, schema, "answer")
    ]


def value_faults(value: object, schema: Schema, name: str = "value") -> list[Fault]:
    """Path and message of everything that keeps a value from fitting a schema; empty: it fits.

    Args:
        value: any value.
        schema: one that has no `schema_faults`.
        name: what the paths begin with.
    """
    return list(_faults(value, schema, name))


def schema_faults(schema: object) -> list[str]:
    """What keeps a schema from being used; empty: nothing."""
    return list(_schema_faults(schema, "schema", 0))


# --- schemas --------------------------------------------------------------------------------------------


def _schema_faults(schema: object, path: str, depth: int) -> Iterator[str]:
    if isinstance(schema, bool):
        return
    if depth > _MAX_DEPTH:
        yield f"{path} is nested deeper than {_MAX_DEPTH} levels"
        return
    if not isinstance(schema, Mapping):
        yield f"{path} must be a mapping, not {shown(schema)}"
        return
    for word, content in cast("Mapping[str, Any]", schema).items():
        if word in _ANNOTATIONS:
            continue
        rule = _RULES.get(word)
        if rule is None:
            yield f"{path} has {word!r}, which is not checked here; {did_you_mean(str(word), list(_RULES))}"
        elif not rule.takes(content):
            yield f"{path}.{word} must be {rule.form}, not {shown(content)}"
        else:
            for name, inner in rule.parts(content):
                yield from _schema_faults(inner, f"{path}.{word}{name}", depth + 1)


def _no_parts(content: object) -> Iterator[tuple[str, object]]:
    del content
    return iter(())


def _itself(content: object) -> Iterator[tuple[str, object]]:
    yield "", content


def _each(content: Any) -> Iterator[tuple[str, object]]:
    for index, inner in enumerate(content):
        yield f"[{index}]", inner


def _by_name(content: Any) -> Iterator[tuple[str, object]]:
    for name, inner in content.items():
        yield f".{name}", inner


def _is_number(content: object) -> bool:
    return isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content)


def _is_count(content: object) -> bool:
    return isinstance(content, int) and not isinstance(content, bool) and content >= 0


def _is_pattern(content: object) -> bool:
    if not isinstance(content, str):
        return False
    try:
        re.compile(content)
    except re.error:
        return False
    return True


def _is_types(content: object) -> bool:
    words = [content] if isinstance(content, str) else content
    return isinstance(words, list) and all(word in _TYPES for word in cast("list[object]", words))


def _is_texts(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(each, str) for each in cast("list[object]", content))


# --- answers --------------------------------------------------------------------------------------------

_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}


def _faults(value: object, schema: Schema, path: str) -> Iterator[Fault]:
    if isinstance(schema, bool):
        if not schema:
            yield path, "is not allowed"
        return
    for word, content in schema.items():
        rule = _RULES.get(word)
        if rule is not None:
            yield from rule.check(value, content, path, schema)


def _type(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    words: list[str] = [content] if isinstance(content, str) else content
    if not any(_TYPES[word](value) for word in words):
        yield path, f"must be of type {' or '.join(words)}, not {shown(value)}"


def _enum(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if not any(_same(value, each) for each in content):
        yield path, f"must be one of {', '.join(shown(each) for each in content)}, not {shown(value)}"


def _const(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if not _same(value, content):
        yield path, f"must be {shown(content)}, not {shown(value)}"


def _same(left: Any, right: Any) -> bool:
    """Equality as JSON means it: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        pairs = cast("list[object]", left), cast("list[object]", right)
        return len(pairs[0]) == len(pairs[1]) and all(map(_same, *pairs))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        mine, other = cast("Mapping[str, object]", left), cast("Mapping[str, object]", right)
        return mine.keys() == other.keys() and all(_same(each, other[key]) for key, each in mine.items())
    return bool(left == right)


def _properties(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        given = cast("Mapping[str, object]", value)
        for name, inner in content.items():
            if name in given:
                yield from _faults(given[name], inner, f"{path}.{name}")


def _required(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for name in content:
            if name not in value:
                yield f"{path}.{name}", "is required and was not given"


def _additional(value: object, content: Any, path: str, schema: Schema) -> Iterator[Fault]:
    if not isinstance(value, Mapping) or isinstance(schema, bool):
        return
    known: list[str] = list(schema.get("properties", ()))
    for name, each in cast("Mapping[str, object]", value).items():
        if name in known:
            continue
        if content is False:
            yield f"{path}.{name}", f"is not asked for; {did_you_mean(str(name), known)}".removesuffix("; ")
        else:
            yield from _faults(each, content, f"{path}.{name}")


def _items(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if isinstance(value, list):
        for index, each in enumerate(cast("list[object]", value)):
            yield from _faults(each, content, f"{path}[{index}]")


def _bound(
    of: Callable[[object], float | None], holds: Callable[[float, float], bool], words: str
) -> Callable[[object, Any, str, Schema], Iterator[Fault]]:
    def check(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
        size = of(value)
        if size is not None and not holds(size, content):
            yield path, f"{words} {content}, and is {shown(value)}"

    return check


def _number_of(value: object) -> float | None:
    return cast("float", value) if _TYPES["number"](value) else None


def _length_of(value: object) -> float | None:
    return len(value) if isinstance(value, str) else None


def _count_of(value: object) -> float | None:
    return len(cast("list[object]", value)) if isinstance(value, list) else None


def _pattern(value: object, content: Any, path: str, _: Schema) -> Iterator[Fault]:
    if isinstance(value, str) and re.search(content, value) is None:
        yield path, f"must match {content!r}, and is {shown(value)}"


def _any_of(value: object, content: Sequence[Schema], path: str, _: Schema) -> Iterator[Fault]:
    found = [list(_faults(value, each, path)) for each in content]
    if all(found):
        closest = min(found, key=len)
        if len(content) == 1:
            yield from closest
        else:
            reasons = "; or ".join(f"{where} {why}" for faults in found for where, why in faults[:1])
            yield path, f"fits none of {len(content)} forms: {reasons}"


def _one_of(value: object, content: Sequence[Schema], path: str, schema: Schema) -> Iterator[Fault]:
    fitting = sum(not any(_faults(value, each, path)) for each in content)
    if fitting == 0:
        yield from _any_of(value, content, path, schema)
    elif fitting > 1:
        yield path, f"fits {fitting} of {len(content)} forms and may fit only one"


def _all_of(value: object, content: Sequence[Schema], path: str, _: Schema) -> Iterator[Fault]:
    for each in content:
        yield from _faults(value, each, path)


def _not(value: object, content: Schema, path: str, _: Schema) -> Iterator[Fault]:
    if not any(_faults(value, content, path)):
        yield path, f"has a form that is not allowed: {shown(value)}"


class _Rule:
    """One keyword: what it may hold, and what it checks."""

    def __init__(
        self,
        check: Callable[[object, Any, str, Schema], Iterator[Fault]],
        form: str,
        takes: Callable[[object], bool],
        parts: Callable[[Any], Iterator[tuple[str, object]]] = _no_parts,
    ) -> None:
        self.check = check
        self.form = form
        self.takes = takes
        self.parts = parts


def _is_list(content: object) -> bool:
    return isinstance(content, list) and bool(cast("list[object]", content))


def _is_mapping(content: object) -> bool:
    return isinstance(content, Mapping)


def _anything(content: object) -> bool:
    del content
    return True


_SCHEMAS: Final = "a list of schemas"
_NUMBER: Final = "a number"
_COUNT: Final = "a whole number of at least 0"

_RULES: Final[Mapping[str, _Rule]] = {
    "type": _Rule(_type, f"one or several of {', '.join(_TYPES)}", _is_types),
    "enum": _Rule(_enum, "a list of values", _is_list),
    "const": _Rule(_const, "a value", _anything),
    "properties": _Rule(_properties, "schemas by name", _is_mapping, _by_name),
    "required": _Rule(_required, "a list of names", _is_texts),
    "additionalProperties": _Rule(_additional, "a schema", _anything, _itself),
    "items": _Rule(_items, "a schema", _anything, _itself),
    "minItems": _Rule(_bound(_count_of, lambda a, b: a >= b, "must have at least as many items as"),
                      _COUNT, _is_count),
    "maxItems": _Rule(_bound(_count_of, lambda a, b: a <= b, "must have at most as many items as"),
                      _COUNT, _is_count),
    "minimum": _Rule(_bound(_number_of, lambda a, b: a >= b, "must be at least"), _NUMBER, _is_number),
    "maximum": _Rule(_bound(_number_of, lambda a, b: a <= b, "must be at most"), _NUMBER, _is_number),
    "exclusiveMinimum": _Rule(_bound(_number_of, lambda a, b: a > b, "must be more than"),
                              _NUMBER, _is_number),
    "exclusiveMaximum": _Rule(_bound(_number_of, lambda a, b: a < b, "must be less than"),
                              _NUMBER, _is_number),
    "minLength": _Rule(_bound(_length_of, lambda a, b: a >= b, "must have at least as many characters as"),
                       _COUNT, _is_count),
    "maxLength": _Rule(_bound(_length_of, lambda a, b: a <= b, "must have at most as many characters as"),
                       _COUNT, _is_count),
    "pattern": _Rule(_pattern, "a regular expression", _is_pattern),
    "anyOf": _Rule(_any_of, _SCHEMAS, _is_list, _each),
    "oneOf": _Rule(_one_of, _SCHEMAS, _is_list, _each),
    "allOf": _Rule(_all_of, _SCHEMAS, _is_list, _each),
    "not": _Rule(_not, "a schema", _anything, _itself),
}  # fmt: skip
