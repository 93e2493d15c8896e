"""Workflow states and the steps between them.

Owns: the closed set of states and which may follow which.
Does not own: who takes a step and what it triggers (flowruntime.execute), or the state of one node.

Always holds: a finished state is never left; a state is immutable and serialisable, tagged by its name.
"""

from __future__ import annotations

from typing import ClassVar, Final, TypeAlias, TypeVar

import msgspec

from flowcore.errors import TransitionError


class _State(msgspec.Struct, frozen=True, tag_field="state", tag=str.lower):
    """What all states share."""

    finished: ClassVar[bool] = False
    ok: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The state in one lower-case word, as in its serialised form."""
        return type(self).__name__.lower()

    def __str__(self) -> str:
        return self.name


class Pending(_State, frozen=True, tag_field="state", tag=str.lower):
    """Accepted, nothing has run."""


class Running(_State, frozen=True, tag_field="state", tag=str.lower):
    """At work, or draining."""


class Paused(_State, frozen=True, tag_field="state", tag=str.lower):
    """Held on purpose; `reason` says by whom or what for."""

    reason: str = ""


class Completed(_State, frozen=True, tag_field="state", tag=str.lower):
    """Everything succeeded; the only state that is `ok`."""

    finished: ClassVar[bool] = True
    ok: ClassVar[bool] = True


class Partial(_State, frozen=True, tag_field="state", tag=str.lower):
    """Finished, and some rows or nodes failed on the way."""

    finished: ClassVar[bool] = True


class Failed(_State, frozen=True, tag_field="state", tag=str.lower):
    """Given up; `error` is what `describe_error` says of the cause."""

    error: dict[str, object]
    finished: ClassVar[bool] = True


class Cancelled(_State, frozen=True, tag_field="state", tag=str.lower):
    """Ended from outside before it was done; `reason` says why."""

    reason: str = ""
    finished: ClassVar[bool] = True


WorkflowState: TypeAlias = Pending | Running | Paused | Completed | Partial | Failed | Cancelled

_S = TypeVar("_S", bound=WorkflowState)

_FOLLOWS: Final[dict[type[_State], tuple[type[_State], ...]]] = {
    Pending: (Running, Paused, Failed, Cancelled),
    Running: (Paused, Completed, Partial, Failed, Cancelled),
    Paused: (Running, Completed, Partial, Failed, Cancelled),
    Completed: (),
    Partial: (),
    Failed: (),
    Cancelled: (),
}


def may_follow(current: WorkflowState, following: WorkflowState) -> bool:
    """Whether `following` is an allowed next state. A run paused while it drains may finish from there."""
    return type(following) in _FOLLOWS[type(current)]


def step(current: WorkflowState, following: _S) -> _S:
    """`following`, checked.

    Raises:
        TransitionError: `following` may not come after `current`; attributes `current`, `following`,
            `allowed`.
    """
    if may_follow(current, following):
        return following
    allowed = tuple(state.__name__.lower() for state in _FOLLOWS[type(current)])
    choices = f"only {', '.join(allowed)} may" if allowed else "a finished run never changes"
    message = f"{following.name!r} cannot follow {current.name!r}: {choices}"
    raise TransitionError(message, current=current.name, following=following.name, allowed=allowed)
