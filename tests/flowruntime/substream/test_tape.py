"""Who gets which item: everything from the first on, in order, within the capacity, or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowruntime.substream.tape import Tape


def test_nothing_is_wanted_before_somebody_reads_and_no_more_than_the_capacity_after() -> None:
    tape: Tape[int] = Tape(2, replays=False)
    assert not tape.wants_more
    assert tape.join("a")
    assert tape.wants_more
    tape.put(0)
    assert tape.wants_more
    tape.put(1)
    assert not tape.wants_more
    assert tape.take("a") == 0
    assert tape.wants_more
    assert (tape.produced, tape.ready) == (2, 1)


def test_a_tape_that_replays_serves_a_late_reader_while_it_has_the_first_item() -> None:
    tape: Tape[int] = Tape(3, replays=True)
    tape.join("early")
    for number in range(3):
        tape.put(number)
        assert tape.take("early") == number
    assert tape.join("late")
    assert [tape.take("late") for _ in range(3)] == [0, 1, 2]
    tape.put(3)
    assert not tape.join("too late")


def test_one_that_does_not_keeps_nothing_for_later() -> None:
    tape: Tape[int] = Tape(3, replays=False)
    tape.join("only")
    tape.put(0)
    tape.take("only")
    assert tape.ready == 0
    assert not tape.join("late")


def test_a_parked_reader_holds_nobody_up_and_goes_on_if_its_item_is_still_there() -> None:
    tape: Tape[int] = Tape(2, replays=True)
    tape.join("parked")
    tape.join("other")
    for number in range(2):
        tape.put(number)
        tape.take("other")
    assert not tape.wants_more
    tape.park("parked")
    assert tape.wants_more
    assert tape.resume("parked")
    assert tape.take("parked") == 0
    tape.park("parked")
    for number in (2, 3):
        tape.put(number)
        tape.take("other")
    assert not tape.resume("parked")


def test_whoever_leaves_holds_nobody_up() -> None:
    tape: Tape[int] = Tape(1, replays=True)
    tape.join("slow")
    tape.join("fast")
    tape.put(0)
    tape.take("fast")
    assert not tape.wants_more
    tape.leave("slow")
    assert tape.wants_more
    tape.leave("fast")
    assert not tape.wants_more
    tape.leave("fast")


@given(
    capacity=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "join", "take", "park", "resume", "leave"]), st.integers(0, 3))
    ),
)
def test_every_reader_sees_each_item_once_in_order_and_the_tape_keeps_to_its_capacity(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    """Whoever comes, goes, pauses and lags."""
    tape: Tape[int] = Tape(capacity, replays=True)
    taken: dict[int, list[int]] = {}
    parked: set[int] = set()
    here: set[int] = set()
    for step, reader in steps:
        if step == "put" and tape.wants_more:
            tape.put(tape.produced)
        elif step == "join" and reader not in here and reader not in taken and tape.join(reader):
            taken[reader] = []
            here.add(reader)
        elif step == "take" and reader in here - parked and tape.has_next(reader):
            taken[reader].append(tape.take(reader))
        elif step == "park" and reader in here - parked:
            tape.park(reader)
            parked.add(reader)
        elif step == "resume" and reader in parked:
            if tape.resume(reader):
                parked.discard(reader)
            else:
                assert tape.produced - len(taken[reader]) > capacity
        elif step == "leave" and reader in here:
            tape.leave(reader)
            here.discard(reader)
            parked.discard(reader)
        assert tape.ready <= capacity
        for reading in here - parked:
            assert tape.produced - len(taken[reading]) <= capacity
    assert all(items == list(range(len(items))) for items in taken.values())


@pytest.mark.parametrize("replays", [True, False])
def test_a_cleared_tape_is_empty(replays: bool) -> None:
    tape: Tape[int] = Tape(3, replays=replays)
    tape.join("a")
    tape.put(0)
    tape.clear()
    assert (tape.produced, tape.ready) == (1, 0)
