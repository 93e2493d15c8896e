"""Rules of rows that wait: when they may go on, what a clock set back does, which row is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flowcore.waits import Wait, answered, cancelled, ends_cancelled, expired, is_over
from flowruntime.durable.held import HeldRow, Place, held_of, is_held, row_id, way_on
from flowruntime.durable.steady import SteadyClock

_STEP = st.tuples(st.floats(0, 1e4), st.floats(-1e5, 1e5))
_PLACES = st.builds(
    Place,
    source=st.text(max_size=3),
    partition=st.text(max_size=3),
    position=st.one_of(
        st.none(), st.integers(), st.text(max_size=3), st.dictionaries(st.text(max_size=2), st.integers())
    ),
    record=st.text(max_size=3),
    path=st.text(max_size=3),
)


@given(steps=st.lists(_STEP, max_size=30))
def test_a_steady_clock_never_goes_back_and_is_never_behind_the_wall(
    steps: list[tuple[float, float]],
) -> None:
    """Whatever is done to the wall clock, what is due after n seconds is due after n seconds at most."""
    wall, steady = [1e6], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    before = clock()
    for elapsed, moved in steps:
        wall[0] += elapsed + moved
        steady[0] += elapsed
        now = clock()
        assert now >= wall[0] - 1e-3
        assert now >= before + elapsed - 1e-3
        before = now


@given(
    closings=st.lists(st.sampled_from(["answer", "expire", "cancel", "leave"]), min_size=1, max_size=5),
    on_timeout=st.sampled_from(["fail", "answer", "cancel"]),
)
def test_a_row_goes_on_when_nothing_is_open_or_something_has_failed_it(
    closings: list[str], on_timeout: Any
) -> None:
    waits = [
        Wait(
            id=f"w{number}",
            execution_id="r",
            node="n",
            kind="form",
            created_at=0,
            expires_at=5,
            on_timeout=on_timeout,
        )
        for number in range(len(closings))
    ]
    close: dict[str, Callable[[Wait], Wait]] = {
        "answer": lambda wait: answered(wait, 1, at=1),
        "expire": lambda wait: expired(wait, at=6),
        "cancel": lambda wait: cancelled(wait, at=1),
        "leave": lambda wait: wait,
    }
    closed = [close[how](wait) for how, wait in zip(closings, waits, strict=True)]
    failed = "cancel" in closings or ("expire" in closings and on_timeout != "answer")
    assert is_over(closed) == (failed or "leave" not in closings)
    assert ends_cancelled(closed) == (
        "cancel" in closings or ("expire" in closings and on_timeout == "cancel")
    )
    assert not ends_cancelled(closed) or is_over(closed)


@given(one=_PLACES, other=_PLACES, numbers=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_two_rows_have_one_id_only_when_they_are_the_same(
    one: Place, other: Place, numbers: tuple[int, int]
) -> None:
    ids = [row_id("w", "n", place, number) for place, number in zip((one, other), numbers, strict=True)]
    same = (one, numbers[0]) == (other, numbers[1])
    assert (ids[0] == ids[1]) == same
    assert row_id("w", "n", msgspec.convert(msgspec.to_builtins(one), Place), numbers[0]) == ids[0]


@given(place=_PLACES, path=st.text(max_size=3), answers=st.integers(0, 2))
def test_a_row_that_is_held_further_on_is_another_row(place: Place, path: str, answers: int) -> None:
    row = HeldRow(node="a", place=place, origin={}, given={}, record={}, answers=[{}] * answers)
    further = way_on(row, path)
    assert further.path != place.path
    assert row_id("w", "a", further, 0) != row_id("w", "a", place, 0)
    data = row.to_data()
    assert is_held(data)
    assert held_of(data) == row
