"""Whose turn it is: lanes by weight, keys in turn, nobody for ever last."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.policy import Lane
from flowruntime.models.line import WEIGHTS, Line

LANES = st.sampled_from(list(WEIGHTS))


def served(line: Line[str], most: int) -> list[str]:
    found: list[str] = []
    while len(found) < most and (first := line.first()) is not None:
        line.take(first)
        found.append(first)
    return found


def test_lanes_are_served_by_their_weights_while_all_have_waiters() -> None:
    line: Line[str] = Line()
    for number in range(210):
        for lane in WEIGHTS:
            line.add(f"{lane} {number}", lane, None)
    counts = Counter(name.split()[0] for name in served(line, 210))
    assert counts == {"interactive": 160, "normal": 40, "background": 10}


def test_a_busy_key_does_not_hold_up_the_others_of_its_lane() -> None:
    line: Line[str] = Line()
    for number in range(1_000):
        line.add(f"loud {number}", "normal", "loud")
    line.add("quiet 0", "normal", "quiet")
    assert "quiet 0" in served(line, 2)


@given(
    st.lists(st.tuples(LANES, st.integers(0, 3)), min_size=1, max_size=60),
    st.lists(st.tuples(LANES, st.integers(0, 3)), max_size=200),
)
def test_whoever_waits_is_served_after_a_bounded_number_of_others(
    first: list[tuple[Lane, int]], later: list[tuple[Lane, int]]
) -> None:
    """However many come behind it, in whatever lane."""
    line: Line[str] = Line()
    for number, (lane, key) in enumerate(first):
        line.add(f"first {number}", lane, key)
    line.add("watched", "background", "watched")
    most: tuple[Lane, int] = ("interactive", 0)
    arrivals = iter(later + [most] * 10_000)
    bound = (len(first) + 2) * sum(WEIGHTS.values()) + len(WEIGHTS)
    for turn in range(bound):
        lane, key = next(arrivals)
        line.add(f"later {turn}", lane, key)
        turn_of = line.first()
        assert turn_of is not None
        line.take(turn_of)
        if turn_of == "watched":
            return
    raise AssertionError("never served")


@given(st.lists(st.tuples(LANES, st.integers(0, 3), st.booleans()), max_size=100))
def test_who_leaves_is_forgotten_and_all_others_are_served_once(
    waiters: list[tuple[Lane, int, bool]],
) -> None:
    line: Line[str] = Line()
    for number, (lane, key, _) in enumerate(waiters):
        line.add(str(number), lane, key)
    for number, (_, _, leaves) in enumerate(waiters):
        if leaves:
            line.remove(str(number))
            line.remove(str(number))
    stay = sorted(str(number) for number, (_, _, leaves) in enumerate(waiters) if not leaves)
    assert sorted(served(line, 1_000)) == stay
    assert len(line) == 0
    assert line.waiting() == dict.fromkeys(WEIGHTS, 0)


def test_the_waiters_of_a_key_are_served_as_they_came() -> None:
    line: Line[str] = Line()
    for name in "abc":
        line.add(name, "normal", 1)
    assert served(line, 3) == ["a", "b", "c"]
