"""Binding: fill the params of a workflow, so that its configuration is plain values.

Owns: which value a param gets, and writing it into configurations and expressions, nested workflows included.
Does not own: where values come from (command line, code), secrets (they stay references).

Always holds: a bound workflow has no params and no `ParamText` left; the one given is not changed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from flowcore.coercion import coerce
from flowcore.connection import Connection
from flowcore.errors import CoercionError
from flowcore.findings import Findings, Path
from flowcore.references import PARAM_NAME_PATTERN, ParamRef, ParamText
from flowcore.settings import ParamSpec
from flowcore.values import kind_of
from flowcore.workflow import NodeSpec, Workflow

_IN_EXPRESSION = re.compile(rf"\$\{{params\.({PARAM_NAME_PATTERN})\}}")


def bind_params(workflow: Workflow, values: Mapping[str, object] | None = None) -> Workflow:
    """A copy of `workflow` with every param filled: from `values`, else from its default.

    Args:
        workflow: may already be without params.
        values: by param name; coerced to the declared kind, so the texts of a command line will do.

    Raises:
        ValidationFailedError: a value is missing, unknown or of another kind, or something refers to a param
            that is not declared; every problem is listed.
    """
    findings = Findings(marks=workflow.marks)
    bound = _bind(workflow, values or {}, findings, ())
    findings.raise_if_any("params" if values else "workflow")
    return bound


def expression_params(text: str) -> tuple[str, ...]:
    """Names of the params an expression refers to."""
    return tuple(_IN_EXPRESSION.findall(text))


def config_params(value: object, at: Path = ()) -> list[tuple[Path, str]]:
    """Where a configuration value refers to params, and to which."""
    if isinstance(value, ParamText):
        return [(at, name) for name in value.names]
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return [found for key, item in pairs for found in config_params(item, (*at, str(key)))]
    if isinstance(value, list):
        items = enumerate(cast("list[object]", value))
        return [found for index, item in items for found in config_params(item, (*at, index))]
    return []


def _bind(workflow: Workflow, values: Mapping[str, object], findings: Findings, path: Path) -> Workflow:
    filled = _fill(workflow, values, findings, path)
    bound = Workflow(
        workflow.name,
        id=workflow.id,
        version=workflow.version,
        description=workflow.description,
        settings=workflow.settings,
    )
    bound.local_types.update(workflow.local_types)
    bound.marks = workflow.marks
    writer = _Writer(filled, findings)
    for spec in workflow.nodes.values():
        bound.add_node(_bind_node(spec, writer, findings, (*path, "nodes", spec.id)))
    for index, connection in enumerate(workflow.connections):
        bound.add_connection(_bind_connection(connection, writer, (*path, "connections", index)))
    return bound


def _fill(
    workflow: Workflow, values: Mapping[str, object], findings: Findings, path: Path
) -> dict[str, object]:
    at = (*path, "params")
    for name in values:
        if name not in workflow.params:
            findings.add_unknown(at, name, workflow.params, what="param")
    filled: dict[str, object] = {}
    for name, spec in workflow.params.items():
        if name in values:
            filled[name] = _coerced(values[name], spec, (*at, name), findings)
        elif spec.required:
            findings.add(
                (*at, name),
                f"param {name!r} has no default and no value was given",
                remedy=f"give it a value: --param {name}=...",
            )
            filled[name] = msgspec.UNSET
        else:
            filled[name] = _coerced(spec.default, spec, (*at, name), findings)
    return filled


def _coerced(value: object, spec: ParamSpec, path: Path, findings: Findings) -> object:
    kind = spec.effective_kind
    if kind is None or value is msgspec.UNSET or (value is None and spec.default is None):
        return value
    try:
        return coerce(value, kind)
    except CoercionError as fault:
        findings.add(path, f"must be of kind {kind}: {fault.reason}", value=value)  # type: ignore[attr-defined]
        return msgspec.UNSET


def _bind_node(spec: NodeSpec, writer: _Writer, findings: Findings, path: Path) -> NodeSpec:
    config = writer.config(dict(spec.config), (*path, "config"))
    policies = spec.policies
    if policies.key is not None:
        key = writer.expression(policies.key, (*path, "key"))
        policies = msgspec.structs.replace(policies, key=key)
    if spec.workflow is None:
        return msgspec.structs.replace(spec, config=config, policies=policies)
    given = config.get("params", {})
    inner = _bind(spec.workflow, given, findings, (*path, "config", "workflow"))
    return msgspec.structs.replace(spec, config={}, policies=policies, workflow=inner)


def _bind_connection(connection: Connection, writer: _Writer, path: Path) -> Connection:
    if connection.when is None:
        return connection
    return msgspec.structs.replace(connection, when=writer.expression(connection.when, (*path, "when")))


class _Writer:
    """Writes filled params where a workflow refers to them."""

    def __init__(self, filled: Mapping[str, object], findings: Findings) -> None:
        self._filled: Final = filled
        self._findings: Final = findings

    def config(self, config: dict[str, Any], path: Path) -> dict[str, Any]:
        return cast("dict[str, Any]", self._value(config, path))

    def expression(self, text: str, path: Path) -> str:
        """The expression with each reference replaced by the value as a CEL literal."""

        def literal(match: re.Match[str]) -> str:
            value = self._lookup(match[1], path)
            written = "null" if value is msgspec.UNSET else _literal(value)
            if written is None:
                message = f"param {match[1]!r} cannot stand in an expression"
                self._findings.add(
                    path, message, value=value, remedy="use a number, text, boolean, list or mapping"
                )
            return written or "null"

        return _IN_EXPRESSION.sub(literal, text)

    def _value(self, value: object, path: Path) -> object:
        if isinstance(value, ParamText):
            return self._text(value, path)
        if isinstance(value, dict):
            pairs = cast("dict[str, object]", value).items()
            return {key: self._value(item, (*path, str(key))) for key, item in pairs}
        if isinstance(value, list):
            items = cast("list[object]", value)
            return [self._value(item, (*path, index)) for index, item in enumerate(items)]
        return value

    def _text(self, text: ParamText, path: Path) -> object:
        values = [
            self._lookup(part.name, path) if isinstance(part, ParamRef) else part for part in text.parts
        ]
        if len(values) == 1:
            return values[0]
        return "".join(self._written(value, path) for value in values)

    def _written(self, value: object, path: Path) -> str:
        if value is msgspec.UNSET:
            return ""
        try:
            return coerce(value, "str")
        except CoercionError:
            self._findings.add(
                path,
                f"a {kind_of(value)} cannot be written into text",
                value=value,
                remedy="let the param stand alone",
            )
            return ""

    def _lookup(self, name: str, path: Path) -> object:
        if name not in self._filled:
            self._findings.add_undeclared(path, name, self._filled)
        return self._filled.get(name, msgspec.UNSET)


def _literal(value: object) -> str | None:
    """`value` in CEL; None when CEL has no literal for it."""
    match kind_of(value):
        case "null" | "bool" | "str":
            return json.dumps(value)
        case "int":
            return str(value) if -(1 << 63) <= cast("int", value) < 1 << 63 else None
        case "float":
            return repr(value) if math.isfinite(cast("float", value)) else None
        case "list":
            items = [_literal(item) for item in cast("list[object]", value)]
            return None if None in items else f"[{', '.join(str(item) for item in items)}]"
        case "dict":
            pairs = [
                (json.dumps(key), _literal(item)) for key, item in cast("dict[str, object]", value).items()
            ]
            return (
                None
                if any(item is None for _, item in pairs)
                else f"{{{', '.join(f'{k}: {v}' for k, v in pairs)}}}"
            )
        case _:
            return None
