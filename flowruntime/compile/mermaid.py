"""A plan as a Mermaid flowchart: nodes as the user declared them, fused stages as frames around them.

Owns: the picture's text.
Does not own: what is in the plan.

Always holds: ids in the picture are made up (`n0`, `s0`) and labels are escaped, so any name can be drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowruntime.compile.description import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowruntime.compile.plan import Plan
    from flowruntime.compile.resolved import ResolvedConnection, ResolvedNode

_LABEL: Final = 40


def mermaid(plan: Plan) -> str:
    """The plan as text that GitHub and Mermaid draw."""
    names = {node_id: f"n{index}" for index, node_id in enumerate(plan.graph.nodes)}
    return "\n".join(["flowchart LR", *_stages(plan, names), *_connections(plan, names)]) + "\n"


def _stages(plan: Plan, names: dict[str, str]) -> Iterator[str]:
    drawn: set[str] = set()
    for stage in plan.stages:
        nodes = nodes_of(stage)
        drawn.update(node.id for node in nodes)
        if len(nodes) == 1:
            yield f"    {_node(nodes[0], names)}"
        elif nodes:
            yield f'    subgraph s{stage.index}["{stage.index} {_text(stage.kind)}"]'
            yield from (f"        {_node(node, names)}" for node in nodes)
            yield "    end"
    for node in plan.graph.nodes.values():
        if node.id not in drawn:  # no row reaches it in this mode
            yield f"    {_node(node, names)}"


def _node(node: ResolvedNode, names: dict[str, str]) -> str:
    label = f'"{_text(node.id)}<br/>{_text(node.definition.type)}"'
    before, after = {"source": ("([", "])"), "sink": ("[(", ")]")}.get(node.role, ("[", "]"))
    return f"{names[node.id]}{before}{label}{after}"


def _connections(plan: Plan, names: dict[str, str]) -> Iterator[str]:
    for connection in plan.graph.connections:
        arrow = "-.->" if connection.kind in ("control", "error") else "-->"
        label = _label(connection)
        shown = f'|"{_text(label)}"|' if label else ""
        yield f"    {names[connection.from_node]} {arrow}{shown} {names[connection.to_node]}"


def _label(connection: ResolvedConnection) -> str:
    if connection.kind in ("control", "error"):
        return connection.kind
    if connection.when is not None:
        text = " ".join(connection.when.text.split())
        return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."
    if connection.otherwise:
        return "else"
    return ".".join(connection.path)


def _text(text: str) -> str:
    """Text inside quotes of a Mermaid label."""
    for character, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("\n", " ")):
        text = text.replace(character, entity)
    return text
