"""What every store must do with waits and the journal, as tests.

Owns: `WaitStoreConformance`, `JournalStoreConformance`. Part of flowruntime.testing.conformance.store.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from flowcore.store_errors import (
    AlreadyStoredError,
    NotStoredError,
    StoreConflictError,
    StoreInputError,
    WaitClosedError,
)
from flowcore.values import same_value
from flowruntime.state.store.entries import JournalEntry, WaitFilter
from flowruntime.testing.conformance.store_subject import (
    VALUES,
    StoreSubject,
    a_wait,
    all_pages,
    an_execution,
    outcomes,
    refused,
    run,
)


class WaitStoreConformance:
    """Inherited by `StoreConformance`."""

    def test_a_wait_comes_back_as_it_was(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                full = a_wait(
                    path="0.3",
                    kind="form",
                    title="Ship it?\0 \ud800",
                    schema={"type": "object", "$defs": {"big": 2**80}},
                    expires_at=7.5,
                    on_timeout="answer",
                    default={"ok": False, "at": math.nan},
                )
                await store.waits.open(full)
                stored = await store.waits.get("w1")
                assert same_value(stored.default, full.default)
                nothing = {"default": None}
                assert msgspec.structs.replace(stored, **nothing) == msgspec.structs.replace(full, **nothing)
                await store.waits.open(a_wait("w2"))
                assert await store.waits.get("w2") == a_wait("w2")

        run(scenario())

    def test_opening_twice_is_as_good_as_once_and_another_one_is_refused(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                await store.waits.open(a_wait())
                await store.waits.open(a_wait())
                await store.waits.answer("w1", "yes", at=2.0)
                await store.waits.open(a_wait())
                assert (await store.waits.get("w1")).state == "answered", "it is not opened again"
                with refused(AlreadyStoredError):
                    await store.waits.open(a_wait(node="another"))
                with refused(NotStoredError) as missing:
                    await store.waits.open(a_wait("w2", execution_id="never stored"))
                assert missing.error.what == "execution"
                with refused(NotStoredError):
                    await store.waits.get("w2")

        run(scenario())

    def test_answers_of_every_kind_come_back(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                for number, value in enumerate(VALUES):
                    await store.waits.open(a_wait(f"w{number}"))
                    answered = await store.waits.answer(f"w{number}", value, at=2.0, by="Ann\0\ud800")
                    stored = await store.waits.get(f"w{number}")
                    for wait in (answered, stored):
                        assert same_value(wait.answer, value)
                        assert (wait.state, wait.closed_at, wait.answered_by) == (
                            "answered",
                            2.0,
                            "Ann\0\ud800",
                        )
                await store.waits.open(a_wait("w"))
                with refused(StoreInputError):
                    await store.waits.answer("w", datetime(2026, 1, 1, tzinfo=UTC), at=2.0)
                assert (await store.waits.get("w")).state == "open"

        run(scenario())

    def test_of_answers_at_the_same_time_exactly_one_is_taken(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.several(3) as stores:
                await an_execution(stores[0])
                for id, values in (("different", range(12)), ("alike", [7] * 12)):
                    await stores[0].waits.open(a_wait(id))
                    taken, faults = await outcomes(
                        *(stores[n % 3].waits.answer(id, value, at=2.0) for n, value in enumerate(values))
                    )
                    assert len(taken) == 1
                    assert {type(fault) for fault in faults} == {WaitClosedError}
                    assert (await stores[0].waits.get(id)).answer == taken[0].answer

        run(scenario())

    def test_an_answer_after_the_end_of_the_wait_is_refused(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                for id in ("late", "expired", "cancelled"):
                    await store.waits.open(a_wait(id, expires_at=5.0 if id != "cancelled" else None))
                with refused(WaitClosedError) as closed:
                    await store.waits.answer("late", 1, at=5.0)
                assert closed.error.state == "expired", "though nobody noted it yet"
                await store.waits.expire("expired", at=6.0)
                await store.waits.cancel("e1", at=7.0)
                for id in ("expired", "cancelled"):
                    with refused(WaitClosedError) as closed:
                        await store.waits.answer(id, 1, at=4.0)
                    assert closed.error.state == id
                    with refused(WaitClosedError):
                        await store.waits.expire(id, at=8.0)
                with refused(NotStoredError):
                    await store.waits.answer("never stored", 1, at=1.0)

        run(scenario())

    def test_expiry_happens_once_it_is_due_and_says_what_it_means(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                await store.waits.open(a_wait("a", expires_at=5.0, on_timeout="answer", default=[1.0]))
                await store.waits.open(a_wait("f", expires_at=5.0))
                await store.waits.open(a_wait("never"))
                with refused(StoreConflictError):
                    await store.waits.expire("a", at=4.9)
                with refused(StoreConflictError):
                    await store.waits.expire("never", at=1e9)
                expired = await store.waits.expire("a", at=5.5)
                assert (expired.state, expired.closed_at, expired.answer) == ("expired", 5.5, [1.0])
                assert (await store.waits.expire("f", at=6.0)).answer is None
                assert await store.waits.get("a") == expired

        run(scenario())

    def test_due_are_the_open_ones_whose_time_is_up(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                for id, expires_at in (("w3", 3.0), ("w1", 1.0), ("w2b", 2.0), ("w2a", 2.0), ("w0", 0.5)):
                    await store.waits.open(a_wait(id, expires_at=expires_at))
                await store.waits.open(a_wait("never"))
                await store.waits.answer("w0", 1, at=0.1)
                assert [wait.id for wait in await store.waits.due(0.9)] == []
                assert [wait.id for wait in await store.waits.due(2.0)] == ["w1", "w2a", "w2b"]
                assert [wait.id for wait in await store.waits.due(9.0, limit=2)] == ["w1", "w2a"]

        run(scenario())

    def test_cancelling_closes_the_open_ones_of_one_execution(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store, "e1")
                await an_execution(store, "e2")
                for id, execution in (("w1", "e1"), ("w2", "e1"), ("w3", "e2"), ("w4", "e1")):
                    await store.waits.open(a_wait(id, execution_id=execution))
                await store.waits.answer("w4", 1, at=1.0)
                await store.waits.cancel("e1", at=2.0)
                await store.waits.cancel("e1", at=3.0)
                await store.waits.cancel("never stored", at=3.0)
                states = {wait.id: wait.state for wait in (await store.waits.list()).items}
                assert states == {"w1": "cancelled", "w2": "cancelled", "w3": "open", "w4": "answered"}
                assert (await store.waits.get("w1")).closed_at == 2.0

        run(scenario())

    def test_waits_are_listed_the_oldest_first_page_by_page(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store, "e1")
                await an_execution(store, "e2")
                for number in range(9):
                    await store.waits.open(
                        a_wait(f"w{number}", execution_id=f"e{1 + number % 2}", created_at=(9 - number) // 2)
                    )
                await store.waits.answer("w0", 1, at=1.0)

                async def ids(**filter: object) -> list[str]:
                    wanted = WaitFilter(**filter)  # pyright: ignore[reportArgumentType] - as given
                    waits = await all_pages(lambda after: store.waits.list(wanted, limit=2, after=after))
                    return [wait.id for wait in waits]

                assert await ids() == ["w8", "w6", "w7", "w4", "w5", "w2", "w3", "w0", "w1"]
                assert await ids(execution_id="e1") == ["w8", "w6", "w4", "w2", "w0"]
                assert await ids(states=frozenset({"answered"})) == ["w0"]
                assert await ids(execution_id="e1", states=frozenset({"open"})) == ["w8", "w6", "w4", "w2"]
                with refused(StoreInputError):
                    await ids(states=frozenset({"closed"}))

        run(scenario())

    def test_waits_no_store_can_keep_are_refused(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                wrong: tuple[dict[str, Any], ...] = (
                    {"id": ""},
                    {"node": "a\0"},
                    {"path": "x" * 1_001},
                    {"kind": "vote"},
                    {"on_timeout": "wait"},
                    {"created_at": math.nan},
                    {"expires_at": "soon"},
                    {"state": "answered"},
                    {"answer": 1},
                    {"default": object()},
                    {"schema": {"a": (1,)}},
                    {"schema": "object"},
                    {"title": None},
                    {"execution_id": 1},
                )
                for fields in wrong:
                    with refused(StoreInputError):
                        await store.waits.open(a_wait(**fields))
                assert (await store.waits.list()).items == ()

        run(scenario())


class JournalStoreConformance:
    """Inherited by `StoreConformance`."""

    def test_entries_come_back_by_node_path_and_call(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                entries = [
                    JournalEntry(execution_id="e1", node="a", value=1),
                    JournalEntry(execution_id="e1", node="a", call=1, value=2.0),
                    JournalEntry(
                        execution_id="e1", node="a", call=10, failure={"kind": "X", "nan": math.inf}
                    ),
                    JournalEntry(execution_id="e1", node="a", path="0.1", value=None),
                    JournalEntry(execution_id="e1", node="b", value=b"\0"),
                ]
                await store.journal.put(entries[::-1])
                await store.journal.put([JournalEntry(execution_id="e2", node="a", value="other")])
                assert list(await store.journal.get_all("e1")) == entries
                assert list(await store.journal.get_all("never stored")) == []

        run(scenario())

    def test_values_of_every_kind_come_back_from_the_journal(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await store.journal.put(
                    [
                        JournalEntry(execution_id="e1", node="n", call=call, value=value)
                        for call, value in enumerate(VALUES)
                    ]
                )
                kept = [entry.value for entry in await store.journal.get_all("e1")]
                assert same_value(kept, list(VALUES))

        run(scenario())

    def test_the_first_entry_of_a_call_stays(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await store.journal.put([JournalEntry(execution_id="e1", node="n", value="first")])
                await store.journal.put(
                    [
                        JournalEntry(execution_id="e1", node="n", failure={"kind": "second"}),
                        JournalEntry(execution_id="e1", node="n", call=1, value="new"),
                        JournalEntry(execution_id="e1", node="n", call=1, value="newer"),
                    ]
                )
                await store.journal.put([])
                assert [entry.value for entry in await store.journal.get_all("e1")] == ["first", "new"]

        run(scenario())

    def test_puts_at_the_same_time_store_each_call_once(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.several(3) as stores:
                batches = [
                    [
                        JournalEntry(execution_id="e1", node="n", call=call, value=f"{call} by {writer}")
                        for call in (range(40) if writer % 2 else reversed(range(40)))
                    ]
                    for writer in range(9)
                ]
                _, faults = await outcomes(
                    *(stores[n % 3].journal.put(batch) for n, batch in enumerate(batches))
                )
                assert faults == []
                kept = await stores[1].journal.get_all("e1")
                assert [entry.call for entry in kept] == list(range(40))
                assert len({str(entry.value).partition(" by ")[2] for entry in kept}) == 1, (
                    "batches are whole"
                )

        run(scenario())

    def test_a_batch_with_something_that_is_no_value_is_not_stored_at_all(
        self, subject: StoreSubject
    ) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                good = JournalEntry(execution_id="e1", node="n", value=1)
                for bad in (
                    JournalEntry(execution_id="e1", node="n", call=1, value=object()),
                    JournalEntry(execution_id="e1", node="n", call=-1),
                    JournalEntry(execution_id="e1", node="n", call=2**63),
                    JournalEntry(execution_id="e1", node=""),
                    JournalEntry(execution_id="e1", node="n", path="\0"),
                    JournalEntry(execution_id="e1", node="n", value=1, failure={}),
                    JournalEntry(execution_id="e1", node="n", failure="bad"),  # pyright: ignore[reportArgumentType] - that is the point
                ):
                    with refused(StoreInputError):
                        await store.journal.put([good, bad])
                assert list(await store.journal.get_all("e1")) == []

        run(scenario())

    def test_a_dropped_journal_is_gone(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                for id in ("e1", "e2"):
                    await store.journal.put([JournalEntry(execution_id=id, node="n", value=id)])
                await store.journal.drop("e1")
                await store.journal.drop("e1")
                assert list(await store.journal.get_all("e1")) == []
                assert len(await store.journal.get_all("e2")) == 1

        run(scenario())
