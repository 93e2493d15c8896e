"""Dead letters in a file of JSON lines: appended to, never rewritten, by any number of processes.

Owns: `FileLetters`: waiting for the file's lock, appending letters and changes, reading pages.
Does not own: the form of a line (flowcore.letter_log), locking, repairing and cutting back (files.output).

Always holds: what a call wrote is on the disk (fsync) when it has returned; a failed write leaves no half
line; the lock is held for one write, so that a run, `flow dlq` and another run share the file; a line that
cannot be read is named with file and line, and those around it are given.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypeVar

from connectors.files.output import AppendFile, make_folder, translated
from connectors.turns import Turns
from flowcore.dead_letters import (
    EVERY_LETTER,
    BrokenEntry,
    DeadLetter,
    Filed,
    LetterFilter,
    LetterPage,
    LetterState,
    changes_state,
    with_edit,
)
from flowcore.errors import LetterNotFoundError, ParseError, SinkError
from flowcore.letter_log import LETTER_START, Changes, LetterEdit, LetterMark, decode_entry, encode_entry

if TYPE_CHECKING:
    from flowcore.context import SinkContext

R = TypeVar("R")

MAX_LINE_BYTES: Final = 256 << 20
"""A longer line is no letter: what reads it must not take all memory for it."""
_PATIENCE_S: Final = 30.0
_SLICE_S: Final = 0.04
"""Of waiting in a thread, which a cancellation has to wait for."""
_TRY_AGAIN: Final = timedelta(milliseconds=20)
_PLACE: Final = re.compile(r"(?P<offset>[0-9]{1,18}):(?P<line>[0-9]{1,18})")


class _Line(NamedTuple):
    """One line of the file, its newline left out; of one that is too long the beginning."""

    begin: int
    end: int
    number: int
    """From 1."""
    raw: bytes
    whole: bool
    """It ends with a newline."""


class FileLetters:
    """A store of dead letters; see `flowcore.dead_letters.DeadLetterStore`.

    Settles         when `write` returns, after fsync.
    Waits           at most 30 s for another writer of the file.
    Repairs         a last line torn by a crash is moved to `<path>.torn`; its letter was never acknowledged.
    Holds           what is written or one page, and one entry per letter that was edited or marked.
    """

    def __init__(self, path: str, *, create_folder: bool = True) -> None:
        self.path = path
        """As given; used in messages."""
        self._create_folder = create_folder
        self._path = ""
        self._ctx: SinkContext | None = None
        self._turns = Turns()
        self._changes = Changes()
        self._read_to = 0
        """Where in the file the changes are known up to."""
        self._inode: int | None = None

    async def open(self, ctx: SinkContext) -> None:
        """Nothing is made before the first write."""
        self._path = ctx.allowed_path(self.path)
        self._ctx = ctx

    async def close(self) -> None:
        self._ctx = None
        await self._turns.run(lambda: None)  # a call under way is over then

    # --- writing --------------------------------------------------------------------------------------

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        given = list(letters)
        await self._append(lambda: b"".join(encode_entry(letter) + b"\n" for letter in given))

    async def replace(self, letter_id: str, record: object) -> Filed:
        found = await self.get(letter_id)
        at = self._context.now().timestamp()

        def change() -> bytes:
            self._read_changes()
            changed.append(with_edit(self._changes.filed(found.letter), record, at=at))
            return encode_entry(LetterEdit(id=letter_id, record=record, at=at)) + b"\n"

        changed: list[Filed] = []
        await self._append(change)
        return changed[-1]

    async def mark(self, ids: Iterable[str], state: LetterState, *, note: str = "") -> None:
        wanted = list(dict.fromkeys(ids))
        at = self._context.now().timestamp()

        def change() -> bytes:
            self._read_changes()
            due = [each for each in wanted if changes_state(each, self._changes.state_of(each), state)]
            marks = (LetterMark(id=letter_id, state=state, at=at, note=note) for letter_id in due)
            return b"".join(encode_entry(mark) + b"\n" for mark in marks)

        await self._append(change)

    async def _append(self, lines: Callable[[], bytes]) -> None:
        """Add the lines `lines` gives, which is called with the file locked."""
        waited_from: float | None = None
        while True:
            repaired, busy = await self._in_thread(lambda: self._append_now(lines))
            ctx = self._context
            if repaired:
                ctx.log(repaired, level="warning", path=self.path)
            if busy is None:
                return
            waited_from = ctx.monotonic() if waited_from is None else waited_from
            if ctx.monotonic() - waited_from > _PATIENCE_S:
                raise SinkError(
                    f"{self.path!r} has been locked by another writer for {_PATIENCE_S:.0f} s; nothing was "
                    "written; keep dead letters in a file no files.sink writes",
                    path=self.path,
                ) from busy
            await ctx.sleep(_TRY_AGAIN)

    def _append_now(self, lines: Callable[[], bytes]) -> tuple[str | None, SinkError | None]:
        """What was repaired, if anything, and why it has to be tried again, if it has."""
        if self._create_folder:
            make_folder(self._path)
        file = AppendFile(self._path, format="jsonl", delimiter=",")
        try:
            repaired = _open_soon(file)
        except SinkError as fault:
            if getattr(fault, "locked", False):
                return None, fault
            raise
        try:
            file.append(lines())
        finally:
            file.close()
        return repaired, None

    # --- reading --------------------------------------------------------------------------------------

    async def list(
        self, wanted: LetterFilter = EVERY_LETTER, *, limit: int = 100, after: str | None = None
    ) -> LetterPage:
        begin = (0, 0) if after is None else self._place(after)
        return await self._in_thread(lambda: self._page(wanted, limit, *begin))

    async def get(self, letter_id: str) -> Filed:
        page = await self.list(LetterFilter(ids=frozenset({letter_id})), limit=1)
        if not page.letters:
            raise LetterNotFoundError(
                f"{self.path!r} has no dead letter with the id {letter_id!r}; `flow dlq list` shows "
                "those there are",
                letter=letter_id,
            )
        return page.letters[0]

    def _place(self, after: str) -> tuple[int, int]:
        found = _PLACE.fullmatch(after)
        if found is None:
            raise self._no_place(after)
        return int(found["offset"]), int(found["line"])

    def _no_place(self, after: str) -> LetterNotFoundError:
        return LetterNotFoundError(
            f"{after!r} is no place in {self.path!r}; give what the page before named as next",
            letter=after,
        )

    def _page(self, wanted: LetterFilter, limit: int, offset: int, number: int) -> LetterPage:
        letters: list[Filed] = []
        broken: list[BrokenEntry] = []
        with translated(self._path, "read"), _reading(self._path) as file:
            if file is None:
                return LetterPage()
            self._follow_changes(file)
            if not _begins_line(file, offset):
                raise self._no_place(f"{offset}:{number}")
            for line in _lines(file, offset, number):
                letter = self._letter(file, line, broken)
                if letter is None or not wanted.takes(filed := self._changes.filed(letter)):
                    continue
                if len(letters) >= limit:
                    place = f"{line.begin}:{line.number - 1}"
                    return LetterPage(letters=tuple(letters), next=place, broken=tuple(broken))
                letters.append(filed)
        return LetterPage(letters=tuple(letters), broken=tuple(broken))

    def _letter(self, file: IO[bytes], line: _Line, broken: list[BrokenEntry]) -> DeadLetter | None:
        """The letter of a line; None for a change, and for what cannot be read."""
        try:
            entry = decode_entry(line.raw)
        except ParseError as fault:
            reason: str | None = str(fault)
        else:
            return entry if isinstance(entry, DeadLetter) else None
        if len(line.raw) > MAX_LINE_BYTES:
            reason = f"the line has more than {MAX_LINE_BYTES} bytes"
        elif not line.whole:
            reason = _torn(file, line)
        if reason is not None:
            broken.append(BrokenEntry(where=f"{self.path}:{line.number}", reason=reason))
        return None

    def _read_changes(self) -> None:
        with translated(self._path, "read"), _reading(self._path) as file:
            if file is not None:
                self._follow_changes(file)

    def _follow_changes(self, file: IO[bytes]) -> None:
        """Take in the changes that were appended since the last time."""
        status = os.fstat(file.fileno())
        if self._inode != status.st_ino or status.st_size < self._read_to:
            self._changes, self._read_to, self._inode = Changes(), 0, status.st_ino
        for line in _lines(file, self._read_to, 0):
            if not line.whole:
                return
            self._read_to = line.end
            if line.raw.startswith(LETTER_START):
                continue
            with contextlib.suppress(ParseError):  # named by whoever reads that page
                entry = decode_entry(line.raw)
                if not isinstance(entry, DeadLetter):
                    self._changes.take(entry)

    # --- threads --------------------------------------------------------------------------------------

    @property
    def _context(self) -> SinkContext:
        if self._ctx is None:
            raise SinkError(f"{self.path!r} is not open for dead letters", path=self.path)
        return self._ctx

    async def _in_thread(self, call: Callable[[], R]) -> R:
        self._context  # noqa: B018 - raises when it is closed
        return await self._turns.run(call)


def _open_soon(file: AppendFile) -> str | None:
    """Open, waiting a little for the lock; in real time, because whoever has it lives in no other."""
    give_up = time.monotonic() + _SLICE_S
    while True:
        try:
            return file.open()
        except SinkError as fault:
            if not getattr(fault, "locked", False) or time.monotonic() >= give_up:
                raise
        time.sleep(_SLICE_S / 8)


@contextlib.contextmanager
def _reading(path: str) -> Generator[IO[bytes] | None]:
    """The file, or None where there is none yet."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _begins_line(file: IO[bytes], offset: int) -> bool:
    size = os.fstat(file.fileno()).st_size
    return offset == 0 or (offset <= size and os.pread(file.fileno(), 1, offset - 1) == b"\n")


def _lines(file: IO[bytes], offset: int, number: int) -> Iterator[_Line]:
    """The lines from an offset on, `number` of which are before it."""
    file.seek(offset)
    while raw := file.readline(MAX_LINE_BYTES + 1):
        begin, number = offset, number + 1
        offset += len(raw)
        last = raw
        while not last.endswith(b"\n") and (last := file.readline(MAX_LINE_BYTES)):
            offset += len(last)  # of a line that is too long the rest is passed over
        whole = raw.endswith(b"\n") or last.endswith(b"\n")
        yield _Line(begin, offset, number, raw.removesuffix(b"\n"), whole)


def _torn(file: IO[bytes], line: _Line) -> str | None:
    """Why the last line has no newline; None while somebody may be writing it."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    try:
        if os.fstat(file.fileno()).st_size != line.end:
            return None
    finally:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
    return "the line was cut short by a crash; its letter was never acknowledged, so its record came again"
