"""Letters as a log: what stores that can only append write, and how it is read back.

Owns: the entries of the log, their JSON form, `Changes`: what later entries make of earlier letters.
Does not own: files and topics (connectors), the rules of a step or an edit (flowcore.dead_letters).

Always holds: a letter's entry is never rewritten; of several changes the last one in the log counts; entries
of letters nobody has change nothing. One entry is one line of JSON.

    {"kind":"letter","id":"0199...","node":"parse",...}
    {"kind":"edit","id":"0199...","record":{...},"at":...}
    {"kind":"mark","id":"0199...","state":"redriven","at":...,"note":""}
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from flowcore.dead_letters import DeadLetter, Filed, LetterState
from flowcore.errors import ParseError
from flowcore.findings import shown


class LetterEdit(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="edit"):
    """Another record for a letter, plain form."""

    id: str
    record: Any
    at: float


class LetterMark(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="mark"):
    """Another state for a letter."""

    id: str
    state: LetterState
    at: float
    note: str = ""


LetterChange: TypeAlias = LetterEdit | LetterMark
LetterEntry: TypeAlias = DeadLetter | LetterEdit | LetterMark

LETTER_START: Final = b'{"kind":"letter"'
"""How the line of a letter begins; a reader that only wants the changes need not decode it."""

_DECODER: Final = msgspec.json.Decoder(LetterEntry)


def encode_entry(entry: LetterEntry) -> bytes:
    """One line of JSON, without the line end."""
    return msgspec.json.encode(entry)


def decode_entry(line: bytes) -> LetterEntry:
    """The entry that `encode_entry` wrote.

    Raises:
        ParseError: it is none; attribute `reason`.
    """
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        reason = f"{fault}; the line begins with {shown(line[:60])}"
        raise ParseError(f"no entry of a log of dead letters: {reason}", reason=reason) from fault


class Changes:
    """What became of letters after they were written.

    Holds: one entry per letter that was edited or marked.
    """

    def __init__(self) -> None:
        self._edits: dict[str, LetterEdit] = {}
        self._marks: dict[str, LetterMark] = {}

    def take(self, change: LetterChange) -> None:
        """The next change in the log."""
        if isinstance(change, LetterEdit):
            self._edits[change.id] = change
        else:
            self._marks[change.id] = change

    def state_of(self, letter_id: str) -> LetterState:
        """The state of a letter, if there is one of that id."""
        mark = self._marks.get(letter_id)
        return "pending" if mark is None else mark.state

    def filed(self, letter: DeadLetter) -> Filed:
        """The letter as it is now."""
        edit, mark = self._edits.get(letter.id), self._marks.get(letter.id)
        times = [change.at for change in (edit, mark) if change is not None]
        return Filed(
            letter=letter,
            state="pending" if mark is None else mark.state,
            edit=msgspec.UNSET if edit is None else edit.record,
            note="" if mark is None else mark.note,
            changed_at=max(times, default=None),
        )
