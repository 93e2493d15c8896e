"""What must hold whatever the workflow, the faults and the times: each seed is one story of each."""

from __future__ import annotations

import pytest

from flowruntime.testing.virtual import run_virtual
from tests.properties.scenario import explain, play, play_requests, play_stream, story_of

_STREAMS = range(10_000, 10_080)
_REQUESTS = range(20_000, 20_080)


@pytest.mark.parametrize("seed", _STREAMS)
def test_a_stream_covers_settles_commits_and_ends_as_promised(seed: int) -> None:
    """ALL-6, OPR-1: whatever is stopped, cancelled, paused or refused on the way.

    Every row covered once on every edge and settled once; budget and permits back, no task left, one terminal
    event; nothing emitted after the end; commits never beyond settled and written rows, never backwards;
    after stops and restarts every record is in the sinks.
    """
    faults = run_virtual(play_stream(story_of(seed)), seed=seed)
    assert not faults, explain(seed, faults)


@pytest.mark.parametrize("seed", _REQUESTS)
def test_requests_settle_and_end_as_promised_also_when_cancelled_or_out_of_time(seed: int) -> None:
    """As for streams; a cancelled request is gone within 50 ms and leaves nothing, others never notice."""
    faults = run_virtual(play_requests(story_of(seed)), seed=seed)
    assert not faults, explain(seed, faults)


def test_stories_meet_every_fault() -> None:
    """A story teller that never cancels, stops or lets a sink fail tests nothing of them."""
    stories = [story_of(seed) for seed in range(200)]
    actions = {action for story in stories for _, action in story.actions}
    assert actions == {"pause", "resume", "stop", "stop_now", "drain", "cancel", "aclose"}
    assert any(story.sink_failures for story in stories)
    assert any(story.case.undecodable for story in stories)
    assert any(story.case.on_error == "stop_workflow" for story in stories)
    assert any(story.case.letters for story in stories)
    assert sum(story.again for story in stories) > 20
    assert any(node.on_error == "fallback" for story in stories for node in story.case.nodes)
    assert any(story.letter_failures for story in stories)


def test_the_instruments_see_frames() -> None:
    """An instrument wrapped around nothing would find nothing."""
    trace: list[object] = []
    run_virtual(play_stream(story_of(4), trace), seed=4)
    assert trace


@pytest.mark.parametrize("seed", [1_005_524])
def test_a_story_that_found_a_fault_finds_none_any_more(seed: int) -> None:
    """1005524: a branch had its value while a node before the other branch had failed; the value counts."""
    faults = play(seed)
    assert not faults, explain(seed, faults)
