"""JSON Schema of the workflow file (draft 2020-12), for editors and other tools.

Owns: the schema, made from the same shapes that read the file, and the header line editors understand.
Does not own: configuration of single node types (the registry adds it).

Always holds: what `to_document` writes is valid under it; a field it does not know is refused by both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, cast

from flowcore.connection import CONNECTION_KINDS
from flowcore.ids import MAX_ID_LENGTH, NODE_ID_PATTERN
from flowcore.policies import NodePolicies
from flowcore.references import PARAM_NAME_PATTERN
from flowcore.settings import PARAM_KINDS, Settings
from flowcore.shapes import declared_schema
from flowcore.workflow import MAX_NODES

SCHEMA_FILE: Final = "flowrx.schema.json"
SCHEMA_HEADER: Final = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""First line of a workflow file; `flow schema` writes the file it names."""

Schema: TypeAlias = Mapping[str, object]

_TEXT: Final = {"type": "string", "minLength": 1}
_REFERENCE: Final = {"type": "string", "pattern": r"^\$\{[^{}]*\}$", "description": "from the environment"}


def workflow_schema() -> dict[str, object]:
    """The schema as plain data; typed fields also take one whole `${NAME:-default}`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "FlowRx workflow",
        "$ref": "#/$defs/workflow",
        "$defs": {"workflow": _workflow(), "node": _node(), "connection": _connection(), "param": _param()},
    }


def _properties(schema: Schema) -> Mapping[str, Schema]:
    return cast("Mapping[str, Schema]", schema.get("properties", {}))


def _workflow() -> dict[str, object]:
    named = {"type": "object", "additionalProperties": False}
    return {
        "type": "object",
        "required": ["name", "nodes"],
        "additionalProperties": False,
        "properties": {
            "name": _TEXT | {"description": "what people call the workflow"},
            "id": _TEXT | {"description": "fixed id; assigned by the runtime when left out"},
            "version": _TEXT | {"description": "of the definition, as text", "default": "1"},
            "description": {"type": "string"},
            "params": named | {"patternProperties": {f"^{PARAM_NAME_PATTERN}$": {"$ref": "#/$defs/param"}}},
            "settings": _or_reference(declared_schema(Settings)),
            "nodes": named
            | {
                "minProperties": 1,
                "maxProperties": MAX_NODES,
                "propertyNames": {"maxLength": MAX_ID_LENGTH},
                "patternProperties": {f"^{NODE_ID_PATTERN}$": {"$ref": "#/$defs/node"}},
            },
            "connections": {"type": "array", "items": {"$ref": "#/$defs/connection"}},
        },
    }


def _node() -> dict[str, object]:
    policies = _properties(_or_reference(declared_schema(NodePolicies)))
    described = {
        "type": _TEXT | {"description": "node type, like text.clean; `workflow` for a workflow as a node"},
        "config": {"type": "object", "description": "configuration of the node's type"},
        "description": {"type": "string"},
    }
    inner = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "workflow": {"$ref": "#/$defs/workflow"},
            "file": _TEXT | {"description": "path of the inner workflow, relative to this file"},
            "params": {"type": "object"},
        },
        "oneOf": [{"required": ["workflow"]}, {"required": ["file"]}],
    }
    mapping: dict[str, object] = {
        "type": "object",
        "required": ["type"],
        "additionalProperties": False,
        "properties": {**described, **policies},
        "if": {"properties": {"type": {"const": "workflow"}}},
        "then": {"required": ["config"], "properties": {"config": inner}},
    }
    return {"anyOf": [mapping, _TEXT | {"description": "just the type"}]}


def _connection() -> dict[str, object]:
    options = {
        "when": {"description": "expression over value, key, headers, record", "type": "string"},
        "else": {"type": "boolean", "description": "takes the rows no other condition took"},
        "when_error": {
            "type": "boolean",
            "default": True,
            "description": "whether a failing `when` fails the row",
        },
        "kind": {"enum": list(CONNECTION_KINDS)},
    }
    options = {name: _or_reference(cast("Schema", schema)) for name, schema in options.items()}
    short = {"from": _TEXT, "to": _TEXT}
    long = {
        "from_node": _TEXT, "from_port": _TEXT, "from_path": {"type": "array", "items": {"type": "string"}},
        "to_node": _TEXT, "to_port": _TEXT,
    }  # fmt: skip
    forms = [
        {"type": "object", "required": required, "additionalProperties": False, "properties": ends | options}
        for required, ends in ((["from", "to"], short), (["from_node", "to_node"], long))
    ]
    arrow = {"type": "string", "pattern": "->", "examples": ["fetch.out.body -> clean.text"]}
    return {"anyOf": [arrow, *forms]}


def _param() -> dict[str, object]:
    mapping = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "default": {"description": "without one, the param must be given"},
            "kind": {"enum": list(PARAM_KINDS)},
            "description": {"type": "string"},
        },
    }
    form = {"type": "object", "patternProperties": {r"^\$[a-z0-9]+$": True}, "additionalProperties": False}
    scalar = {"type": ["string", "number", "boolean", "array"], "description": "just the default"}
    return {"anyOf": [mapping, form, scalar]}


def _or_reference(schema: Mapping[str, object]) -> dict[str, object]:
    """`schema` whose leaves also take a `${NAME:-default}`."""
    properties = _properties(schema)
    if properties:
        return {**schema, "properties": {name: _or_reference(inner) for name, inner in properties.items()}}
    if schema.get("type") == "string" and "pattern" not in schema:
        return dict(schema)
    hints = {key: schema[key] for key in ("default", "description") if key in schema}
    return {"anyOf": [schema, _REFERENCE]} | hints
