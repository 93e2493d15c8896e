"""flow dlq: dead letters are listed, shown, edited, and their records run again.

Owns: the options, what is printed where, the exit codes.
Does not own: stores, filters and texts (letters), redriving (flowruntime.execute.redrive).

FILE is a file of letters (JSON lines or SQLite), or the workflow whose dead letters are meant.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import msgspec
from cyclopts import Parameter

from flowcore.dead_letters import LetterFilter
from flowruntime.cli.failures import FAILED, UsageError, say
from flowruntime.cli.letters import (
    HEAD,
    Place,
    data_of,
    filter_of,
    given_record,
    opened,
    place_of,
    read_record,
    report_broken,
    row,
    same_record,
    text_of,
    to_json,
)
from flowruntime.cli.parsing import Group
from flowruntime.cli.signals import Interrupts
from flowruntime.cli.summary import INTERRUPTED
from flowruntime.cli.tables import table
from flowruntime.cli.target import Target, load_target
from flowruntime.execute.redrive import Fate, Redrive, Redriven

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetterStore, Filed

Texts = Annotated[list[str] | None, Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]

_SHOWN: Final = 20
"""Records that failed again or were not run, in the summary."""
_EVERY_S: Final = 5.0
FATES: Final[tuple[Fate, ...]] = get_args(Fate)
_WORDS: Final[dict[Fate, str]] = {
    "redriven": "went through",
    "failed": "failed again",
    "refused": "not run",
    "left": "did not end",
}


def list_letters(  # noqa: PLR0913 - one keyword per option
    file: str | None = None,
    /,
    *,
    store: str | None = None,
    node: Texts = None,
    error: Texts = None,
    since: str | None = None,
    state: str = "pending",
    limit: int = 50,
    after: str | None = None,
    json: Flag = False,
) -> int:
    """List dead letters, in the order they were written.

    Exit code 1 when something in the store cannot be read: it is named, and the letters around it are listed.

    Args:
        file: file of letters, or workflow whose dead letters are meant.
        store: TYPE:PATH or TYPE:JSON instead of FILE, such as sqlite.dead_letters:dead.sqlite.
        node: only letters of this node; repeat for more.
        error: only letters of this kind of error, such as ValueError; repeat for more.
        since: only letters this old at most (2h, 1d) or not older than a time (2026-11-27T10:00, UTC).
        state: pending, redriven, resolved or all.
        limit: at most this many.
        after: go on where a list that was cut short has ended.
        json: print JSON.
    """
    if limit < 1:
        raise UsageError(f"--limit takes a number of letters, at least 1, got {limit}")
    wanted = filter_of(node=node, error=error, since=since, state=state)
    place, _ = place_of([] if file is None else [file], store)
    return asyncio.run(_list(place, wanted, limit, after, as_json=json))


async def _list(place: Place, wanted: LetterFilter, limit: int, after: str | None, *, as_json: bool) -> int:
    async with opened(place, place.target) as (_, store):
        page = await store.list(wanted, limit=limit, after=after)
    report_broken(page.broken)
    if as_json:
        broken = [{"where": entry.where, "reason": entry.reason} for entry in page.broken]
        found = [data_of(filed) for filed in page.letters]
        print(to_json({"letters": found, "next": page.next, "broken": broken}))
    elif page.letters:
        print(table([HEAD, *(row(filed) for filed in page.letters)], numbers={5, 7}))
    else:
        say(f"no letters in {place.shown}" + ("" if wanted == LetterFilter() else " that are asked for"))
    if page.next is not None and not as_json:
        say(f"there are more: --after {page.next}")
    return FAILED if page.broken else 0


def show(*names: str, store: str | None = None, json: Flag = False) -> int:
    """Show one dead letter in full: its error, where its record came from, the record, its earlier letters.

    Args:
        names: FILE and the letter's id; with --store the id alone.
        store: TYPE:PATH or TYPE:JSON instead of FILE.
        json: print JSON.
    """
    place, letter_id = _one(names, store)

    async def shown() -> int:
        async with opened(place, place.target) as (_, letters):
            filed = await letters.get(letter_id)
        print(to_json(data_of(filed)) if json else text_of(filed))
        return 0

    return asyncio.run(shown())


def edit(
    *names: str,
    store: str | None = None,
    record: str | None = None,
    state: Literal["pending", "resolved"] | None = None,
    note: str = "",
) -> int:
    """Give a dead letter another record to be run in its place, or another state; the original is kept.

    Without --record and --state the record is opened in $VISUAL or $EDITOR. All pending letters of the same
    record get it. Records are JSON in the plain form of values: bytes are {"$bytes": base64}, NaN is
    {"$float": "nan"}, a key that begins with $ gets another $.

    Args:
        names: FILE and the letter's id; with --store the id alone.
        store: TYPE:PATH or TYPE:JSON instead of FILE.
        record: the record; JSON, @FILE or @- for standard input.
        state: resolved when nothing more is to be done for the letter, pending to take that back.
        note: why; kept with the state.
    """
    if record is not None and state is not None:
        raise UsageError("--record and --state are two changes; make one after the other")
    place, letter_id = _one(names, store)
    given = None if record is None else (given_record(record),)
    return asyncio.run(_edit(place, letter_id, given, state, note))


async def _edit(
    place: Place,
    letter_id: str,
    given: tuple[object] | None,
    state: Literal["pending", "resolved"] | None,
    note: str,
) -> int:
    async with opened(place, place.target) as (_, store):
        filed = await store.get(letter_id)
        if state is not None:
            await store.mark([letter_id], state, note=note)
            say(f"letter {letter_id} is {state}")
            return 0
        record = given[0] if given is not None else await asyncio.to_thread(_from_editor, filed)
        if to_json(record) == to_json(filed.record):
            say(f"letter {letter_id} has that record already; nothing was changed")
            return 0
        others = await same_record(store, filed) if filed.state == "pending" else []
        for each in (letter_id, *others):
            await store.replace(each, record)
        more = f", and {len(others)} more of the same record" if others else ""
        say(f"letter {letter_id} has another record now{more}; the original is kept")
    return 0


def redrive(  # noqa: PLR0913 - one keyword per option
    *names: str,
    store: str | None = None,
    workflow: str | None = None,
    all: Flag = False,
    node: Texts = None,
    error: Texts = None,
    since: str | None = None,
    limit: int | None = None,
    parallel: int = 8,
    incomplete: Flag = False,
    dry_run: Flag = False,
    param: Texts = None,
    set: Texts = None,
    nodes: Texts = None,
    json: Flag = False,
) -> int:
    """Run the records of dead letters again, each as a request whose sinks write.

    A letter is marked redriven when its record went through completely. One that fails again stands in a new
    letter, with the old one in its lineage. A crash in the middle leaves the letter pending: its record may
    then run twice, and is never lost. The first SIGINT or SIGTERM finishes the records in work, the second
    aborts.

    Exit code 0 everything went through, 1 something failed again or was not run, 2 usage, 130 cut short.

    Args:
        names: FILE, then ids of letters; with --store ids alone.
        store: TYPE:PATH or TYPE:JSON instead of FILE.
        workflow: workflow file or module:workflow the records run through; FILE when that is a workflow.
        all: every pending letter.
        node: pending letters of this node; repeat for more.
        error: pending letters of this kind of error; repeat for more.
        since: pending letters this old at most (2h, 1d), or not older than a time.
        limit: stop after this many letters.
        parallel: records in work at once; their order is kept only with 1.
        incomplete: run letters whose key or headers were not kept, without those.
        dry_run: say what would be run; runs and marks nothing.
        param: value of a param, name=value; repeat for more.
        set: configuration of a node, node.key=value; repeat for more.
        nodes: module of node types; repeat for more.
        json: print the summary as JSON.
    """
    for name, number in (("--limit", limit), ("--parallel", parallel)):
        if number is not None and number < 1:
            raise UsageError(f"{name} takes a number of at least 1, got {number}")
    place, ids = place_of(names, store)
    if sum((bool(ids), all, bool(node or error or since))) != 1:
        raise UsageError("say which letters: their ids, --all, or --node, --error and --since")
    file = workflow or (place.shown if place.target is not None else None)
    if file is None:
        raise UsageError("name the workflow the records run through: --workflow FILE")
    target = load_target(file, nodes=nodes or (), params=param or (), overrides=set or ())
    wanted = filter_of(ids=ids, node=node, error=error, since=since)
    options = {"limit": limit, "parallel": parallel, "incomplete": incomplete, "dry_run": dry_run}
    return asyncio.run(_redrive(place, target, wanted, options, as_json=json))


async def _redrive(
    place: Place, target: Target, wanted: LetterFilter, options: dict[str, Any], *, as_json: bool
) -> int:
    tally = _Tally(keeps_all=as_json)
    async with opened(place, target) as (runtime, store):
        await _check_ids(place, store, wanted)
        going = runtime.redrive(target.workflow, store, wanted, **options)
        work = asyncio.ensure_future(_go_over(going, tally))
        telling = asyncio.create_task(_tell_progress(going, tally))

        async def drain() -> None:
            going.stop()

        async def abort() -> None:
            work.cancel()

        try:
            async with Interrupts(drain=drain, abort=abort):
                await asyncio.wait([work])
        finally:
            telling.cancel()
        if work.cancelled():
            say("cut short: letters whose records were in work are pending as before")
        else:
            work.result()
    report_broken(going.broken)
    if as_json:
        print(to_json(tally.data(going, dry_run=options["dry_run"])))
    else:
        _print_summary(going, tally, dry_run=options["dry_run"])
    if going.cut_short or work.cancelled():
        return INTERRUPTED
    return FAILED if going.broken or tally.unsuccessful else 0


async def _go_over(going: Redrive, tally: _Tally) -> None:
    async with aclosing(aiter(going)) as fates:
        async for fate in fates:
            tally.take(fate)


async def _tell_progress(going: Redrive, tally: _Tally) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        say(f"{going.looked_at:,} letters: {tally.line() or 'none is done yet'}")


class _Tally:
    """What became of the records so far.

    Holds: the first of those that did not go through; every one for JSON.
    """

    def __init__(self, *, keeps_all: bool) -> None:
        self.records = Counter[Fate]()
        self.letters = Counter[Fate]()
        self.shown: list[Redriven] = []
        self._keeps_all = keeps_all

    def take(self, fate: Redriven) -> None:
        self.records[fate.fate] += 1
        self.letters[fate.fate] += len(fate.letters)
        if self._keeps_all or (fate.fate != "redriven" and len(self.shown) < _SHOWN):
            self.shown.append(fate)

    @property
    def unsuccessful(self) -> int:
        """Records that did not go through."""
        return self.records.total() - self.records["redriven"]

    def line(self) -> str:
        """How many so far, by what became of them."""
        return ", ".join(f"{self.records[fate]:,} {_WORDS[fate]}" for fate in FATES if self.records[fate])

    def data(self, going: Redrive, *, dry_run: bool) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "dry_run": dry_run,
            "records": {fate: self.records[fate] for fate in FATES},
            "letters": {fate: self.letters[fate] for fate in FATES},
            "later": going.later,
            "outcomes": [msgspec.to_builtins(fate) for fate in self.shown],
        }


def _print_summary(going: Redrive, tally: _Tally, *, dry_run: bool) -> None:
    if not tally.records:
        say("no letters to redrive")
        return
    words = {**_WORDS, "redriven": "would be run"} if dry_run else _WORDS
    rows = [
        [words[fate], f"{tally.records[fate]:,}", f"{tally.letters[fate]:,}"]
        for fate in FATES
        if tally.records[fate]
    ]
    print(table([["", "records", "letters"], *rows], numbers={1, 2}))
    for each in tally.shown:
        made = f" (now {', '.join(each.made)})" if each.made else ""
        print(f"{each.letters[0]}: {words[each.fate]}{made}: {' '.join(each.why.split())}")
    if tally.unsuccessful > len(tally.shown):
        print(f"and {tally.unsuccessful - len(tally.shown):,} more")
    if going.later:
        say(f"{going.later:,} letters were written meanwhile and left for the next time")


async def _check_ids(place: Place, store: DeadLetterStore, wanted: LetterFilter) -> None:
    """Refuse ids nobody has before anything is run."""
    missing, after = set(wanted.ids), None
    while missing:
        page = await store.list(LetterFilter(ids=wanted.ids), after=after)
        missing -= {filed.id for filed in page.letters}
        after = page.next
        if after is None:
            break
    if missing:
        raise UsageError(
            f"{place.shown} has no letter {', '.join(map(repr, sorted(missing)))}; nothing was run. "
            f"`flow dlq list {place.shown}` shows those there are"
        )


def _one(names: tuple[str, ...], store: str | None) -> tuple[Place, str]:
    place, ids = place_of(names, store)
    if len(ids) != 1:
        raise UsageError(
            f"one id of a letter is taken, not {len(ids)}; `flow dlq list {place.shown}` shows them"
        )
    return place, ids[0]


def _from_editor(filed: Filed) -> object:
    """The record as somebody leaves it in an editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        raise UsageError("no editor is set; set EDITOR, or give the record: --record JSON, or --record @FILE")
    with tempfile.TemporaryDirectory(prefix="flow-dlq-") as folder:
        path = Path(folder) / f"{filed.id}.json"
        path.write_text(to_json(filed.record) + "\n", encoding="utf-8")
        ended = subprocess.run([*shlex.split(command), str(path)], check=False)
        if ended.returncode != 0:
            raise UsageError(f"{command!r} ended with code {ended.returncode}; nothing was changed")
        return read_record(path.read_text(encoding="utf-8"), where="the record from the editor")


dlq = Group(
    "Dead letters: rows that were given up on, with their error, origin and record.",
    {"list": list_letters, "show": show, "edit": edit, "redrive": redrive},
)
