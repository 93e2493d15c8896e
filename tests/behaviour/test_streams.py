"""Stages of a stream: per-row credit, order by row, by key or none, back-pressure down to the source."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowcore import Workflow, node
from flowcore.errors import LimitExceededError
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual, wait


@node("st.keyed")
async def keyed(value: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(value["s"])
    return value


def staged(*nodes: tuple[Any, dict[str, Any]], sink: Any = None, **settings: Any) -> Workflow:
    """Source `s` -> nodes -> sink `k`."""
    wf = Workflow("staged", settings=settings)
    chain = [wf.add(Script, id="s")]
    chain += [wf.add(thing, id=f"n{index}", **options) for index, (thing, options) in enumerate(nodes)]
    if sink is not None:
        chain.append(wf.add(sink, id="k"))
    wf.chain(*chain)
    return wf


async def ran(wf: Workflow, source: Script) -> Any:
    async with runtime() as rt:
        return await (await rt.start(wf, sources={"s": source})).wait()


@virtual
async def test_one_slow_call_does_not_idle_the_stage() -> None:
    """100 calls of 1 s and one of 25 s, four at a time: the other three work all the while."""
    sink = kept()
    calls = [25.0] + [1.0] * 100
    wf = staged((wait, {"concurrency": {"max": 4, "order": "unordered"}}), sink=sink)
    result = await ran(wf, Script([calls]))
    assert result.ok
    assert len(sink.rows) == 101
    ideal = (25 + 100) / 4
    assert now() <= ideal * 1.1


@virtual
async def test_credit_comes_back_per_row_so_a_small_budget_is_kept_full() -> None:
    """The budget is 4 rows: as soon as one settles another is read, whatever the oldest does."""
    sink = kept()
    wf = staged((wait, {"concurrency": {"max": 4, "order": "unordered"}}), sink=sink, max_in_flight=4)
    await ran(wf, Script([[25.0] + [1.0] * 100]))
    assert len(sink.rows) == 101
    assert now() <= (25 + 100) / 4 * 1.1


@virtual
async def test_ordered_results_leave_in_the_order_rows_came() -> None:
    sink = kept()
    wf = staged((wait, {"concurrency": {"max": 8, "order": "ordered"}}), sink=sink)
    await ran(wf, Script([[3.0, 1.0, 2.0, 0.5]]))
    assert sink.rows == [3.0, 1.0, 2.0, 0.5]
    assert now() == 3.0


@virtual
async def test_unordered_results_leave_as_they_finish() -> None:
    sink = kept()
    wf = staged((wait, {"concurrency": {"max": 8, "order": "unordered"}}), sink=sink)
    await ran(wf, Script([[3.0, 1.0, 2.0, 0.5]]))
    assert sink.rows == [0.5, 1.0, 2.0, 3.0]


@virtual
async def test_by_key_keeps_each_key_in_order_and_works_on_different_keys_at_once() -> None:
    rows = [
        {"k": "a", "n": 1, "s": 3.0},
        {"k": "a", "n": 2, "s": 1.0},
        {"k": "b", "n": 3, "s": 1.0},
        {"k": "b", "n": 4, "s": 0.5},
        {"k": "c", "n": 5, "s": 0.1},
    ]
    sink = kept()
    wf = staged((keyed, {"key": "value.k", "concurrency": {"max": 8, "order": "by_key"}}), sink=sink)
    await ran(wf, Script([rows]))
    assert [row["n"] for row in sink.rows] == [5, 3, 4, 1, 2]
    assert now() == 4.0


@virtual
async def test_a_key_that_cannot_be_one_fails_its_row_alone() -> None:
    rows = [{"k": ["x"], "n": 1, "s": 1.0}, {"n": 2, "s": 1.0}, {"k": "a", "n": 3, "s": 1.0}]
    sink = kept()
    options = {"key": "value.k", "concurrency": {"max": 8, "order": "by_key"}}
    wf = staged((keyed, options), sink=sink, on_error="continue")
    result = await ran(wf, Script([rows]))
    assert [row["n"] for row in sink.rows] == [3]
    assert result.state.name == "partial"
    assert result.counts["n0"].failed == 2


@virtual
async def test_more_rows_of_one_key_than_may_wait_fail_with_a_clear_error() -> None:
    sink = kept()
    options = {"key": "value.k", "concurrency": {"max": 8, "order": "by_key", "max_queued_per_key": 2}}
    wf = staged((keyed, options), sink=sink, on_error="continue")
    rows = [{"k": "hot", "n": n, "s": 1.0} for n in range(5)]
    result = await ran(wf, Script([rows]))
    assert [row["n"] for row in sink.rows] == [0, 1, 2]
    assert [type(error) for error in result.errors["n0"]] == [LimitExceededError, LimitExceededError]
    assert "max_queued_per_key" in str(result.errors["n0"][0])


@virtual
async def test_a_retried_row_of_a_key_is_not_overtaken() -> None:
    seen: list[int] = []

    @node("st.flaky")
    async def flaky(value: dict[str, Any]) -> dict[str, Any]:
        seen.append(value["n"])
        if value["n"] == 1 and seen.count(1) < 3:
            raise ConnectionError("away")
        return value

    sink = kept()
    retry = {"max_attempts": 3, "initial": "1s", "jitter": 0.0}
    options = {"key": "value.k", "concurrency": {"max": 8, "order": "by_key"}, "retry": retry}
    wf = staged((flaky, options), sink=sink)
    await ran(wf, Script([[{"k": "a", "n": 1}, {"k": "a", "n": 2}, {"k": "b", "n": 3}]]))
    assert seen == [1, 3, 1, 1, 2]
    assert [row["n"] for row in sink.rows] == [3, 1, 2]


@pytest.mark.parametrize("slow", ["sink", "node"])
@virtual
async def test_a_slow_end_bounds_what_is_read_of_the_source_to_the_budget(slow: str) -> None:
    source = Script([list(range(10_000))])
    ahead: list[int] = []
    written = 0

    async def slowly(batch: Any) -> None:
        nonlocal written
        await asyncio.sleep(1)
        ahead.append(source.handed_over - written)
        written += len(batch.values)

    @node("st.slow")
    async def slowly_node(value: int) -> int:
        await asyncio.sleep(1)
        return value

    sink = kept(slowly if slow == "sink" else lambda batch: None)
    chain: list[tuple[Any, dict[str, Any]]] = (
        [(same, {})] if slow == "sink" else [(slowly_node, {"concurrency": 5})]
    )
    wf = staged(*chain, sink=sink, max_in_flight=20)
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        peaks: list[int] = []
        for _ in range(50):
            await asyncio.sleep(0.5)
            peaks.append(source.handed_over - len(sink.rows))
            assert run.statistics()["budget"]["in_flight"] <= 20
        await run.cancel()
    assert 0 < max(peaks) <= 20
    assert max(ahead, default=0) <= 20
    assert sum(source.credits) < 10_000 + 20


@virtual
async def test_a_bounded_number_of_bytes_bounds_reading_too_and_one_larger_row_passes_alone() -> None:
    from flowcore.connector import Credit, Rows

    class Heavy(Script, type="test.heavy"):
        async def open(self, partition: str, resume: Any, ctx: Any) -> Any:
            reader = await super().open(partition, resume, ctx)
            read = reader.read

            async def heavy(credit: Credit) -> Rows[Any] | None:
                rows = await read(Credit(1))
                if rows is not None:
                    rows.nbytes = 700
                return rows

            reader.read = heavy
            return reader

    sink = kept()
    wf = staged((wait, {"concurrency": 8}), sink=sink, max_bytes=1_000)
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Heavy([[1.0] * 10])})
        result = await run.wait()
        peak = run.statistics()["budget"]["peak_bytes"]
    assert result.ok
    assert peak <= 1_400
    assert now() >= 5.0


@virtual
async def test_rows_of_two_partitions_are_worked_on_side_by_side() -> None:
    sink = kept()
    wf = staged((wait, {"concurrency": {"max": 2, "order": "ordered"}}), sink=sink)
    source = Script(left=[[5.0, 1.0]], right=[[1.0, 1.0]])
    result = await ran(wf, source)
    assert result.records == 4
    assert sorted(source.closed) == ["left", "right"]
    assert {name: positions[-1] for name, positions in source.committed.items()} == {"left": 2, "right": 2}
    assert now() == 5.0
