"""Factories: from a definition and a configuration to something that can be called.

Owns: the hook that compiles expressions in configurations, making instances, describing a type as plain data.
Does not own: finding types (flowruntime.registry), resolving secrets (the runtime, when it makes the node).

Always holds: an instance is made only from a configuration without problems; a description is JSON-able.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flowcore.assignable import type_text
from flowcore.config import ConfigHook, decode_config, read_secret
from flowcore.config_schema import config_schema
from flowcore.definition import ConnectorDefinition, Definition, NodeDefinition, Port
from flowcore.expression import Expression, Template
from flowcore.findings import Path
from flowcore.shapes import type_name
from flowcore.values import Secret


@dataclass(frozen=True, slots=True, eq=False)
class DefinitionFactory:
    """One node type, made from its definition; see `flowcore.registry.NodeFactory`."""

    definition: Definition

    def create(self, config: Mapping[str, Any]) -> Any:
        """A function with its configuration bound, a transformer for an operator, or an instance of a class.

        Raises:
            ConfigError: with every problem found.
        """
        definition = self.definition
        path = (*definition.type.split("."), "config")
        decoded = decode_config(definition.config_type, config, path=path, hook=config_hook(definition))
        return instantiate(definition, decoded)

    def metadata(self) -> Mapping[str, Any]:
        """Description, category, ports with types, config schema, policies: plain JSON-able data."""
        definition = self.definition
        common = {
            "type": definition.type,
            "description": definition.description,
            "category": definition.category,
            "inputs": [_describe_port(port) for port in definition.inputs],
            "outputs": [_describe_port(port) for port in output_ports(definition)],
            "config": config_schema(definition.config_type),
        }
        if isinstance(definition, ConnectorDefinition):
            return {**common, "kind": definition.role}
        return {
            **common,
            "kind": definition.kind,
            "async": definition.is_async,
            "offload": definition.offload,
            "idempotent": definition.idempotent,
            "deterministic": definition.deterministic,
            "settles": definition.settles,
            "policies": definition.policies.plain(),
        }


def instantiate(definition: Definition, config: Any) -> Any:
    """What runs: a function with `config` bound, an operator's transformer, or an instance of a class.

    Args:
        definition: of the node, source or sink.
        config: the decoded configuration with its secrets resolved; None when the type takes none.
    """
    implementation = definition.implementation
    if isinstance(definition, ConnectorDefinition) or definition.is_class:
        return implementation(config)
    if definition.kind == "operator":
        return implementation(config) if inspect.signature(implementation).parameters else implementation()
    if config is None:
        return implementation
    return functools.partial(
        implementation, **{name: getattr(config, name) for name in config.__struct_fields__}
    )


def output_ports(definition: Definition) -> tuple[Port, ...]:
    """The output ports with the types that really leave them: a filter lets its first input through."""
    if isinstance(definition, NodeDefinition) and definition.kind == "filter" and definition.inputs:
        annotation = definition.inputs[0].annotation
        return tuple(msgspec.structs.replace(port, annotation=annotation) for port in definition.outputs)
    return definition.outputs


def config_hook(definition: Definition) -> ConfigHook:
    """Reads Expression, Template and Secret fields; expressions see the node's input ports."""
    variables = tuple(port.name for port in definition.inputs)
    condition = getattr(definition, "computes", None) if getattr(definition, "kind", "") == "filter" else None

    def read(kind: type, value: object, path: Path) -> object:
        if issubclass(kind, Secret):
            return read_secret(value)
        if isinstance(value, kind):  # built by hand, in code
            return value
        from flowruntime.compile.expressions.api import compile_expression
        from flowruntime.compile.expressions.template import compile_template

        if issubclass(kind, Template):
            compiled = compile_template(value, variables=variables)
            return Template(repr(value), compiled, compiled, _shape(value))
        text = expression_text(value)
        result = "bool" if condition is not None and path[-1] == condition else "any"
        expression = compile_expression(text, variables=variables, result=result)
        return Expression(text, expression, expression)

    return read


def expression_text(value: object) -> str:
    """The text of an expression; a file may write `true` or `3` without quotes.

    Raises:
        ValueError: the value is no text, boolean or number.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"must be an expression, not {type_name(value)}")


def _shape(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownVariableType] - keys were checked


def _describe_port(port: Port) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": port.name,
        "type": type_text(port.annotation),
        "required": port.required,
    }
    if port.gather:
        described["gather"] = True
    if port.default is not msgspec.UNSET:
        described["default"] = _plain(port.default)
    if port.description:
        described["description"] = port.description
    return described


def _plain(value: object) -> object:
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError):  # no plain form: shown as Python shows it
        return repr(value)
