"""Dead letters: what was given up on, with everything needed to understand it and to run it again.

Owns: `DeadLetter`, `Filed` (a letter as its store has it now), the rules of states, edits, lineage and
redrives, what a letter keeps of a value, `DeadLetterStore`, the protocol of stores.
Does not own: when a row is given up on (policies), writing letters (flowruntime), where they are kept
(connectors), their form in files (flowcore.letter_log).

Always holds: a letter is never changed once written: edits and states are kept beside it; nothing in it is
cut short; what could not be kept as it was is described, named in `lossy`, and never run again in silence.

Pure: no I/O, no clock, no randomness; ids and times are passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import msgspec

from flowcore.context import SinkContext
from flowcore.errors import LetterStateError, describe_error
from flowcore.event_codec import plain_payload
from flowcore.events import ErrorInfo
from flowcore.plain import from_plain, to_plain
from flowcore.values import ValueFormError, encodable

LetterState: TypeAlias = Literal["pending", "redriven", "resolved"]
"""pending   waits for somebody
redriven  its record went through completely, later
resolved  nothing more is to be done for it: somebody said so, or a later letter stands for its record"""

LETTER_STATES: Final[tuple[LetterState, ...]] = get_args(LetterState)
_STEPS: Final[Mapping[LetterState, frozenset[LetterState]]] = {
    "pending": frozenset({"redriven", "resolved"}),
    "redriven": frozenset({"pending"}),
    "resolved": frozenset({"pending"}),
}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the record came from."""

    source: str | None = None
    """The source node; None for a request that filled something else than one source."""
    partition: str | None = None
    """As the source named it; None for requests."""
    position: Any = None
    """Of the source once this record is settled, where it gives one per row."""
    index: int | None = None
    """Number of the record among those the source gave in that run, from 0."""
    key: Any = None
    """Plain form."""
    headers: Any = {}
    """Plain form."""
    event_time: str | None = None
    """ISO 8601."""


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier letter of the same record, and its redrive."""

    id: str
    at: float
    node: str
    error: str
    """`kind: message`."""
    attempts: int
    redriven_at: float
    """Unix seconds: when it was run again, which made the next letter."""
    edited: bool
    """The record was changed before that."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="letter"):
    """One failure that was given up on, with the root record it stems from.

    A record with several failed rows has one letter for each, all with the same `execution_id` and `origin`.
    A row made of several records (a batch) has one letter for each of them.
    """

    id: str
    """UUIDv7."""
    at: float
    """When the row was given up on, Unix seconds."""
    workflow: str
    workflow_version: str = ""
    workflow_hash: str = ""
    """SHA-256 of the workflow's document; empty when it has none (local objects in its configuration)."""
    node: str
    """Where it failed: the source for input that cannot be decoded."""
    execution_id: str
    """The request, or the root record of a stream: equal for all letters of one record in one run."""
    error: ErrorInfo
    attempts: int = 1
    origin: Origin = Origin()
    record: Any = None
    """Plain form of the source's record; where `origin.source` is None, of the request's inputs by node."""
    undecoded: bool = False
    """`record` is the raw input, because the source could not decode it."""
    value: Any = msgspec.UNSET
    """Plain form of what the failing node was given, by port where it has several; UNSET when it is not known
    or stands in another letter (`together`)."""
    together: str | None = None
    """Of a row made of several records: the letter of the first one, which has the value."""
    lossy: Mapping[str, str] = {}
    """By field: why it is only described, or in part masked."""
    lineage: tuple[Ancestor, ...] = ()
    """Earlier letters of this record, the first one first."""
    version: int = 1
    """Of these fields."""


