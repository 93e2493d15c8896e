"""What flows through a chain: frames of rows and in-band signals.

Owns: `Frame`, the cover rule's data, `Failure`, the signals.
Does not own: who is told when a row is settled (flowcore.settlement) or how frames move
(flowruntime.operators).

Always holds, on every edge: each row of a frame as its scope opened it is covered exactly once, by the parts
that
carry its `(scope, seq)`; a covered row is there as a value or absent with a reason: dropped by default,
else the `Failure` that is the root cause (failed, when it names the edge's own sender; skipped, when an
earlier node). Rows inside one part are in ascending order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Failure(msgspec.Struct, frozen=True):
    """Why a row is absent: the node that failed on it and its exception."""

    node: str
    error: BaseException
    attempts: int = 1


class Opened:
    """A frame as its scope opened it: what is known of its rows for as long as one of them is in flight.

    Holds one entry per column the source gave; nothing per row is added by a chain without filters.
    """

    __slots__ = (
        "charged",
        "cursor",
        "executions",
        "failures",
        "families",
        "first_index",
        "headers",
        "kept",
        "keys",
        "ledger",
        "members",
        "outcomes",
        "parents",
        "places",
        "positions",
        "records",
        "scope",
        "seq",
        "size",
        "times",
    )

    def __init__(  # noqa: PLR0913 - one keyword per column
        self,
        scope: str,
        seq: int,
        size: int,
        *,
        records: Sequence[Any] | None = None,
        keys: Sequence[object] | None = None,
        times: Sequence[object] | None = None,
        headers: Sequence[Mapping[str, object]] | None = None,
        positions: Sequence[object] | None = None,
        parents: Sequence[tuple[Opened, int]] | None = None,
    ) -> None:
        self.scope = scope
        """Id of the stage that opened the rows; the root scope's is the source's node id."""
        self.seq = seq
        """Dense within the scope."""
        self.size = size
        self.records = records
        self.keys = keys
        self.times = times
        self.headers = headers
        self.positions = positions
        self.parents = parents
        """For each row the row of the outer scope it came from; None in a root scope."""
        self.places: Sequence[int] | None = None
        """For each row its number among all children of its parent; only where executions are kept."""
        self.members: Sequence[Sequence[tuple[Opened, int]]] | None = None
        """For rows made of several rows (a batch): all of those; `parents` has the first."""
        self.ledger: Any = None
        """The runtime's settlement entry for this frame."""
        self.cursor: Any = None
        """Where the source stands once the whole frame is settled."""
        self.executions: Any = None
        """The runtime's per-row execution entries, made on first use."""
        self.families: Any = None
        """The runtime's entry per parent row, in scopes opened by an expand stage."""
        self.first_index = 0
        """Number of its first row among all rows its source gave."""
        self.outcomes: Any = None
        """What reached the ends of the workflow, by row; kept only where someone wants to know."""
        self.failures: dict[int, Failure] | None = None
        """The first failure of each row, kept likewise."""
        self.kept: Any = None
        """Values joins keep of this frame's rows for their children."""
        self.charged: list[int] | None = None
        """Bytes charged for what nodes made of each row; None: nothing for any of them."""

    def forget(self) -> None:
        """Let go of what was known of the rows, all settled; places and positions stay until committed."""
        self.records = self.keys = self.times = self.headers = None
        self.executions = self.outcomes = self.failures = self.kept = None

    def root(self, row: int) -> tuple[Opened, int]:
        """The root record a row descends from (the first of several parents)."""
        opened = self
        while opened.parents is not None:
            opened, row = opened.parents[row]
        return opened, row

    def order(self, row: int) -> tuple[int, ...]:
        """The place of a row among all rows of its root: its parents' places first, then its own."""
        if self.parents is None:
            return (self.seq, row)
        parent, parent_row = self.parents[row]
        return (*parent.order(parent_row), self.seq, row)

    def path(self, row: int) -> str:
        """The lineage of a row within its root record, the same whenever that runs again: `3/0`.

        Empty for the root row itself. Only where `places` are known.
        """
        opened, found = self, list[str]()
        while opened.parents is not None and opened.places is not None:
            found.append(str(opened.places[row]))
            opened, row = opened.parents[row]
        return "/".join(reversed(found))

    def roots(self, row: int) -> list[tuple[Opened, int]]:
        """Every root record a row descends from, each once."""
        if self.members is not None:
            return list(dict.fromkeys(root for opened, of in self.members[row] for root in opened.roots(of)))
        if self.parents is None:
            return [(self, row)]
        parent, parent_row = self.parents[row]
        return parent.roots(parent_row)

    def __repr__(self) -> str:
        return f"<Opened {self.scope}#{self.seq} rows={self.size}>"


class Frame(Generic[T]):
    """A part of an opened frame on one edge: the rows that are there, and the rows it covers."""

    __slots__ = ("_gone", "_rows", "covers", "failed", "opened", "values")

    def __init__(
        self,
        opened: Opened,
        values: list[T],
        rows: list[int] | None = None,
        covers: Sequence[int] | None = None,
        failed: dict[int, Failure] | None = None,
        gone: list[int] | None = None,
    ) -> None:
        self.opened = opened
        self.values = values
        self._rows = rows
        self._gone = gone
        """Of `rows`: those that have no value after all, ascending; worked out once someone asks `rows`."""
        self.covers = covers
        """The rows this part answers for; None: all of them. Always a superset of `rows`."""
        self.failed = failed
        """Covered rows that are absent because of a failure, with its root cause; None: none."""

    @property
    def rows(self) -> list[int] | None:
        """Index in the opened frame of each value; None: values are rows 0..size-1."""
        if self._gone is not None:
            gone = set(self._gone)
            every = range(self.opened.size) if self._rows is None else self._rows
            self._rows = [row for row in every if row not in gone]
            self._gone = None
        return self._rows

    @property
    def covered(self) -> Sequence[int]:
        """The rows this part answers for, always as a sequence."""
        return range(self.opened.size) if self.covers is None else self.covers

    @property
    def present(self) -> Sequence[int]:
        """The rows whose values are here, always as a sequence."""
        return range(self.opened.size) if self.rows is None else self.rows

    def __repr__(self) -> str:
        return f"<Frame {self.opened.scope}#{self.opened.seq} {len(self.values)} of {len(self.covered)} rows>"


class Watermark(msgspec.Struct, frozen=True):
    """No row with an earlier event time is expected after this one. Seconds since the epoch, UTC."""

    time_s: float


class Barrier(msgspec.Struct, frozen=True):
    """Everything before it belongs to epochs up to and including this one."""

    epoch: int


class End(msgspec.Struct, frozen=True):
    """Nothing follows on this edge."""


Signal = Watermark | Barrier | End
END = End()


class Record(Generic[T]):
    """One row as a raw operator sees it: a value and the duty to answer for it."""

    __slots__ = ("_origin", "value")

    def __init__(self, value: T, origin: object) -> None:
        self.value = value
        self._origin = origin

    def with_value(self, value: Any) -> Record[Any]:
        """The same row with another value; its origin, and so its settlement, is kept."""
        return Record(value, self._origin)

    def drop(self) -> Record[Any]:
        """Answer that this row yields nothing; forward the result like any record."""
        return Record(msgspec.UNSET, self._origin)

    @property
    def dropped(self) -> bool:
        return self.value is msgspec.UNSET

    @property
    def origin(self) -> object:
        """Opaque; equal for all records that stem from one row."""
        return self._origin

    def __repr__(self) -> str:
        return f"Record({self.value!r})"
