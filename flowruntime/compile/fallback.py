"""Fallbacks resolved: which node may have one, and whether the value fits its output.

Owns: the rules for `on_error: {fallback: VALUE}`.
Does not own: reading the value (flowcore.on_error), giving it to rows (operators).

Always holds: a fallback that comes back fits the node's output as far as its type is known; nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from flowcore.assignable import is_stream, mismatch, type_text
from flowcore.definition import NodeDefinition
from flowcore.findings import did_you_mean, shown
from flowcore.on_error import Fallback
from flowcore.plain import to_plain
from flowcore.sizes import size_up_to
from flowcore.values import ValueFormError
from flowruntime.compile.applicable import role_of
from flowruntime.compile.resolved import ResolvedFallback

if TYPE_CHECKING:
    from flowcore.definition import Definition, Port
    from flowcore.findings import Findings, Path
    from flowcore.on_error import OnError
    from flowruntime.compile.inline import Flat
    from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode

_NO_OUTPUT: Final = {
    "source": (
        "a source reads records, it does not make them of something that could be replaced",
        "say continue or dead_letter here",
    ),
    "sink": ("nothing leaves a sink", "say continue or dead_letter here"),
    "filter": (
        "what leaves a filter is the row it was given",
        "say continue: a row it fails on goes no further and is counted",
    ),
    "batch": (
        "a node that makes one row of many has no output for each of them",
        "give it to the node behind it, or say continue or dead_letter here",
    ),
    "operator": (
        "a raw operator answers for its rows itself",
        "let it forward record.with_value(...) of its own, or say continue or dead_letter here",
    ),
}
_SCALARS: Final = (type(None), bool, int, float, str, bytes)


def resolve_fallback(
    definition: Definition, said: object, otherwise: OnError, findings: Findings, path: Path
) -> ResolvedFallback | None:
    """The fallback of a node; None where it has none, or one that does not fit, which is noted.

    Args:
        definition: of the node, with the ports of its configuration.
        said: its policy `on_error`.
        otherwise: what the next layer says.
        findings: of the workflow it was declared in.
        path: where it was said.
    """
    if not isinstance(said, Fallback):
        return None
    kind = definition.kind if isinstance(definition, NodeDefinition) else definition.role
    unfit = _NO_OUTPUT.get(kind)
    if unfit is None and role_of(definition) == "entry":
        unfit = _NO_OUTPUT["operator"]
    if unfit is not None or not isinstance(definition, NodeDefinition):
        message, remedy = unfit or _NO_OUTPUT["sink"]
        findings.add(path, f"a fallback does not apply to {definition.type!r}: {message}", remedy=remedy)
        return None
    at = (*path, "fallback")
    value: Any = (
        _of_ports(definition, said.value, findings, at)
        if definition.structured_output
        else _of_port(definition.outputs[0], said.value, findings, at)
    )
    if value is msgspec.UNSET:
        return None
    return ResolvedFallback(value, said.value, otherwise, size_up_to(value, 1 << 62))


def check_error_ports(
    flat: Flat, nodes: Mapping[str, ResolvedNode], connections: Sequence[ResolvedConnection]
) -> None:
    """Note connections that would take a failed row which goes on with its fallback."""
    for connection in connections:
        if connection.kind == "error" and nodes[connection.from_node].fallback is not None:
            declared = flat.connections[connection.index]
            declared.origin.findings.add(
                declared.at,
                f"{connection.from_node!r} has a fallback: a row that fails there goes on with it, and none "
                "is left for the error port",
                remedy="keep one of the two",
                value=str(declared.declared),
            )


def _of_ports(definition: NodeDefinition, value: object, findings: Findings, at: Path) -> object:
    """A struct with a field per port; UNSET after noting what does not fit."""
    names = [port.name for port in definition.outputs]
    example = f"{{{names[0] if names else 'port'}: ...}}"
    if not isinstance(value, dict):
        message = f"must name output ports of {definition.type!r}, which has several"
        findings.add(at, message, remedy=f"write {{fallback: {example}}}", value=value)
        return msgspec.UNSET
    given = cast("dict[str, object]", value)
    unknown = [name for name in given if name not in names]
    for name in unknown:
        findings.add(
            (*at, name), f"{definition.type!r} has no such output port", remedy=did_you_mean(name, names)
        )
    if unknown:
        return msgspec.UNSET
    if definition.exclusive_outputs and len(given) > 1:
        findings.add(
            at, f"{definition.type!r} gives a row to one of its ports", remedy="name one", value=given
        )
        return msgspec.UNSET
    made: dict[str, object] = {}
    for port in definition.outputs:
        if port.name in given:
            made[port.name] = _of_port(port, given[port.name], findings, (*at, port.name))
    if msgspec.UNSET in made.values():
        return msgspec.UNSET
    return _struct_of(names)(**made)


def _of_port(port: Port, value: object, findings: Findings, at: Path) -> object:
    """The value as the port gives it; UNSET after noting why it does not fit."""
    annotation: Any = port.annotation
    if is_stream(annotation):
        findings.add(
            at,
            f"output {port.name!r} gives {type_text(annotation)}, which is live and made anew for each row",
            remedy="say continue or dead_letter, or put stream.collect behind it and the fallback there",
        )
        return msgspec.UNSET
    reason = mismatch(type(value), annotation) if type(value) in _SCALARS else None
    made = value
    if reason is None:
        try:
            made = msgspec.convert(value, annotation, strict=True, builtin_types=(bytes,))
        except msgspec.ValidationError as fault:
            reason = None if isinstance(annotation, type) and isinstance(value, annotation) else str(fault)
        except (TypeError, ValueError, NameError, AttributeError):
            return value  # a type msgspec knows nothing of; whoever takes the row will tell
    if reason is not None:
        findings.add(
            at,
            f"output {port.name!r} gives {type_text(annotation)}, and {shown(value)} is none ({reason})",
            remedy="give a value of that type",
        )
        return msgspec.UNSET
    return value if _is_plain(made) else made


def _is_plain(value: object) -> bool:
    try:
        to_plain(value)
    except ValueFormError:
        return False
    return True


def _struct_of(names: Sequence[str]) -> Any:
    """A struct with a field per port, as nodes with several ports give one."""
    fields: list[tuple[str, Any, Any]] = [(name, Any, msgspec.UNSET) for name in names]
    return msgspec.defstruct("FallbackPorts", fields, kw_only=True)
