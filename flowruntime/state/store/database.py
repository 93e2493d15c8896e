"""The protocol between what a store says in SQL and the database that carries it out.

Owns: `Database`, `Statement`, and the dialect both databases share (`select`, `insert`, `update`).
Does not own: the statements (the `sql_` modules), drivers (sqlite, postgres).

Always holds: statements of one `write` are done together or not at all, and are durable when it returns; what
the driver raises leaves as a StoreError, but for a foreign key that is not there.

The dialect: placeholders `$1`, `$2`, ..., `ON CONFLICT DO NOTHING`, row values; no RETURNING, no casts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

Arguments: TypeAlias = Sequence[Any]


class Statement(NamedTuple):
    """One statement, carried out once for each of `rows`."""

    sql: str
    rows: Sequence[Arguments]

    @classmethod
    def of(cls, sql: str, *arguments: Any) -> Statement:
        """Carried out once."""
        return cls(sql, (arguments,))


def select(columns: Sequence[str], table: str, rest: str = "") -> str:
    """A query; `rest` begins with WHERE or ORDER BY."""
    return " ".join(("SELECT", ", ".join(columns), "FROM", table, rest)).rstrip()


def insert(table: str, columns: Sequence[str]) -> str:
    """A new row, left out where its key is there already."""
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    return " ".join(
        ("INSERT INTO", table, f"({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING")
    )


def update(table: str, changed: Sequence[str], *, where: Sequence[str]) -> str:
    """Change the rows whose columns `where` have the values that follow those of `changed`."""
    places = [f"{name} = ${place}" for place, name in enumerate((*changed, *where), 1)]
    conditions = " AND ".join(places[len(changed) :])
    return " ".join(("UPDATE", table, "SET", ", ".join(places[: len(changed)]), "WHERE", conditions))


class ForeignKeyFault(Exception):  # noqa: N818 - the store that meets it says what it means
    """A row refers to one that is not there, or one that others refer to was to be deleted."""


class Database(Protocol):
    """A database with the tables of a store."""

    @property
    def url(self) -> str:
        """Without user, password and options."""
        ...

    async def open(self) -> None: ...

    async def read(self, sql: str, *arguments: Any, doing: str) -> Sequence[Sequence[Any]]:
        """The rows of a query.

        Args:
            sql: with placeholders.
            arguments: for them, in order.
            doing: what for, named in errors: `executions.get`.
        """
        ...

    async def write(self, *statements: Statement, doing: str) -> int:
        """Carry them out in one transaction.

        Returns:
            How many rows the last statement changed; not to be relied on where it has several `rows`.

        Raises:
            ForeignKeyFault: nothing was stored.
        """
        ...

    async def aclose(self) -> None: ...
