"""What a node that yields several rows gives, as a `wrap_node` sees it: rows that can be taken once.

Owns: `Once`, `AsyncOnce`. Does not own: pulling them (flowruntime.operators.expand).

Always holds: a second taking raises instead of yielding nothing, so that an answer kept for later (a cache)
never loses rows in silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from flowcore.errors import ContractError

_TAKEN = (
    "the rows of this node have been taken already: they are made while they are taken, once; to answer with "
    "them again keep a list of them"
)


class Once:
    """Rows of a plain generator."""

    __slots__ = ("_children", "_taken")

    def __init__(self, children: Iterable[Any]) -> None:
        self._children = children
        self._taken = False

    def __iter__(self) -> Iterator[Any]:
        if self._taken:
            raise ContractError(_TAKEN)
        self._taken = True
        return iter(self._children)


class AsyncOnce:
    """Rows of an asynchronous generator."""

    __slots__ = ("_children", "_taken")

    def __init__(self, children: AsyncIterable[Any]) -> None:
        self._children = children
        self._taken = False

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._taken:
            raise ContractError(_TAKEN)
        self._taken = True
        return aiter(self._children)
