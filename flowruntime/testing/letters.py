"""A store of dead letters that keeps them in memory, for tests.

Owns: `CollectedLetters`. Does not own: putting it in the place of a declared one (testing.running).

Always holds: what it gives back went through the form letters have in files; the rules are those of every
store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowcore.context import SinkContext
from flowcore.dead_letters import (
    EVERY_LETTER,
    DeadLetter,
    Filed,
    LetterFilter,
    LetterPage,
    LetterState,
    changes_state,
    with_edit,
)
from flowcore.errors import LetterNotFoundError, SinkError
from flowcore.letter_log import Changes, LetterEdit, LetterMark, decode_entry, encode_entry


class CollectedLetters:
    """A `DeadLetterStore` whose letters are looked at with `letters`.

    Holds: every letter written.
    """

    def __init__(self) -> None:
        self.fails: Exception | None = None
        """What `write` raises; set it to see what a run does when its letters cannot be written."""
        self.writes: list[int] = []
        """How many letters each write had."""
        self._lines: list[bytes] = []
        self._changes = Changes()
        self._ctx: SinkContext | None = None

    @property
    def letters(self) -> list[DeadLetter]:
        """What was written, in order."""
        return [entry for line in self._lines if isinstance(entry := decode_entry(line), DeadLetter)]

    async def open(self, ctx: SinkContext) -> None:
        self._ctx = ctx

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        self._now()
        if self.fails is not None:
            raise self.fails
        if letters:
            self.writes.append(len(letters))
        self._lines += map(encode_entry, letters)

    async def list(
        self, wanted: LetterFilter = EVERY_LETTER, *, limit: int = 100, after: str | None = None
    ) -> LetterPage:
        self._now()
        if after is not None and not (after.isdecimal() and int(after) <= len(self._lines)):
            raise LetterNotFoundError(f"{after!r} is no place among collected letters", letter=after)
        found: list[Filed] = []
        for index, letter in enumerate(self.letters[int(after or 0) :], int(after or 0)):
            filed = self._changes.filed(letter)
            if wanted.takes(filed):
                if len(found) >= limit:
                    return LetterPage(letters=tuple(found), next=str(index))
                found.append(filed)
        return LetterPage(letters=tuple(found))

    async def get(self, letter_id: str) -> Filed:
        page = await self.list(LetterFilter(ids=frozenset({letter_id})), limit=1)
        if not page.letters:
            raise LetterNotFoundError(f"no letter {letter_id!r} was collected", letter=letter_id)
        return page.letters[0]

    async def replace(self, letter_id: str, record: object) -> Filed:
        at = self._now()
        changed = with_edit(await self.get(letter_id), record, at=at)
        self._changes.take(LetterEdit(id=letter_id, record=record, at=at))
        return changed

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        at = self._now()
        wanted = list(ids)
        due = [each for each in wanted if changes_state(each, self._changes.state_of(each), state)]
        for letter_id in due:
            self._changes.take(LetterMark(id=letter_id, state=state, at=at, note=note))

    async def close(self) -> None:
        self._ctx = None

    def _now(self) -> float:
        if self._ctx is None:
            raise SinkError("the collected letters are not open")
        return self._ctx.now().timestamp()
