"""Configurations with their secrets looked up, for what is about to run.

Owns: `revealed`, `config_of`. Does not own: where a secret is looked for (secrets), reading configurations.

Always holds: what was validated, planned and stored keeps the names only; nodes are given their secrets when
a chain is made, sources and sinks when they are opened, so that one which stands in for another needs none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.config import with_secrets
from flowcore.errors import SecretNotFoundError
from flowcore.values import Secret, SecretRef

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode

Resolve = Callable[[str], Secret]


def revealed(graph: ResolvedGraph, resolve: Resolve) -> ResolvedGraph:
    """The graph whose nodes have their secrets; itself where none names any.

    Raises:
        SecretNotFoundError: one is not set; the message names the node.
    """
    changed = {
        node.id: dataclasses.replace(node, config=config_of(node, resolve))
        for node in graph.nodes.values()
        if node.role not in ("source", "sink") and _names_secret(node.config)
    }
    return graph if not changed else dataclasses.replace(graph, nodes={**graph.nodes, **changed})


def config_of(node: ResolvedNode, resolve: Resolve) -> Any:
    """The configuration of one node, source or sink with its secrets.

    Raises:
        SecretNotFoundError: one is not set; the message names the node.
    """
    if not _names_secret(node.config):
        return node.config
    try:
        return with_secrets(node.config, resolve)
    except SecretNotFoundError as missing:
        name = getattr(missing, "name", None)
        raise SecretNotFoundError(f"node {node.id!r}: {missing}", name=name, node=node.id) from missing


def _names_secret(value: Any) -> bool:
    if isinstance(value, SecretRef):
        return True
    if isinstance(value, msgspec.Struct):
        return any(_names_secret(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return any(map(_names_secret, value.values()))  # pyright: ignore[reportUnknownArgumentType] - plain data
    return isinstance(value, list | tuple) and any(map(_names_secret, value))  # pyright: ignore[reportUnknownArgumentType] - plain data
