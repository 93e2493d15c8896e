"""What every store must do, as tests an author of one inherits.

Owns: `StoreConformance`, and the part of it about opening and closing.
Does not own: the parts about workflows, executions, waits and the journal (the other `store_` modules), and
what is special about one store; its author tests that.

Always holds: the tests need no plugin and no real waiting, and each one begins with an empty place.

    class TestSqlite(StoreConformance):
        @pytest.fixture
        def subject(self, tmp_path) -> StoreSubject:
            return StoreSubject(make=lambda: SqliteStore(tmp_path / "store.sqlite"))
"""

from __future__ import annotations

import asyncio

from flowcore.store_errors import StoreClosedError
from flowruntime.state.store.entries import JournalEntry
from flowruntime.state.store.protocol import Store
from flowruntime.testing.conformance.store_executions import ExecutionStoreConformance
from flowruntime.testing.conformance.store_holds import HoldStoreConformance
from flowruntime.testing.conformance.store_subject import (
    StoreSubject,
    a_wait,
    an_execution,
    refused,
    run,
    workflow,
)
from flowruntime.testing.conformance.store_waits import JournalStoreConformance, WaitStoreConformance
from flowruntime.testing.conformance.store_workflows import WorkflowStoreConformance


class LifeCycleConformance:
    """Inherited by `StoreConformance`."""

    def test_it_is_a_store_that_does_nothing_before_it_is_used(self, subject: StoreSubject) -> None:
        store = subject.make()
        assert isinstance(store, Store)
        assert store.url

    def test_the_first_use_opens_it(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            store = subject.make()
            await store.workflows.put(workflow())
            assert (await store.workflows.get("triage")).version == 1
            await store.aclose()
            store = subject.make()
            await store.ping()
            await store.open()
            await store.open()
            await store.aclose()

        run(scenario())

    def test_what_was_stored_is_there_for_the_next_one(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                execution = await an_execution(store)
                await store.waits.open(a_wait())
                await store.journal.put([JournalEntry(execution_id="e1", node="n", value=1)])
            if not subject.durable:
                return
            async with subject.opened() as store:
                assert await store.executions.get("e1") == execution
                assert await store.waits.get("w1") == a_wait()
                assert len(await store.journal.get_all("e1")) == 1
                assert (await store.workflows.get("triage")).workflow == workflow()

        run(scenario())

    def test_a_closed_store_refuses_everything(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            store = subject.make()
            execution = await an_execution(store)
            await store.aclose()
            for attempt in (
                store.open,
                store.ping,
                lambda: store.workflows.put(workflow()),
                lambda: store.executions.create(execution),
                store.executions.list,
                lambda: store.waits.open(a_wait()),
                lambda: store.waits.due(1.0),
                lambda: store.journal.put([JournalEntry(execution_id="e1", node="n")]),
                lambda: store.journal.get_all("e1"),
            ):
                with refused(StoreClosedError):
                    await attempt()

        run(scenario())

    def test_closing_is_idempotent_also_unused_and_leaves_nothing_running(
        self, subject: StoreSubject
    ) -> None:
        async def scenario() -> None:
            await subject.make().aclose()
            store = subject.make()
            await an_execution(store)
            await store.aclose()
            await store.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(scenario())

    def test_closing_finishes_what_was_begun(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            store = subject.make()
            await store.open()
            writes = [
                asyncio.ensure_future(
                    store.journal.put([JournalEntry(execution_id="e1", node="n", call=call)])
                )
                for call in range(50)
            ]
            await asyncio.sleep(0)
            await store.aclose()
            done = await asyncio.gather(*writes, return_exceptions=True)
            taken = [call for call, each in enumerate(done) if each is None]
            assert all(each is None or isinstance(each, StoreClosedError) for each in done)
            if not subject.durable:
                return
            async with subject.opened() as store:
                kept = [entry.call for entry in await store.journal.get_all("e1")]
                assert set(taken) == set(kept), "what was answered is there, what was refused is not"

        run(scenario())

    def test_a_cancelled_write_was_done_or_not_and_harms_no_other(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                for round in range(20):
                    batches = [
                        [
                            JournalEntry(execution_id=f"r{round}", node=f"n{batch}", call=call)
                            for call in range(5)
                        ]
                        for batch in range(6)
                    ]
                    writes = [asyncio.ensure_future(store.journal.put(batch)) for batch in batches]
                    for _ in range(round % 5):
                        await asyncio.sleep(0)
                    for write in writes[::2]:
                        write.cancel()
                    await asyncio.gather(*writes, return_exceptions=True)
                    counts = {f"n{batch}": 0 for batch in range(6)}
                    for entry in await store.journal.get_all(f"r{round}"):
                        counts[entry.node] += 1
                    assert all(counts[f"n{batch}"] == 5 for batch in (1, 3, 5))
                    assert all(counts[f"n{batch}"] in {0, 5} for batch in (0, 2, 4))

        run(scenario())


class StoreConformance(
    LifeCycleConformance,
    WorkflowStoreConformance,
    ExecutionStoreConformance,
    HoldStoreConformance,
    WaitStoreConformance,
    JournalStoreConformance,
):
    """Inherit, and give a fixture `subject`."""
