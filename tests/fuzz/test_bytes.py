"""A million damaged payloads, every codec and decoder: only its own error, never a crash or a hang."""

from __future__ import annotations

import pytest

from tests.fuzz.codecs import BYTES, KEPT, ROWS, SUBJECTS
from tests.fuzz.harness import Subject, in_own_process, last_line, search, seed_of_run

_PARTS = {  # payloads of each subject: those that decode rows in small pieces are dear
    "rows": (ROWS, 10_000),
    "bytes": (BYTES, 30_000),
    "kept": (KEPT[::2], 37_000),
    "kept, others": (KEPT[1::2], 37_000),
}
_MOST_MIB = 300


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name.partition(":")[2])
def test_damaged_payloads_are_taken_or_refused(subject: Subject) -> None:
    seed = seed_of_run()
    figures = search(subject, seed, range(300))
    assert figures.ran == 300
    assert 0 < figures.taken < 300, (
        f"seed {seed}: all of them are refused, or none: these samples test nothing"
    )


def test_the_parts_are_a_million_payloads_of_all_subjects() -> None:
    assert sum(len(subjects) * count for subjects, count in _PARTS.values()) >= 1_000_000
    searched = [subject.name for subjects, _ in _PARTS.values() for subject in subjects]
    assert sorted(searched) == sorted(subject.name for subject in SUBJECTS)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("part", _PARTS)
def test_a_million_damaged_payloads_are_taken_or_refused(part: str) -> None:
    seed = seed_of_run()
    subjects, count = _PARTS[part]
    figures = in_own_process(subjects, seed, count)
    assert figures.peak_mib <= _MOST_MIB
    last_line(seed, figures, subjects=len(subjects))
