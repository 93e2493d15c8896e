"""control.condition: two ways out, by an expression."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.expression import Expression
from flowcore.node import Node, Outputs
from flownodes.conditions import is_true


class ConditionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of control.condition."""

    when: Annotated[Expression, Meta(description="decides the port: true or false of `value`")]


class ConditionIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class ConditionOut(Outputs):
    """Output ports; one of them carries the value."""

    true: Any | UnsetType = UNSET
    false: Any | UnsetType = UNSET


class Condition(
    Node[ConditionConfig, ConditionIn, ConditionOut],
    type="control.condition",
    exclusive_outputs=True,
    deterministic=True,
):
    """Passes the value on at port `true` or `false`, by the expression `when`.

    The branches are exclusive and may meet again in one port without a new scope.

    Emits when      `when` has a value: at exactly one of the ports.
    Drops           nothing: a branch that is not connected counts the row as unrouted.
    Fails when      `when` has no value, or one that is neither true nor false.
    Cost            compiled expression and one small object a row; `when` on a connection is cheaper.
    """

    def execute(self, inputs: ConditionIn, ctx: NodeContext) -> ConditionOut:
        if is_true(self.config.when, inputs.value):
            return ConditionOut(true=inputs.value)
        return ConditionOut(false=inputs.value)
