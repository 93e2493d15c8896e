"""Workflow states: which may follow which."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from flowcore.errors import TransitionError
from flowcore.states import (
    Cancelled,
    Completed,
    Failed,
    Partial,
    Paused,
    Pending,
    Running,
    WorkflowState,
    may_follow,
    step,
)

ALL: list[WorkflowState] = [
    Pending(),
    Running(),
    Paused("by hand"),
    Completed(),
    Partial(),
    Failed({"kind": "X"}),
    Cancelled("asked"),
]


def test_the_allowed_steps_are_exactly_these() -> None:
    allowed = {(a.name, b.name) for a, b in itertools.product(ALL, ALL) if may_follow(a, b)}
    ends = {"completed", "partial", "failed", "cancelled"}
    assert allowed == (
        {("pending", after) for after in ("running", "paused", "failed", "cancelled")}
        | {("running", after) for after in {"paused"} | ends}
        | {("paused", after) for after in {"running"} | ends}
    )


def test_a_finished_state_is_never_left() -> None:
    for state in ALL:
        assert state.finished == (not any(may_follow(state, other) for other in ALL))


def test_only_completed_is_ok() -> None:
    assert [state.name for state in ALL if state.ok] == ["completed"]


def test_a_forbidden_step_names_both_ends_and_what_may_come() -> None:
    with pytest.raises(TransitionError, match=r"'running' cannot follow 'completed': a finished run"):
        step(Completed(), Running())
    with pytest.raises(TransitionError, match="only running, paused, failed, cancelled may"):
        step(Pending(), Completed())


@pytest.mark.parametrize("state", ALL, ids=str)
def test_a_state_survives_serialisation(state: WorkflowState) -> None:
    assert msgspec.json.decode(msgspec.json.encode(state), type=WorkflowState) == state
