"""What models are asked: an answer is right only when the whole prompt came, after the parents' answers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import prompts

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1)


@given(st.lists(TEXTS, max_size=4), st.data())
def test_the_order_of_the_parents_answers_is_no_part_of_an_answer(
    answers: list[str], data: st.DataObject
) -> None:
    told = prompts.instruction("node")
    shuffled = data.draw(st.permutations(answers))
    assert prompts.reply(prompts.prompt(answers, told)) == prompts.reply(prompts.prompt(shuffled, told))


@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_a_part_that_is_missing_or_another_one_changes_the_answer(
    answers: list[str], data: st.DataObject
) -> None:
    told = prompts.instruction("node")
    at = data.draw(st.integers(0, len(answers) - 1))
    other = data.draw(st.sampled_from([[], ["something else entirely"], [answers[at] + "."]]))
    right = prompts.reply(prompts.prompt(answers, told))
    assert prompts.reply(prompts.prompt([*answers[:at], *other, *answers[at + 1 :]], told)) != right


@pytest.mark.parametrize(
    ("scenario", "calls", "levels"),
    [
        ("one", 1, 1),
        ("chain", 4, 4),
        ("parallel", 4, 1),
        ("graph", 5, 4),
        ("large", 1, 1),
        ("independent", 10, 1),
    ],
)
def test_a_scenario_has_its_calls_and_its_longest_path(scenario: str, calls: int, levels: int) -> None:
    assert len(prompts.SCENARIOS[scenario].parents) == calls
    assert prompts.SCENARIOS[scenario].levels == levels
    assert len(set(prompts.answers(scenario).values())) == calls


def test_each_answer_of_a_chain_is_to_a_prompt_that_holds_the_answer_before_it() -> None:
    answers, told = prompts.answers("chain"), prompts.instructions("chain")
    for before, after in pairwise(answers):
        assert answers[after] == prompts.reply(f"{answers[before]}\n\n{told[after]}")


def test_the_large_prompt_has_twenty_kilobytes_and_a_name() -> None:
    (told,) = prompts.instructions("large").values()
    assert len(told.encode()) == 20 * 1024
    assert prompts.name_of(told) == "document"
    assert prompts.name_of("no name") == "unnamed"
