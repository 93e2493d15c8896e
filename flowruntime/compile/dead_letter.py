"""The place of dead letters resolved: its sink looked up, its configuration decoded, its ability asked for.

Owns: the rules for `settings.dead_letter`, and for nodes that need it.
Does not own: the fields of the setting (flowcore.settings), keeping letters (connectors).

Always holds: nothing outside is touched; a node whose rows become dead letters has a place for them that can
be listed, edited and redriven, or the workflow does not validate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowcore.binding import config_params
from flowcore.config import read_config
from flowcore.definition import ConnectorDefinition
from flowcore.errors import FlowError
from flowcore.findings import Findings
from flowcore.on_error import RetryWorkflow
from flowruntime.compile.resolve import Definitions
from flowruntime.compile.resolved import ResolvedPlace, on_error_of
from flowruntime.factories import config_hook

if TYPE_CHECKING:
    from flowcore.on_error import OnErrorPolicy
    from flowcore.registry import NodeRegistry
    from flowcore.settings import DeadLetterPlace
    from flowruntime.compile.inline import Flat
    from flowruntime.compile.resolved import ResolvedNode

_AT: Final = ("settings", "dead_letter")
_ADD_ONE: Final = "add settings: {dead_letter: {type: files.sink, config: {path: dead.jsonl}}}"


def resolve_place(
    flat: Flat, nodes: Mapping[str, ResolvedNode], definitions: Definitions
) -> ResolvedPlace | None:
    """Where dead letters go; None where the workflow names no place, or a wrong one, which is noted."""
    place = flat.settings.dead_letter
    if place is None:
        _report_missing(flat, nodes)
        return None
    return place_at(place, definitions, flat.origins[0].findings)


def _report_missing(flat: Flat, nodes: Mapping[str, ResolvedNode]) -> None:
    """Nodes that need a place: each that says so itself, the others once where it is said for all."""
    message = "rows that fail would go to a dead letter, and the workflow names no place for one"
    for_all = False
    for node_id, node in nodes.items():
        if on_error_of(node, flat.settings) != "dead_letter":
            continue
        flat_node = flat.nodes[node_id]
        if _says_letter(flat_node.spec.policies.on_error):
            path = (*flat_node.path, "on_error")
        elif _says_letter(flat.settings.on_error):
            for_all = True
            continue
        else:  # its type says so, or the workflow it stands in
            path = (*flat_node.path, "type")
        flat_node.origin.findings.add(path, message, remedy=_ADD_ONE, value="dead_letter")
    if for_all or _says_letter(flat.settings.on_error):
        at = ("settings", "on_error")
        flat.origins[0].findings.add(at, message, remedy=_ADD_ONE, value="dead_letter")


def _says_letter(on_error: OnErrorPolicy | None) -> bool:
    return on_error == "dead_letter" or (
        isinstance(on_error, RetryWorkflow) and on_error.then == "dead_letter"
    )


def place_at(place: DeadLetterPlace, definitions: Definitions, findings: Findings) -> ResolvedPlace | None:
    """The place a setting names; None after noting what is wrong with it."""
    found = definitions.of_type(place.type)
    if isinstance(found, FlowError):
        remedy = str(getattr(found, "remedy", ""))
        message = str(found).removesuffix(f"; {remedy}") if remedy else str(found)
        findings.add((*_AT, "type"), message, remedy=remedy)
        return None
    hold: Any = getattr(found.implementation, "dead_letters", None)
    if not isinstance(found, ConnectorDefinition) or found.role != "sink" or hold is None:
        what = found.role if isinstance(found, ConnectorDefinition) else "node"
        findings.add(
            (*_AT, "type"),
            f"cannot hold dead letters: a {what} whose letters could not be listed, edited and redriven",
            remedy="use files.sink or sqlite.dead_letters, or connect the error port of nodes to this sink",
            value=place.type,
        )
        return None
    config: Any = read_config(
        found.config_type,
        dict(place.config),
        path=(*_AT, "config"),
        findings=findings,
        hook=config_hook(found),
    )
    if config is msgspec.UNSET or config_params(dict(place.config)):
        return None  # it was said that this place is no place for params
    try:
        hold(config)  # opens nothing
    except FlowError as fault:
        findings.add((*_AT, "config"), str(fault))
        return None
    return ResolvedPlace(place.type, dict(place.config), lambda: hold(config))


def place_for(place: DeadLetterPlace | None, registry: NodeRegistry) -> ResolvedPlace:
    """The place a setting names, for whoever has no workflow to run.

    Raises:
        ValidationFailedError: it names none, or one where no letters can be kept.
    """
    findings = Findings()
    if place is None:
        findings.add(_AT, "the workflow names no place for dead letters", remedy=_ADD_ONE)
    found = None if place is None else place_at(place, Definitions(registry), findings)
    findings.raise_if_any("place of dead letters")
    assert found is not None  # noqa: S101 - else there were findings
    return found
