"""JSON Schema of a node's configuration: what an editor completes and checks while a file is written.

Owns: the schema of every type `flowcore.config` reads.
Does not own: reading (flowcore.config), the schema of a whole workflow (flowcore.document).

Always holds: what the schema accepts is what `read_config` accepts, but for rules across fields and for
expressions, which only the compiler can judge; a struct inside itself is described as any mapping.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from types import NoneType
from typing import Annotated, Any, Final, Literal, NotRequired, Required, cast, get_args, get_origin
from uuid import UUID

import msgspec

from flowcore.config_bounds import bound_schema
from flowcore.config_types import ITEM_CONTAINERS, MAPPINGS, UNIONS, describe_type
from flowcore.durations import format_duration
from flowcore.expression import Expression, Template
from flowcore.shapes import Declared, Duration, declared_schema
from flowcore.values import Secret

Schema = dict[str, object]

_EMPTY: Final[Schema] = {"type": "object", "properties": {}, "additionalProperties": False}
_SECRET: Final[Schema] = {
    "type": "object",
    "properties": {"$secret": {"type": "string", "minLength": 1}},
    "required": ["$secret"],
    "additionalProperties": False,
}
_BYTES: Final[Schema] = {
    "type": "object",
    "properties": {"$bytes": {"type": "string", "contentEncoding": "base64"}},
    "required": ["$bytes"],
    "additionalProperties": False,
}
_EXPRESSION: Final[Schema] = {"type": ["string", "boolean", "number"], "description": "a CEL expression"}
_TEMPLATE: Final[Schema] = {
    "type": ["object", "array", "string"],
    "description": "a template whose texts are CEL expressions",
}
_PLAIN: Final[dict[type, Schema]] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: _BYTES,
    timedelta: Duration(zero=True).schema(),
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    time: {"type": "string", "format": "time"},
    UUID: {"type": "string", "format": "uuid"},
    Secret: _SECRET,
    Expression: _EXPRESSION,
    Template: _TEMPLATE,
}


def config_schema(config_type: type[Any] | None) -> Schema:
    """JSON Schema (draft 2020-12) of the plain form of a configuration; an empty object for None."""
    if config_type is None or not issubclass(config_type, msgspec.Struct):
        return dict(_EMPTY)
    return _struct(config_type, ())


def type_schema(annotation: Any, above: tuple[type, ...] = ()) -> Schema:  # noqa: PLR0911 - one per kind
    """The schema of one type; `above` are the structs it stands in."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        schema = type_schema(inner, above)
        for meta in metadata:
            if isinstance(meta, msgspec.Meta):
                schema |= bound_schema(meta, kind=schema.get("type"))
        return schema
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Required, NotRequired):
        return type_schema(arguments[0], above)
    if origin in UNIONS:
        members = [type_schema(member, above) for member in arguments if member is not msgspec.UnsetType]
        return members[0] if len(members) == 1 else {"anyOf": members}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in ITEM_CONTAINERS:
        return _array(origin, arguments, above)
    if origin in MAPPINGS:
        return {
            "type": "object",
            "additionalProperties": type_schema(arguments[1], above) if arguments else True,
        }
    return _class(getattr(origin, "__supertype__", origin), above)


def _class(given: Any, above: tuple[type, ...]) -> Schema:  # noqa: PLR0911 - one return per kind of class
    if not inspect.isclass(given):
        return {}
    cls: type[Any] = given
    if cls in _PLAIN:
        return dict(_PLAIN[cls])
    if cls in above:
        return {"type": "object"}
    if issubclass(cls, msgspec.Struct):
        return _struct(cls, above)
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        properties = {name: type_schema(hint, (*above, cls)) for name, hint in hints.items()}
        required = sorted(cast("Any", cls).__required_keys__)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    if issubclass(cls, enum.Enum):
        return {"enum": [member.value for member in cls]}
    try:
        return _without_refs(msgspec.json.schema(cls))
    except (TypeError, ValueError):  # only an instance made in code will do
        return {} if cls is object else {"description": describe_type(cls)}


def _struct(struct: type[msgspec.Struct], above: tuple[type, ...]) -> Schema:
    if issubclass(struct, Declared):
        return declared_schema(struct)
    properties: dict[str, object] = {}
    required: list[str] = []
    tag, word = struct.__struct_config__.tag_field, struct.__struct_config__.tag
    if tag is not None:
        properties[tag] = {"const": word}
    for field in msgspec.structs.fields(struct):
        shown, default = _default(field)
        properties[field.encode_name] = type_schema(field.type, (*above, struct)) | (
            {"default": default} if shown else {}
        )
        if field.required:
            required.append(field.encode_name)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _array(origin: Any, arguments: tuple[Any, ...], above: tuple[type, ...]) -> Schema:
    schema: Schema = {"type": "array"}
    if not arguments:
        return schema
    if origin is tuple and Ellipsis not in arguments:
        items = [type_schema(argument, above) for argument in arguments]
        return schema | {"prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    return schema | {"items": type_schema(arguments[0], above)}


def _default(field: msgspec.structs.FieldInfo) -> tuple[bool, object]:
    """Whether a file could write the default, and how."""
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if default in (msgspec.NODEFAULT, msgspec.UNSET):
        return False, None
    if isinstance(default, timedelta):
        return default >= timedelta(0), format_duration(abs(default))
    if isinstance(default, Expression):
        return True, default.text
    if isinstance(default, Declared):
        return True, default.plain()
    try:
        return True, msgspec.to_builtins(default, enc_hook=_refuse)
    except (TypeError, ValueError):
        return False, None


def _refuse(value: object) -> object:
    raise TypeError(f"no plain form: {value!r}")


def _without_refs(schema: Mapping[str, Any]) -> Schema:
    """A schema that stands alone: msgspec puts classes under `$defs`; those are described loosely instead."""
    return {"type": "object"} if "$ref" in schema else dict(schema)
