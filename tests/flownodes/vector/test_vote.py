"""The weighted vote: which label wins, and how sure it is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flownodes.vector.vote import NoNeighboursError, vote

neighbours = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1, 1)), min_size=1, max_size=20)


def test_neighbours_that_agree_are_wholly_sure() -> None:
    assert vote(["card"] * 3, [0.9, 0.8, 0.1]) == ("card", 1.0)


def test_two_that_are_nearly_as_near_outvote_the_nearest() -> None:
    label, confidence = vote(["a", "b", "b"], [0.90, 0.89, 0.89])
    assert label == "b"
    assert 0.5 < confidence < 0.7


def test_two_that_are_far_do_not() -> None:
    assert vote(["a", "b", "b"], [0.9, 0.5, 0.5]).label == "a"


def test_equal_shares_go_to_the_nearer_neighbour() -> None:
    assert vote(["x", "y"], [0.5, 0.5]) == ("x", 0.5)


@given(neighbours, st.floats(1e-3, 10))
def test_confidence_is_a_share_of_the_winner(found: list[tuple[str, float]], softness: float) -> None:
    labels, scores = [label for label, _ in found], [score for _, score in found]
    label, confidence = vote(labels, scores, softness=softness)
    assert label in labels
    assert 1 / len(set(labels)) <= confidence * (1 + 1e-9)
    assert confidence <= 1 + 1e-9


@pytest.mark.parametrize(
    ("labels", "scores", "softness"),
    [
        ([], [], 1.0),
        (["a"], [], 1.0),
        (["a"], [math.nan], 1.0),
        (["a"], [0.5], 0.0),
        (["a"], [0.5], math.nan),
    ],
)
def test_a_vote_on_nothing_or_nonsense_is_refused(
    labels: list[str], scores: list[float], softness: float
) -> None:
    with pytest.raises(NoNeighboursError, match="cannot vote"):
        vote(labels, scores, softness=softness)
