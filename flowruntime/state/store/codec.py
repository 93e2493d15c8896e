"""What stores write: values, states and cursors as text, sums of rows, and what may be a key.

Owns: the text forms, their bounds, and `row_sum`, by which a damaged row is told.
Does not own: the plain form of values (flowcore.plain), tables (schema).

Always holds: a value comes back as the same value; a text that was not written here is an UnreadableError.
Pure: no I/O.
"""

from __future__ import annotations

import base64
import hashlib
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast, get_args

import msgspec

from flowcore.document import from_document
from flowcore.dump import to_document
from flowcore.errors import FlowError
from flowcore.event_codec import plain_payload
from flowcore.findings import shown
from flowcore.plain import from_plain, to_plain
from flowcore.states import Failed, WorkflowState
from flowcore.store_errors import StoreInputError
from flowcore.values import ValueFormError, encodable
from flowcore.waits import KeptWaitKind, OnTimeout, Wait
from flowcore.workflow import Workflow
from flowruntime.state.store.entries import MAX_PAGE, JournalEntry, StoredExecution

MAX_ID_BYTES: Final = 200
"""Of the id of an execution or a wait."""
MAX_NAME_BYTES: Final = 1_000
"""Of the id and the name of a workflow, of a node, of a path. PostgreSQL indexes up to 2,700 bytes a row."""
MAX_VALUE_BYTES: Final = 64 << 20
"""Of one value as it is written."""
MAX_WHOLE: Final = (1 << 63) - 1


class UnreadableError(ValueError):
    """What is stored is not what FlowRx wrote; the store that meets it says where, as StoreDamagedError."""


# --- values ---------------------------------------------------------------------------------------------


def write_value(value: object, *, what: str) -> str:
    """A value as JSON text.

    Args:
        value: of any kind but a Stream.
        what: named in the error: `inputs of execution 'e1'`.

    Raises:
        StoreInputError: it has no plain form, or is larger than `MAX_VALUE_BYTES`.
    """
    try:
        data = msgspec.json.encode(to_plain(value))
    except ValueFormError as fault:
        raise _refused(what, str(fault)) from fault
    if len(data) > MAX_VALUE_BYTES:
        raise _refused(
            what,
            f"takes {len(data)} bytes, more than {MAX_VALUE_BYTES}; keep it elsewhere and store its place",
        )
    return data.decode()


def read_value(text: str) -> Any:
    """The value that `write_value` wrote.

    Raises:
        UnreadableError: it did not write this.
    """
    try:
        return from_plain(msgspec.json.decode(text))
    except (msgspec.MsgspecError, ValueFormError, UnicodeError, RecursionError) as fault:
        raise _unreadable("value", text, fault) from fault


def write_state(state: WorkflowState) -> str:
    """A state with its reason or error; what of an error is no value is written as its `repr`."""
    if isinstance(state, Failed):
        return msgspec.json.encode({"state": "failed", "error": plain_payload(state.error)}).decode()
    return msgspec.json.encode(to_plain(msgspec.to_builtins(state))).decode()


def read_state(text: str) -> WorkflowState:
    """The state that `write_state` wrote."""
    try:
        return cast("WorkflowState", msgspec.convert(read_value(text), WorkflowState))
    except msgspec.MsgspecError as fault:
        raise _unreadable("state", text, fault) from fault


def write_workflow(workflow: Workflow) -> tuple[str, str]:
    """Its document as text, and the SHA-256 of that.

    Raises:
        ValidationFailedError: something in it has no plain form.
        StoreInputError: it is too large.
    """
    data = msgspec.json.encode(to_document(workflow, local_types=True))
    if len(data) > MAX_VALUE_BYTES:
        raise _refused(f"workflow {workflow.name!r}", f"takes {len(data)} bytes, more than {MAX_VALUE_BYTES}")
    return data.decode(), hash_of(data)


