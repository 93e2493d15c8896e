"""A source of given rows and a sink that keeps them: the ends of a stream measured for what is between.

Written on the public contract of connectors, like anybody's own; they do nothing but hand lists over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowcore.connector import Credit, Position, Rows, Sink, Source
from flowcore.context import SourceContext


class Nothing(msgspec.Struct, frozen=True):
    """No configuration."""


class ListReader:
    """Hands over as many rows as there is credit for."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._next = 0

    async def read(self, credit: Credit) -> Rows[Any] | None:
        """The next slice; None at the end."""
        start = self._next
        if start >= len(self._rows):
            return None
        self._next = min(start + credit.rows, len(self._rows))
        return Rows(list(self._rows[start : self._next]), next=self._next)

    async def commit(self, position: Position) -> None:
        """Nothing to remember."""

    async def close(self) -> None:
        """Nothing to release."""


def given(rows: Sequence[Any]) -> type[Source[Nothing, Any]]:
    """A source type `benchmark.given` whose rows are these."""

    class Given(Source[Nothing, Any], type="benchmark.given"):
        async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> ListReader:
            return ListReader(rows)

    return Given


class Box:
    """Where a sink puts its rows: a fresh list per run, so that freeing the last run's is not in the time."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def taken(self) -> list[Any]:
        """The rows of the run that has ended."""
        rows, self.rows = self.rows, []
        return rows


def kept(into: Box) -> type[Sink[Nothing, Any]]:
    """A sink type `benchmark.kept` that appends to the box."""

    class Kept(Sink[Nothing, Any], type="benchmark.kept"):
        async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
            into.rows.extend(batch.values)
            return {}

    return Kept
