"""Rows of continuous runs that wait for an answer: stored, settled, and back when it comes."""

from __future__ import annotations

import pytest

from flowcore import (
    RowHeld,
    RowReturned,
    WaitExpiredError,
    WorkflowCancelled,
)
from flowcore.errors import ValidationFailedError
from flowcore.store_errors import (
    WaitClosedError,
)
from flowruntime.durable.held import DONE
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.recorder import recorded
from flowruntime.testing.scripted import delay
from tests.behaviour.harness import DEAD_LETTER, graveyard, now, virtual
from tests.behaviour.holding import CALLS, Project, ask, order, parts, seen, together, twice, typed, until

# --- waiting for answers --------------------------------------------------------------------------------


@virtual
async def test_a_row_that_waits_settles_and_the_run_ends_without_it() -> None:
    project = Project(1, 2, 3)
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert result.state.name == "completed"
    assert (result.held, result.returned, result.records) == (3, 0, 3)
    counts = result.counts["ask"]
    assert (counts.held, counts.completed, counts.dropped, counts.failed) == (3, 0, 0, 0)
    assert set(result.counts) == {"rows", "ask", "out"}
    assert project.source.committed == {"0": 3}
    assert project.written == []
    assert {wait.title for wait in await project.open()} == {"1", "2", "3"}


@virtual
async def test_an_answered_row_comes_back_in_the_run_that_is_going_on() -> None:
    project = Project(1, delay(100), 2)
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        with recorded(rt.events) as told:
            run = await project.start(rt)
            await until(project.open)
            (wait,) = await project.open()
            answered = await rt.resume(wait.execution_id, "yes", by="ann")
            await until(lambda: project.written)
            assert now() < 5, "at once, not at the end"
            result = await run.wait()
    assert (answered.state.name, answered.held, answered.waits) == ("paused", 1, [])
    assert project.written == [[1, "yes"]]
    assert (result.state.name, result.held, result.returned, result.records) == ("completed", 1, 1, 2)
    assert CALLS["ask"] == 3
    held, returned = told.of(RowHeld), told.one(RowReturned)
    assert [event.node for event in held] == ["ask", "ask"]
    assert (returned.node, returned.row_id) == ("ask", wait.execution_id)
    assert held[0].waits[0].title == "1"


@virtual
async def test_what_another_process_answers_is_found_within_a_second() -> None:
    project = Project(1, delay(100))
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt, project.runtime() as other:
        run = await project.start(rt)
        await until(project.open)
        (wait,) = await project.open()
        await other.resume(wait.execution_id, "yes")
        before = now()
        await until(lambda: project.written)
        assert now() - before <= 1.1
        await run.wait()


@virtual
async def test_an_answer_between_runs_comes_back_in_the_next_one() -> None:
    project = Project(1, 2)
    project.chain(project.add(ask, id="ask"))
    async with project.runtime() as rt:
        await project.run(rt)
    async with project.runtime() as rt:
        waits = await project.open()
        for wait in waits:
            await rt.resume(wait.execution_id, wait.title * 2)
        with pytest.raises(WaitClosedError):
            await rt.resume(waits[0].execution_id, "again")
        result = await project.run(rt)
    assert project.written == [[1, "11"], [2, "22"]]
    assert (result.state.name, result.held, result.returned, result.records) == ("completed", 0, 2, 0)


@virtual
async def test_a_row_has_the_record_key_and_type_it_had() -> None:
    project = Project(7)
    typed_node = project.add(typed, id="typed")
    project.chain(project.add(order, id="order"), typed_node, project.add(seen, id="seen"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await project.run(rt)
    assert project.written == [{"value": [7, "yes"], "key": "7", "record": 7, "mode": "stream"}]


@virtual
async def test_several_waits_of_one_call_are_asked_one_after_the_other() -> None:
    project = Project(1)
    project.chain(project.add(twice, id="twice"))
    async with project.runtime() as rt:
        await project.run(rt)
        for answer in ("a", "b"):
            (wait,) = await project.open()
            await rt.resume(wait.execution_id, answer)
            result = await project.run(rt)
    assert project.written == [[1, "a", "b"]]
    assert (result.held, result.returned) == (0, 1)


@virtual
async def test_several_waits_at_once_are_all_answered_before_the_row_goes_on() -> None:
    project = Project(1)
    project.chain(project.add(together, id="together"))
    async with project.runtime() as rt:
        await project.run(rt)
        for wait in await project.open():
            assert project.written == []
            await rt.resume(wait.execution_id, wait.title * 2, wait=wait.id)
            await project.run(rt)
    assert project.written == [[1, "aa", "bb"]]


@virtual
async def test_each_child_of_a_record_waits_by_itself() -> None:
    project = Project(3)
    project.chain(project.add(parts, id="parts"), project.add(ask, id="ask"))
    async with project.runtime() as rt:
        await project.run(rt)
        waits = sorted(await project.open(), key=lambda wait: wait.path)
        assert [wait.path for wait in waits] == ["0", "1", "2"]
        await rt.resume(waits[1].execution_id, "yes")
        result = await project.run(rt)
    assert project.written == [[1, "yes"]]
    assert (result.held, result.returned) == (2, 1)


@virtual
async def test_a_row_may_wait_again_at_a_node_behind() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="one"), project.add(ask, id="two"))
    async with project.runtime() as rt:
        await project.run(rt)
        for answer in ("a", "b"):
            (wait,) = await project.open()
            await rt.resume(wait.execution_id, answer)
            await project.run(rt)
    assert project.written == [[[1, "a"], "b"]]


