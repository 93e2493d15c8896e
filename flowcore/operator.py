"""Raw operators: users' own observable transformers, opaque to the engine.

Owns: the `@operator` decorator. Generic over the stream type, so that flowcore needs no reactive library.
Does not own: subscribing, settlement (flowruntime.operators).

Always holds: `settles` is stated, because the engine cannot see through an operator. `on_entry`: a row is
answered for
when it enters, so nothing stronger than at-most-once can be promised. `explicit`: every Record is forwarded
(changed by
`with_value`) or answered with `drop()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar

import msgspec

from flowcore.definition import (
    NodeDefinition,
    Port,
    check_function,
    check_type_name,
    resolve_annotations,
)
from flowcore.errors import DefinitionError
from flowcore.policies import NodePolicies

F = TypeVar("F", bound=Callable[..., Any])

_SETTLES: Final = ("on_entry", "explicit")


def operator(
    type: str,
    *,
    settles: Literal["on_entry", "explicit"],
    timeout: timedelta | None = None,
    category: str | None = None,
) -> Callable[[F], F]:
    """Declare a function `config -> (Observable[Record] -> Observable[Record])` as a node type.

    The function takes at most one parameter, its configuration struct. Subscribed once per task and per
    request.

    Args:
        type: dotted name.
        settles: when an input row is answered for, see the module.
        timeout: for `explicit`: a row unanswered for longer fails.
        category: the group it is listed under; the first part of `type` when not given.

    Raises:
        DefinitionError: the signature, or `settles`, cannot be used.
    """

    def declare(function: F) -> F:
        check_type_name(type, function)
        check_function(type, function, "operator")
        if settles not in _SETTLES:
            raise DefinitionError(
                f"operator {type!r}: settles={settles!r} is not one of {', '.join(_SETTLES)}", type=type
            )
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) > 1:
            raise DefinitionError(
                f"operator {type!r} takes {len(parameters)} parameters; it takes its configuration only",
                type=type,
            )
        annotations = resolve_annotations(function)
        config_type = annotations.get(parameters[0]) if parameters else None
        definition = NodeDefinition(
            type=type,
            kind="operator",
            implementation=function,
            inputs=(Port(name="value"),),
            outputs=(Port(name="out"),),
            config_type=config_type
            if inspect.isclass(config_type) and issubclass(config_type, msgspec.Struct)
            else None,
            policies=NodePolicies(timeout=timeout),
            is_async=False,
            is_class=False,
            settles=settles,
            category=category or type.partition(".")[0],
            description=inspect.getdoc(function) or "",
        )
        function.__flow_node__ = definition  # pyright: ignore[reportFunctionMemberAccess] - functions carry attributes
        return function

    return declare
