"""A sink that keeps what it is given, with the time of each row.

Owns: `collected`, `CollectedSink`. Does not own: putting it in the place of a sink
    (flowruntime.testing.running).

Always holds: `values` are the rows in the order written; a refused row is not among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.errors import SinkError

Refuse = Callable[[Any], Exception | None]


class Received(NamedTuple):
    """One row as a sink got it."""

    value: Any
    at_s: float
    """The loop's time: virtual on virtual time."""
    key: object


class CollectedConfig(msgspec.Struct, frozen=True):
    """A collected sink is made in code."""


class CollectedSink(Sink[CollectedConfig, Any], type="flow.collected"):
    """See `collected`.

    Settles         when `write` returns.
    Fails by row    what `refuse` gives for it.
    Holds           every row written.
    """

    def __init__(self, refuse: Refuse | None = None) -> None:
        super().__init__(CollectedConfig())
        self._refuse = refuse
        self._is_open = False
        self.rows: list[Received] = []
        self.refused: list[Any] = []
        """Values it would not take."""
        self.writes = 0
        self.finished = False
        self.closed = False

    @property
    def values(self) -> list[Any]:
        """What was written."""
        return [row.value for row in self.rows]

    async def open(self, ctx: SinkContext) -> None:
        del ctx
        self._is_open = True
        self.closed = False

    async def write(self, batch: Rows[Any]) -> Mapping[int, Exception]:
        if not self._is_open:
            raise SinkError("a collected sink is not open and was written")
        now = asyncio.get_running_loop().time()
        self.writes += 1
        failed: dict[int, Exception] = {}
        for index, value in enumerate(batch.values):
            error = None if self._refuse is None else self._refuse(value)
            if error is not None:
                failed[index] = error
                self.refused.append(value)
            else:
                self.rows.append(Received(value, now, None if batch.keys is None else batch.keys[index]))
        return failed

    async def finish(self) -> None:
        self.finished = True

    async def close(self) -> None:
        self._is_open = False
        self.closed = True


def collected(*, refuse: Refuse | None = None) -> CollectedSink:
    """A sink that keeps its rows: `run_workflow(workflow, source, sinks={"alerts": sink})`; `sink.values`.

    Args:
        refuse: gives the exception a row fails with, or None to take it.
    """
    return CollectedSink(refuse)
