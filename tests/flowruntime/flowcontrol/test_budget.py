"""Credit: a bound, a floor of one row for each task, and turns that come round."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from flowruntime.flowcontrol.budget import Budget
from flowruntime.testing import run_virtual


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60), most=st.integers(1, 20))
def test_a_reader_that_keeps_to_what_is_available_stays_within_the_bound(
    steps: list[tuple[bool, int]], most: int
) -> None:
    budget = Budget(most, 1_000_000)
    mine = 0
    for reads, count in steps:
        if reads:
            rows = min(count, budget.available(mine))
            budget.charge(rows)
            mine += rows
        else:
            rows = min(count, mine)
            budget.release(rows)
            mine -= rows
        assert budget.rows_in_flight == mine <= most
        assert budget.available(mine) >= (1 if mine < most else 0)
    assert budget.peak_rows <= most


def test_a_task_with_nothing_in_flight_may_read_one_row_however_overdrawn_the_budget_is() -> None:
    """Else a task whose partition is quiet now would starve behind a busy one."""
    budget = Budget(4, 100)
    budget.charge(50)
    assert budget.available(0) == 1
    assert budget.available(1) == 0


def test_bytes_bind_like_rows_and_a_single_item_may_be_larger() -> None:
    budget = Budget(10, 100)
    budget.charge(1, 5_000)
    assert budget.available(1) == 0
    assert budget.available_bytes == 1
    budget.release(1, 5_000)
    assert budget.available(0) == 10
    assert budget.peak_bytes == 5_000


def test_waiting_tasks_are_woken_in_turn_and_share_alike() -> None:
    async def scenario() -> dict[str, int]:
        budget = Budget(1, 100)
        had = dict.fromkeys("abc", 0)
        budget.charge(1)

        async def task(name: str) -> None:
            while had[name] < 50:
                await budget.wait()
                if budget.available(1):
                    budget.charge(1)
                    had[name] += 1
                    await asyncio.sleep(0.1)
                    budget.release(1)
                    assert max(had.values()) - min(had.values()) <= 1

        tasks = [asyncio.create_task(task(name)) for name in had]
        await asyncio.sleep(0)
        budget.release(1)
        await asyncio.gather(*tasks)
        assert budget.statistics()["waiting"] == 0
        return had

    assert run_virtual(scenario()) == {"a": 50, "b": 50, "c": 50}


def test_a_waiter_cancelled_with_its_turn_hands_it_on() -> None:
    async def scenario() -> None:
        budget = Budget(1, 100)
        budget.charge(1)
        first, second = asyncio.create_task(budget.wait()), asyncio.create_task(budget.wait())
        await asyncio.sleep(0)
        budget.release(1)
        first.cancel()
        await second

    run_virtual(scenario())


def test_everyone_looks_again_when_told() -> None:
    async def scenario() -> None:
        budget = Budget(1, 100)
        waiting = [asyncio.create_task(budget.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        budget.wake_all()
        await asyncio.gather(*waiting)

    run_virtual(scenario())
