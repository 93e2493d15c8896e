"""Dead letters on the command line: which store is meant, which letters, and how one is shown.

Owns: reading FILE and `--store`, `--since`, the columns of a list, the text and JSON of a letter.
Does not own: the commands (dlq), stores (connectors), redriving (flowruntime.execute.redrive).

Always holds: a record is shown in its plain form, whole and without loss, whatever it holds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from flowcore.dead_letters import LETTER_STATES, BrokenEntry, Filed, LetterFilter, LetterState, root_of
from flowcore.durations import parse_duration
from flowcore.errors import FlowError, ValidationFailedError
from flowcore.findings import did_you_mean
from flowcore.plain import from_plain
from flowcore.settings import DeadLetterPlace
from flowruntime.cli.failures import UsageError, say
from flowruntime.cli.project import project_of
from flowruntime.cli.target import Target, load_target
from flowruntime.definition.json import parse_json
from flowruntime.runtime import FlowRuntime
from flowruntime.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from flowcore.dead_letters import DeadLetterStore

_SHORT: Final = {"files": "files.sink", "sqlite": "sqlite.dead_letters"}
"""Names of stores that need not be told by their types."""
_SQLITE: Final = b"SQLite format 3\x00"
_WORKFLOWS: Final = (".yaml", ".yml", ".json")
_NAME_ONE: Final = (
    "name the file of letters, the workflow whose dead letters are meant, or --store TYPE:CONFIG"
)
_LONGEST: Final = 60
_SCANNED: Final = 1_000


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the letters are that a command is about."""

    shown: str
    """As given."""
    at: DeadLetterPlace
    target: Target | None = None
    """The workflow that was named instead of a store."""


# --- which store ------------------------------------------------------------------------------------------


def place_of(names: Sequence[str], store: str | None) -> tuple[Place, list[str]]:
    """The place, and the names that are left: ids of letters.

    Args:
        names: with `store` all are ids, else the first one is FILE.
        store: `TYPE:CONFIG`.

    Raises:
        UsageError: no place is named, or none that could hold letters.
        ValidationFailedError: the workflow that was named is wrong.
    """
    if store is not None:
        return Place(shown=store, at=_by_type(store)), list(names)
    if not names:
        raise UsageError(_NAME_ONE)
    file, *ids = names
    return _by_file(file), ids


def _by_type(text: str) -> DeadLetterPlace:
    kind, colon, config = text.partition(":")
    if not colon or not kind or not config:
        raise UsageError(f"--store {text!r}: write TYPE:PATH or TYPE:JSON, as in sqlite:dead.sqlite")
    fields: object = {"path": config}
    if config.startswith("{"):
        try:
            fields = from_plain(parse_json(config)[0])
        except FlowError as fault:
            raise UsageError(f"--store {text!r}: the configuration is no JSON object: {fault}") from fault
    return DeadLetterPlace(type=_SHORT.get(kind, kind), config=cast("dict[str, Any]", fields))


def _by_file(file: str) -> Place:
    path = Path(file)
    if path.is_dir():
        raise UsageError(f"{file!r} is a folder; {_NAME_ONE}")
    if path.suffix.lower() in _WORKFLOWS or (not path.exists() and ":" in file):
        target = load_target(file)
        at = target.workflow.settings.dead_letter
        if at is None:
            raise UsageError(
                f"workflow {target.workflow.name!r} of {file!r} names no place for dead letters; name the "
                "file of letters, or --store TYPE:CONFIG"
            )
        return Place(shown=file, at=at, target=target)
    if not path.exists():
        raise UsageError(f"{file!r}: there is no such file; {_NAME_ONE}")
    with path.open("rb") as opened:
        is_database = opened.read(len(_SQLITE)) == _SQLITE
    kind = "sqlite.dead_letters" if is_database else "files.sink"
    config = {"path": file} if is_database else {"path": file, "format": "jsonl"}
    return Place(shown=file, at=DeadLetterPlace(type=kind, config=config))


@asynccontextmanager
async def opened(place: Place, target: Target | None) -> AsyncGenerator[tuple[FlowRuntime, DeadLetterStore]]:
    """A runtime of the project, and the store; log lines go to standard error."""
    configure_logging("console", stream=sys.stderr)
    project = project_of(Path.cwd()) if target is None else target.project
    modules = project.import_nodes() if target is None else target.modules
    async with FlowRuntime(
        modules,
        roots=project.roots,
        allow_private_networks=project.allow_private_networks,
        allowed_hosts=project.allowed_hosts,
        prices=project.prices,
    ) as runtime:
        try:
            store = await runtime.letters(place.at)
        except ValidationFailedError as fault:
            reasons = "; ".join(f"{problem.message}; {problem.remedy}" for problem in fault.problems)
            raise UsageError(f"{place.shown!r} holds no dead letters: {reasons}") from fault
        yield runtime, store


# --- which letters ----------------------------------------------------------------------------------------


def filter_of(
    *,
    ids: Iterable[str] = (),
    node: Sequence[str] | None = None,
    error: Sequence[str] | None = None,
    since: str | None = None,
    state: str | None = None,
) -> LetterFilter:
    """What the options ask for; `state` `all` takes every one.

    Raises:
        UsageError: an option says what cannot be.
    """
    states: frozenset[LetterState] = frozenset()
    if state is not None and state != "all":
        if state not in LETTER_STATES:
            known = [*LETTER_STATES, "all"]
            raise UsageError(f"--state {state!r} is no state of a letter; {did_you_mean(state, known)}")
        states = frozenset({state})
    return LetterFilter(
        ids=frozenset(ids),
        nodes=frozenset(node or ()),
        errors=frozenset(error or ()),
        states=states,
        since=None if since is None else _time_of(since),
    )


