"""Storing rows that wait, in groups: one commit for many.

Owns: `HoldWriter`, and telling of each row that is new.
Does not own: what is stored of a row (held, holding), when it comes back (ready, holds).

Always holds: what `keep` gave is done only when the row is durable, or failed; one row that cannot be stored
is no other row's failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from flowcore.events import RowHeld
from flowcore.store_errors import StoreError, StoreInputError
from flowcore.waits import Wait
from flowruntime.crashpoints import crash_point
from flowruntime.durable.holding import open_waits
from flowruntime.state.store.entries import Held, new_execution

if TYPE_CHECKING:
    from flowruntime.durable.held import HeldRow
    from flowruntime.events.bus import EventBus
    from flowruntime.state.store.entries import WorkflowHead
    from flowruntime.state.store.protocol import Store

_GROUP: Final = 256
"""Rows of one commit."""
_PAUSES_S: Final = (0.1, 0.5, 2.0)
"""Before each further attempt to reach a store that is away."""


class HoldWriter:
    """Stores rows of one run.

    Args:
        store: where.
        workflow: the version the run works with, as it is stored.
        bus: told of rows that are new.
        workflow_id: for events.
        written: called with the time at which a row that is stored is due, and with None when all are stored.
    """

    def __init__(
        self,
        store: Store,
        workflow: WorkflowHead,
        bus: EventBus,
        workflow_id: str,
        written: Callable[[float | None], None],
    ) -> None:
        self._store = store
        self._head = workflow
        self._bus = bus
        self._workflow_id = workflow_id
        self._written = written
        self._queue: list[tuple[Held, asyncio.Future[bool]]] = []
        self._writer: asyncio.Task[None] | None = None
        self.known = 0
        """Rows that were stored before: their records were read again."""

    def __len__(self) -> int:
        """Rows that wait to be stored."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing is being stored."""
        return not self._queue and self._writer is None

    async def until_idle(self) -> None:
        """Return when nothing is being stored any more."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    def keep(self, id: str, row: HeldRow, waits: Sequence[Wait]) -> asyncio.Future[bool]:
        """Store a row with what it waits for, together with whatever else is to be stored.

        Returns:
            Done when it is durable: whether it is new. Its exception is the store's.
        """
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[bool] = loop.create_future()
        execution = new_execution(id, self._head, row.to_data(), at=waits[0].created_at)
        self._queue.append((Held(execution=execution, waits=tuple(waits)), kept))
        if self._writer is None:
            self._writer = loop.create_task(self._write(), name=f"flow holds {self._workflow_id}")
        return kept

    async def _write(self) -> None:
        while self._queue:
            taken, self._queue = self._queue[:_GROUP], self._queue[_GROUP:]
            by_id = {held.execution.id: held for held, _ in taken}
            try:
                crash_point("hold.before_store")
                came_of = await self._stored(list(by_id.values()))
                crash_point("hold.after_store")
            except BaseException:
                for _, kept in taken:
                    kept.cancel()
                raise
            self._tell_stored(by_id, came_of)
            for held, kept in taken:
                new = came_of[held.execution.id]
                if not kept.done():
                    kept.set_exception(new) if isinstance(new, Exception) else kept.set_result(new)
        self._writer = None
        self._written(None)

    def _tell_stored(self, held: Mapping[str, Held], came_of: Mapping[str, bool | Exception]) -> None:
        for id, each in held.items():
            self.known += came_of[id] is False
            if came_of[id] is not True:
                continue
            self._tell_held(id, each)
            due = [wait.expires_at for wait in each.waits if wait.expires_at is not None]
            if due:
                self._written(min(due))

    async def _stored(self, held: Sequence[Held]) -> dict[str, bool | Exception]:
        """By id whether it is new, or why it could not be stored.

        In one commit; where one of them cannot be stored, in one for each.
        """
        try:
            there = await self._put(held)
        except StoreInputError as error:
            if len(held) == 1:
                return {held[0].execution.id: error}
            alone = [await self._stored([each]) for each in held]
            return {id: new for each in alone for id, new in each.items()}
        except Exception as error:  # noqa: BLE001 - of the store; it is the failure of every row of the group
            return {each.execution.id: error for each in held}
        return {each.execution.id: each.execution.id not in there for each in held}

    async def _put(self, held: Sequence[Held]) -> frozenset[str]:
        """One commit; a store that is away for a moment is asked again."""
        for pause_s in _PAUSES_S:
            try:
                return await self._store.executions.hold(held)
            except StoreError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(pause_s)
        return await self._store.executions.hold(held)

    def _tell_held(self, id: str, held: Held) -> None:
        bus = self._bus
        if bus.active and bus.wants(RowHeld):
            bus.publish(
                RowHeld(
                    workflow_id=self._workflow_id,
                    execution_id=id,
                    node=held.waits[0].node,
                    row_id=id,
                    waits=open_waits(held.waits),
                )
            )
