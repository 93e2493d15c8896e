"""Dump: a workflow as plain data, without loss.

Owns: which field is written and how; defaults are left out.
Does not own: YAML and JSON themselves (flowruntime.definition), reading (flowcore.document).

Always holds: `from_document(to_document(w)) == w`; what cannot be written is an error, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from flowcore.connection import DEFAULT_OUT, ERROR_PORT, Connection
from flowcore.findings import Findings, Path
from flowcore.plain import to_plain
from flowcore.references import ParamText, escape, escape_but_params
from flowcore.settings import ParamSpec, Settings
from flowcore.shapes import type_name
from flowcore.values import MAX_DEPTH, ValueFormError, encodable, plain_key
from flowcore.workflow import NodeSpec, Workflow

_ARROW_LENGTH = 2_000


def to_document(workflow: Workflow, *, local_types: bool = False) -> dict[str, object]:
    """The workflow as dicts, lists and scalars that any codec carries.

    Args:
        workflow: params need not be filled; references stay references.
        local_types: write nodes whose function or class was given to `add` by their type's name. Who loads
            the result must make those types known (`--nodes MODULE`); without this they are refused.

    Raises:
        ValidationFailedError: something has no plain form (an object in a configuration, a local type, a
            text with a lone surrogate outside configurations); every problem is listed.
    """
    findings = Findings()
    document = _Writer(findings, local_types=local_types).workflow(workflow, ())
    findings.raise_if_any("dump of the workflow")
    return document


class _Writer:
    """Writes one workflow and those inside it."""

    def __init__(self, findings: Findings, *, local_types: bool) -> None:
        self._findings = findings
        self._local_types = local_types

    def workflow(self, workflow: Workflow, at: Path) -> dict[str, object]:
        document: dict[str, object] = {"name": self._escaped(workflow.name, (*at, "name"))}
        for name, text, default in (
            ("id", workflow.id, None),
            ("version", workflow.version, "1"),
            ("description", workflow.description, ""),
        ):
            if text != default:
                document[name] = self._escaped(text, (*at, name))
        params = {name: self._param(spec, (*at, "params", name)) for name, spec in workflow.params.items()}
        settings = self._settings(workflow.settings, (*at, "settings"))
        document |= {name: part for name, part in (("params", params), ("settings", settings)) if part}
        document["nodes"] = {
            str(name): self._node(spec, workflow, (*at, "nodes", name))
            for name, spec in workflow.nodes.items()
        }
        if workflow.connections:
            document["connections"] = [
                self._connection(connection, (*at, "connections", index))
                for index, connection in enumerate(workflow.connections)
            ]
        return document

    def _settings(self, settings: Settings, at: Path) -> object:
        said = settings.plain()
        written = self._escaped({name: v for name, v in said.items() if name != "dead_letter"}, at)
        place = settings.dead_letter
        if place is None:
            return written
        config = self._value(dict(place.config), (*at, "dead_letter", "config"))
        where = {"type": self._escaped(place.type, (*at, "dead_letter", "type"))}
        return {
            **cast("dict[str, object]", written),
            "dead_letter": where | ({"config": config} if config else {}),
        }

    def _param(self, spec: ParamSpec, at: Path) -> dict[str, object]:
        written: dict[str, object] = {}
        if spec.kind is not None:
            written["kind"] = spec.kind
        if spec.default is not msgspec.UNSET:
            written["default"] = self._value(spec.default, (*at, "default"))
        if spec.description:
            written["description"] = self._escaped(spec.description, (*at, "description"))
        return written

    def _node(self, spec: NodeSpec, workflow: Workflow, at: Path) -> dict[str, object]:
        if spec.type in workflow.local_types and not self._local_types:
            local = workflow.local_types[spec.type]
            self._findings.add(
                (*at, "type"),
                f"type {spec.type!r} exists in code only ({_location(local)})",
                remedy="dump with local_types=True and load with that module known (--nodes MODULE)",
            )
        config = cast("dict[str, object]", self._value(dict(spec.config), (*at, "config")))
        if spec.workflow is not None:
            config = {"workflow": self.workflow(spec.workflow, (*at, "config", "workflow")), **config}
        key = {} if spec.policies.key is None else {"key": self._expression(spec.policies.key, (*at, "key"))}
        plain = spec.policies.plain()
        on_error = (
            {"on_error": self._value(plain.pop("on_error"), (*at, "on_error"))} if "on_error" in plain else {}
        )
        policies = {name: v for name, v in plain.items() if name != "key"}
        described = (
            {"description": self._escaped(spec.description, (*at, "description"))} if spec.description else {}
        )
        return (
            {"type": self._escaped(spec.type, (*at, "type"))}
            | ({"config": config} if config else {})
            | described
            | key
            | cast("dict[str, object]", self._escaped(policies, at))
            | on_error
        )

    def _connection(self, connection: Connection, at: Path) -> object:
        arrow = str(connection)
        natural = "error" if connection.from_port == ERROR_PORT else "data"
        if connection.kind == natural and len(arrow) <= _ARROW_LENGTH:
            return self._escaped(arrow, at)
        written: dict[str, object] = {"from_node": str(connection.from_node)}
        if connection.from_port != DEFAULT_OUT:
            written["from_port"] = connection.from_port
        if connection.from_path:
            written["from_path"] = self._escaped(list(connection.from_path), (*at, "from_path"))
        written["to_node"] = str(connection.to_node)
        if connection.to_port is not None:
            written["to_port"] = connection.to_port
        if not connection.from_path:
            written = {"from": connection.source_text, "to": connection.target_text}
        if connection.when is not None:
            written["when"] = self._expression(connection.when, (*at, "when"))
        if connection.otherwise:
            written["else"] = True
        if not connection.when_error:
            written["when_error"] = False
        if connection.kind != "conditional":
            written["kind"] = connection.kind
        return written

    def _expression(self, text: str, at: Path) -> object:
        self._check_encodable(text, at)
        return escape_but_params(text)

    def _escaped(self, data: object, at: Path) -> object:
        """Plain data whose texts are taken as they are when it is read again."""
        if isinstance(data, str):
            self._check_encodable(data, at)
            return escape(data)
        if isinstance(data, list):
            return [
                self._escaped(item, (*at, index)) for index, item in enumerate(cast("list[object]", data))
            ]
        if isinstance(data, Mapping):
            pairs = cast("Mapping[str, object]", data).items()
            return {name: self._escaped(item, (*at, name)) for name, item in pairs}
        return data

    def _value(self, value: object, at: Path) -> object:  # noqa: PLR0911 - one return per kind
        """A configuration value in plain form, literal texts escaped."""
        try:
            if len(at) > MAX_DEPTH:
                self._findings.add(at[:6], f"is nested deeper than {MAX_DEPTH} levels")
                return None
            if isinstance(value, ParamText):
                self._check_encodable(value.source(), at)
                return value.source()
            if type(value) is str and encodable(value):
                return escape(value)
            if type(value) is list:
                return [
                    self._value(item, (*at, index)) for index, item in enumerate(cast("list[object]", value))
                ]
            if type(value) is dict:
                pairs = cast("dict[object, object]", value).items()
                return {plain_key(key, ()): self._value(item, (*at, str(key))) for key, item in pairs}
            return _escape_form(to_plain(value))
        except ValueFormError as fault:
            self._findings.add(at, str(fault).removeprefix("value "))
            return None

    def _check_encodable(self, text: str, at: Path) -> None:
        if not encodable(text):
            self._findings.add(at, "holds a lone surrogate, which no file can hold", value=text)


def _escape_form(data: object) -> object:
    """The texts inside a `$` form, escaped: a `$json` may hold `${`."""
    if isinstance(data, dict):
        return {key: _escape_form(item) for key, item in cast("dict[str, object]", data).items()}
    return escape(data) if isinstance(data, str) else data


def _location(local: object) -> str:
    return f"{getattr(local, '__module__', '?')}:{getattr(local, '__qualname__', type_name(local))}"
