"""The end of lowering: stages that compute nothing are taken out, the others numbered, leaves counted.

Owns: `trimmed`, and `FAILED_ROWS`, by which a stage of failed rows is known.
Does not own: where stages stand (lower).

Always holds: a stage that only hands its input on is none; each scope has as many leaves as edges end its
rows, so that settlement counts them exactly. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flowcore.definition import ConnectorDefinition
from flowruntime.compile.plan import Edge, Out, Stage, Wire

_SCOPE_ENDS: Final = ("sink", "expand", "collect", "batch", "reopen", "operator")
FAILED_ROWS: Final = ConnectorDefinition(
    type="flow.failed", role="source", implementation=None, config_type=None
)
"""Stands for the rows of an error port, which no declared node gives."""


def trimmed(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that are left, numbered, with edges to each other; the leaves of each scope are counted.

    Args:
        stages: as they were placed; changed in place.
    """
    for stage in stages:
        stage.edges = [
            edge
            for first in stage.edges
            for edge in ([out.target for out in first.target.outs] if _is_trivial(first.target) else [first])
        ]
    kept = [stage for stage in stages if not _is_trivial(stage)]
    for index, stage in enumerate(kept):
        stage.index = index
        if (stage.is_leaf and stage.kind != "sink") or stage.kind == "merge":
            stage.scope.leaves += 1
        targets = [out.target for out in stage.outs] + stage.edges
        stage.scope.leaves += sum(1 for edge in targets if _ends_scope(edge))
        if len(stage.edges) + sum(1 for out in stage.outs if not _is_error(out)) > 1:
            stage.scope.linear = False
        for edge in targets:
            edge.target.follows_code |= bool(stage.calls)
    return kept


def _is_error(out: Out) -> bool:
    """It carries failed rows, which have no value on any other edge."""
    return any(isinstance(each, Wire) and each.connection.kind == "error" for each in out.arguments)


def _ends_scope(edge: Edge) -> bool:
    """The rows of an edge end at its target: it sends on none, or those of another scope only."""
    target = edge.target
    return target.kind in _SCOPE_ENDS or (
        target.kind == "join" and target.slots[edge.slot].scope is not target.scope
    )


def _is_trivial(stage: Stage) -> bool:
    """A fused stage behind another kind of stage that hands its input on as it is."""
    if stage.kind != "fused" or stage.calls or _has_failed_rows(stage):
        return False
    structured = (
        stage.root is not None
        and stage.root.role not in ("source", "sink")
        and stage.root.node.structured_output
    )
    return not structured and all(out.is_plain for out in stage.outs)


def _has_failed_rows(stage: Stage) -> bool:
    return stage.root is not None and stage.root.definition is FAILED_ROWS
