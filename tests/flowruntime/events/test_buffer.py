"""The gap arithmetic of every buffer, over any order of offering, skipping and taking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.events import ExecutionEvent, Gap, NodeStarted
from flowruntime.events.buffer import EventBuffer, LatestPerSubject, NewestKept, OldestKept

BUFFERS = (NewestKept, OldestKept, LatestPerSubject)


def event(seq: int, node: str = "a") -> NodeStarted:
    return NodeStarted(workflow_id="w", node=node, started_at=0.0, seq=seq)


def drain(buffer: EventBuffer) -> list[ExecutionEvent | Gap]:
    entries: list[ExecutionEvent | Gap] = []
    while (entry := buffer.take()) is not None:
        entries.append(entry)
    return entries


def told(entries: list[ExecutionEvent | Gap]) -> int:
    return sum(entry.missed if isinstance(entry, Gap) else 1 for entry in entries)


@pytest.mark.parametrize("kind", BUFFERS)
@given(
    capacity=st.integers(1, 5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.sampled_from("abcd")),
            st.tuples(st.just("skip"), st.integers(1, 3)),
            st.tuples(st.just("take"), st.none()),
        ),
        max_size=60,
    ),
)
def test_events_taken_and_missed_and_held_make_what_was_offered(
    kind: type[EventBuffer], capacity: int, steps: list[tuple[str, str | int | None]]
) -> None:
    """Also: never more than the capacity is held, and events come out in ascending seq, none twice."""
    buffer, seq, taken = kind(capacity), 0, list[ExecutionEvent | Gap]()
    for step, argument in steps:
        if step == "offer":
            seq += 1
            buffer.offer(event(seq, str(argument)))
        elif step == "skip" and isinstance(argument, int):
            buffer.skip(Gap(missed=argument, first_seq=seq + 1, last_seq=seq + argument))
            seq += argument
        elif (entry := buffer.take()) is not None:
            taken.append(entry)
        assert len(buffer) <= capacity
    taken += drain(buffer)
    events = [entry for entry in taken if not isinstance(entry, Gap)]
    assert told(taken) == seq
    assert len(events) + buffer.missed == seq
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert not buffer.pending


def test_dropping_the_oldest_tells_the_gap_first() -> None:
    buffer = NewestKept(2)
    kept = [buffer.offer(event(seq)) for seq in range(1, 6)]
    assert kept == [True, True, False, False, False]
    assert drain(buffer) == [Gap(missed=3, first_seq=1, last_seq=3), event(4), event(5)]


def test_dropping_the_newest_tells_the_gap_where_it_is() -> None:
    buffer = OldestKept(2)
    for seq in range(1, 5):
        buffer.offer(event(seq))
    assert buffer.take() == event(1)
    buffer.offer(event(5))
    assert drain(buffer) == [event(2), Gap(missed=2, first_seq=3, last_seq=4), event(5)]


def test_a_gap_at_the_end_is_told_too() -> None:
    buffer = OldestKept(1)
    buffer.offer(event(1))
    buffer.offer(event(2))
    assert drain(buffer) == [event(1), Gap(missed=1, first_seq=2, last_seq=2)]


def test_conflating_keeps_the_latest_of_each_node() -> None:
    buffer = LatestPerSubject(8)
    for seq, node in enumerate("abab", start=1):
        buffer.offer(event(seq, node))
    assert drain(buffer) == [Gap(missed=2, first_seq=1, last_seq=2), event(3, "a"), event(4, "b")]


def test_conflating_more_nodes_than_fit_drops_the_one_silent_for_longest() -> None:
    buffer = LatestPerSubject(2)
    for seq, node in enumerate("abac", start=1):
        buffer.offer(event(seq, node))
    assert drain(buffer) == [Gap(missed=2, first_seq=1, last_seq=2), event(3, "a"), event(4, "c")]


def test_evicting_an_event_takes_the_gap_before_it_along() -> None:
    buffer = NewestKept(1)
    buffer.skip(Gap(missed=2, first_seq=1, last_seq=2))
    buffer.offer(event(3))
    buffer.offer(event(4))
    assert drain(buffer) == [Gap(missed=3, first_seq=1, last_seq=3), event(4)]
