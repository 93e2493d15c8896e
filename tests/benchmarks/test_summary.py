"""The arithmetic of a comparison."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.summary import Bar, paired_ratios, quartiles, summarize

FIGURES = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=30)


def test_a_summary_is_median_range_quartiles_and_count() -> None:
    summary = summarize([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (summary.median, summary.min, summary.max) == (3.0, 1.0, 5.0)
    assert summary.quartiles == (2.0, 4.0)
    assert summary.repeats == 5


def test_one_repeat_is_its_own_quartiles() -> None:
    assert quartiles([7.0]) == (7.0, 7.0)


@given(figures=FIGURES)
def test_five_numbers_are_in_order_and_do_not_depend_on_the_order_of_repeats(figures: list[float]) -> None:
    summary = summarize(figures)
    low, high = summary.quartiles
    assert summary.min <= low <= summary.median <= high <= summary.max
    assert summarize(list(reversed(figures))) == summary


def test_nothing_measured_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarize([])


def test_ratios_are_taken_round_by_round_so_that_a_slow_minute_hits_both_of_a_pair() -> None:
    """The medians here are 2 and 2, their quotient 1; every single round says 2."""
    assert paired_ratios([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == [2.0, 2.0, 2.0]


def test_unequal_numbers_of_rounds_make_no_pairs() -> None:
    with pytest.raises(ValueError, match="2 figures of ours and 1 of theirs"):
        paired_ratios([1.0, 2.0], [1.0])


def test_a_figure_of_zero_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="a figure of 0"):
        paired_ratios([1.0], [0.0])


@pytest.mark.parametrize(
    ("bar", "kept", "broken"),
    [
        (Bar("<=", 50), 50.0, 50.01),
        (Bar(">=", 0.85, "plain loop"), 0.85, 0.849),
        (Bar("==", 8), 8.0, 7.0),
    ],
)
def test_a_bar_holds_up_to_its_limit_and_not_beyond(bar: Bar, kept: float, broken: float) -> None:
    assert bar.holds(kept)
    assert not bar.holds(broken)


def test_a_bar_reads_as_a_figure_of_ours_or_as_a_ratio_to_a_peer() -> None:
    assert Bar("<=", 30).text("us/node") == "<= 30 us/node"
    assert Bar(">=", 2.5, "Bytewax").text("records/s") == ">= 2.5x Bytewax"
