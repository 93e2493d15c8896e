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
from flowcore.draft import Draft, alike
from flowcore.errors import CoercionError, ValidationFailedError
from flowcore.findings import Findings, Path, Refused
from flowcore.on_error import Fallback, OnErrorShape
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
    draft = bind_draft(workflow, values)
    if draft.problems:
        raise ValidationFailedError(draft.problems, what="params" if values else "workflow")
    return draft.finished()


def bind_draft(workflow: Workflow, values: Mapping[str, object] | None = None) -> Draft:
    """As `bind_params`, but what is wrong is told by the draft, and what depends on it is refused there.

    Args:
        workflow: may be a draft itself; its problems come first.
        values: by param name.
    """
    findings = Findings(marks=workflow.marks, refused=workflow.refused)
    draft = _bind(workflow, values or {}, findings, (), ("params",))
    draft.problems = (*workflow.problems, *findings.problems)
    return draft


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


def _bind(
    workflow: Workflow,
    values: Mapping[str, object] | None,
    findings: Findings,
    path: Path,
    given_at: Path,
) -> Draft:
    """The bound draft.

    Args:
        workflow: its params are filled.
        values: None: they are not known, because they could not be read.
        findings: of the outermost workflow.
        path: of this one.
        given_at: where the values were written.
    """
    writer = _Writer(_fill(workflow, values, findings, path, given_at), findings, path)
    bound = alike(Draft, workflow, params={})
    for spec in workflow.nodes.values():
        bound.add_node(_bind_node(spec, writer, findings, (*path, "nodes", spec.id), workflow.refused))
    for index, connection in enumerate(workflow.connections):
        bound.add_connection(_bind_connection(connection, writer, (*path, "connections", index)))
    bound.refused = workflow.refused.and_also(writer.unknown)
    return bound


def _fill(
    workflow: Workflow,
    values: Mapping[str, object] | None,
    findings: Findings,
    path: Path,
    given_at: Path,
) -> dict[str, object]:
    if values is None:
        return dict.fromkeys(workflow.params, msgspec.UNSET)
    declared_at = (*path, "params")
    for name in values:
        if name not in workflow.params and not findings.refuses((*declared_at, name)):
            findings.add_unknown(given_at, name, workflow.params, what="param")
    filled: dict[str, object] = {}
    for name, spec in workflow.params.items():
        if workflow.refused.touches(("params", name)):
            filled[name] = msgspec.UNSET
        elif name in values:
            filled[name] = _coerced(values[name], spec, (*given_at, name), findings)
        elif not spec.required:
            filled[name] = _coerced(spec.default, spec, (*declared_at, name), findings)
        else:
            filled[name] = msgspec.UNSET
            if not findings.refuses((*given_at, name)):  # given under a name that resembles it
                message = f"param {name!r} has no default and no value was given"
                findings.add((*given_at, name), message, remedy=_how_to_give(name, path))
    return filled


def _how_to_give(name: str, path: Path) -> str:
    if not path:
        return f"give it a value: --param {name}=..."
    return f"give it a value: config: {{params: {{{name}: ...}}}}"


def _coerced(value: object, spec: ParamSpec, path: Path, findings: Findings) -> object:
    kind = spec.effective_kind
    if kind is None or value is msgspec.UNSET or (value is None and spec.default is None):
        return value
    try:
        return coerce(value, kind)
    except CoercionError as fault:
        findings.add(path, f"must be of kind {kind}: {fault.reason}", value=value)  # type: ignore[attr-defined]
        return msgspec.UNSET


def _bind_node(spec: NodeSpec, writer: _Writer, findings: Findings, path: Path, refused: Refused) -> NodeSpec:
    config = writer.config(dict(spec.config), (*path, "config"))
    policies = spec.policies
    if policies.key is not None:
        key = writer.expression(policies.key, (*path, "key"))
        policies = msgspec.structs.replace(policies, key=key)
    if isinstance(policies.on_error, Fallback):
        bound = _bind_fallback(policies.on_error, writer, findings, (*path, "on_error"))
        policies = msgspec.structs.replace(policies, on_error=bound)
    if spec.workflow is None:
        return msgspec.structs.replace(spec, config=config, policies=policies)
    given = _given(config, refused.under(("nodes", spec.id, "config", "params")))
    inner = _bind(spec.workflow, given, findings, (*path, "config", "workflow"), (*path, "config", "params"))
    return msgspec.structs.replace(spec, config={}, policies=policies, workflow=inner)


def _bind_fallback(fallback: Fallback, writer: _Writer, findings: Findings, path: Path) -> Fallback | None:
    """The fallback with its params filled; None when one of them is not known, or no value to flow on."""
    unknown = len(writer.unknown)
    filled = writer.config({"fallback": fallback.value}, path)
    if len(writer.unknown) > unknown:
        return None
    read = OnErrorShape(of_node=True).read(filled, path, findings)
    return read if isinstance(read, Fallback) else None


def _given(config: Mapping[str, Any], refused: Refused) -> dict[str, object] | None:
    """The params given to an inner workflow; None when they could not be read."""
    if refused.covers(()):
        return None
    given = cast("dict[str, object]", config.get("params", {}))
    return {name: msgspec.UNSET if refused.touches((name,)) else value for name, value in given.items()}


def _bind_connection(connection: Connection, writer: _Writer, path: Path) -> Connection:
    if connection.when is None:
        return connection
    return msgspec.structs.replace(connection, when=writer.expression(connection.when, (*path, "when")))


class _Writer:
    """Writes filled params where a workflow refers to them."""

    def __init__(self, filled: Mapping[str, object], findings: Findings, path: Path) -> None:
        self._filled: Final = filled
        self._findings: Final = findings
        self._depth: Final = len(path)
        self.unknown: Final[set[Path]] = set()
        """Where a param without a value was to be written; paths from the workflow's own root."""

    def config(self, config: dict[str, Any], path: Path) -> dict[str, Any]:
        return cast("dict[str, Any]", self._value(config, path))

    def expression(self, text: str, path: Path) -> str:
        """The expression with each reference replaced by the value as a CEL literal."""

        def literal(match: re.Match[str]) -> str:
            value = self._lookup(match[1], path)
            written = "null" if value is msgspec.UNSET else _literal(value)
            if written is None:
                message = f"param {match[1]!r} cannot stand in an expression"
                self._refuse(path, message, value, "use a number, text, boolean, list or mapping")
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
            message = f"a {kind_of(value)} cannot be written into text"
            self._refuse(path, message, value, "let the param stand alone")
            return ""

    def _refuse(self, path: Path, message: str, value: object, remedy: str) -> None:
        self._findings.add(path, message, value=value, remedy=remedy)
        self.unknown.add(path[self._depth :])

    def _lookup(self, name: str, path: Path) -> object:
        if name not in self._filled and not self._findings.refuses(path):
            self._findings.add_undeclared(path, name, self._filled)
        value = self._filled.get(name, msgspec.UNSET)
        if value is msgspec.UNSET:
            self.unknown.add(path[self._depth :])
        return value


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
