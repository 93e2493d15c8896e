"""How a run concludes follows from why it ended and what was counted, and from nothing else."""

from __future__ import annotations

import pytest

from flowcore.errors import NodeFailedError
from flowcore.events import WorkflowCancelled, WorkflowCompleted, WorkflowFailed, WorkflowPartial
from flowruntime.execute.conclusion import Ending, are_handled, state_of, terminal_event
from flowruntime.execute.counts import NodeCounts
from flowruntime.execute.result import MAX_ERRORS, RunResult

CLEAN = {"a": NodeCounts(completed=3), "b": NodeCounts(completed=3)}
FAILED = {"a": NodeCounts(completed=3), "b": NodeCounts(completed=2, failed=1)}
HANDLED = {"a": NodeCounts(completed=3), "b": NodeCounts(completed=2, failed=1, handled=1)}
CAUSE = NodeFailedError("node 'b' failed", node="b")


@pytest.mark.parametrize(
    ("ending", "counts", "state", "event"),
    [
        (Ending(), CLEAN, "completed", WorkflowCompleted),
        (Ending(), FAILED, "partial", WorkflowPartial),
        (Ending(), HANDLED, "partial", WorkflowPartial),
        (Ending(cancelled="asked to"), FAILED, "cancelled", WorkflowCancelled),
        (Ending(cause=CAUSE, node="b"), CLEAN, "failed", WorkflowFailed),
        (Ending(cause=CAUSE, cancelled="asked to"), CLEAN, "failed", WorkflowFailed),
    ],
)
def test_state_and_event_say_the_same(
    ending: Ending, counts: dict[str, NodeCounts], state: str, event: type[object]
) -> None:
    final = state_of(ending, counts)
    assert final.name == state
    result = RunResult(workflow_id="w", execution_id="e", state=final, counts=counts)
    assert type(terminal_event(result, ending, read=3)) is event


def test_a_partial_run_names_the_nodes_that_failed() -> None:
    result = RunResult(workflow_id="w", execution_id="e", state=state_of(Ending(), FAILED), counts=FAILED)
    event = terminal_event(result, Ending(), read=3)
    assert isinstance(event, WorkflowPartial)
    assert event.failed_nodes == ("b",)
    assert (event.counts.received, event.counts.failed) == (3, 1)


def test_the_first_reason_to_end_stands() -> None:
    """What fails while the run is taken down follows from it."""
    ending = Ending()
    ending.fail(CAUSE, "b")
    ending.fail(ValueError("later"), "a")
    assert (ending.cause, ending.node) == (CAUSE, "b")

    cancelled = Ending()
    cancelled.cancel("asked to")
    cancelled.cancel("again")
    cancelled.fail(CAUSE, "b")
    assert (cancelled.cause, cancelled.cancelled) == (None, "asked to")


def test_the_cause_is_among_the_errors_of_its_node_even_when_there_were_too_many() -> None:
    before: list[BaseException] = [ValueError(str(index)) for index in range(MAX_ERRORS)]
    errors = Ending(cause=CAUSE, node="b").errors({"b": before})
    assert errors["b"] == [CAUSE, *before[:-1]]
    assert len(before) == MAX_ERRORS, "what was recorded is left as it is"


def test_failures_are_handled_only_when_all_of_them_are_and_nothing_ended_the_run() -> None:
    assert are_handled(Ending(), HANDLED)
    assert not are_handled(Ending(), CLEAN)
    assert not are_handled(Ending(), FAILED)
    assert not are_handled(Ending(cause=CAUSE), HANDLED)
