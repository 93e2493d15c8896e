"""The contract of sources and sinks: what a connector implements and the runtime drives.

Owns: `Source`, `Reader`, `Sink`, `Rows`, `Credit`, `Assigned`, `Revoked` and their definitions.
Does not own: flow control, settlement, retries, supervision (the runtime); clients (the connector's folder).

Always holds: a source reads only within credit; a position is the next one to read; a sink's `write` returns
when the
rows are durable. Positions are plain JSON values, so that any store can keep them.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from flowcore.context import SinkContext, SourceContext
from flowcore.definition import ConnectorDefinition, type_arguments

C = TypeVar("C")
T = TypeVar("T")

Position = int | str | Mapping[str, Any]
"""Where a reader stands: the next row to read. JSON-able; its meaning is the connector's own."""


class Credit(msgspec.Struct, frozen=True):
    """How much a source may hand over now."""

    rows: int
    max_bytes: int | None = None
    """None: rows are the only bound. One row larger than this may pass alone."""


class Rows(Generic[T]):
    """Consecutive rows of one partition, with what the outside system says of them.

    values   one entry per row
    next     the position after the last row
    positions  per row, the position once this row and all before it are settled; None: only `next` is known
    keys, times, headers   per row; None: the system has none. `times` are aware datetimes
    errors   rows that were read but cannot be decoded, by index; their value is the raw input. They fail as
             rows of
             the source node; they are never left out
    nbytes   bytes read for them, charged against `max_bytes`; 0 when unknown
    """

    __slots__ = ("errors", "headers", "keys", "nbytes", "next", "positions", "times", "values")

    def __init__(
        self,
        values: list[T],
        *,
        next: Position | None = None,
        positions: Sequence[Position] | None = None,
        keys: Sequence[object] | None = None,
        times: Sequence[datetime] | None = None,
        headers: Sequence[Mapping[str, object]] | None = None,
        errors: Mapping[int, Exception] | None = None,
        nbytes: int = 0,
    ) -> None:
        self.values = values
        self.next = next
        self.positions = positions
        self.keys = keys
        self.times = times
        self.headers = headers
        self.errors = errors
        self.nbytes = nbytes

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Rows {len(self.values)} next={self.next!r}>"


class Assigned(msgspec.Struct, frozen=True):
    """This worker now reads the partition."""

    partition: str


class Revoked(msgspec.Struct, frozen=True):
    """This worker must stop reading the partition."""

    partition: str


@runtime_checkable
class Reader(Protocol[T]):
    """One partition being read, by one task at a time."""

    async def read(self, credit: Credit) -> Rows[T] | None:
        """At most `credit.rows` rows; waits for at least one. None: the end, nothing will follow.

        May be cancelled while it waits; rows it has not handed over must then come again.
        """
        ...

    async def commit(self, position: Position) -> None:
        """Everything before `position` is settled. Idempotent."""
        ...

    async def close(self) -> None:
        """Release everything; called once, also after a failure."""
        ...


class Source(ABC, Generic[C, T]):
    """A way in. `class Lines(Source[LinesConfig, str], type="files.lines")`; config is a msgspec struct."""

    __flow_connector__: ClassVar[ConnectorDefinition]
    positions: ClassVar[Literal["none", "runtime", "own"]] = "none"
    """Who keeps committed positions: nobody (not replayable), the runtime (in `.flow/positions.sqlite`), the
    system."""
    config: C

    def __init_subclass__(cls, *, type: str | None = None, push: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type is not None and not inspect.isabstract(cls):
            config_type, row_type = type_arguments(cls, Source)
            cls.__flow_connector__ = ConnectorDefinition.of(
                cls, type=type, role="source", config_type=config_type, row_type=row_type, push=push
            )

    def __init__(self, config: C) -> None:
        self.config = config

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
        """Partitions as they come and go. Static sources: one Assigned each, then the end."""
        del ctx
        yield Assigned("0")

    async def begin(self, partition: str, ctx: SourceContext) -> Position | None:
        """Where a partition without a position begins; None: `open` is given None.

        It is kept before anything is read, so that a crash before the first commit resumes there, whatever
        has become of the partition meanwhile. Only asked when the runtime keeps the positions.
        """
        del partition, ctx
        return None

    @abstractmethod
    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> Reader[T]:
        """A reader that begins at `resume`, or where the configuration says when it is None.

        Raises:
            PositionLostError: `resume` can no longer be reached; nothing is skipped in silence.
        """

    async def shutdown(self) -> None:
        """After the last reader is closed; always called."""


class Sink(ABC, Generic[C, T]):
    """A way out. `settles` says when a row is durable.

    on_write  `write` returns when its rows are durable (the default)
    at_end    rows are durable only when `finish` has returned (files replaced by a rename); positions are
              committed
              after that and not before
    """

    __flow_connector__: ClassVar[ConnectorDefinition]
    config: C
    settles: Literal["on_write", "at_end"] = "on_write"

    def __init_subclass__(cls, *, type: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type is not None and not inspect.isabstract(cls):
            config_type, row_type = type_arguments(cls, Sink)
            cls.__flow_connector__ = ConnectorDefinition.of(
                cls, type=type, role="sink", config_type=config_type, row_type=row_type, push=False
            )

    def __init__(self, config: C) -> None:
        self.config = config

    async def open(self, ctx: SinkContext) -> None:
        """Before the first write; fails early when the outside system refuses."""
        del ctx

    @abstractmethod
    async def write(self, batch: Rows[T]) -> Mapping[int, Exception]:
        """Make every row durable; the failed rows by index, an empty mapping when all went well.

        A raised exception means none of the rows is known to be durable.
        """

    async def finish(self) -> None:
        """All rows were written and nothing follows; not called when the run is cut short."""

    async def close(self) -> None:
        """Release everything; always called, also after a failure."""