@virtual
async def test_branches_that_meet_at_one_port_may_wait() -> None:
    project = Project(1)
    asking, merged = project.add(ask, id="ask"), project.add("control.merge", id="merged")
    project.chain(asking, merged)
    project.workflow.connect(project.rows, merged)
    async with project.runtime() as rt:
        await project.run(rt)
        assert project.written == [1]
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await project.run(rt)
    assert project.written == [1, [1, "yes"]]


@virtual
async def test_conditions_behind_see_the_record_it_was() -> None:
    project = Project({"id": 1}, {"id": 2})
    asking = project.add(ask, id="ask")
    project.workflow.connect(project.rows, asking)
    project.workflow.connect(asking, project.add("test.kept", id="out"), when="record.id == 2")
    async with project.runtime() as rt:
        await project.run(rt)
        for wait in await project.open():
            await rt.resume(wait.execution_id, "yes")
        result = await project.run(rt)
    assert project.written == [[{"id": 2}, "yes"]]
    assert result.returned == 2


@virtual
async def test_the_node_of_the_library_asks_in_a_run_too() -> None:
    project = Project({"name": "Ann"})
    asking = project.add("control.wait_for", id="ask", config={"title": "let {name} in?"})
    project.workflow.connect(project.rows, asking)
    project.workflow.connect(asking["approved"], project.add("test.kept", id="out"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        assert wait.title == "let Ann in?"
        with pytest.raises(ValidationFailedError):
            await rt.resume(wait.execution_id, "perhaps")
        await rt.resume(wait.execution_id, True)
        await project.run(rt)
    assert project.written == [{"name": "Ann"}]


# --- time is up -----------------------------------------------------------------------------------------


@virtual
async def test_an_answer_by_default_comes_back_in_the_same_run() -> None:
    project = Project(1, delay(100))
    project.chain(project.add(ask, id="ask", config={"timeout": "30s", "on_timeout": "answer"}))
    async with project.runtime() as rt:
        run = await project.start(rt)
        await until(lambda: project.written)
        assert 30 <= now() <= 31
        await run.wait()
    assert project.written == [[1, "nobody"]]


@virtual
async def test_a_row_nobody_answers_fails_like_any_other_and_its_letter_names_where_it_was_read() -> None:
    letters = CollectedLetters()
    project = Project(1, 2, delay(100), settings=DEAD_LETTER)
    project.chain(project.add(ask, id="ask", config={"timeout": "30s"}))
    async with project.runtime(graveyard(letters)) as rt:
        result = await project.run(rt)
    assert result.state.name == "partial"
    assert result.handled
    assert (result.dead_letters, result.held, result.returned) == (2, 0, 2)
    first, second = sorted(letters.letters, key=lambda letter: letter.origin.position)
    assert first.error.kind == "WaitExpiredError"
    assert (first.origin.source, first.origin.partition, first.origin.position) == ("rows", "0", 1)
    assert (second.origin.position, second.origin.key, second.record) == (2, "2", 2)
    assert isinstance(result.errors["ask"][0], WaitExpiredError)


@virtual
async def test_a_row_that_is_cancelled_when_time_is_up_ends_with_one_event() -> None:
    project = Project(1, delay(100))
    project.chain(project.add(ask, id="ask", config={"timeout": "30s", "on_timeout": "cancel"}))
    async with project.runtime() as rt:
        with recorded(rt.events) as told:
            result = await project.run(rt)
        (wait,) = (await project.store.waits.list()).items
        ended = await project.store.executions.get(wait.execution_id)
    assert (result.state.name, result.held, result.returned) == ("completed", 0, 0)
    assert (ended.state.name, ended.owner) == ("cancelled", DONE)
    assert told.one(WorkflowCancelled).execution_id == wait.execution_id
    assert CALLS["ask"] == 1


@virtual
async def test_waiting_for_an_answer_keeps_no_finite_run_alive() -> None:
    project = Project(1)
    project.chain(project.add(ask, id="ask", config={"timeout": "30s"}))
    async with project.runtime() as rt:
        result = await project.run(rt)
    assert result.held == 1
    assert now() < 5
