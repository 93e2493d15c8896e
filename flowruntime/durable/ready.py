"""Finding the rows of a workflow that may go on: answered ones, those whose time has come, those left behind.

Owns: `Ready`: noting that time is up, taking what may go on into memory, looking for what a process left
behind. Does not own: taking a row for a run, and what becomes of it (holds).

Always holds: at most KEPT rows are in memory here; a row is let go on by compare-and-set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Container
from typing import TYPE_CHECKING, Final

from flowcore.states import Paused
from flowcore.store_errors import ExecutionChangedError, NotStoredError, StoreConflictError
from flowcore.waits import Wait
from flowruntime.crashpoints import crash_point
from flowruntime.durable.held import DONE, READY, REMEMBERED, HeldRow, held_of, is_held, may_be_row
from flowruntime.durable.owner import is_gone
from flowruntime.durable.releasing import release
from flowruntime.state.store.entries import (
    MAX_PAGE,
    ExecutionFilter,
    ExecutionHead,
    StoredExecution,
    WaitFilter,
)

if TYPE_CHECKING:
    from flowruntime.execute.context import Services
    from flowruntime.state.store.protocol import Store

POLL_S: Final = 1.0
"""How often a run looks for what other processes have answered, and for rows whose time has come."""
KEPT: Final = 256
_AT_ONCE: Final = 16
_LOOK_AROUND_S: Final = 60.0
"""How often it looks for rows that a process left behind which died in the middle of a step."""
_FORGET_S: Final = 3600.0
_TAKEN_OVER: Final = "left behind by a process that is gone"
_HELD_STATES: Final = frozenset({"pending"})


class Ready:
    """The rows of one workflow that may go on, as one run sees them.

    Args:
        store: where.
        workflow: its id there.
        nodes: that hold rows.
        clock: never goes back.
        services: bus and log.
        taken: ids of rows the run has.
    """

    def __init__(
        self,
        store: Store,
        workflow: str,
        nodes: Collection[str],
        clock: Callable[[], float],
        services: Services,
        taken: Container[str],
    ) -> None:
        self._store = store
        self._workflow = workflow
        self._nodes = nodes
        self._clock = clock
        self._services = services
        self._taken = taken
        self._by_node: dict[str, deque[tuple[StoredExecution, HeldRow]]] = defaultdict(deque)
        self._known: set[str] = set()
        """Ids of those."""
        self._strange: set[str] = set()
        """Rows that wait at nodes the workflow has no more."""
        self._looked_around = self._forgot = float("-inf")
        self.next_due: float | None = None
        """When to look again at the latest."""

    def __len__(self) -> int:
        return len(self._known)

    def pop(self, node_id: str, most: int) -> list[tuple[StoredExecution, HeldRow]]:
        """Rows that may go on at a node, at most `most`; none where none are known."""
        ready = self._by_node[node_id]
        popped = [ready.popleft() for _ in range(min(most, len(ready)))]
        self._known.difference_update(execution.id for execution, _ in popped)
        return popped

    async def look(self) -> bool:
        """Note what is due, and find rows that may go on; whether there are any."""
        now = self._clock()
        if now - self._forgot >= _FORGET_S:
            self._forgot = now
            await self._store.executions.prune(max(0.0, now - REMEMBERED.total_seconds()), owner=DONE)
        if now - self._looked_around >= _LOOK_AROUND_S:
            self._looked_around = now
            await self._look_around()
        await self._note_due()
        return await self._find()

    async def _note_due(self) -> None:
        """Expire what is due, the first ones: those are to go on before others are looked at."""
        now = self._clock()
        waits = await self._store.waits.due(now + POLL_S, limit=KEPT, held_of=self._workflow)
        due = [wait for wait in waits if (wait.expires_at or 0.0) <= now]
        for start in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._expire(wait) for wait in due[start : start + _AT_ONCE]))
        later = waits[len(due)].expires_at if len(due) < len(waits) else None
        self.next_due = now if len(due) == KEPT else later

    async def _expire(self, wait: Wait) -> None:
        try:
            await self._store.waits.expire(wait.id, at=max(self._clock(), wait.expires_at or 0.0))
        except (StoreConflictError, NotStoredError):
            return  # it was answered, or somebody else has noted it
        crash_point("waits.after_expire")
        execution = await self._store.executions.get(wait.execution_id)
        await release(self._store, execution, at=self._clock(), bus=self._services.bus)

    async def _find(self) -> bool:
        """Take rows that may go on into memory, as many as there is room for; whether there are any."""
        after: str | None = None
        wanted = ExecutionFilter(workflow_id=self._workflow, states=frozenset({"paused"}), owner=READY)
        while (room := KEPT - len(self)) > 0:
            page = await self._store.executions.list(wanted, limit=KEPT, after=after)
            new = [
                head
                for head in reversed(page.items)
                if head.id not in self._known and head.id not in self._taken
            ]
            for head in new[:room]:
                await self._take_in(head)
            after = page.after
            if after is None:
                break
        return bool(self._known)

    async def _take_in(self, head: ExecutionHead) -> None:
        if head.id in self._strange:
            return
        execution = await self._store.executions.get(head.id)
        row = held_of(execution.inputs) if is_held(execution.inputs) else None
        if row is None or row.node not in self._nodes:
            self._strange.add(head.id)
            what = "is no row" if row is None else f"waits at {row.node!r}, a node the workflow has no more"
            text = f"row {head.id} {what}; it stays stored, give it up with flow waits --cancel"
            self._services.log(text, "warning", {"workflow": self._workflow})
        elif execution.revision == head.revision and head.id not in self._taken:
            self._known.add(head.id)
            self._by_node[row.node].append((execution, row))

    async def _look_around(self) -> None:
        """Let rows go on that somebody left behind in the middle of a step."""
        store, now = self._store, self._clock()
        closed = WaitFilter(
            workflow_id=self._workflow,
            execution_states=_HELD_STATES,
            states=frozenset({"answered", "expired", "cancelled"}),
        )
        after: str | None = None
        while True:
            page = await store.waits.list(closed, limit=MAX_PAGE, after=after)
            for id in dict.fromkeys(wait.execution_id for wait in page.items):
                await release(store, await store.executions.get(id), at=now, bus=self._services.bus)
            after = page.after
            if after is None:
                break
        running = ExecutionFilter(workflow_id=self._workflow, states=frozenset({"running"}))
        while True:
            heads = await store.executions.list(running, limit=MAX_PAGE, after=after)
            for head in heads.items:
                if may_be_row(head.id) and head.id not in self._taken and is_gone(head.owner):
                    with contextlib.suppress(ExecutionChangedError):
                        await store.executions.step(head, Paused(_TAKEN_OVER), at=now, by=READY)
            after = heads.after
            if after is None:
                return

    async def any_delayed(self) -> bool:
        """Whether rows are stored whose time is all they wait for."""
        delays = WaitFilter(
            workflow_id=self._workflow,
            execution_states=_HELD_STATES,
            states=frozenset({"open"}),
            kinds=frozenset({"delay"}),
        )
        return bool((await self._store.waits.list(delays, limit=1)).items)
