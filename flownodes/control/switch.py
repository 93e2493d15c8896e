"""control.switch: many ways out, the first match wins."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.definition import Port
from flowcore.errors import ConfigError
from flowcore.expression import Expression
from flowcore.findings import shown
from flowcore.node import Node, Outputs
from flownodes.conditions import is_true

OTHERWISE: Final = "otherwise"
_CASE = r"^[A-Za-z][A-Za-z0-9_]*$"


class SwitchConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of control.switch."""

    cases: Annotated[
        dict[Annotated[str, Meta(pattern=_CASE, max_length=100)], Expression],
        Meta(
            min_length=1, max_length=1_000, description="port: expression over `value`; tried in this order"
        ),
    ]

    def __post_init__(self) -> None:
        for name in self.cases:
            if not _is_port(name):
                raise ConfigError(
                    f"cases: {shown(name)} cannot name a port; choose a word that is no Python keyword, nor "
                    f"{OTHERWISE!r}, which takes the rows no case takes"
                )


class SwitchIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class SwitchOut(Outputs):
    """Output ports: one per case, and `otherwise`."""

    otherwise: Any | UnsetType = UNSET


class Switch(
    Node[SwitchConfig, SwitchIn, SwitchOut], type="control.switch", exclusive_outputs=True, deterministic=True
):
    """Passes the value on at the port of the first case that is true of it, else at `otherwise`.

    `cases: {urgent: "value.priority > 8", bill: "value.topic == 'bill'"}` makes the ports `urgent`, `bill`
    and `otherwise`. The branches are exclusive and may meet again in one port without a new scope.

    Emits when      always, at exactly one port.
    Drops           nothing: a port that is not connected counts the row as unrouted.
    Fails when      a case tried has no value, or one that is neither true nor false.
    Cost            the cases up to the first match, and one small object a row.
    """

    def __init__(self, config: SwitchConfig) -> None:
        super().__init__(config)
        self._out: Final[type[Any]] = msgspec.defstruct(
            "SwitchOut",
            [(name, Any, UNSET) for name in config.cases],
            bases=(SwitchOut,),
            module=__name__,
            kw_only=True,
        )
        self._cases: Final[list[tuple[Expression, str]]] = [
            (when, name) for name, when in config.cases.items()
        ]

    @classmethod
    def outputs_for(cls, config: Mapping[str, Any]) -> tuple[Port, ...]:
        cases = config.get("cases")
        names = [str(name) for name in cases if _is_port(name)] if isinstance(cases, Mapping) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - as written, not yet checked
        return tuple(Port(name=name, required=False) for name in (*names, OTHERWISE))

    def execute(self, inputs: SwitchIn, ctx: NodeContext) -> SwitchOut:
        value = inputs.value
        for when, name in self._cases:
            if is_true(when, value):
                return self._out(**{name: value})
        return self._out(otherwise=value)


def _is_port(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name) and name != OTHERWISE
