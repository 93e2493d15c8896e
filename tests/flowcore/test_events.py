"""Events as values, and their JSON and msgpack forms."""

from __future__ import annotations

import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import NodeTimeoutError
from flowcore.event_codec import (
    CODEC,
    MAX_DEPTH,
    EventCodec,
    EventDecodeError,
    EventVersionError,
    UnknownEventKindError,
    plain_payload,
)
from flowcore.events import (
    KINDS,
    TERMINAL_KINDS,
    BreakerChanged,
    ErrorInfo,
    Event,
    ExecutionEvent,
    Gap,
    LimitChanged,
    LlmCall,
    LoopBlocked,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodePaused,
    NodeResumed,
    NodeRetrying,
    NodeSkipped,
    NodeStarted,
    OpenWait,
    RecordDeadLettered,
    RowCounts,
    RowHeld,
    RowReturned,
    StageProgress,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowRetrying,
    WorkflowStarted,
)
from flowcore.values import Secret, same_value

WHO: dict[str, Any] = {"workflow_id": "w", "execution_id": "x", "seq": 7, "at": 1.5}
WHEN: dict[str, Any] = {"started_at": 1.0, "ended_at": 3.5}
ERROR = ErrorInfo.of(NodeTimeoutError("node 'a' did not answer", node="a", timeout_s=2.0))

ONE_OF_EACH: tuple[ExecutionEvent, ...] = (
    WorkflowStarted(**WHO, name="triage", mode="stream", nodes=4),
    WorkflowCompleted(**WHO, **WHEN, counts=RowCounts(received=3, completed=3)),
    WorkflowPartial(**WHO, **WHEN, failed_nodes=("a", "b")),
    WorkflowFailed(**WHO, **WHEN, error=ERROR, node="a"),
    WorkflowCancelled(**WHO, **WHEN, reason="told to"),
    WorkflowPaused(**WHO, reason="asked"),
    WorkflowResumed(**WHO, paused_s=2.0),
    WorkflowRetrying(**WHO, node="a", attempt=1, max_attempts=3, delay_s=0.5, error=ERROR),
    NodeStarted(**WHO, node="a", started_at=1.0),
    NodeCompleted(**WHO, **WHEN, node="a", rows=3, dropped=1),
    NodeCompleted(**WHO, **WHEN, node="a", outputs={"out": ["é", 1, None]}),
    NodeFailed(**WHO, **WHEN, node="a", error=ERROR),
    NodeRetrying(**WHO, node="a", attempt=1, max_attempts=3, delay_s=0.5, error=ERROR),
    NodeSkipped(**WHO, node="b", cause="a", reason="failed"),
    RowHeld(
        **WHO, node="a", row_id="r", waits=(OpenWait(id="w", node="a", wait_kind="delay", expires_at=2.0),)
    ),
    RowReturned(**WHO, node="a", row_id="r", held_s=1.5),
    RecordDeadLettered(**WHO, node="a", letter_id="l", error=ERROR, attempts=3, source="s", partition="0"),
    NodeEvent(**WHO, node="a", channel="progress", data={"done": 0.5}),
    StageProgress(**WHO, stage="s", nodes=("a",), counts=RowCounts(), rate_per_s=0.0, interval_s=1.0),
    NodePaused(**WHO, node="a", reason="maintenance"),
    NodeResumed(**WHO, node="a", paused_s=2.0),
    LimitChanged(**WHO, limit="node:a", before=64, capacity=8),
    BreakerChanged(**WHO, node="a", resource="resource:api", before="closed", state="open", opened=1),
    LlmCall(**WHO, node="a", operation="chat", provider="openai", model="m", cost_usd=0.5, attempts=1),
    LoopBlocked(**WHO, node="a", stack="...", blocked_s=0.3),
)


@pytest.mark.parametrize("event", [*ONE_OF_EACH, Gap(missed=3, first_seq=1, last_seq=9, exact=False)])
def test_every_kind_reads_back_equal_from_json_and_msgpack(event: ExecutionEvent | Gap) -> None:
    line = CODEC.encode_json(event)
    assert b"\n" not in line
    assert CODEC.decode_json(line) == event
    assert CODEC.decode_msgpack(CODEC.encode_msgpack(event)) == event


def test_the_examples_above_are_every_kind_there_is() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(KINDS) == set(get_args(Event))
    assert set(TERMINAL_KINDS) < set(KINDS)


def test_an_event_is_about_a_node_a_stage_a_limit_or_the_workflow() -> None:
    assert {event.subject for event in ONE_OF_EACH} == {None, "a", "b", "s", "node:a", "resource:api"}


def test_durations_are_the_nodes_own() -> None:
    assert NodeCompleted(**WHO, **WHEN, node="a").duration_s == 2.5


def test_outputs_are_absent_unless_captured() -> None:
    line = CODEC.encode_json(NodeCompleted(**WHO, **WHEN, node="a"))
    assert b"outputs" not in line


def test_an_error_travels_with_its_facts() -> None:
    assert (
        ErrorInfo(
            kind="NodeTimeoutError",
            message="node 'a' did not answer",
            retriable=True,
            facts={"node": "a", "timeout_s": 2.0},
        )
        == ERROR
    )
    assert ErrorInfo.of(KeyError("x")) == ErrorInfo(kind="KeyError", message="'x'")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def through_both_forms(payload: object) -> object:
    event = NodeEvent(**WHO, node="a", channel="data", data=payload)
    line, packed = CODEC.encode_json(event), CODEC.encode_msgpack(event)
    read, unpacked = CODEC.decode_json(line), CODEC.decode_msgpack(packed)
    assert isinstance(read, NodeEvent)
    assert isinstance(unpacked, NodeEvent)
    assert same_value(read.data, unpacked.data)
    assert CODEC.encode_json(read) == line, "what was read is written the same again"
    return read.data


