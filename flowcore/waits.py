"""Waits: an execution stands still until a person or a system answers, or until time is up.

Owns: `WaitRequest`, what a node asks for; `Wait`, and the rules by which it is answered, expires or is
cancelled; when an execution that waits may go on (`is_over`).
Does not own: keeping it (flowruntime.state.store), asking for it (the node), going on after it (the runtime).

Always holds: a wait leaves `open` once and for all; no answer is taken at or after `expires_at`, whether its
expiry was noted already or not. Pure: times are arguments, Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from flowcore.answers import APPROVAL, Schema, answer_problems, schema_faults
from flowcore.errors import ContractError, Problem, RunError, ValidationFailedError
from flowcore.findings import shown
from flowcore.store_errors import StoreConflictError, WaitClosedError

WaitKind: TypeAlias = Literal["approval", "form", "signal"]
KeptWaitKind: TypeAlias = Literal[WaitKind, "delay"]
"""Of a stored wait: a `delay` is over when its time is up, and nobody is asked."""
WaitState: TypeAlias = Literal["open", "answered", "expired", "cancelled"]
OnTimeout: TypeAlias = Literal["fail", "answer", "cancel"]
"""What an expired wait means: its node fails, takes `default` for the answer, or cancels the execution."""


class WaitExpiredError(RunError, TimeoutError):
    """Nobody answered in time, and the wait says that its node fails then: attributes `wait`, `node`."""


class WaitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a node waits for: `await ctx.wait(WaitRequest(kind="approval", title="Pay 1,200 EUR?"))`."""

    kind: WaitKind
    """`approval`: true or false, or an object that says so in `approved`; `form`: data; `signal`: that
    something happened, with data or without."""
    title: str = ""
    """For who answers."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer (flowcore.answers says which part of it); None: anything."""
    timeout: timedelta | None = None
    """From now on; None: for ever."""
    on_timeout: OnTimeout = "fail"
    default: Any = None
    """The answer when time is up and `on_timeout` is `answer`."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution waits for, and what came of it."""

    id: str
    execution_id: str
    node: str
    path: str = ""
    """Which row of the node waits: its lineage, as the runtime writes it; empty for the root row."""
    kind: KeptWaitKind
    title: str = ""
    """For who answers."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer."""
    created_at: float
    expires_at: float | None = None
    on_timeout: OnTimeout = "fail"
    default: Any = None
    """The answer of an expired wait whose `on_timeout` is `answer`."""
    state: WaitState = "open"
    closed_at: float | None = None
    answer: Any = None
    answered_by: str = ""


_NOBODY: Final = "answer"


def check_request(request: WaitRequest, node: str) -> None:
    """Whether it can be asked for.

    Raises:
        ContractError: it cannot; the message names every reason.
    """
    faults: list[str] = []
    for name, word, words in (
        ("kind", request.kind, get_args(WaitKind)),
        ("on_timeout", request.on_timeout, get_args(OnTimeout)),
    ):
        if word not in words:
            faults.append(f"{name} must be one of {', '.join(words)}, not {shown(word)}")
    if request.timeout is not None and request.timeout <= timedelta(0):
        faults.append(f"timeout must be longer than nothing, not {request.timeout}")
    wrong = [] if request.schema is None else schema_faults(request.schema)
    faults += wrong
    if not faults and request.on_timeout == _NOBODY:
        if request.timeout is None:
            faults.append("on_timeout is 'answer' and there is no timeout; set one")
        found = problems_of(request.default, request.kind, request.schema)
        faults += [f"default: {each.path} {each.message}" for each in found]
    if faults:
        raise ContractError(f"node {node!r} cannot wait: {'; '.join(faults)}", node=node)


def problems_of(answer: object, kind: KeptWaitKind, schema: Schema | None) -> list[Problem]:
    """What is wrong with an answer to a wait of that kind; empty: nothing."""
    found = answer_problems(answer, APPROVAL) if kind == "approval" else []
    return found or ([] if schema is None else answer_problems(answer, schema))


def check_answer(wait: Wait, answer: object) -> None:
    """Whether a wait can be answered with it.

    Raises:
        ValidationFailedError: with every problem; the wait stays open.
    """
    if wait.kind == "delay":
        found = [
            Problem(
                path="answer",
                message=f"answers nothing: node {wait.node!r} delays its row, and asks nobody",
                remedy="let its time come, or give the row up: flow waits --cancel",
            )
        ]
    else:
        found = problems_of(answer, wait.kind, wait.schema)
    if found:
        raise ValidationFailedError(found, what=f"the answer to wait {wait.id}")


def is_approved(answer: object) -> bool:
    """What an approval says, whichever form it has."""
    return answer is True or (isinstance(answer, Mapping) and answer.get("approved") is True)  # pyright: ignore[reportUnknownMemberType] - an answer is any value


def is_due(wait: Wait, now: float) -> bool:
    """Whether its time is up and nobody has noted it yet."""
    return wait.state == "open" and wait.expires_at is not None and wait.expires_at <= now


def is_over(waits: Sequence[Wait]) -> bool:
    """Whether an execution that waits for these may go on: none is open, or one of them has failed it.

    Where one has expired that fails its node, or was given up, it need not wait for the others.
    """
    if any(
        wait.state == "cancelled" or (wait.state == "expired" and wait.on_timeout != "answer")
        for wait in waits
    ):
        return True
    return all(wait.state != "open" for wait in waits)


def ends_cancelled(waits: Sequence[Wait]) -> bool:
    """Whether what waited for these ends cancelled: one was given up, or has expired and says so."""
    return any(
        wait.state == "cancelled" or (wait.state == "expired" and wait.on_timeout == "cancel")
        for wait in waits
    )


def answered(wait: Wait, answer: Any, *, at: float, by: str = "") -> Wait:
    """The wait with its answer.

    Raises:
        WaitClosedError: it is not open, or its time was up at `at`.
    """
    _check_open(wait)
    if is_due(wait, at):
        raise WaitClosedError(
            f"wait {wait.id!r} of node {wait.node!r} expired at {wait.expires_at!r}, and it is {at!r} now; "
            "the answer was not taken",
            id=wait.id,
            state="expired",
        )
    return msgspec.structs.replace(wait, state="answered", closed_at=at, answer=answer, answered_by=by)


def expired(wait: Wait, *, at: float) -> Wait:
    """The wait with its time up; its answer is `default` where `on_timeout` says so.

    Raises:
        WaitClosedError: it is not open.
        StoreConflictError: it is not due at `at`.
    """
    _check_open(wait)
    if not is_due(wait, at):
        raise StoreConflictError(
            f"wait {wait.id!r} of node {wait.node!r} is not due at {at!r}: it expires at "
            f"{wait.expires_at!r}; it was left open",
            id=wait.id,
            expires_at=wait.expires_at,
        )
    answer = wait.default if wait.on_timeout == "answer" else None
    return msgspec.structs.replace(wait, state="expired", closed_at=at, answer=answer)


def cancelled(wait: Wait, *, at: float) -> Wait:
    """The wait given up.

    Raises:
        WaitClosedError: it is not open.
    """
    _check_open(wait)
    return msgspec.structs.replace(wait, state="cancelled", closed_at=at)


def _check_open(wait: Wait) -> None:
    if wait.state != "open":
        raise WaitClosedError(
            f"wait {wait.id!r} of node {wait.node!r} is {wait.state} since {wait.closed_at!r}; it stays so",
            id=wait.id,
            state=wait.state,
        )
