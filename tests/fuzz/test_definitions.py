"""Definitions of any text: a workflow or problems with paths; at most a second per 1,000 nodes, 300 MiB."""

from __future__ import annotations

import pytest

from flowruntime.definition.files import MAX_BYTES
from tests.fuzz.documents import DEAR, DOCUMENT, costly
from tests.fuzz.harness import in_own_process, last_line, search, seed_of_run

_PARTS = 4
_EACH = 25_000
_MOST_MIB = 300


def test_any_document_is_a_workflow_or_problems_with_paths() -> None:
    seed = seed_of_run()
    figures = search(DOCUMENT, seed, range(400))
    assert 0 < figures.taken < 400, (
        f"seed {seed}: all of them are refused, or none: this grammar tests nothing"
    )


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", range(_PARTS))
def test_a_hundred_thousand_documents_are_workflows_or_problems_with_paths(part: int) -> None:
    seed = seed_of_run()
    figures = in_own_process([DOCUMENT], seed, _EACH, first=part * _EACH)
    assert figures.peak_mib <= _MOST_MIB
    last_line(seed, figures)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", range(_PARTS))
def test_a_document_that_is_dear_on_purpose_costs_a_second_per_thousand_nodes(part: int) -> None:
    """Seconds of the processor, not of the clock; in a process of its own, so that the memory is theirs."""
    subjects = DEAR[part::_PARTS]
    figures = in_own_process(subjects, seed=0, count=1)
    assert figures.peak_mib <= _MOST_MIB
    last_line(0, figures, subjects=len(subjects))


def test_dear_documents_are_as_large_as_they_may_be_and_not_larger() -> None:
    sizes = [len(text) for text in costly().values()]
    assert max(sizes) <= MAX_BYTES
    assert sum(size > MAX_BYTES // 2 for size in sizes) > len(sizes) // 3
