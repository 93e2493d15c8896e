"""Nodes resolved: type looked up, configuration decoded, policies merged, key compiled.

Owns: the rules for one node by itself.
Does not own: connections (wiring), the shape of the graph (topology), which policy fits which kind
(applicable).

Always holds: a node whose type is known is resolved, if need be without its configuration, so that the
rules for connections still apply to it; every fault is a finding of the workflow it was declared in; what
could not be read of a draft is known to nobody, so no rule that needs it speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flowcore.config import read_config
from flowcore.definition import Definition, NodeDefinition
from flowcore.draft import UNREADABLE
from flowcore.errors import ExpressionError, FlowError
from flowcore.findings import Findings, Path, did_you_mean, near_words, path_text
from flowcore.on_error import Fallback, OnErrorSetting, RetryWorkflow, word_of
from flowcore.policies import POLICY_NAMES, Concurrency, NodePolicies, merge_policies
from flowcore.registry import NodeRegistry
from flowcore.settings import Settings
from flowcore.workflow import NodeSpec
from flowruntime.compile.applicable import accepted, applicable, misplaced, role_of
from flowruntime.compile.expressions.api import CompiledExpression, Result, compile_expression
from flowruntime.compile.fallback import resolve_fallback
from flowruntime.compile.inline import Flat, FlatNode
from flowruntime.compile.resolved import ResolvedFallback, ResolvedNode
from flowruntime.factories import config_hook

KEY_VARIABLES: Final = ("record", "value", "key", "headers")
_UNSAID: Final = Settings()
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
        found = None if spec.type == UNREADABLE else self.of_type(spec.type)
        if found is None or isinstance(found, FlowError):
            return None
        return found.for_config(spec.config) if isinstance(found, NodeDefinition) else found

    def meant(self, spec: NodeSpec) -> Definition | None:
        """The definition an unknown type was probably meant to name; None when none comes near."""
        near = near_words(spec.type, self._registry.types())
        found = self.of_type(near[0]) if near else None
        return None if isinstance(found, FlowError) else found


def resolve_nodes(flat: Flat, definitions: Definitions) -> dict[str, ResolvedNode]:
    """Every node whose type is known, in order of declaration; faults go to the findings of its workflow."""
    resolved: dict[str, ResolvedNode] = {}
    for node in flat.nodes.values():
        definition = definitions.of(node.spec)
        if definition is not None:
            resolved[node.id] = _resolve(node, definition, flat)
        elif node.spec.type != UNREADABLE:
            _report_type(node, definitions.of_type(node.spec.type))
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


def _resolve(node: FlatNode, definition: Definition, flat: Flat) -> ResolvedNode:
    spec, findings = node.spec, node.origin.findings
    config = _read_config(node, definition)
    layers = _layers(node, definition, flat.settings)
    policies = merge_policies(*layers)
    _check_policies(node, definition, policies, flat)
    key = None
    if policies.key is not None and not node.doubts("key"):
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
        said_by=_said_by(node, definition, flat.settings),
        key=key,
        attempts=_attempts(definition, layers, flat.settings),
        fallback=None if node.doubts("on_error") else _fallback(node, definition, layers),
        line=findings.mark_of(node.path).line,
    )


def _read_config(node: FlatNode, definition: Definition) -> Any:
    """The configuration; UNSET where it is wrong, or not all of it could be read."""
    findings, at = node.origin.findings, (*node.path, "config")
    unread = node.origin.workflow.refused.under(at)
    if unread.covers(()):
        node.ports_known = False
        return msgspec.UNSET
    attempt = findings.branch()
    raw = _without_policies(dict(node.spec.config), definition, at, attempt)
    config = read_config(definition.config_type, raw, path=at, findings=attempt, hook=config_hook(definition))
    texts = [path_text((*at, *place)) for place in unread.places]
    found = [
        problem
        for problem in attempt.problems
        if problem.path in attempt.unknown
        or not any(_within(problem.path, text) or _within(text, problem.path) for text in texts)
    ]
    findings.problems.extend(found)
    if unread or any(_is_shallow(problem.path, path_text(at)) for problem in found):
        node.ports_known = not isinstance(definition, NodeDefinition) or definition.outputs_of is None
    return msgspec.UNSET if unread else config


def _without_policies(
    config: dict[str, Any], definition: Definition, at: Path, findings: Findings
) -> dict[str, Any]:
    """The configuration without policies written into it by mistake, which are noted."""
    if not any(name in POLICY_NAMES for name in config):
        return config
    struct = definition.config_type
    fields: set[str] = set()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
        fields = {field.encode_name for field in msgspec.structs.fields(struct)}
    for name in [name for name in config if name in POLICY_NAMES and name not in fields]:
        message = f"{name} is no configuration of {definition.type!r}, but a policy of the node"
        remedy = f"write it beside config: {{type: {definition.type}, {name}: ...}}"
        findings.add((*at, name), message, value=config.pop(name), remedy=remedy)
    return config


def _within(path: str, around: str) -> bool:
    """Whether a path is another one or below it."""
    return path == around or path.startswith((f"{around}.", f"{around}["))


def _is_shallow(path: str, config: str) -> bool:
    """Whether a problem concerns a field of the configuration itself, not something inside one."""
    below = path[len(config) + 1 :]
    return "." not in below and "[" not in below


def _report_type(node: FlatNode, fault: Definition | FlowError) -> None:
    remedy = str(getattr(fault, "remedy", ""))
    message = str(fault).removesuffix(f"; {remedy}") if remedy else str(fault)
    node.origin.findings.add((*node.path, "type"), message, remedy=remedy)


# --- policies ---


def _layers(node: FlatNode, definition: Definition, settings: Settings) -> list[NodePolicies]:
    """What speaks for a node, the highest precedence first."""
    around = [applicable(definition, policies) for policies in node.origin.defaults]
    declared = [definition.policies] if isinstance(definition, NodeDefinition) else []
    return [node.spec.policies, *around, *declared, settings.as_policies()]


def _said_by(node: FlatNode, definition: Definition, settings: Settings) -> dict[str, str]:
    """Who says each policy in effect, by name of the policy."""
    around = ["the node around it", "the settings around it"] * len(node.origin.defaults)
    names = ["the node", *around[: len(node.origin.defaults)]]
    if isinstance(definition, NodeDefinition):
        names.append("its type")
    said: dict[str, str] = {}
    for name, layer in zip([*names, "settings"], _layers(node, definition, settings), strict=True):
        for policy in POLICY_NAMES:
            if getattr(layer, policy) is not None:
                said.setdefault(policy, name)
    for policy, name in said.items():
        # A setting that was left out cannot be told from one that says what it would be anyway.
        if name == "settings" and getattr(settings, policy) == getattr(_UNSAID, policy):
            said[policy] = "default"
    return said


def _fallback(
    node: FlatNode, definition: Definition, layers: Sequence[NodePolicies]
) -> ResolvedFallback | None:
    said = [layer.on_error for layer in layers if layer.on_error is not None]
    otherwise = word_of(_settled_on(layers))
    findings, at = node.origin.findings, _said_at(node, "on_error")
    return resolve_fallback(definition, said[0], otherwise, findings, at)


def _settled_on(layers: Sequence[NodePolicies]) -> OnErrorSetting:
    """What is done with a row that no fallback is for."""
    for layer in layers:
        said = layer.on_error
        if said is not None and not isinstance(said, Fallback):
            return said
    return "stop_workflow"


def _attempts(definition: Definition, layers: Sequence[NodePolicies], settings: Settings) -> int:
    on_error = _settled_on(layers)
    if not isinstance(on_error, RetryWorkflow) or role_of(definition) == "source":
        return 1
    return settings.workflow_attempts if on_error.max_attempts is None else on_error.max_attempts


def _check_policies(node: FlatNode, definition: Definition, policies: NodePolicies, flat: Flat) -> None:
    findings, settings = node.origin.findings, flat.settings
    layers = [node.spec.policies, *([definition.policies] if isinstance(definition, NodeDefinition) else [])]
    for name, message, remedy in misplaced(definition, merge_policies(*layers)):
        value = _plain_policy(layers, name)
        findings.add(_said_at(node, name), f"{name} {message}", remedy=remedy, value=value)
    if "key" in accepted(definition):
        _check_key(node, policies)
    _check_order(node, definition, policies)
    if not flat.refuses("settings", "limits"):
        _check_resource(node, policies, settings)
    batch, budget = policies.batch, settings.max_in_flight
    if batch is not None and budget is not None and batch.max_items > budget:
        findings.add(
            _said_at(node, "batch"),
            f"a batch of {batch.max_items} rows never fills: only {budget} may be in flight",
            remedy="lower batch.max_items or raise settings.max_in_flight",
            value=batch.max_items,
        )


def _check_resource(node: FlatNode, policies: NodePolicies, settings: Settings) -> None:
    """A resource must be something that is limited, or that a breaker or retry budget is shared by."""
    name, limits = policies.resource, settings.limits
    known = {*limits.resources, *limits.rates}
    if name is None or name in known or policies.breaker is not None or policies.retry is not None:
        return
    node.origin.findings.add(
        _said_at(node, "resource"),
        "names no resource of settings.limits, and the node has no breaker or retry to share",
        remedy=did_you_mean(name, known) or f"add settings: {{limits: {{resources: {{{name}: 8}}}}}}",
        value=name,
    )


def _check_key(node: FlatNode, policies: NodePolicies) -> None:
    if node.doubts("key") or node.doubts("concurrency"):
        return
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


def _check_order(node: FlatNode, definition: Definition, policies: NodePolicies) -> None:
    """Parts of `concurrency` that would have no effect."""
    concurrency, findings = policies.concurrency, node.origin.findings
    if concurrency is None:
        return
    path = _said_at(node, "concurrency")
    if concurrency.order is not None and role_of(definition) == "dripping":
        findings.add(
            path,
            f"order does not apply to an asynchronous generator ({definition.type!r}): its children leave as "
            "they come",
            remedy="remove it; control.collect puts the children of a row in order",
            value=concurrency.order,
        )
    elif concurrency.order != "by_key" and concurrency.max_queued_per_key != Concurrency().max_queued_per_key:
        findings.add(
            path,
            "max_queued_per_key has no effect without order by_key",
            remedy="add order: by_key and a key, or remove it",
            value=concurrency.max_queued_per_key,
        )


def _said_at(node: FlatNode, name: str) -> Path:
    """Where a policy was said: at the node, else at its type."""
    return (*node.path, name if getattr(node.spec.policies, name) is not None else "type")


def _plain_policy(layers: list[NodePolicies], name: str) -> object:
    said = (layer.plain().get(name, _UNSEEN) for layer in layers if getattr(layer, name) is not None)
    return next(said, msgspec.UNSET)
