"""What every store must do with executions that wait from their beginning, as tests.

Owns: `HoldStoreConformance`. Part of flowruntime.testing.conformance.store.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flowcore.states import Cancelled, Completed, Paused, Pending, Running
from flowcore.store_errors import NotStoredError, StoreInputError
from flowruntime.state.store.entries import ExecutionFilter, Held, WaitFilter, WorkflowHead, new_execution
from flowruntime.state.store.protocol import Store
from flowruntime.testing.conformance.store_subject import (
    StoreSubject,
    a_wait,
    outcomes,
    refused,
    run,
    workflow,
)


class HoldStoreConformance:
    """Inherited by `StoreConformance`."""

    def test_what_is_held_is_there_with_its_waits(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                several = [_held(head, f"r{number}", inputs={"n": number}) for number in range(3)]
                assert await store.executions.hold(several) == frozenset()
                assert await store.executions.hold([]) == frozenset()
                for number, each in enumerate(several):
                    stored = await store.executions.get(f"r{number}")
                    assert stored == each.execution
                    assert (stored.state, stored.inputs) == (Pending(), {"n": number})
                    assert await store.waits.get(f"w-r{number}") == each.waits[0]

        run(scenario())

    def test_what_is_there_stays_whatever_became_of_it(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                await store.executions.hold([_held(head, "r1")])
                await store.waits.answer("w-r1", "yes", at=2.0)
                paused = await store.executions.step(
                    await store.executions.get("r1"), Paused("ready"), at=3.0
                )
                later = [_held(head, "r1", at=9.0, inputs="another"), _held(head, "r2", at=9.0)]
                assert await store.executions.hold(later) == {"r1"}
                assert (await store.executions.get("r1")).state == paused.state
                assert (await store.executions.get("r1")).inputs is None
                assert (await store.waits.get("w-r1")).answer == "yes"
                assert (await store.waits.get("w-r2")).state == "open"

        run(scenario())

    def test_all_are_held_or_none(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                strange = msgspec.structs.replace(head, id="never stored")
                with refused(NotStoredError):
                    await store.executions.hold([_held(head, "r1"), _held(strange, "r2")])
                unheard: Any = object()
                with refused(StoreInputError):
                    await store.executions.hold([_held(head, "r1"), _held(head, "r2", inputs=unheard)])
                with refused(NotStoredError):
                    await store.executions.get("r1")
                assert (await store.waits.list()).items == ()

        run(scenario())

    def test_of_two_who_hold_the_same_one_stores_it(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.several(2) as stores:
                head = await stores[0].workflows.put(workflow())
                orders = (("r1", "r2"), ("r2", "r1"))
                done, failed = await outcomes(
                    *(
                        store.executions.hold([_held(head, id) for id in ids])
                        for store, ids in zip(stores, orders, strict=True)
                    )
                )
                assert (len(done), failed) == (2, [])
                assert len((await stores[0].waits.list()).items) == 2

        run(scenario())

    def test_what_is_due_is_told_for_pending_executions_of_one_workflow(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                mine = await store.workflows.put(workflow())
                other = await store.workflows.put(workflow("another"))
                await store.executions.hold(
                    [
                        _held(mine, "r1", expires_at=5.0),
                        _held(mine, "r2", expires_at=4.0),
                        _held(mine, "r3", expires_at=9.0),
                        _held(mine, "r4"),
                        _held(other, "r5", expires_at=1.0),
                        _held(mine, "r6", expires_at=2.0),
                    ]
                )
                await store.executions.step(await store.executions.get("r6"), Running(), at=3.0)
                due = await store.waits.due(5.0, held_of=mine.id)
                assert [wait.execution_id for wait in due] == ["r2", "r1"]
                assert [
                    wait.execution_id for wait in await store.waits.due(5.0, limit=1, held_of=mine.id)
                ] == ["r2"]
                assert await store.waits.due(5.0, held_of="nobody") == []
                assert len(await store.waits.due(5.0)) == 4

        run(scenario())

    def test_waits_are_found_by_workflow_kind_and_state_of_their_execution(
        self, subject: StoreSubject
    ) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                mine = await store.workflows.put(workflow())
                other = await store.workflows.put(workflow("another"))
                await store.executions.hold(
                    [
                        _held(mine, "r1", kind="delay", expires_at=5.0),
                        _held(mine, "r2", kind="form"),
                        _held(other, "r3", kind="form"),
                    ]
                )
                await store.executions.step(await store.executions.get("r2"), Cancelled("no"), at=2.0)

                async def found(**wanted: Any) -> list[str]:
                    page = await store.waits.list(WaitFilter(**wanted))
                    return [wait.execution_id for wait in page.items]

                assert await found(workflow_id=mine.id) == ["r1", "r2"]
                assert await found(workflow_id=mine.id, execution_states=frozenset({"pending"})) == ["r1"]
                assert await found(kinds=frozenset({"form", "signal"})) == ["r2", "r3"]
                assert await found(kinds=frozenset({"delay"}), states=frozenset({"answered"})) == []
                assert await found(workflow_id=other.id, kinds=frozenset({"delay"})) == []
                with refused(StoreInputError):
                    await found(kinds=frozenset({"patience"}))
                with refused(StoreInputError):
                    await found(execution_states=frozenset({"asleep"}))

        run(scenario())

    def test_executions_are_found_and_pruned_by_who_took_the_last_step(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(workflow())
                await store.executions.hold([_held(head, f"r{number}") for number in range(4)])
                await _step(store, "r1", Paused("ready"), by="ready")
                await _step(store, "r2", Paused("ready"), by="someone")
                ready = await store.executions.list(
                    ExecutionFilter(workflow_id=head.id, states=frozenset({"paused"}), owner="ready")
                )
                assert [each.id for each in ready.items] == ["r1"]
                nobody = await store.executions.list(ExecutionFilter(owner=""))
                assert {each.id for each in nobody.items} == {"r0", "r3"}
                for id, by in (("r1", "done"), ("r2", "someone")):
                    await _step(store, id, Running(), by=by)
                    await _step(store, id, Completed(), by=by)
                assert await store.executions.prune(100.0, owner="done") == 1
                assert (await store.executions.get("r2")).state == Completed()
                with refused(NotStoredError):
                    await store.executions.get("r1")

        run(scenario())


async def _step(store: Store, id: str, following: Any, *, by: str) -> None:
    await store.executions.step(await store.executions.get(id), following, at=5.0, by=by)


def _held(head: WorkflowHead, id: str, *, at: float = 1.0, inputs: Any = None, **wait: Any) -> Held:
    """An execution that waits for one thing."""
    waiting = a_wait(f"w-{id}", execution_id=id, created_at=at, **wait)
    return Held(execution=new_execution(id, head, inputs, at=at), waits=(waiting,))
