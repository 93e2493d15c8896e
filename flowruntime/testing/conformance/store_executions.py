"""What every store must do with executions, as tests.

Owns: `ExecutionStoreConformance`. Part of flowruntime.testing.conformance.store.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime

import msgspec

from flowcore.errors import TransitionError
from flowcore.states import Cancelled, Completed, Failed, Partial, Paused, Pending, Running
from flowcore.store_errors import (
    AlreadyStoredError,
    ExecutionChangedError,
    NotStoredError,
    StoreInputError,
)
from flowcore.values import same_value
from flowruntime.state.store.entries import (
    ExecutionFilter,
    ExecutionHead,
    JournalEntry,
    head_of,
    new_execution,
)
from flowruntime.state.store.protocol import Store
from flowruntime.testing.conformance.store_subject import (
    VALUES,
    StoreSubject,
    a_wait,
    all_pages,
    an_execution,
    outcomes,
    refused,
    run,
    workflow,
)


class ExecutionStoreConformance:
    """Inherited by `StoreConformance`."""

    def test_an_execution_goes_through_its_states(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                created = await an_execution(store, at=1.5)
                stored = await store.executions.get("e1")
                assert stored == created
                assert (stored.state, stored.revision, stored.started_at) == (Pending(), 0, None)
                running = await store.executions.step(created, Running(), at=2.5, by="me")
                paused = await store.executions.step(running, Paused("asks Ann"), at=3.5)
                again = await store.executions.step(paused, Running(), at=4.5)
                done = await store.executions.step(again, Completed(), at=5.5, result={"out": b"x"})
                assert [each.revision for each in (running, paused, again, done)] == [1, 2, 3, 4]
                stored = await store.executions.get("e1")
                assert head_of(stored) == done
                assert (stored.created_at, stored.started_at, stored.ended_at) == (1.5, 2.5, 5.5)
                assert (stored.inputs, stored.result) == ({"text": "e1"}, {"out": b"x"})
                assert (running.owner, done.owner) == ("me", "")

        run(scenario())

    def test_every_way_to_end_is_kept_with_its_reason(self, subject: StoreSubject) -> None:
        error: dict[str, object] = {
            "kind": "NodeFailedError",
            "message": "\ud800\0",
            "value": math.nan,
            "$big": 2**80,
        }
        ends = (Completed(), Partial(), Cancelled("told to \ud800"), Failed(error), Failed({"odd": {1, 2}}))

        async def scenario() -> None:
            async with subject.opened() as store:
                for number, end in enumerate(ends):
                    execution = await an_execution(store, f"e{number}", running=True)
                    await store.executions.step(execution, end, at=2.0, result=number)
                kept = [(await store.executions.get(f"e{number}")) for number in range(len(ends))]
                assert [each.state for each in kept[:3]] == list(ends[:3])
                assert isinstance(kept[3].state, Failed)
                assert same_value(kept[3].state.error, error)
                assert isinstance(kept[4].state, Failed), "what is no value is written as text"
                assert [each.result for each in kept] == list(range(len(ends)))

        run(scenario())

    def test_values_of_every_kind_come_back(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                for number, value in enumerate(VALUES):
                    execution = new_execution(f"e{number}", head, value, at=1.0, running=True)
                    await store.executions.create(execution)
                    await store.executions.step(execution, Completed(), at=2.0, result=value)
                    stored = await store.executions.get(f"e{number}")
                    assert same_value(stored.inputs, value)
                    assert same_value(stored.result, value)

        run(scenario())

    def test_what_is_no_value_is_refused_and_nothing_is_stored(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                running = new_execution("e1", head, None, at=1.0, running=True)
                await store.executions.create(running)
                for value in ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, (1, 2), object(), {1: 2}):
                    with refused(StoreInputError) as no_value:
                        await store.executions.create(new_execution("e2", head, value, at=1.0))
                    assert "e2" in no_value.error.message
                    with refused(StoreInputError):
                        await store.executions.step(running, Completed(), at=2.0, result=value)
                assert (await store.executions.get("e1")).revision == 0
                with refused(NotStoredError):
                    await store.executions.get("e2")

        run(scenario())

    def test_creating_twice_is_as_good_as_once_and_another_one_is_refused(
        self, subject: StoreSubject
    ) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                first = new_execution("e1", head, {"a": 1}, at=1.0)
                await store.executions.create(first)
                await store.executions.create(first)
                await store.executions.step(first, Running(), at=2.0)
                await store.executions.create(first)
                assert (await store.executions.get("e1")).revision == 1, "it does not begin anew"
                for other in (
                    new_execution("e1", head, {"a": 1.0}, at=1.0),
                    new_execution("e1", head, {"a": 1}, at=1.5),
                ):
                    with refused(AlreadyStoredError):
                        await store.executions.create(other)
                assert same_value((await store.executions.get("e1")).inputs, {"a": 1})

        run(scenario())

    def test_an_execution_needs_its_version_of_the_workflow(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                await store.workflows.delete(head.id)
                with refused(NotStoredError) as missing:
                    await store.executions.create(new_execution("e1", head, None, at=1.0))
                assert missing.error.what == "workflow"
                with refused(NotStoredError) as missing:
                    await store.executions.get("e1")
                assert missing.error.what == "execution"

        run(scenario())

    def test_steps_that_may_not_follow_are_refused_and_change_nothing(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                pending = await an_execution(store)
                with refused(TransitionError):
                    await store.executions.step(pending, Completed(), at=2.0)
                with refused(StoreInputError):
                    await store.executions.step(pending, Running(), at=2.0, result=1)
                with refused(StoreInputError):
                    await store.executions.step(pending, Running(), at=math.nan)
                done = await store.executions.step(pending, Cancelled(), at=2.0)
                with refused(TransitionError):
                    await store.executions.step(done, Running(), at=3.0)
                assert head_of(await store.executions.get("e1")) == done

        run(scenario())

    def test_a_step_from_what_it_is_no_more_is_refused(self, subject: StoreSubject) -> None:
        """Also when it has come back to the same state meanwhile."""

        async def scenario() -> None:
            async with subject.opened() as store:
                running = await an_execution(store, running=True)
                paused = await store.executions.step(running, Paused(), at=2.0)
                again = await store.executions.step(paused, Running(), at=3.0)
                with refused(ExecutionChangedError) as changed:
                    await store.executions.step(running, Completed(), at=4.0)
                assert (changed.error.expected, changed.error.found) == (0, 2)
                assert head_of(await store.executions.get("e1")) == again
                with refused(NotStoredError):
                    await store.executions.step(_renamed(running), Completed(), at=4.0)

        run(scenario())

    def test_of_steps_at_the_same_time_exactly_one_is_taken(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.several(3) as stores:
                paused = await stores[0].executions.step(
                    await an_execution(stores[0]), Paused("for Ann"), at=2.0
                )
                taken, faults = await outcomes(
                    *(stores[each % 3].executions.step(paused, Running(), at=3.0) for each in range(12))
                )
                assert len(taken) == 1, "all of them alike, and still one only"
                assert {type(fault) for fault in faults} == {ExecutionChangedError}
                assert len(faults) == 11

        run(scenario())

    def test_a_step_whose_answer_got_lost_may_be_taken_again_by_who_took_it(
        self, subject: StoreSubject
    ) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                running = await an_execution(store, running=True)
                first = await store.executions.step(running, Paused("x"), at=2.0, by="attempt 1")
                assert await store.executions.step(running, Paused("x"), at=2.0, by="attempt 1") == first
                for by, reason in (("attempt 2", "x"), ("attempt 1", "y"), ("", "x")):
                    with refused(ExecutionChangedError):
                        await store.executions.step(running, Paused(reason), at=2.0, by=by)

        run(scenario())

    def test_lists_show_what_is_asked_for_the_newest_first(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                other = await store.workflows.put(workflow("other"), at=0.0)
                await store.executions.create(new_execution("o1", other, None, at=2.0, running=True))
                for id, at in (("e1", 1.0), ("e3", 3.0), ("e2", 3.0), ("e4", 2.5)):
                    await an_execution(store, id, at=at)
                await _failed(store, "e4")

                async def ids(**filter: object) -> list[str]:
                    page = await store.executions.list(ExecutionFilter(**filter))  # pyright: ignore[reportArgumentType] - as given
                    return [each.id for each in page.items]

                assert await ids() == ["e3", "e2", "e4", "o1", "e1"]
                assert await ids(workflow_id="other") == ["o1"]
                assert await ids(states=frozenset({"running", "failed"})) == ["e4", "o1"]
                assert await ids(created_from=2.5, created_before=3.0) == ["e4"]
                assert await ids(workflow_id="triage", states=frozenset({"pending"})) == ["e3", "e2", "e1"]
                with refused(StoreInputError):
                    await ids(states=frozenset({"finished"}))
                assert await ids(workflow_id="never stored") == []
                (last,) = (await store.executions.list(ExecutionFilter(states=frozenset({"failed"})))).items
                assert type(last) is ExecutionHead
                assert last == head_of(await store.executions.get("e4"))

        run(scenario())

    def test_pages_skip_and_repeat_nothing_while_others_store(self, subject: StoreSubject) -> None:
        """What is stored meanwhile lies before, between and behind the pages, also at the very same time."""

        async def scenario() -> None:
            async with subject.several(2) as (store, other):
                before = {f"e{number:02}" for number in range(40)}
                await asyncio.gather(*(an_execution(store, id, at=int(id[1:]) // 3) for id in before))
                seen: list[str] = []
                page = await store.executions.list(limit=7)
                extra = 0
                while True:
                    seen += [each.id for each in page.items]
                    for at in (100.0, page.items[-1].created_at, -1.0):
                        extra += 1
                        await an_execution(other, f"x{extra:02}", at=at)
                        extra += 1
                        await an_execution(other, f"a{extra:02}", at=at)
                    if page.after is None or extra > 200:
                        break
                    page = await store.executions.list(limit=7, after=page.after)
                assert len(seen) == len(set(seen)), "nothing comes twice"
                assert {id for id in seen if id.startswith("e")} == before, "nothing is left out"

        run(scenario())

    def test_pruning_takes_the_ended_ones_with_all_that_is_theirs(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                for id, ended in (("e1", 5.0), ("e2", 9.0), ("e3", None)):
                    execution = await an_execution(store, id, running=True)
                    await store.waits.open(a_wait(f"w-{id}", execution_id=id))
                    await store.journal.put([JournalEntry(execution_id=id, node="n", value=id)])
                    if ended is not None:
                        await store.executions.step(execution, Completed(), at=ended)
                assert await store.executions.prune(5.0) == 0, "before that time, not at it"
                assert await store.executions.prune(5.1) == 1
                left = await all_pages(lambda after: store.executions.list(limit=1, after=after))
                assert {each.id for each in left} == {"e2", "e3"}
                with refused(NotStoredError):
                    await store.waits.get("w-e1")
                assert await store.journal.get_all("e1") == []
                assert (await store.waits.get("w-e3")).state == "open"
                assert len(await store.journal.get_all("e2")) == 1
                assert await store.executions.prune(100.0) == 1
                with refused(StoreInputError):
                    await store.executions.prune(math.inf)

        run(scenario())

    def test_ids_no_store_can_keep_are_refused(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                for id in ("", "a\0", "\ud800", "x" * 201, 5):
                    with refused(StoreInputError):
                        await store.executions.create(new_execution(id, head, None, at=1.0))  # pyright: ignore[reportArgumentType] - that is the point
                    with refused(StoreInputError):
                        await store.executions.get(id)  # pyright: ignore[reportArgumentType] - as above
                for at in (math.nan, math.inf, "now"):
                    with refused(StoreInputError):
                        await store.executions.create(new_execution("e1", head, None, at=at))  # pyright: ignore[reportArgumentType] - as above
                for wrong in (
                    {"workflow_version": "1"},
                    {"workflow_id": 5},
                    {"workflow_hash": None},
                    {"revision": 1},
                ):
                    execution = msgspec.structs.replace(new_execution("e1", head, None, at=1.0), **wrong)
                    with refused(StoreInputError):
                        await store.executions.create(execution)
                assert (await store.executions.list()).items == ()

        run(scenario())


async def _failed(store: Store, id: str) -> None:
    execution = await store.executions.get(id)
    await store.executions.step(execution, Failed({"kind": "X", "message": "m"}), at=9.0)


def _renamed(execution: ExecutionHead) -> ExecutionHead:
    return msgspec.structs.replace(head_of(execution), id="never stored")
