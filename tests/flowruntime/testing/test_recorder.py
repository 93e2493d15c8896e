"""The recorder users test with."""

from __future__ import annotations

import pytest

from flowcore.events import NodeCompleted, NodeStarted, WorkflowCancelled, WorkflowCompleted
from flowruntime.events.bus import EventBus
from flowruntime.testing.recorder import EventRecorder, recorded


def run(bus: EventBus) -> None:
    for node in ("clean", "classify"):
        bus.publish(NodeStarted(workflow_id="w", node=node, started_at=0.0))
        bus.publish(NodeCompleted(workflow_id="w", node=node, started_at=0.0, ended_at=1.0))
    bus.publish(WorkflowCompleted(workflow_id="w", started_at=0.0, ended_at=2.0))


def test_it_keeps_everything_published_in_the_block_and_nothing_after() -> None:
    bus = EventBus()
    with recorded(bus) as seen:
        run(bus)
    run(bus)
    assert [event.seq for event in seen.events] == [1, 2, 3, 4, 5]
    assert not bus.active


def test_it_answers_by_kind_and_by_node() -> None:
    with recorded(bus := EventBus()) as seen:
        run(bus)
    assert seen.nodes(NodeCompleted) == ["clean", "classify"]
    assert seen.one(WorkflowCompleted) is seen.ended()
    assert len(seen.of(NodeStarted)) == 2


def test_a_wrong_expectation_shows_what_the_run_did() -> None:
    with recorded(bus := EventBus()) as seen:
        run(bus)
    with pytest.raises(
        AssertionError, match=r"expected one NodeStarted, got 2[\s\S]*3  NodeStarted classify"
    ):
        seen.one(NodeStarted)
    bus_ended_twice = EventRecorder()
    for event in (*seen.events, WorkflowCancelled(workflow_id="w", started_at=0.0, ended_at=2.0, reason="x")):
        bus_ended_twice(event)
    with pytest.raises(AssertionError, match="expected one terminal event, got 2"):
        bus_ended_twice.ended()
    with pytest.raises(AssertionError, match=r"\(no events\)"):
        EventRecorder().ended()