@pytest.mark.parametrize(
    "payload",
    [
        math.nan,
        [math.inf, -0.0],
        2**70,
        -(2**63),
        b"\x00\xff",
        "\ud800",
        {"$float": 1, "$": None},
        {"a": {"$$b": []}},
    ],
)
def test_values_json_has_no_word_for_come_back_the_same(payload: object) -> None:
    assert same_value(through_both_forms(payload), payload)


@pytest.mark.parametrize(
    ("payload", "read"),
    [
        ({1: (True, None)}, {"1": [True, None]}),
        (
            [RowCounts(failed=2).failed, Gap(missed=1, first_seq=1, last_seq=1)],
            [2, {"missed": 1, "first_seq": 1, "last_seq": 1, "exact": True}],
        ),
        (Unprintable(), {"$repr": "<Unprintable whose __repr__ raised RuntimeError>"}),
        ({"$x": Secret("hunter2")}, {"$x": {"$repr": "***"}}),
    ],
)
def test_what_is_no_value_is_written_visibly(payload: object, read: object) -> None:
    assert through_both_forms(payload) == read


def test_a_payload_that_holds_itself_twice_is_cut() -> None:
    loop: list[object] = []
    loop += [loop, loop]
    assert through_both_forms(loop) == [{"$repr": f"<list nested deeper than {MAX_DEPTH} or in itself>"}] * 2


def test_a_payload_nested_too_deep_is_cut() -> None:
    deep: object = ()
    for _ in range(100_000):
        deep = (deep,)
    assert f"nested deeper than {MAX_DEPTH}" in str(plain_payload(deep))


def test_facts_of_an_error_come_back_the_same() -> None:
    failed = NodeFailed(
        **WHO, **WHEN, node="a", error=ErrorInfo(kind="E", message="m", facts={"value": b"\xff"})
    )
    assert CODEC.decode_json(CODEC.encode_json(failed)) == failed


def test_a_text_with_an_unpaired_surrogate_is_written_visibly_in_any_kind() -> None:
    event = WorkflowPaused(**WHO, reason="\udc80")
    assert CODEC.decode_json(CODEC.encode_json(event)) == msgspec.structs.replace(event, reason="\\udc80")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_any_value_comes_back_the_same(payload: object) -> None:
    assert same_value(through_both_forms(payload), payload)


@given(st.binary() | st.text() | VALUES.map(lambda value: msgspec.json.encode(plain_payload(value))))
def test_reading_garbage_raises_nothing_but_the_codecs_error(data: bytes | str) -> None:
    with pytest.raises(EventDecodeError):
        CODEC.decode_json(data)
    if isinstance(data, bytes):
        with pytest.raises(EventDecodeError):
            CODEC.decode_msgpack(data)


def test_deep_nesting_is_the_codecs_error_too() -> None:
    with pytest.raises(EventDecodeError, match="not an event"):
        CODEC.decode_json(b'{"kind":"NodeEvent","data":' + b"[" * 100_000)


def test_an_unknown_kind_names_itself_and_the_known_ones() -> None:
    with pytest.raises(
        UnknownEventKindError, match="unknown kind of event 'TeaBreak'; known are WorkflowStarted"
    ):
        CODEC.decode_json(b'{"kind":"TeaBreak"}')


class Moved(ExecutionEvent, frozen=True, kw_only=True):
    """Version 1 had `from`, version 2 `origin`, version 3 added `distance_m`."""

    version: int = 3
    origin: str
    distance_m: float


MOVED = EventCodec(
    [*KINDS, Moved],
    {
        ("Moved", 1): lambda fields: {**fields, "origin": fields["from"]},
        ("Moved", 2): lambda fields: {**fields, "distance_m": 0.0},
    },
)


def test_old_versions_are_brought_up_step_by_step() -> None:
    now = Moved(workflow_id="w", origin="here", distance_m=0.0)
    assert MOVED.decode_json(b'{"kind":"Moved","version":1,"workflow_id":"w","from":"here"}') == now
    old = msgspec.msgpack.encode({"kind": "Moved", "version": 2, "workflow_id": "w", "origin": "here"})
    assert MOVED.decode_msgpack(old) == now
    assert MOVED.decode_json(MOVED.encode_json(now)) == now


def test_a_newer_version_says_which_flowrx_can_read_it() -> None:
    with pytest.raises(
        EventVersionError, match=r"Moved has version 4, the newest known here is 3; read it with"
    ):
        MOVED.decode_json(b'{"kind":"Moved","version":4,"workflow_id":"w"}')


def test_a_version_no_upcaster_reaches_is_refused() -> None:
    with pytest.raises(EventVersionError, match="no upcaster leads from 0 to 1"):
        MOVED.decode_json(b'{"kind":"Moved","version":0,"workflow_id":"w"}')


def test_a_failure_recorded_before_it_said_what_was_done_still_loads() -> None:
    """Version 1 of NodeFailed had no `then`."""
    old = (
        b'{"kind":"NodeFailed","workflow_id":"w","node":"n","started_at":1.0,"ended_at":2.0,"version":1,'
        b'"error":{"kind":"ValueError","message":"no"}}'
    )
    event = CODEC.decode_json(old)
    assert isinstance(event, NodeFailed)
    assert (event.node, event.then, event.version) == ("n", None, 2)
