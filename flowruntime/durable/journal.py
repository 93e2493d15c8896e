"""The journal of one execution: what its calls gave, what it waits for, and keeping both.

Owns: `ExecutionJournal`: the entries and waits that were there when this pass began, writing new ones in
groups, the state nodes share (`ctx.state`).
Does not own: rows and operators (rows), the execution's own entry in the store (keeper).

Always holds: `keep` is done when its entries are durable, or the execution has a `fault` and goes no further;
the first entry of a call stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flowcore.store_errors import StoreError
from flowruntime.crashpoints import crash_point
from flowruntime.durable.recorded import plain_copy
from flowruntime.state.store.codec import write_value
from flowruntime.state.store.entries import JournalEntry

if TYPE_CHECKING:
    from flowcore.waits import Wait
    from flowruntime.state.store.entries import ExecutionHead
    from flowruntime.state.store.protocol import Store

STATE: Final = "$state"
"""As the node of entries with what nodes share."""
_PAUSES_S: Final = (0.1, 0.5, 2.0)
"""Before each further attempt to reach a store that is away."""

Key = tuple[str, str, int]
"""Node, path, call."""


class ExecutionJournal:
    """What is kept of one execution, for one pass through its workflow.

    Args:
        store: where.
        head: of the execution, running and owned by this pass.
        entries: of earlier passes.
        waits: likewise.
        paused_s: how long it stood still before this pass; None: this is the first one.
    """

    def __init__(
        self,
        store: Store,
        head: ExecutionHead,
        *,
        entries: Sequence[JournalEntry] = (),
        waits: Sequence[Wait] = (),
        paused_s: float | None = None,
    ) -> None:
        self.store = store
        self.head = head
        self.paused_s = paused_s
        self.waits: Mapping[str, Wait] = {wait.id: wait for wait in waits}
        """Those of earlier passes, by id."""
        self.suspended: dict[str, Wait] = {}
        """Those some row of this pass waits for, by id."""
        self.fault: StoreError | None = None
        """Why nothing more can be kept: the store is gone."""
        self._entries: dict[Key, JournalEntry] = {(e.node, e.path, e.call): e for e in entries}
        self._queue: list[tuple[Sequence[JournalEntry], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        states = [entry for entry in entries if entry.node == STATE]
        self._state_number = 1 + max((entry.call for entry in states), default=-1)
        self.state: Mapping[str, Any] = max(states, key=lambda e: e.call).value if states else {}
        """What the nodes shared when the last pass ended."""
        self._state_text = write_value(dict(self.state), what=STATE)

    @property
    def execution_id(self) -> str:
        return self.head.id

    def find(self, node: str, path: str, call: int = 0) -> JournalEntry | None:
        """What an earlier pass has kept of a call."""
        return self._entries.get((node, path, call))

    def entry(
        self,
        node: str,
        path: str,
        *,
        call: int = 0,
        value: Any = None,
        failure: Mapping[str, Any] | None = None,
    ) -> JournalEntry:
        """An entry of this execution."""
        return JournalEntry(
            execution_id=self.head.id, node=node, path=path, call=call, value=value, failure=failure
        )

    def state_entries(self, shared: Mapping[str, Any] | None) -> Sequence[JournalEntry]:
        """What nodes share, when it has changed since it was kept last.

        Args:
            shared: `ctx.state.data`; None: no node has asked for it.

        Raises:
            StoreInputError: it holds something that cannot be kept.
        """
        if shared is None:
            return ()
        what = f"ctx.state of execution {self.head.id!r}"
        text = write_value(dict(shared), what=what)
        if text == self._state_text:
            return ()
        self._state_text = text
        number, self._state_number = self._state_number, self._state_number + 1
        return (self.entry(STATE, "", call=number, value=plain_copy(dict(shared), what)),)

    def keep(self, entries: Sequence[JournalEntry]) -> asyncio.Future[None]:
        """Store them, together with whatever else waits to be stored.

        Returns:
            Done when they are durable. Its exception is the store's; then `fault` is set.
        """
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[None] = loop.create_future()
        self._queue.append((entries, kept))
        if self._writer is None:
            self._writer = loop.create_task(self._write(), name=f"flow journal {self.head.id}")
        return kept

    async def _write(self) -> None:
        while self._queue:
            taken, self._queue = self._queue, []
            try:
                crash_point("journal.before_put")
                await self._put([entry for entries, _ in taken for entry in entries])
                crash_point("journal.after_put")
            except BaseException as error:
                if isinstance(error, StoreError):
                    self.fault = error
                for _, kept in taken:
                    if not kept.done():
                        kept.set_exception(error) if isinstance(error, Exception) else kept.cancel()
                if not isinstance(error, Exception):
                    raise
                continue
            for _, kept in taken:
                if not kept.done():
                    kept.set_result(None)
        self._writer = None

    async def _put(self, entries: Sequence[JournalEntry]) -> None:
        """One commit; a store that is away for a moment is asked again."""
        if self.fault is not None:
            raise self.fault
        for pause_s in _PAUSES_S:
            try:
                await self.store.journal.put(entries)
            except StoreError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(pause_s)
            else:
                return
        await self.store.journal.put(entries)
