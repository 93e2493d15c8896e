"""Nodes resolved: type looked up, configuration decoded, policies merged, key compiled.

Owns: the rules for one node by itself.
Does not own: connections (wiring), the shape of the graph (topology), which policy fits which kind
(applicable).

Always holds: a node whose type is known is resolved, if need be without its configuration, so that the
rules for connections still apply to it; every fault is a finding of the workflow it was declared in.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowcore.config import read_config
from flowcore.definition import Definition, NodeDefinition
from flowcore.errors import ExpressionError, FlowError
from flowcore.findings import Findings, Path, did_you_mean
from flowcore.policies import NodePolicies, merge_policies
from flowcore.registry import NodeRegistry
from flowcore.settings import Settings
from flowcore.workflow import NodeSpec
from flowruntime.compile.applicable import applicable, misplaced
from flowruntime.compile.expressions.api import CompiledExpression, Result, compile_expression
from flowruntime.compile.inline import Flat, FlatNode
from flowruntime.compile.resolved import ResolvedNode
from flowruntime.factories import config_hook

KEY_VARIABLES: Final = ("record", "value", "key", "headers")
_UNSEEN: Final = object()


class Definitions:
    """Definitions of the types one validation asks for, each looked up once."""

    def __init__(self, registry: NodeRegistry) -> None:
        self._registry = registry
        self._found: dict[str, Definition | FlowError] = {}

    def of_type(self, type_name: str) -> Definition | FlowError:
        """The definition, or why there is none."""
        if type_name not in self._found:
            try:
                self._found[type_name] = self._registry.factory(type_name).definition
            except FlowError as fault:
                self._found[type_name] = fault
        return self._found[type_name]

    def of(self, spec: NodeSpec) -> Definition | None:
        """The definition of a node, with the ports its configuration gives it; None for an unknown type."""
        found = self.of_type(spec.type)
        if isinstance(found, FlowError):
            return None
        return found.for_config(spec.config) if isinstance(found, NodeDefinition) else found


def resolve_nodes(flat: Flat, definitions: Definitions) -> dict[str, ResolvedNode]:
    """Every node whose type is known, in order of declaration; faults go to the findings of its workflow."""
    resolved: dict[str, ResolvedNode] = {}
    for node in flat.nodes.values():
        definition = definitions.of(node.spec)
        if definition is None:
            _report_type(node, definitions.of_type(node.spec.type))
        else:
            resolved[node.id] = _resolve(node, definition, flat.settings)
    return resolved


def compile_checked(
    text: str, *, variables: tuple[str, ...], result: Result, findings: Findings, path: Path
) -> CompiledExpression | None:
    """The compiled expression, or None after noting why it does not compile."""
    try:
        return compile_expression(text, variables=variables, result=result)
    except ExpressionError as fault:
        findings.add(path, f"does not compile: {fault.reason}", remedy=fault.remedy, value=text)
    return None


def _resolve(node: FlatNode, definition: Definition, settings: Settings) -> ResolvedNode:
    spec, findings = node.spec, node.origin.findings
    config: Any = read_config(
        definition.config_type,
        dict(spec.config),
        path=(*node.path, "config"),
        findings=findings,
        hook=config_hook(definition),
    )
    policies = _policies(node, definition, settings)
    _check_policies(node, definition, policies, settings)
    key = None
    if policies.key is not None:
        path = _said_at(node, "key")
        key = compile_checked(
            policies.key, variables=KEY_VARIABLES, result="any", findings=findings, path=path
        )
    return ResolvedNode(
        id=node.id,
        definition=definition,
        config=None if config is msgspec.UNSET else config,
        raw_config=dict(spec.config),
        policies=policies,
        key=key,
        line=findings.mark_of(node.path).line,
    )


def _report_type(node: FlatNode, fault: Definition | FlowError) -> None:
    remedy = str(getattr(fault, "remedy", ""))
    message = str(fault).removesuffix(f"; {remedy}") if remedy else str(fault)
    node.origin.findings.add((*node.path, "type"), message, remedy=remedy)


# --- policies ---


def _policies(node: FlatNode, definition: Definition, settings: Settings) -> NodePolicies:
    around = [applicable(definition, policies) for policies in node.origin.defaults]
    declared = [definition.policies] if isinstance(definition, NodeDefinition) else []
    return merge_policies(node.spec.policies, *around, *declared, settings.as_policies())


def _check_policies(
    node: FlatNode, definition: Definition, policies: NodePolicies, settings: Settings
) -> None:
    findings = node.origin.findings
    layers = [node.spec.policies, *([definition.policies] if isinstance(definition, NodeDefinition) else [])]
    for name, message, remedy in misplaced(definition, merge_policies(*layers)):
        value = _plain_policy(layers, name)
        findings.add(_said_at(node, name), f"{name} {message}", remedy=remedy, value=value)
    _check_key(node, policies)
    if policies.resource is not None and policies.resource not in settings.limits.resources:
        findings.add(
            _said_at(node, "resource"),
            "names no resource of settings.limits.resources",
            remedy=did_you_mean(policies.resource, settings.limits.resources)
            or f"add settings: {{limits: {{resources: {{{policies.resource}: 8}}}}}}",
            value=policies.resource,
        )
    batch, budget = policies.batch, settings.max_in_flight
    if batch is not None and budget is not None and batch.max_items > budget:
        findings.add(
            _said_at(node, "batch"),
            f"a batch of {batch.max_items} rows never fills: only {budget} may be in flight",
            remedy="lower batch.max_items or raise settings.max_in_flight",
            value=batch.max_items,
        )


def _check_key(node: FlatNode, policies: NodePolicies) -> None:
    by_key = policies.concurrency is not None and policies.concurrency.order == "by_key"
    if by_key and policies.key is None:
        node.origin.findings.add(
            _said_at(node, "concurrency"),
            "order by_key needs a key",
            remedy="add key, for example key: record.customer_id",
        )
    elif policies.key is not None and not by_key:
        node.origin.findings.add(
            _said_at(node, "key"),
            "a key has no effect without order by_key",
            remedy="add concurrency: {max: 8, order: by_key}, or remove the key",
            value=policies.key,
        )


def _said_at(node: FlatNode, name: str) -> Path:
    """Where a policy was said: at the node, else at its type."""
    return (*node.path, name if getattr(node.spec.policies, name) is not None else "type")


def _plain_policy(layers: list[NodePolicies], name: str) -> object:
    said = (layer.plain().get(name, _UNSEEN) for layer in layers if getattr(layer, name) is not None)
    return next(said, msgspec.UNSET)
