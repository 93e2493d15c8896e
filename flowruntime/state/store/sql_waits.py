"""Waits in SQL: a wait is closed by one UPDATE of an open one.

Owns: the statements on `flow_waits`. Does not own: the rules of closing (flowcore.waits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from flowcore.waits import KeptWaitKind, Wait, WaitState, answered, cancelled, expired
from flowruntime.state.store.codec import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    check_text,
    checked_limit,
    checked_time,
    checked_words,
)
from flowruntime.state.store.database import Database, ForeignKeyFault, Statement, insert, select, update
from flowruntime.state.store.entries import ALL_WAITS, STATES, Page, WaitFilter
from flowruntime.state.store.paging import Query, after_wait, page_of, wait_cursor
from flowruntime.state.store.refusals import already_stored, not_stored, readable
from flowruntime.state.store.rows import WAIT, new_wait_row, stored_wait, wait_row

WAIT_STATES: Final = get_args(WaitState)
WAIT_KINDS: Final = get_args(KeptWaitKind)

_SELECT: Final = select(WAIT, "flow_waits")
_GET: Final = select(WAIT, "flow_waits", "WHERE id = $1")
_INSERT: Final = insert("flow_waits", WAIT)
_CHANGED: Final = ("state", "closed_at", "outcome", "row_sum")
_CLOSE: Final = update("flow_waits", _CHANGED, where=("id", "state"))
_DUE: Final = select(
    WAIT, "flow_waits", "WHERE state = 'open' AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2"
)
_DUE_HELD: Final = select(
    WAIT,
    "flow_waits",
    "WHERE state = 'open' AND expires_at <= $1 AND execution_id IN "
    "(SELECT id FROM flow_executions WHERE workflow_id = $2 AND state = 'pending') "
    "ORDER BY expires_at, id LIMIT $3",
)
_OPEN_OF: Final = select(WAIT, "flow_waits", "WHERE execution_id = $1 AND state = 'open'")


class SqlWaits:
    """See `flowruntime.state.store.protocol.WaitStore`."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database

    async def open(self, wait: Wait) -> None:
        row = new_wait_row(wait)
        try:
            new = await self._database.write(Statement.of(_INSERT, *row), doing="waits.open")
        except ForeignKeyFault as fault:
            detail = f", so wait {wait.id!r} was not stored"
            raise not_stored(self._database.url, "execution", wait.execution_id, detail) from fault
        if not new and not _same_beginning(await self._row(wait.id), row):
            raise already_stored(self._database.url, "wait", wait.id)

    async def get(self, id: str) -> Wait:
        row = await self._row(id)
        with readable(self._database.url, f"wait {id!r}"):
            return stored_wait(row)

    async def list(
        self, filter: WaitFilter = ALL_WAITS, *, limit: int = 100, after: str | None = None
    ) -> Page[Wait]:
        query = Query(_SELECT)
        if filter.execution_id is not None:
            check_text("execution_id", filter.execution_id, most_bytes=MAX_ID_BYTES)
            query.where("execution_id = ?", filter.execution_id)
        if filter.workflow_id is not None:
            check_text("workflow_id", filter.workflow_id, most_bytes=MAX_NAME_BYTES)
            query.where(
                "execution_id IN (SELECT id FROM flow_executions WHERE workflow_id = ?)", filter.workflow_id
            )
        states = checked_words("execution_states", filter.execution_states, STATES)
        if states:
            places = ", ".join("?" for _ in states)
            query.where(
                f"execution_id IN (SELECT id FROM flow_executions WHERE state IN ({places}))",  # noqa: S608 - places only
                *states,
            )
        query.one_of("state", checked_words("states", filter.states, WAIT_STATES))
        query.one_of("kind", checked_words("kinds", filter.kinds, WAIT_KINDS))
        if after is not None:
            query.where("(created_at, id) > (?, ?)", *after_wait(after))
        waits = await self._waits(query.sql("created_at, id", checked_limit(limit) + 1), *query.arguments)
        return page_of(waits, limit, wait_cursor)

    async def answer(self, id: str, answer: Any, *, at: float, by: str = "") -> Wait:
        at = checked_time("at", at)
        return await self._close(id, lambda wait: answered(wait, answer, at=at, by=by), doing="waits.answer")

    async def due(self, now: float, *, limit: int = 100, held_of: str | None = None) -> Sequence[Wait]:
        now, limit = checked_time("now", now), checked_limit(limit)
        if held_of is None:
            return await self._waits(_DUE, now, limit)
        check_text("held_of", held_of, most_bytes=MAX_NAME_BYTES)
        return await self._waits(_DUE_HELD, now, held_of, limit)

    async def expire(self, id: str, *, at: float) -> Wait:
        at = checked_time("at", at)
        return await self._close(id, lambda wait: expired(wait, at=at), doing="waits.expire")

    async def cancel(self, execution_id: str, *, at: float) -> None:
        check_text("execution_id", execution_id, most_bytes=MAX_ID_BYTES)
        at = checked_time("at", at)
        waits = await self._waits(_OPEN_OF, execution_id)
        if waits:
            closing = [_closing(cancelled(wait, at=at)) for wait in waits]
            await self._database.write(Statement(_CLOSE, closing), doing="waits.cancel")

    async def _close(self, id: str, close: Callable[[Wait], Wait], *, doing: str) -> Wait:
        """Close an open wait; the rule raises when it is not open (any more)."""
        while True:
            closed = close(await self.get(id))
            if await self._database.write(Statement(_CLOSE, [_closing(closed)]), doing=doing):
                return closed

    async def _row(self, id: str) -> Sequence[Any]:
        check_text("id of a wait", id, most_bytes=MAX_ID_BYTES)
        rows = await self._database.read(_GET, id, doing="waits.get")
        if not rows:
            raise not_stored(self._database.url, "wait", id)
        return rows[0]

    async def _waits(self, sql: str, *arguments: Any) -> Sequence[Wait]:
        rows = await self._database.read(sql, *arguments, doing="waits.list")
        with readable(self._database.url, "a wait"):
            return [stored_wait(row) for row in rows]


def _closing(wait: Wait) -> Sequence[Any]:
    """The arguments of _CLOSE."""
    row = dict(zip(WAIT, wait_row(wait), strict=True))
    return (*(row[name] for name in _CHANGED), wait.id, "open")


def _same_beginning(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether both were the same when they were opened, whatever became of them."""
    opened = len(WAIT) - len(_CHANGED)
    return tuple(found[:opened]) == tuple(wanted[:opened])
