"""Expressions and templates of any text on any values: only our errors, in bounded time and size."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.expressions import SUBJECTS, grown
from tests.fuzz.harness import Subject, in_own_process, last_line, search, seed_of_run

_PARTS = 2
_EACH = 25_000
_MOST_MIB = 400
"""A compiled expression is kept, 4,096 of them, and those of the library with it."""


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name.partition(":")[2])
def test_any_expression_is_refused_fails_or_has_a_value(subject: Subject) -> None:
    seed = seed_of_run()
    figures = search(subject, seed, range(400))
    assert 0 < figures.taken < 400, (
        f"seed {seed}: all of them are refused, or none: these samples test nothing"
    )


def test_the_grammar_makes_texts_that_differ() -> None:
    chance = random.Random(7)
    assert len({grown(chance) for _ in range(300)}) > 200


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", range(_PARTS))
def test_any_expression_is_refused_fails_or_has_a_value_in_full(part: int) -> None:
    seed = seed_of_run()
    figures = in_own_process(SUBJECTS, seed, _EACH, first=part * _EACH)
    assert figures.peak_mib <= _MOST_MIB
    last_line(seed, figures, subjects=len(SUBJECTS))
