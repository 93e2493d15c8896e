"""sqlite.dead_letters: dead letters in a SQLite database, for `settings.dead_letter`.

Owns: `DeadLettersSink`, its configuration.
Does not own: the database (sqlite.letters).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from connectors.sqlite.letters import SqliteLetters
from flowcore.connector import Rows, Sink
from flowcore.context import SinkContext
from flowcore.dead_letters import DeadLetter
from flowcore.errors import SinkError
from flowcore.findings import shown


class DeadLettersConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the letters are kept."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    """The database; made with its folder when it is missing."""


class DeadLettersSink(Sink[DeadLettersConfig, object], type="sqlite.dead_letters"):
    """Dead letters in a SQLite database: `settings: {dead_letter: {type: sqlite.dead_letters, config: ...}}`.

    As a node it takes letters themselves, such as the lines of a dead.jsonl read by files.source: so letters
    move from a file into a database.

    Settles         when `write` returns: the transaction is on the disk.
    Fails by row    what is no dead letter.
    Fails           SinkError when the database is something else's, cannot be written, or the disk is full.
    Holds           one batch.
    """

    def __init__(self, config: DeadLettersConfig) -> None:
        super().__init__(config)
        self._store = SqliteLetters(config.path)

    @classmethod
    def dead_letters(cls, config: DeadLettersConfig) -> SqliteLetters:
        """The store."""
        return SqliteLetters(config.path)

    async def open(self, ctx: SinkContext) -> None:
        await self._store.open(ctx)
        await self._store.write(())  # fails now when it cannot be written

    async def write(self, batch: Rows[object]) -> Mapping[int, Exception]:
        letters: list[DeadLetter] = []
        errors: dict[int, Exception] = {}
        for index, row in enumerate(batch.values):
            try:
                letters.append(msgspec.convert(row, DeadLetter))
            except msgspec.ValidationError as fault:
                errors[index] = SinkError(
                    f"the row is no dead letter ({fault}): {shown(row)}; sqlite.dead_letters keeps nothing "
                    "else. Name it under settings.dead_letter, or write rows with another sink",
                )
        await self._store.write(letters)
        return errors

    async def close(self) -> None:
        await self._store.close()
