"""Secrets leave no trace in what people read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.event_codec import CODEC
from flowcore.events import (
    ErrorInfo,
    ExecutionEvent,
    LoopBlocked,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodeStarted,
    WorkflowPaused,
)
from flowcore.values import Secret
from flowruntime.events.bus import EventBus
from flowruntime.telemetry.redaction import Redactor

KEY = "sk-live/42+x"


def knowing(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.add(Secret(secret))
    return redactor


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (f"Bearer {KEY}!", "Bearer ***!"),
        ("https://x/?key=sk-live%2F42%2Bx", "https://x/?key=***"),
        (f"{KEY}".encode(), b"***"),
        ([{"url": f"x{KEY}"}, (KEY, 1)], [{"url": "x***"}, ("***", 1)]),
        (
            {"Api-Key": "unknown", "PASSWORD": 7, KEY: None},
            {"Api-Key": "***", "PASSWORD": "***", "***": None},
        ),
        ({"direct": Secret("other")}, {"direct": "***"}),
    ],
)
def test_a_known_secret_is_masked_wherever_it_stands(value: object, clean: object) -> None:
    assert knowing(KEY).value(value) == clean


@given(
    st.recursive(st.none() | st.integers() | st.text() | st.binary(), lambda x: st.lists(x) | st.tuples(x))
)
def test_what_holds_no_secret_comes_back_as_the_same_object(value: object) -> None:
    assert knowing("a secret nobody generates").value(value) is value


def test_the_longest_secret_is_masked_first() -> None:
    assert knowing("abcd", "abcdefgh").text("abcdefgh abcd") == "*** ***"


def test_a_secret_too_short_to_search_for_leaves_text_readable() -> None:
    assert knowing("a", "").text("a cat") == "a cat"


def test_a_structure_that_holds_itself_ends_masked() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "***" in str(Redactor().value(loop))


EVENTS: list[ExecutionEvent] = [
    WorkflowPaused(workflow_id="w", reason=f"told by {KEY}"),
    LoopBlocked(workflow_id="w", node=None, stack=f"  key = '{KEY}'", blocked_s=1.0),
    NodeEvent(workflow_id="w", node="a", channel="log", data=f"using {KEY}"),
    NodeCompleted(workflow_id="w", node="a", started_at=0, ended_at=0, outputs={"out": [KEY]}),
    NodeFailed(
        workflow_id="w",
        node="a",
        started_at=0,
        ended_at=0,
        error=ErrorInfo(kind="E", message=KEY, facts={"headers": {"authorization": "x"}, "url": KEY}),
    ),
]


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_on_the_bus_shows_a_secret(event: ExecutionEvent) -> None:
    """ALL-10."""
    bus, seen = EventBus(scrub=knowing(KEY).event), list[ExecutionEvent]()
    bus.listen(seen.append)
    bus.publish(event)
    assert KEY.encode() not in CODEC.encode_json(seen[0])
    assert b"***" in CODEC.encode_json(seen[0])


def test_an_event_without_a_secret_is_passed_on_untouched() -> None:
    redactor = knowing(KEY)
    for event in (
        NodeStarted(workflow_id="w", node="a", started_at=0),
        NodeEvent(workflow_id="w", node="a", channel="data", data={"token": "Hello", "n": [1, None]}),
    ):
        assert redactor.event(event) is event
