"""The searcher finds what is wrong: each subject that is broken on purpose, and says how to see it again."""

from __future__ import annotations

import pytest

from tests.fuzz import broken, codecs
from tests.fuzz.harness import Found, Place, Subject, in_own_process, search, subject_named

_BROKEN = {subject.name.partition(":")[2]: subject for subject in broken.SUBJECTS}


def test_an_error_that_is_not_the_codecs_own_is_found_and_made_again() -> None:
    with pytest.raises(Found, match=r"KeyError|TypeError") as caught:
        search(_BROKEN["error"], 7, range(1_000))
    *_, seed, number, _ = str(caught.value).splitlines()[0].split()
    with pytest.raises(Found) as again:
        search(_BROKEN["error"], int(seed), [int(number)])
    assert str(again.value) == str(caught.value)


def test_a_hang_is_found() -> None:
    with pytest.raises(Found, match=r"more than 0\.3 s of the processor for one payload"):
        search(_BROKEN["hang"], 7, range(1_000))


def test_a_crash_of_the_process_is_found_with_its_payload() -> None:
    with pytest.raises(Found, match=r"the process ended with -11(?s:.*)Segmentation fault") as caught:
        in_own_process([codecs.KEPT[0], _BROKEN["crash"]], 7, 1_000)
    assert str(Place(_BROKEN["crash"].name, 7, 0))[:-4] in str(caught.value)


def test_memory_that_is_kept_shows_in_the_figures() -> None:
    lean = in_own_process([subject_named("tests.fuzz.codecs:json_value")], 7, 1_000)
    fat = in_own_process([_BROKEN["memory"]], 7, 1_000)
    assert fat.peak_mib > lean.peak_mib + 50
    assert lean.ran == fat.ran == 1_000


def payloads(seed: int, numbers: range) -> list[object]:
    seen: list[object] = []

    def note(payload: object) -> bool:
        seen.append(payload)
        return True

    known = codecs.SUBJECTS[0]
    search(Subject(name=known.name, payload=known.payload, check=note), seed, numbers)
    return seen


def test_payloads_are_made_from_seed_and_number_alone() -> None:
    whole = payloads(7, range(40))
    assert payloads(7, range(20, 40)) == whole[20:]
    assert payloads(8, range(40)) != whole
    assert len(set(map(repr, whole))) > 30
