"""What is special about the store in memory: it is bounded, and shares nothing with its users."""

from __future__ import annotations

import pytest

from flowcore.states import Completed
from flowcore.store_errors import NotStoredError
from flowruntime.state.store.entries import JournalEntry, new_execution
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.conformance.store_subject import a_wait, an_execution, workflow


async def test_of_finished_executions_the_last_ones_are_kept_and_of_others_all() -> None:
    store = MemoryStore(finished=3)
    for number in range(10):
        execution = await an_execution(store, f"e{number}", running=True)
        await store.waits.open(a_wait(f"w{number}", execution_id=f"e{number}"))
        await store.journal.put([JournalEntry(execution_id=f"e{number}", node="n")])
        if number % 2:
            await store.executions.step(execution, Completed(), at=float(number))
    kept = {each.id for each in (await store.executions.list()).items}
    assert kept == {"e0", "e2", "e4", "e6", "e8", "e5", "e7", "e9"}
    with pytest.raises(NotStoredError):
        await store.waits.get("w3")
    assert await store.journal.get_all("e3") == []
    assert "8 executions" in repr(store)


async def test_later_changes_of_a_value_reach_nobody() -> None:
    store = MemoryStore()
    inputs = {"list": [1]}
    head = await store.workflows.put(workflow())
    await store.executions.create(new_execution("e1", head, inputs, at=1.0))
    inputs["list"].append(2)
    given = (await store.executions.get("e1")).inputs
    given["list"].append(3)
    assert (await store.executions.get("e1")).inputs == {"list": [1]}