def read_workflow(text: str, hash: str) -> Workflow:
    """The workflow that `write_workflow` wrote.

    Raises:
        UnreadableError: the text is not the one the hash is of, or is no workflow.
    """
    if hash_of(text.encode()) != hash:
        raise _unreadable("workflow", text, f"its hash is not {hash}")
    try:
        return from_document(msgspec.json.decode(text))
    except (msgspec.MsgspecError, FlowError) as fault:
        raise _unreadable("workflow", text, fault) from fault


def hash_of(document: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(document).hexdigest()


def row_sum(*columns: object) -> int:
    """CRC-32 of a row's columns: a row that was damaged on disk has another one."""
    return zlib.crc32(msgspec.msgpack.encode(columns))


# --- what is asked for ----------------------------------------------------------------------------------


def check_text(what: str, text: object, *, most_bytes: int, empty: bool = False) -> None:
    """Whether every store can keep the text as a key.

    Raises:
        StoreInputError: it is no text, empty, too long, or holds a NUL or a lone surrogate.
    """
    if not isinstance(text, str):
        raise _refused(what, f"must be text, not {type(text).__name__}")
    if not text and not empty:
        raise _refused(what, "must not be empty")
    if "\0" in text or not encodable(text):
        raise _refused(what, f"{shown(text)} holds a NUL or a lone surrogate")
    if len(text.encode()) > most_bytes:
        raise _refused(what, f"{shown(text)} has {len(text.encode())} bytes, more than {most_bytes}")


def checked_time(what: str, time: object) -> float:
    """Unix seconds.

    Raises:
        StoreInputError: no finite number.
    """
    if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
        raise _refused(what, f"must be Unix seconds, not {shown(time)}")
    return float(time)


def checked_limit(limit: object) -> int:
    """Items of one page.

    Raises:
        StoreInputError: it is not from 1 to `MAX_PAGE`.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise _refused("limit", f"must be from 1 to {MAX_PAGE}, not {shown(limit)}")
    return limit


def checked_words(what: str, words: Collection[str], known: Sequence[str]) -> list[str]:
    """The words of a filter, sorted.

    Raises:
        StoreInputError: one is not known.
    """
    for word in words:
        if word not in known:
            raise _refused(what, f"must be of {', '.join(known)}, not {shown(word)}")
    return sorted(words)


def check_whole(what: str, number: object) -> None:
    """Whether it is a whole number of at least 0 that a column holds.

    Raises:
        StoreInputError: it is not.
    """
    if type(number) is not int or not 0 <= number <= MAX_WHOLE:
        raise _refused(what, f"must be a whole number from 0 to {MAX_WHOLE}, not {shown(number)}")


def check_version(version: int | None) -> None:
    """Whether it can be the version of a workflow; None is the newest, or all of them.

    Raises:
        StoreInputError: it cannot.
    """
    if version is not None:
        check_whole("version of a workflow", version)


def check_wait(wait: Wait) -> None:
    """Whether it is an open one whose parts can be stored.

    Raises:
        StoreInputError: it is not.
    """
    check_text("id of a wait", wait.id, most_bytes=MAX_ID_BYTES)
    check_text("execution_id of a wait", wait.execution_id, most_bytes=MAX_ID_BYTES)
    check_text("node of a wait", wait.node, most_bytes=MAX_NAME_BYTES)
    check_text("path of a wait", wait.path, most_bytes=MAX_NAME_BYTES, empty=True)
    for what, word, words in (
        ("kind", wait.kind, get_args(KeptWaitKind)),
        ("on_timeout", wait.on_timeout, get_args(OnTimeout)),
    ):
        if word not in words:
            raise _refused(
                f"{what} of wait {wait.id!r}", f"must be one of {', '.join(words)}, not {shown(word)}"
            )
    if not isinstance(wait.title, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's
        raise _refused(f"title of wait {wait.id!r}", f"must be text, not {shown(wait.title)}")
    if not isinstance(wait.schema, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance] - the same
        raise _refused(f"schema of wait {wait.id!r}", f"must be a mapping, not {shown(wait.schema)}")
    if wait.state != "open" or wait.closed_at is not None or wait.answer is not None:
        raise _refused(f"wait {wait.id!r}", f"is {wait.state!r} or has an answer; a new one is open")


def check_new(execution: StoredExecution) -> None:
    """Whether it is one before its first step.

    Raises:
        StoreInputError: it is not, or something of it cannot be a key.
    """
    check_text("id of an execution", execution.id, most_bytes=MAX_ID_BYTES)
    check_text("workflow_id of an execution", execution.workflow_id, most_bytes=MAX_NAME_BYTES)
    check_text("workflow_hash of an execution", execution.workflow_hash, most_bytes=MAX_ID_BYTES)
    check_whole("workflow_version of an execution", execution.workflow_version)
    if execution.revision or execution.state.name not in {"pending", "running"}:
        raise _refused(
            f"execution {execution.id!r}",
            f"is {execution.state.name!r} at revision {execution.revision!r}; a new one is pending or "
            "running at revision 0, and changes by `step`",
        )
    if execution.result is not None or execution.ended_at is not None:
        raise _refused(f"execution {execution.id!r}", "has a result or an end before its first step")


def check_entry(entry: JournalEntry) -> None:
    """Whether its parts can be a key.

    Raises:
        StoreInputError: they cannot.
    """
    check_text("execution_id of a journal entry", entry.execution_id, most_bytes=MAX_ID_BYTES)
    check_text("node of a journal entry", entry.node, most_bytes=MAX_NAME_BYTES)
    check_text("path of a journal entry", entry.path, most_bytes=MAX_NAME_BYTES, empty=True)
    check_whole("call of a journal entry", entry.call)
    if not isinstance(entry.failure, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's
        raise _refused(
            f"failure of journal entry {entry.key!r}", f"must be a mapping, not {shown(entry.failure)}"
        )
    if entry.failure is not None and entry.value is not None:
        raise _refused(f"journal entry {entry.key!r}", "has both a value and a failure")


# --- cursors --------------------------------------------------------------------------------------------


def write_cursor(kind: str, *position: object) -> str:
    """Where a page ended, as the text of `Page.after`."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((kind, *position))).decode()


def read_cursor(text: str, kind: str, *types: type) -> tuple[Any, ...]:
    """What `write_cursor` was given.

    Raises:
        StoreInputError: it is the cursor of something else, or none at all.
    """
    try:
        data = msgspec.msgpack.decode(base64.urlsafe_b64decode(text.encode("ascii")))
    except (ValueError, AttributeError, msgspec.MsgspecError):
        data = None
    items = cast("list[object]", data) if isinstance(data, list) else []
    if len(items) != len(types) + 1 or items[0] != kind or not _of_types(items[1:], types):
        raise _refused("after", f"{shown(text)} is not what a page of {kind} gave")
    return tuple(items[1:])


def _of_types(items: list[object], types: tuple[type, ...]) -> bool:
    """Whether they are of these types, and such as every database takes."""
    return all(
        type(item) is kind
        and not (kind is str and "\0" in str(item))
        and not (kind is int and item > MAX_WHOLE)  # pyright: ignore[reportOperatorIssue] - of that kind
        for item, kind in zip(items, types, strict=True)
    )


def facts_of(failure: Mapping[str, Any]) -> dict[str, Any]:
    """A failure as values: what of it has no plain form becomes its `repr`."""
    return cast("dict[str, Any]", from_plain(plain_payload(dict(failure))))


def _refused(what: str, reason: str) -> StoreInputError:
    return StoreInputError(f"{what}: {reason}; nothing was stored", what=what, reason=reason)


def _unreadable(what: str, text: str, why: object) -> UnreadableError:
    return UnreadableError(f"no {what} that FlowRx wrote: {why} (it begins with {text[:60]!r})")
