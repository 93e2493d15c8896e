"""Pages: where one ends and the next begins, by a key that never changes.

Owns: cursors, `page_of`, and `Query`, a SELECT with the conditions that are asked for.
Does not own: the tables.

Always holds: an entry has one place in its order for good, so no page repeats or skips what was there before
the first one, whatever is stored meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flowcore.waits import Wait
from flowruntime.state.store.codec import read_cursor, write_cursor
from flowruntime.state.store.entries import ExecutionHead, Page, WorkflowHead

T = TypeVar("T")


class Query:
    """A SELECT with the conditions that are asked for."""

    def __init__(self, select: str) -> None:
        self._select = select
        self._conditions: list[str] = []
        self.arguments: list[Any] = []

    def where(self, condition: str, *arguments: Any) -> None:
        """Add a condition; each `?` in it stands for one of the arguments."""
        for argument in arguments:
            self.arguments.append(argument)
            condition = condition.replace("?", f"${len(self.arguments)}", 1)
        self._conditions.append(condition)

    def one_of(self, column: str, values: Sequence[str]) -> None:
        """The column holds one of the values; no values: no condition."""
        if values:
            places = ", ".join("?" for _ in values)
            self.where(f"{column} IN ({places})", *values)

    def sql(self, order: str, limit: int) -> str:
        """The statement; `limit` becomes its last argument."""
        self.arguments.append(limit)
        conditions = f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""
        return f"{self._select}{conditions} ORDER BY {order} LIMIT ${len(self.arguments)}"


def page_of(items: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """A page of `items`, of which one more than `limit` was asked for to see whether there are more."""
    kept = tuple(items[:limit])
    return Page(kept, cursor(kept[-1]) if len(items) > limit else None)


def workflow_cursor(workflow: WorkflowHead) -> str:
    """Workflows go by id."""
    return write_cursor("workflows", workflow.id)


def after_workflow(after: str) -> tuple[str]:
    """The id a page ended with."""
    (id,) = read_cursor(after, "workflows", str)
    return (id,)


def version_cursor(workflow: WorkflowHead) -> str:
    """Versions go by number, downward."""
    return write_cursor("versions", workflow.version)


def after_version(after: str) -> tuple[int]:
    """The version a page ended with."""
    (version,) = read_cursor(after, "versions", int)
    return (version,)


def execution_cursor(execution: ExecutionHead) -> str:
    """Executions go by time and id, downward."""
    return write_cursor("executions", execution.created_at, execution.id)


def after_execution(after: str) -> tuple[float, str]:
    """Time and id a page ended with."""
    time, id = read_cursor(after, "executions", float, str)
    return time, id


def wait_cursor(wait: Wait) -> str:
    """Waits go by time and id."""
    return write_cursor("waits", wait.created_at, wait.id)


def after_wait(after: str) -> tuple[float, str]:
    """Time and id a page ended with."""
    time, id = read_cursor(after, "waits", float, str)
    return time, id
