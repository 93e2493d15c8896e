"""Workflows whose rows may be held in a continuous run: where those rows come back, and where they cannot.

Owns: `holding`: the graph with a hidden source in front of each node that holds rows.
Does not own: storing and returning rows (holds), validation as a whole (compile).

The rule: a row that is back is a record of its own, so what follows from it must follow from it alone. Nodes
that need it together with rows of the record it was held from are refused; where connections meet at one port
nothing is needed together.

Always holds: a graph without such nodes is the same object, and compiles to the same chain. In the others the
chains of their own sources are the same, too: the hidden sources have chains of their own.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from flowcore.assignable import is_stream
from flowcore.connector import Assigned, Reader, Source
from flowcore.definition import ConnectorDefinition, NodeDefinition
from flowcore.durations import format_duration
from flowcore.errors import EngineError, Problem, ValidationFailedError
from flowcore.policies import NodePolicies
from flowruntime.compile.asking import policy_of
from flowruntime.compile.lower import scope_faults
from flowruntime.compile.resolved import ResolvedConnection, ResolvedGraph, ResolvedNode
from flowruntime.durable.holder import Holder

if TYPE_CHECKING:
    from flowcore.context import SourceContext

_IN_RUNS: Final = "workflow in a continuous run"
_UNTOLD: Final = ("batch", "operator")


class ReturnedRows(Source[None, Any]):
    """Stands for the rows that come back to one node; the run reads them from its store."""

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned]:
        del ctx
        yield Assigned("0")

    async def open(self, partition: str, resume: Any, ctx: SourceContext) -> Reader[Any]:
        del partition, resume, ctx
        raise EngineError("rows that come back are read by the run that holds them")


_RETURNED: Final = ConnectorDefinition(
    type="flow.returned", role="source", implementation=ReturnedRows, config_type=None
)


def holders_of(graph: ResolvedGraph) -> dict[str, Holder]:
    """The nodes of a continuous run that may hold rows, by id."""
    by_port: dict[str, dict[str, list[ResolvedConnection]]] = defaultdict(lambda: defaultdict(list))
    found = {
        node_id: delays
        for node_id, node in graph.nodes.items()
        if (delays := _delays(graph, node)) is not None
    }
    for connection in graph.connections if found else ():
        if connection.to_node in found and connection.to_port is not None:
            by_port[connection.to_node][connection.to_port].append(connection)
    return {
        node_id: Holder(
            node_id=node_id,
            delays=delays,
            ports=tuple(port.name for port in graph.nodes[node_id].definition.inputs),
            annotations={
                port: _annotation(graph, graph.nodes[node_id], port, connections)
                for port, connections in by_port[node_id].items()
            },
        )
        for node_id, delays in found.items()
    }


def _delays(graph: ResolvedGraph, node: ResolvedNode) -> bool | None:
    """Whether a node holds rows until their time has come (True) or an answer (False); None: neither."""
    if not isinstance(node.definition, NodeDefinition):
        return None
    if node.definition.waits:
        return False
    return True if max(delay_of(node), deferral_of(node)) > graph.settings.max_hold else None


def delay_of(node: ResolvedNode) -> timedelta:
    """How long a node holds each row by its configuration; nothing for those that do not say."""
    definition = node.definition
    if not isinstance(definition, NodeDefinition) or definition.delays is None:
        return timedelta(0)
    found = getattr(node.config, definition.delays, None)
    return found if isinstance(found, timedelta) else timedelta(0)


def deferral_of(node: ResolvedNode) -> timedelta:
    """How long a row may wait at most for the next window of a budget.

    Only a call for one row waits for one: those of a batch have several, and a Stream is read later.
    """
    definition = node.definition
    if not isinstance(definition, NodeDefinition) or definition.kind != "map" or definition.batched:
        return timedelta(0)
    if any(is_stream(port.annotation) for port in definition.outputs):
        return timedelta(0)
    policy = policy_of(node)
    budgets = () if policy is None else policy.budgets
    windows = [
        budget.window for budget in budgets if budget.reaction == "defer" and budget.window is not None
    ]
    return max(windows, default=timedelta(0))


def held_for(node: ResolvedNode) -> str:
    """Why, and for how long, a node holds its rows; for messages."""
    delay, deferral = delay_of(node), deferral_of(node)
    if delay >= deferral:
        return f"holds its rows for {format_duration(delay)}"
    return f"lets its rows wait for a budget's next window, {format_duration(deferral)} at most"


def _annotation(
    graph: ResolvedGraph, node: ResolvedNode, port: str, connections: list[ResolvedConnection]
) -> Any:
    """Of what comes in at a port: its own, or of the one port it comes from where that says more."""
    found = node.definition.input(port)
    mine = Any if found is None else found.annotation
    if mine is not Any or len(connections) != 1 or connections[0].path or connections[0].kind == "error":
        return mine
    sender = graph.nodes[connections[0].from_node].definition.output(connections[0].from_port)
    return Any if sender is None else sender.annotation


def holding(graph: ResolvedGraph) -> ResolvedGraph:
    """The graph of a continuous run whose rows may be held; itself when none of its nodes holds any.

    Raises:
        ValidationFailedError: rows that come back could not go on, or could not be told apart.
    """
    holders = holders_of(graph)
    if not holders:
        return graph
    connections = list(graph.connections)
    sources: dict[str, ResolvedNode] = {}
    returns: dict[str, Holder] = {}
    for holder in holders.values():
        source = f"{holder.node_id}.returned"
        sources[source] = ResolvedNode(source, _RETURNED, None, {}, NodePolicies())
        returns[source] = holder
        connections += [
            ResolvedConnection(
                index=len(connections) + number,
                from_node=source,
                from_port="out",
                path=() if len(holder.annotations) == 1 else (port,),
                to_node=holder.node_id,
                to_port=port,
                kind="data",
            )
            for number, port in enumerate(holder.annotations)
        ]
    changed = dataclasses.replace(
        graph, nodes={**sources, **graph.nodes}, connections=tuple(connections), returns=returns
    )
    problems = [*_untold(graph, holders), *_together(graph, holders), *_scopes(changed)]
    if problems:
        raise ValidationFailedError(problems, what=_IN_RUNS)
    return changed


def _untold(graph: ResolvedGraph, holders: Mapping[str, Holder]) -> Iterable[Problem]:
    """Nodes before a holder whose rows stem from several records, so that one is not known again."""
    following, before = _neighbours(graph)
    del following
    for node_id in holders:
        for other in _reach(before, node_id):
            node = graph.nodes[other]
            if node.role in _UNTOLD:
                yield _problem(
                    graph.nodes[node_id],
                    f"may hold rows, and those come from {other!r}, a {node.role}, whose rows cannot be told "
                    "apart when a record is read again",
                    f"put it before {other!r}, or use control.collect for the rows of one record",
                )


def _together(graph: ResolvedGraph, holders: Mapping[str, Holder]) -> Iterable[Problem]:
    """Nodes behind a holder that need its rows together with rows that do not come from it."""
    following, _ = _neighbours(graph)
    incoming: dict[str, list[ResolvedConnection]] = defaultdict(list)
    for connection in graph.connections:
        incoming[connection.to_node].append(connection)
    for holder in holders:
        behind = {holder, *_reach(following, holder)}
        for node_id in sorted(behind - {holder}, key=list(graph.nodes).index):
            node = graph.nodes[node_id]
            if node.role == "sink" or (_meets_at_one_port(node, incoming[node_id])):
                continue
            strangers = sorted({each.from_node for each in incoming[node_id] if each.from_node not in behind})
            if strangers:
                yield _problem(
                    node,
                    f"needs rows of {', '.join(map(repr, strangers))} together with rows of {holder!r}, "
                    "which may be held, and come back as records of their own",
                    f"take everything from behind {holder!r}: pass it through there, or let the branches "
                    "meet at one port (control.merge)",
                )


def _meets_at_one_port(node: ResolvedNode, incoming: list[ResolvedConnection]) -> bool:
    ports = {each.to_port for each in incoming}
    if len(ports) != 1 or None in ports:
        return False
    port = node.definition.input(next(iter(ports)) or "")
    return port is not None and not port.gather


def _scopes(graph: ResolvedGraph) -> Iterable[Problem]:
    """Nodes that close what was opened before the holder."""
    for source, holder in graph.returns.items():
        for fault in scope_faults(graph, mode="stream", sources=[source]):
            yield _problem(
                fault.node,
                f"takes the rows of one record together, and {holder.node_id!r} may hold some of them, which "
                "come back as records of their own",
                f"expand behind {holder.node_id!r}, or collect before it",
            )


def _problem(node: ResolvedNode, message: str, remedy: str) -> Problem:
    return Problem(
        path=f"nodes.{node.id}", message=f"({node.definition.type}) {message}", remedy=remedy, line=node.line
    )


def _neighbours(graph: ResolvedGraph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    following: dict[str, list[str]] = defaultdict(list)
    before: dict[str, list[str]] = defaultdict(list)
    for connection in graph.connections:
        following[connection.from_node].append(connection.to_node)
        before[connection.to_node].append(connection.from_node)
    return following, before


def _reach(neighbours: Mapping[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [*neighbours.get(start, ())]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left.extend(neighbours.get(node, ()))
    return seen


def refuse_in_streams(graph: ResolvedGraph) -> None:
    """`rt.stream` gives one outcome per item, and an item that waits for an answer has none.

    Raises:
        ValidationFailedError: some node may wait for an answer.
    """
    found = [holder.node_id for holder in holders_of(graph).values() if not holder.delays]
    problems = [
        _problem(
            graph.nodes[node_id],
            "waits for an answer, and rt.stream gives an outcome for each item, which an item that "
            "waits has not",
            "run each item as a request (runtime.execute), or use a continuous run (runtime.start, flow run)",
        )
        for node_id in found
    ]
    if problems:
        raise ValidationFailedError(problems, what="workflow of rt.stream")


def refuse_without_store(graph: ResolvedGraph) -> None:
    """Rows that are held must outlive the process: their records are committed.

    Raises:
        ValidationFailedError: the runtime was told of no store.
    """
    limit = format_duration(graph.settings.max_hold)
    problems: list[Problem] = []
    for holder in graph.returns.values():
        node = graph.nodes[holder.node_id]
        remedy = "name a store: store in flow.toml, FlowRuntime(store='sqlite:.flow/flow.sqlite')"
        message = "waits for an answer"
        if holder.delays:
            message = f"{held_for(node)}, longer than max_hold ({limit})"
            remedy += "; or raise settings.max_hold, and they stay in memory"
        problems.append(
            _problem(node, f"{message}: its rows are stored meanwhile, and this runtime has no store", remedy)
        )
    raise ValidationFailedError(problems, what=_IN_RUNS)
