"""Rows of a continuous run that come back: read from its store, pushed where they waited.

Owns: `ReturnTask`, `ReturnReader`: the columns of rows that are back, telling when each of them is settled.
Does not own: finding, taking and marking them (flowruntime.durable.holds), the chain.

Always holds: a row that is back is read within credit, as every record; it has the key, headers, event time
and record it had, and a state of its own; it is told to be settled once, and only when it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from flowcore.connector import Credit, Position, Rows
from flowruntime.durable.holding import given_of, record_of
from flowruntime.execute.execution import Past
from flowruntime.execute.task import Control, SourceTask

if TYPE_CHECKING:
    from flowcore.dead_letters import Origin
    from flowcore.frame import Failure, Opened
    from flowruntime.durable.held import HeldRow
    from flowruntime.durable.holder import Holder
    from flowruntime.durable.holding import Returned, RowHolds
    from flowruntime.durable.holds import Holds
    from flowruntime.execute.execution import Execution
    from flowruntime.execute.worker import Worker


class ReturnReader:
    """Reads the rows that come back to one node."""

    def __init__(self, holds: Holds, holder: Holder) -> None:
        self._holds = holds
        self._holder = holder

    async def read(self, credit: Credit) -> Rows[Any] | None:
        returned = await self._holds.take(self._holder.node_id, credit.rows)
        return None if returned is None else ReturnedRows(returned, self._holder)

    async def commit(self, position: Position) -> None:
        del position  # each row is marked by itself

    async def close(self) -> None:
        pass


class ReturnedRows(Rows[Any]):
    """What is pushed of rows that are back; one that cannot be read any more is an error."""

    __slots__ = ("given", "returned")

    def __init__(self, returned: Sequence[Returned], holder: Holder) -> None:
        self.returned = returned
        self.given: list[Mapping[str, Any]] = []
        errors: dict[int, Exception] = {}
        for index, each in enumerate(returned):
            try:
                self.given.append(given_of(each.row, holder))
            except Exception as error:  # noqa: BLE001 - whatever a user's type raises, it is the row's failure
                errors[index] = error
                self.given.append(dict.fromkeys(holder.annotations))
        values = [next(iter(each.values())) if len(each) == 1 else dict(each) for each in self.given]
        super().__init__(
            values,
            keys=[each.row.key for each in returned],
            times=[each.row.event_time for each in returned],  # pyright: ignore[reportArgumentType] - None: the record has none
            headers=[each.row.headers for each in returned],
            errors=errors,
        )


class _Unlimited:
    """The run, as a task knows it whose rows are no records of a source: they do not count for `limit`."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def take(self, rows: int) -> int:
        return rows

    def give_back(self, rows: int) -> None:
        del rows


class ReturnTask(SourceTask):
    """Pushes the rows that come back to one node.

    Args:
        control: the run.
        worker: of the run.
        source: the hidden source's id.
        program: lowered for it.
        holds: of the run.
        rows: of this task's chain.
    """

    def __init__(self, control: Control, worker: Worker, source: str, program: Any, holds: Holds) -> None:
        graph = worker.graph
        self._holds = holds
        self._rows: RowHolds | None = None
        self._pushed: dict[Opened, Sequence[Any]] = {}
        """By frame, where rows may go through the chain again."""
        reader = ReturnReader(holds, graph.returns[source])
        unlimited: Any = _Unlimited(control)
        super().__init__(
            unlimited, worker, graph.nodes[source], "0", reader, program, on_settled=self._on_row_settled
        )

    def returns_to(self, rows: RowHolds) -> None:
        """Where nodes of the chain ask for their answers."""
        self._rows = rows
        self.kernel.holds = rows

    @property
    def is_past(self) -> bool:
        return True

    def _root(self, rows: Rows[Any]) -> Opened:
        assert isinstance(rows, ReturnedRows)  # noqa: S101 - of our own reader
        opened = self.kernel.open_root(
            self._scope,
            len(rows.values),
            records=[
                self._record(each.row, given) for each, given in zip(rows.returned, rows.given, strict=True)
            ],
            keys=rows.keys,
            times=rows.times,
            headers=rows.headers,
        )
        assert self._rows is not None  # noqa: S101 - told before the first row is read
        self._rows.returned[opened] = rows.returned
        if self._retries:
            self._pushed[opened] = rows.values
        return opened

    def _record(self, row: HeldRow, given: Mapping[str, Any]) -> Any:
        source = self._worker.graph.nodes.get(row.place.source)
        row_type = Any if source is None else source.definition.outputs[0].annotation
        return record_of(row, given, row_type)

    def execution(self, opened: Opened, row: int) -> Execution:
        execution = super().execution(opened, row)
        if execution.past is None and self._rows is not None:
            held = self._rows.returned[opened][row].row
            execution.past = Past(_origin(held), held.key, held.headers, held.event_time)
        return execution

    def _on_row_settled(self, opened: Opened, rows: Sequence[int]) -> None:
        assert self._rows is not None  # noqa: S101 - told before the first row is read
        returned = self._rows.returned[opened]
        if not self.kernel.closed:  # else they are told of because the run ends without them
            failures: Mapping[int, Failure] = opened.failures or {}
            for row in rows:
                self._holds.settled(returned[row].id, failures.get(row))
        if opened.ledger.open_rows == 0 or self.kernel.closed:
            self._rows.returned.pop(opened, None)
            self._pushed.pop(opened, None)

    def _value_of(self, root: Opened, row: int) -> Any:
        return self._pushed[root][row]

    async def commit(self) -> None:
        """Mark settled rows as done; each is for itself, whatever is before it."""
        self._settled_position()  # lets go of frames
        await self._holds.mark_done()


def _origin(row: HeldRow) -> Origin:
    return msgspec.structs.replace(row.first_origin, key=row.key, headers=row.headers, event_time=row.time)