def _time_of(text: str) -> float:
    """Unix seconds of `2h` ago, or of a date and time; without a zone it is UTC."""
    try:
        return time.time() - parse_duration(text).total_seconds()
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError as fault:
        raise UsageError(
            f"--since {text!r} is neither a duration (2h, 30m, 1d) nor a time (2026-11-27T10:00)"
        ) from fault
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


async def same_record(store: DeadLetterStore, filed: Filed) -> list[str]:
    """Ids of the other pending letters of the record: several of its rows had failed."""
    root, found, after = root_of(filed), list[str](), None
    while True:
        page = await store.list(LetterFilter(states=frozenset({"pending"})), limit=_SCANNED, after=after)
        found += [each.id for each in page.letters if each.id != filed.id and root_of(each) == root]
        after = page.next
        if after is None:
            return found


# --- how they are shown -----------------------------------------------------------------------------------

HEAD: Final = ("id", "given up on", "state", "node", "error", "attempts", "origin", "redrives")


def row(filed: Filed) -> list[str]:
    """One line of the list."""
    letter = filed.letter
    state = f"{filed.state}, edited" if filed.edited else filed.state
    error = f"{letter.error.kind}: {_one_line(letter.error.message)}"
    redrives = str(len(letter.lineage)) if letter.lineage else "-"
    return [
        letter.id,
        moment(letter.at),
        state,
        letter.node,
        error,
        str(letter.attempts),
        _origin(filed),
        redrives,
    ]


def moment(at: float) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def text_of(filed: Filed) -> str:
    """A letter in full."""
    return "\n".join(_text(filed))


def data_of(filed: Filed) -> dict[str, Any]:
    """A letter in full, as JSON has it."""
    return msgspec.to_builtins(filed)


def to_json(data: object) -> str:
    """JSON on several lines."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def report_broken(broken: Sequence[BrokenEntry]) -> None:
    """Say what of a store cannot be read."""
    for entry in broken:
        say(f"{entry.where}: {entry.reason}")


def _text(filed: Filed) -> Iterator[str]:
    letter, origin = filed.letter, filed.letter.origin
    version = f", version {letter.workflow_version}" if letter.workflow_version else ""
    document = f" ({letter.workflow_hash[:12]})" if letter.workflow_hash else ""
    note = f": {filed.note}" if filed.note else ""
    changed = f" since {moment(filed.changed_at)}" if filed.changed_at is not None else ""
    facts = [
        ("letter", letter.id),
        ("state", f"{filed.state}{changed}{note}"),
        ("given up on", f"{moment(letter.at)} UTC"),
        ("workflow", f"{letter.workflow}{version}{document}"),
        ("node", letter.node),
        ("error", f"{letter.error.kind}: {letter.error.message}"),
        ("facts", _inline(letter.error.facts)),
        ("attempts", str(letter.attempts)),
        ("execution", letter.execution_id),
        ("origin", _origin(filed)),
        ("position", "" if origin.position is None else _inline(origin.position)),
        ("key", "" if origin.key is None else _inline(origin.key)),
        ("headers", _inline(origin.headers)),
        ("event time", origin.event_time or ""),
    ]
    facts += [(f"{name} not kept", why) for name, why in letter.lossy.items()]
    facts += [
        ("earlier", f"{each.id}  {each.node}  {_one_line(each.error)}  redriven {moment(each.redriven_at)}")
        for each in letter.lineage
    ]
    width = max(len(name) for name, _ in facts)
    for name, said in facts:
        if said and said not in ("{}", "[]"):
            yield f"{name:<{width}}  {said}"
    raw = ", the raw input: its source could not decode it" if letter.undecoded else ""
    yield from _block(f"record{raw}", letter.record)
    if filed.edited:
        yield from _block("record now, edited", filed.edit)
    if letter.together is not None:
        yield f"\nwhat the node was given stands in letter {letter.together}"
    elif letter.value is not msgspec.UNSET:
        yield from _block("what the node was given", letter.value)


def _block(title: str, data: object) -> Iterator[str]:
    yield f"\n{title}"
    yield from (f"  {line}" for line in to_json(data).splitlines())


def _origin(filed: Filed) -> str:
    origin = filed.letter.origin
    if origin.source is None:
        return "a request"
    place = origin.source if origin.partition in (None, "0") else f"{origin.source}/{origin.partition}"
    return place if origin.index is None else f"{place} row {origin.index}"


def _inline(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


# --- records as people write them -------------------------------------------------------------------------


def read_record(text: str, *, where: str) -> object:
    """A record in plain form from JSON.

    Raises:
        UsageError: it is no JSON, or no plain form of a value.
    """
    try:
        data, _ = parse_json(text)
        from_plain(data)
    except ValidationFailedError as fault:
        problem = fault.problems[0]
        line = "" if problem.line is None else f" line {problem.line}:"
        raise UsageError(f"{where} is no JSON:{line} {problem.message}") from fault
    except FlowError as fault:
        raise UsageError(f"{where}: {fault}") from fault
    return data


def given_record(text: str) -> object:
    """What `--record` gives: JSON, `@FILE`, or `@-` for standard input.

    Raises:
        UsageError: it cannot be read, or is no record.
    """
    if not text.startswith("@"):
        return read_record(text, where="--record")
    where = f"--record {text}"
    try:
        read = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
    except FileNotFoundError as fault:
        raise UsageError(f"{where}: there is no such file") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"{where} cannot be read: {fault}") from fault
    return read_record(read, where=where)
