"""Standing in for nodes by name: a test or a trial run puts a function in the place of a node.

Owns: making the stand-in's definition. Does not own: running it.

Always holds: the stand-in has the node's ports; what it needs beyond them it declares itself (a context, a
generator).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from flowcore.definition import NodeDefinition
from flowcore.errors import DefinitionError
from flowcore.findings import did_you_mean
from flowcore.node import definition_of, node
from flowcore.policies import NodePolicies
from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode


def replaced(graph: ResolvedGraph, replace: Mapping[str, Any]) -> ResolvedGraph:
    """The graph with functions, or constant values, in the place of some nodes.

    Raises:
        DefinitionError: no node has that id, or a source or sink is named, or the parameters do not fit its
            ports.
    """
    if not replace:
        return graph
    nodes = dict(graph.nodes)
    for node_id, stand_in in replace.items():
        if node_id not in nodes:
            raise DefinitionError(
                f"replace: there is no node {node_id!r}; {did_you_mean(node_id, list(nodes))}"
            )
        nodes[node_id] = _stand_in(nodes[node_id], stand_in)
    return dataclasses.replace(graph, nodes=nodes)


def _stand_in(old: ResolvedNode, stand_in: Any) -> ResolvedNode:
    if old.role in ("source", "sink", "operator", "collect", "batch", "merge"):
        raise DefinitionError(
            f"replace: node {old.id!r} is a {old.role}; only nodes that map, filter or expand rows can be "
            "replaced. Give a source's values as the request's input instead; a sink is captured then"
        )
    function: Callable[..., Any] = stand_in if callable(stand_in) else _constant(stand_in)
    definition = definition_of(function)
    if definition is None:
        declare = node(old.definition.type, kind="filter" if old.role == "filter" else None)
        definition = definition_of(declare(_copy(function)))
    assert definition is not None  # noqa: S101 - `node` gave it one
    ports = len(old.node.inputs)
    taken = len(definition.inputs)
    if taken != ports and stand_in is function:
        raise DefinitionError(
            f"replace: the stand-in for {old.id!r} takes {taken} inputs, but the node has {ports} input "
            f"ports ({', '.join(port.name for port in old.node.inputs)})"
        )
    made: NodeDefinition = msgspec.structs.replace(
        definition,
        inputs=old.node.inputs,
        outputs=old.node.outputs,
        structured_output=old.node.structured_output,
        exclusive_outputs=old.node.exclusive_outputs,
        config_type=None,
        batched=False,
        offload=None,
        computes=None,
    )
    policies = (
        msgspec.structs.replace(old.policies, batch=None) if old.policies.batch is not None else old.policies
    )
    return dataclasses.replace(old, definition=made, config=None, policies=policies or NodePolicies())


def _constant(value: Any) -> Callable[..., Any]:
    def constant(*values: Any) -> Any:
        del values
        return value

    return constant


def _copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function object of its own, so that the caller's gets no definition; takes ports by position."""
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if inspect.iscoroutinefunction(function):

        async def stand_in_async(*values: Any, **context: Any) -> Any:
            return await function(*values, **context)

        copy: Callable[..., Any] = stand_in_async
    elif inspect.isgeneratorfunction(function):

        def stand_in_generator(*values: Any, **context: Any) -> Any:
            yield from function(*values, **context)

        copy = stand_in_generator
    else:

        def stand_in(*values: Any, **context: Any) -> Any:
            return function(*values, **context)

        copy = stand_in
    copy.__signature__ = inspect.signature(function).replace(
        parameters=[
            parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if name in names or parameter.kind is parameter.KEYWORD_ONLY
        ]
    )
    copy.__annotations__ = dict(getattr(function, "__annotations__", {}))
    copy.__name__ = getattr(function, "__name__", "stand_in")
    return copy
