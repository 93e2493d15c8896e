"""Rows whose budget has no room wait for its next window: near ones in memory, far ones stored."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import LlmCall, RowHeld
from flowcore.durations import format_duration
from flowcore.errors import ValidationFailedError
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, virtual
from tests.behaviour.holding import Project, until
from tests.flowruntime.models.counting import Counting

HOUR = timedelta(hours=1)
CALL_TOKENS = 15
"""Of each call: what the provider counts."""


def asking(project: Project, calls: float, window: timedelta = HOUR, **policy: Any) -> Any:
    """A node whose budget has room for so many calls in each window."""
    budget = {"tokens": int(calls * CALL_TOKENS), "window": format_duration(window), "reaction": "defer"}
    return project.add(
        "llm.generate",
        id="ask",
        config={
            "provider": "counting",
            "model": "m",
            "prompt": "{{ value }}",
            "max_tokens": 5,
            "calls": {"budgets": [budget], "limits": {"concurrency": 1}, **policy},
        },
        concurrency=1,
    )


@virtual
async def test_rows_beyond_a_budget_are_stored_and_come_back_in_later_windows() -> None:
    project = Project(*range(5))
    project.chain(asking(project, 2))
    provider = Counting(then=1.0)
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        with recorded(rt.events) as seen:
            result = await project.run(rt)
    assert result.ok
    assert project.written == [f"re: {number}" for number in range(5)]
    assert provider.calls == 5, "none was made twice"
    assert result.records == 5
    assert result.returned >= 3
    assert len(seen.of(RowHeld)) == result.returned, "each time a row was put off it came back"
    assert len(seen.of(LlmCall)) == 5, "a call that was put off was not made"
    assert rt.models.statistics()["errors"] == 0
    third = sorted(provider.times)[2]
    assert HOUR.total_seconds() <= third <= HOUR.total_seconds() + 60
    assert sorted(provider.times)[4] >= 2 * HOUR.total_seconds()


@virtual
async def test_what_calls_under_way_have_reserved_puts_no_row_off() -> None:
    """Eight at once reserve 560 tokens and take 120, for which the budget has room."""
    project = Project(*range(8))
    budget = {"tokens": 200, "window": "24h", "reaction": "defer"}
    calls = {"budgets": [budget], "limits": {"concurrency": 8}}
    config = {"provider": "counting", "model": "m", "prompt": "{{ value }}", "calls": calls, "max_tokens": 60}
    project.chain(project.add("llm.generate", id="ask", config=config, concurrency=8))
    provider = Counting(then=1.0)
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        result = await project.run(rt)
    assert result.ok
    assert len(project.written) == 8
    assert result.returned == 0
    assert now() < 60


@virtual
async def test_while_rows_wait_for_money_the_records_behind_them_are_read_and_committed() -> None:
    project = Project(*range(50), settings={"max_in_flight": 8})
    project.chain(asking(project, 2))
    provider = Counting(then=0.1)
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        run = await project.start(rt)
        await until(lambda: project.source.rows_read == 50)
        await until(lambda: run.worker.budget.rows_in_flight == 0)
        assert now() < 600
        assert len(await project.open()) == 48
        stopped = await run.stop()
    assert (stopped.held, stopped.abandoned) == (48, 0)
    assert provider.calls == 2


@virtual
async def test_a_restart_pays_for_what_was_put_off_once() -> None:
    project = Project(*range(3))
    project.chain(asking(project, 1, journal=True))
    provider = Counting(then=1.0)
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        run = await project.start(rt)
        await until(lambda: project.source.rows_read == 3)
        await until(lambda: run.worker.budget.rows_in_flight == 0)
        await run.stop()
    await asyncio.sleep(2 * HOUR.total_seconds())
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        result = await project.run(rt)
    assert project.written == ["re: 0", "re: 1", "re: 2"]
    assert provider.calls == 3
    assert result.ok


@virtual
async def test_equal_calls_that_share_an_answer_are_put_off_each_by_itself() -> None:
    """Two rows wait for one call under way; each of them is stored, and both come back."""
    project = Project("a", "b", "b", "c")
    project.chain(asking(project, 1, single_flight=True))
    provider = Counting(then=1.0)
    async with project.runtime(llm_providers={"counting": provider}) as rt:
        result = await project.run(rt)
    assert result.ok
    assert project.written == ["re: a", "re: b", "re: b", "re: c"]


@virtual
async def test_a_window_within_max_hold_is_waited_for_in_memory_without_a_store() -> None:
    project = Project(*range(3), settings={"max_hold": "2h"})
    project.chain(asking(project, 1))
    provider = Counting(then=1.0)
    async with project.runtime(llm_providers={"counting": provider}, store=None) as rt:
        result = await project.run(rt)
    assert result.ok
    assert result.returned == 0
    assert [round(at) for at in provider.times] == [0, 3600, 7200]


@virtual
async def test_without_a_store_a_far_window_is_refused_before_anything_runs() -> None:
    project = Project(1)
    project.chain(asking(project, 1))
    provider = Counting()
    async with project.runtime(llm_providers={"counting": provider}, store=None) as rt:
        with pytest.raises(
            ValidationFailedError, match=r"budget's next window, 1h at most.*max_hold"
        ) as refused:
            await project.run(rt)
    assert "raise settings.max_hold" in str(refused.value)
    assert provider.calls == 0


@virtual
@pytest.mark.parametrize("type_", ["llm.stream", "embedding.embed"])
async def test_nodes_whose_calls_are_of_no_single_row_fail_them_and_need_no_store(type_: str) -> None:
    project = Project("a", "b", settings={"on_error": "continue"})
    budget = {"tokens": 1, "window": "1h", "reaction": "defer"}
    config = {"provider": "counting", "model": "m", "calls": {"budgets": [budget]}}
    nodes = [project.add(type_, id="ask", config=config)]
    if type_ == "llm.stream":
        nodes.append(project.add("stream.collect", id="whole"))
    project.chain(*nodes)
    async with project.runtime(llm_providers={"counting": Counting()}, store=None) as rt:
        result = await project.run(rt)
    assert result.state.name == "partial"
    assert project.written == []
    assert result.held == 0


@virtual
async def test_a_call_that_no_window_covers_fails_and_waits_for_nothing() -> None:
    project = Project(1, settings={"on_error": "continue"})
    project.chain(asking(project, 0.5))
    async with project.runtime(llm_providers={"counting": Counting()}) as rt:
        result = await project.run(rt)
    assert result.counts["ask"].failed == 1
    assert result.held == 0
