"""What a node hands to `ctx.stream`, checked.

Owns: `iterator_of`, `checked_capacity`. Does not own: pulling it (production).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from flowcore.errors import ContractError


def checked_capacity(capacity: int, node_id: str) -> int:
    """The capacity of a stream.

    Raises:
        ContractError: it is no whole number of at least 1.
    """
    if type(capacity) is not int or capacity < 1:
        raise ContractError(
            f"node {node_id!r}: the capacity of a stream is a whole number of at least 1, not {capacity!r}",
            node=node_id,
        )
    return capacity


def iterator_of(items: Any, node_id: str) -> AsyncIterator[Any]:
    """The iterator of what is to be streamed; nothing is asked of it yet.

    Raises:
        ContractError: it is not asynchronous.
    """
    if isinstance(items, AsyncIterable):
        return aiter(items)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - of any element type
    hint = "for a list or a blocking iterator, write an async generator that yields its items"
    if asyncio.iscoroutine(items):
        items.close()
        hint = "it is a coroutine: a function with `yield` in it gives what is needed here"
    raise ContractError(
        f"node {node_id!r}: ctx.stream takes an asynchronous iterable, such as what an async generator "
        f"gives, not {type(items).__name__}; {hint}",
        node=node_id,
    )
