"""embedding.similarity."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import CoercionError, WrongKindError
from flowcore.vectors import vector_of
from flownodes.embedding.similarity import Measure, similarity

_NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("measure", "left", "right", "result"),
    [
        ("cosine", [1, 0], [0, 1], 0.0),
        ("cosine", [1, 2], [2, 4], 1.0),
        ("cosine", [1, 0], [-3, 0], -1.0),
        ("dot", [1, 2], [3, 4], 11.0),
        ("euclidean", [0, 0], [3, 4], 5.0),
    ],
)
def test_vectors_are_compared(measure: Measure, left: list[float], right: list[float], result: float) -> None:
    assert similarity(vector_of(left), vector_of(right), measure=measure) == pytest.approx(result)


@given(_NUMBERS, st.floats(0.1, 100))
def test_a_vector_is_like_itself_whatever_its_length(numbers: list[float], factor: float) -> None:
    if not any(abs(number) > 1e-3 for number in numbers):
        return
    longer = [number * factor for number in numbers]
    assert similarity(vector_of(numbers), vector_of(longer)) == pytest.approx(1.0, abs=1e-4)


@given(_NUMBERS, st.randoms())
def test_the_order_of_two_vectors_does_not_matter(numbers: list[float], random: Any) -> None:
    other = numbers[:]
    random.shuffle(other)
    left, right = vector_of(numbers), vector_of(other)
    assert similarity(left, right, measure="euclidean") == similarity(right, left, measure="euclidean")
    assert math.isclose(similarity(left, right, measure="dot"), similarity(right, left, measure="dot"))


def test_a_vector_without_a_direction_has_no_cosine() -> None:
    with pytest.raises(CoercionError, match="vector b is all zeros"):
        similarity(vector_of([1.0]), vector_of([0.0]))
    assert similarity(vector_of([1.0]), vector_of([0.0]), measure="dot") == 0.0


def test_vectors_of_different_models_are_not_compared() -> None:
    with pytest.raises(CoercionError, match="embed both with one model"):
        similarity(vector_of([1.0]), vector_of([1.0, 2.0]))


@pytest.mark.parametrize("wrong", ["text", b"abc", None, [1.0]])
def test_what_is_no_vector_is_an_error_at_its_port(wrong: Any) -> None:
    with pytest.raises(WrongKindError, match="a vector at 'b'"):
        similarity(vector_of([1.0]), wrong)