class Filed(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as its store has it now."""

    letter: DeadLetter
    state: LetterState = "pending"
    edit: Any = msgspec.UNSET
    """The record somebody put in the place of `letter.record`, plain form; the letter keeps the original."""
    note: str = ""
    """Why it has its state."""
    changed_at: float | None = None
    """When it was last edited or marked, Unix seconds."""

    @property
    def id(self) -> str:
        return self.letter.id

    @property
    def edited(self) -> bool:
        return self.edit is not msgspec.UNSET

    @property
    def record(self) -> Any:
        """The record that a redrive runs, plain form."""
        return self.edit if self.edited else self.letter.record


# --- what a letter keeps of values --------------------------------------------------------------------


def kept(value: object) -> tuple[object, str | None]:
    """The plain form of a value and None; or a description of it, and why it has no plain form.

    What cannot be kept (a foreign object, a live Stream, a key that is no text) is described where it stands;
    what is around it is kept.
    """
    try:
        return to_plain(value), None
    except (ValueFormError, RecursionError) as fault:
        return plain_payload(value), str(fault) or type(fault).__name__


def error_info(error: BaseException) -> ErrorInfo:
    """The error as a letter keeps it: any text readable, all facts plain."""
    info = ErrorInfo.of(error)
    facts: Any = plain_payload(dict(info.facts))
    return msgspec.structs.replace(info, kind=_text(info.kind), message=_text(info.message), facts=facts)


def error_line(error: BaseException | ErrorInfo) -> str:
    """`kind: message`."""
    if isinstance(error, BaseException):
        said = describe_error(error)
        return f"{said['kind']}: {said['message']}"
    return f"{error.kind}: {error.message}"


def _text(text: str) -> str:
    return text if encodable(text) else text.encode(errors="backslashreplace").decode()


# --- rules ----------------------------------------------------------------------------------------------


def changes_state(letter_id: str, current: LetterState, wanted: LetterState) -> bool:
    """Whether a letter in state `current` has to take a step to be in state `wanted`.

    Raises:
        LetterStateError: there is no such step.
    """
    if wanted != current and wanted not in _STEPS[current]:
        raise LetterStateError(
            f"letter {letter_id} is {current} and cannot become {wanted}; make it pending again first",
            letter=letter_id,
            state=current,
        )
    return wanted != current


def step(filed: Filed, state: LetterState, *, at: float, note: str = "") -> Filed:
    """The letter in another state; itself when it has that already.

    Raises:
        LetterStateError: that state cannot follow its own.
    """
    if not changes_state(filed.id, filed.state, state):
        return filed
    return msgspec.structs.replace(filed, state=state, note=note, changed_at=at)


def with_edit(filed: Filed, record: object, *, at: float) -> Filed:
    """The letter with another record to run, plain form; the original stays in `letter.record`.

    Raises:
        LetterStateError: the letter is not pending, so that nothing would run the record.
        ValueFormError: `record` is no plain form.
    """
    if filed.state != "pending":
        raise LetterStateError(
            f"letter {filed.id} is {filed.state}: its record would not be run; make it pending again first",
            letter=filed.id,
            state=filed.state,
        )
    from_plain(record)
    return msgspec.structs.replace(filed, edit=record, changed_at=at)


def redrive_fault(filed: Filed, *, incomplete: bool = False) -> str | None:
    """Why the letter's record must not be run again as it is; None: it may.

    Args:
        filed: the letter.
        incomplete: key, headers and event time that were not kept may be left out.
    """
    letter = filed.letter
    if filed.state != "pending":
        return f"it is {filed.state}{f' ({filed.note})' if filed.note else ''}"
    if not filed.edited and letter.undecoded:
        return "its record is the raw input, which the source could not decode; edit it into a record"
    if not filed.edited and "record" in letter.lossy:
        return f"its record was not kept as it was ({letter.lossy['record']}); edit it"
    left_out = [name for name in ("key", "headers") if name in letter.lossy]
    if left_out and not incomplete:
        name = left_out[0]
        return f"its {name} could not be kept ({letter.lossy[name]}); redrive it without, as incomplete"
    return None


def lineage_of(filed: Filed, *, redriven_at: float) -> tuple[Ancestor, ...]:
    """The lineage of a letter that a redrive of this one makes."""
    letter = filed.letter
    mine = Ancestor(
        id=letter.id,
        at=letter.at,
        node=letter.node,
        error=error_line(letter.error),
        attempts=letter.attempts,
        redriven_at=redriven_at,
        edited=filed.edited,
    )
    return (*letter.lineage, mine)


def root_of(filed: Filed) -> bytes:
    """Equal for letters whose records are one and the same run: one redrive answers for all of them."""
    return msgspec.json.encode((filed.letter.execution_id, filed.record), order="sorted")


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are wanted; what is not said takes all."""

    ids: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    """Kinds: names of error classes."""
    states: frozenset[LetterState] = frozenset()
    since: float | None = None
    """Given up on at this time or later, Unix seconds."""

    def takes(self, filed: Filed) -> bool:
        """Whether the letter is wanted."""
        letter = filed.letter
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.nodes or letter.node in self.nodes)
            and (not self.errors or letter.error.kind in self.errors)
            and (not self.states or filed.state in self.states)
            and (self.since is None or letter.at >= self.since)
        )


EVERY_LETTER: Final = LetterFilter()


# --- stores -----------------------------------------------------------------------------------------------


class BrokenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a store that cannot be read."""

    where: str
    """`file:line`, or the like."""
    reason: str


class LetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some letters of a store, in the order they were written."""

    letters: tuple[Filed, ...] = ()
    next: str | None = None
    """Give it as `after` for what follows; None: nothing does."""
    broken: tuple[BrokenEntry, ...] = ()
    """What was met on the way and cannot be read; the letters around it are given."""


class DeadLetterStore(Protocol):
    """Letters at one place. Kept by appending alone where that is all the outside system can do.

    Everything is durable when the call has returned, and safe beside other processes on the same place.
    A call that fails raises `SinkError`. Calls of one object may overlap.
    """

    async def open(self, ctx: SinkContext) -> None:
        """Before anything else; fails early when the outside system refuses."""
        ...

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them all. When it raises, none is known to be kept."""
        ...

    async def list(
        self, wanted: LetterFilter = EVERY_LETTER, *, limit: int = 100, after: str | None = None
    ) -> LetterPage:
        """At most `limit` letters that are wanted, beginning after a place `LetterPage.next` gave.

        Raises:
            LetterNotFoundError: `after` is no such place.
        """
        ...

    async def get(self, letter_id: str) -> Filed:
        """One letter.

        Raises:
            LetterNotFoundError: there is none.
        """
        ...

    async def replace(self, letter_id: str, record: object) -> Filed:
        """Put another record, plain form, beside the letter's own, to be run in its place.

        Raises:
            LetterNotFoundError, LetterStateError, ValueFormError: as `with_edit`; nothing was changed.
        """
        ...

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        """Give letters another state: all of them or none. Ids nobody has are not noticed.

        Raises:
            LetterStateError: the state of one cannot be left for this one; nothing was changed.
        """
        ...

    async def close(self) -> None:
        """Release everything; always called, also unopened and after a failure."""
        ...


@runtime_checkable
class HoldsDeadLetters(Protocol):
    """A sink class under whose type `settings.dead_letter` may stand."""

    def dead_letters(self, config: Any, /) -> DeadLetterStore:
        """A store at the place the configuration names, not opened; a classmethod of the sink.

        Raises:
            ConfigError: nothing can be kept there in a way that could be read again.
        """
        ...
