"""A source that follows a script: values, pauses, undecodable rows, a crash, the end.

Owns: `scripted`, `ScriptedSource`, the marks `CRASH` and `END`, `delay`, `error`.
Does not own: running it (flowruntime.testing.running, or `rt.start(workflow, sources={"id":
scripted(...)})`).

Always holds: a position is the number of rows before it; committed positions outlive the run, so that the
next run of the same source resumes there; a mark is met once, in whichever run comes to it; nothing is
random.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, final

import msgspec

from flowcore.connector import Assigned, Credit, Position, Revoked, Rows, Source
from flowcore.context import SourceContext
from flowcore.errors import ContractError, PositionLostError, SourceError

_QUIET_S: Final = 0.001
"""A crash comes once the loop has nothing else to do; on virtual time that takes no time."""


class ScriptedCrashError(RuntimeError):
    """What the source raises at `CRASH`."""


@final
class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


CRASH: Final = _Mark("CRASH")
"""The process dies here: the read raises, and nothing is committed by that run any more."""
END: Final = _Mark("END")
"""The partition ends here; the next run goes on behind it. The end of a script is one by itself."""


class Delay(msgspec.Struct, frozen=True):
    """Nothing comes for so long."""

    seconds: float


class Undecodable(msgspec.Struct, frozen=True):
    """A row that was read and cannot be decoded."""

    value: Any
    error: Exception


def delay(seconds: float) -> Delay:
    """Nothing comes for `seconds`; on virtual time that costs nothing."""
    return Delay(seconds)


def error(value: Any, error: Exception | None = None) -> Undecodable:
    """A row that cannot be decoded: `value` is its raw input; it fails at the source."""
    return Undecodable(value, error or SourceError(f"cannot decode {value!r}"))


class NoConfig(msgspec.Struct, frozen=True):
    """A scripted source is made in code."""


class ScriptedSource(Source[NoConfig, Any], type="flow.scripted"):
    """See `scripted`.

    Emits           the rows up to the next mark or pause, as far as credit goes.
    Resumes         at the position committed last, in any later run.
    Holds           the script.
    """

    positions = "own"

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Any]],
        *,
        key: Callable[[Any], object] | None,
        max_rows: int | None,
    ) -> None:
        super().__init__(NoConfig())
        self._scripts = {name: list(script) for name, script in scripts.items()}
        self._key = key
        self._max_rows = max_rows
        self._met: set[tuple[str, int]] = set()
        self._open: list[_ScriptedReader] = []
        self.committed: dict[str, int] = {}
        """By partition: rows committed, over all runs."""
        self.commits: list[tuple[str, int]] = []
        """Every commit that reached the source, in order."""
        self.lost_commits = 0
        """Commits of a run that had crashed: the source never heard of them."""
        self.reads = 0
        """Calls of `read`."""
        self.rows_read = 0
        """Rows handed over, repeated ones included."""
        self.runs = 0
        """Runs that opened it."""
        self.is_open = False

    async def assignments(self, ctx: SourceContext) -> AsyncIterator[Assigned | Revoked]:
        del ctx
        self.runs += 1
        for partition in self._scripts:
            yield Assigned(partition)

    async def open(self, partition: str, resume: Position | None, ctx: SourceContext) -> _ScriptedReader:
        """A reader at `resume`, or at the position committed last."""
        del ctx
        script = self._scripts.get(partition)
        if script is None:
            known = ", ".join(map(repr, self._scripts))
            raise SourceError(
                f"the script has no partition {partition!r}; it has {known}", partition=partition
            )
        at = self.committed.get(partition, 0) if resume is None else resume
        total = sum(map(_is_row, script))
        if type(at) is not int or not 0 <= at <= total:
            raise PositionLostError(
                f"{at!r} is no position of scripted partition {partition!r}: it has {total} rows",
                partition=partition,
            )
        reader = _ScriptedReader(self, partition, script, at)
        self._open.append(reader)
        self.is_open = True
        return reader

    async def shutdown(self) -> None:
        self.is_open = False

    # --- asked by readers ---------------------------------------------------------------------------------

    def meet(self, partition: str, index: int) -> bool:
        """A reader has come to a mark; True when nobody has before."""
        fresh = (partition, index) not in self._met
        self._met.add((partition, index))
        return fresh

    def die(self) -> None:
        """The run that has readers open is dead: its commits get lost."""
        for reader in self._open:
            reader.dead = True

    def closed(self, reader: _ScriptedReader) -> None:
        if reader in self._open:
            self._open.remove(reader)

    def keep(self, partition: str, position: int, *, dead: bool) -> None:
        """A commit."""
        if dead:
            self.lost_commits += 1
            return
        self.commits.append((partition, position))
        self.committed[partition] = position

    def rows(self, elements: Sequence[Any], before: int) -> Rows[Any]:
        """Rows of the script as a source gives them."""
        values = [element.value if isinstance(element, Undecodable) else element for element in elements]
        errors = {index: row.error for index, row in enumerate(elements) if isinstance(row, Undecodable)}
        after = before + len(values)
        self.rows_read += len(values)
        keys = None if self._key is None else [self._key(value) for value in values]
        return Rows(
            values, next=after, positions=range(before + 1, after + 1), keys=keys, errors=errors or None
        )

    def most(self, credit: Credit) -> int:
        """Rows one read may give."""
        return credit.rows if self._max_rows is None else min(credit.rows, self._max_rows)


class _ScriptedReader:
    """One partition of the script, in one run."""

    def __init__(self, source: ScriptedSource, partition: str, script: Sequence[Any], at: int) -> None:
        self._source = source
        self._partition = partition
        self._script = script
        self._row = at
        self._next = _index_after(script, at)
        self._ended = False
        self._closed = False
        self.dead = False

    async def read(self, credit: Credit) -> Rows[Any] | None:
        if self._closed:
            raise ContractError(
                f"the reader of scripted partition {self._partition!r} is closed and was read"
            )
        if credit.rows < 1:
            raise ContractError(f"read needs credit for at least one row, got {credit!r}")
        self._source.reads += 1
        while not self._ended and self._next < len(self._script):
            element = self._script[self._next]
            if _is_row(element):
                return self._take(credit)
            await self._pass(element)
        return None

    def _take(self, credit: Credit) -> Rows[Any]:
        most = self._source.most(credit)
        taken: list[Any] = []
        while len(taken) < most and self._next < len(self._script) and _is_row(self._script[self._next]):
            taken.append(self._script[self._next])
            self._next += 1
        rows = self._source.rows(taken, self._row)
        self._row += len(taken)
        return rows

    async def _pass(self, element: Any) -> None:
        """Do what stands between two rows."""
        if isinstance(element, Delay):
            await asyncio.sleep(element.seconds)
        elif element is CRASH:
            await asyncio.sleep(_QUIET_S)
            if self._source.meet(self._partition, self._next):
                self._source.die()
                raise ScriptedCrashError(
                    f"the script says CRASH after row {self._row} of {self._partition!r}"
                )
        elif self._source.meet(self._partition, self._next):
            self._ended = True
        self._next += 1

    async def commit(self, position: Position) -> None:
        assert isinstance(position, int)
        self._source.keep(self._partition, position, dead=self.dead)

    async def close(self) -> None:
        self._closed = True
        self._source.closed(self)


def _is_row(element: Any) -> bool:
    return element is not CRASH and element is not END and not isinstance(element, Delay)


def _index_after(script: Sequence[Any], rows: int) -> int:
    """Where in the script the element behind so many rows stands."""
    index = 0
    while rows:
        rows -= _is_row(script[index])
        index += 1
    return index


def scripted(
    *elements: Any,
    partitions: Mapping[str, Sequence[Any]] | None = None,
    key: Callable[[Any], object] | None = None,
    max_rows: int | None = None,
) -> ScriptedSource:
    """A source that gives `elements` in order: values, `CRASH`, `END`, `delay(seconds)`, `error(value, exc)`.

        source = scripted("a", delay(2), "b", CRASH, "c")
        first = await run_workflow(workflow, source)       # fails at the crash; "a" was committed in the
        pause second = await run_workflow(workflow, source)      # reads "b", "c"

    Args:
        elements: the script of the one partition `0`.
        partitions: scripts by partition, instead.
        key: gives a row's key.
        max_rows: rows a read gives at most; None: all up to the next mark or pause.

    Raises:
        ContractError: both `elements` and `partitions` were given.
    """
    if elements and partitions is not None:
        raise ContractError("scripted() takes either elements or partitions=, not both")
    return ScriptedSource(
        partitions if partitions is not None else {"0": elements}, key=key, max_rows=max_rows
    )
