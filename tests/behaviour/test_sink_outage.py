"""A sink that refuses for two minutes: nothing is lost, memory stays as it was, the source stops reading."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from flowcore import Workflow
from flowcore.connector import Rows
from flowcore.events import NodeRetrying
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual

OUTAGE_S = 120.0
BUDGET = 200
RETRY = {"max_attempts": 60, "initial": "500ms", "max_delay": "5s", "budget": 1.0}


def pipeline(sink: type[Any], **policies: Any) -> Workflow:
    wf = Workflow("outage", settings={"max_in_flight": BUDGET, "max_frame": 20, "on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="n"), wf.add(sink, id="k", **policies))
    return wf


class Endless(Script):
    """Rows of 10 KB for as long as they are asked for, ten a read, and when each read was."""

    def __init__(self, reads: int) -> None:
        self.read_at: list[float] = []

        async def note() -> None:
            self.read_at.append(now())

        steps: list[Any] = []
        for number in range(reads):
            steps += [note, [f"{number}.{row}" + "x" * 10_000 for row in range(10)]]
        super().__init__(steps)


@pytest.mark.parametrize("kind", ["raises", "hangs"])
@virtual
async def test_a_sink_that_refuses_for_two_minutes_loses_nothing_and_stops_the_source(kind: str) -> None:
    refused: list[float] = []

    async def write(batch: Rows[Any]) -> None:
        del batch
        if now() < OUTAGE_S and kind == "raises":
            refused.append(now())
            raise ConnectionRefusedError("the broker is away")
        await asyncio.sleep(max(0.0, OUTAGE_S - now()))

    sink = kept(write)
    source = Endless(reads=1_000)
    async with runtime() as rt:
        run = await rt.start(pipeline(sink, retry=RETRY), sources={"s": source})
        await asyncio.sleep(1.0)
        assert source.handed_over == BUDGET, "the budget is spent at once"
        before = _traced()
        await asyncio.sleep(OUTAGE_S - 2.0)
        assert source.handed_over == BUDGET, "and nothing is read beyond it"
        assert _traced() - before < 32 << 20
        result = await run.wait()
    assert max(source.read_at[: BUDGET // 10]) < 1.0
    assert result.ok
    assert [row.rstrip("x") for row in sink.rows] == [
        f"{read}.{row}" for read in range(1_000) for row in range(10)
    ]
    if kind == "raises":
        assert 20 < len(refused) < 60, "it is asked again, but not without pause"
        assert result.counts["k"].retried >= len(refused)


def _traced() -> int:
    """Bytes of Python objects, from the first call on."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture(autouse=True)
def _untraced() -> Any:
    yield
    tracemalloc.stop()


@virtual
async def test_after_the_last_attempt_the_rows_have_failed_with_what_the_sink_said() -> None:
    def write(batch: Rows[Any]) -> None:
        del batch
        raise ConnectionRefusedError("the broker is away")

    seen: list[NodeRetrying] = []
    async with runtime() as rt:
        rt.events.listen(lambda event: seen.append(event) if isinstance(event, NodeRetrying) else None)
        retry = {"max_attempts": 3, "initial": "1s", "multiplier": 1.0, "jitter": 0.0}
        run = await rt.start(pipeline(kept(write), retry=retry), sources={"s": Script([[1, 2]])})
        result = await run.wait()
    assert [str(error) for error in result.errors["k"]] == ["the broker is away"] * 2
    assert [(event.attempt, event.max_attempts, event.delay_s) for event in seen] == [
        (1, 3, 1.0),
        (1, 3, 1.0),
        (2, 3, 1.0),
        (2, 3, 1.0),
    ]
    assert now() == pytest.approx(2.0, abs=0.1)


@virtual
async def test_the_plan_says_that_a_retried_write_may_store_rows_twice() -> None:
    from flowruntime.compile.description import describe
    from flowruntime.compile.explain import explain
    from flowruntime.compile.lower import lower
    from flowruntime.compile.promises import weakened_by

    async with runtime() as rt:
        plan = lower(rt.validate(pipeline(kept(), retry=RETRY)), mode="stream")
    told = list(weakened_by(plan))
    assert "retry 60 attempts" in explain(describe(plan))
    assert "sink 'k' is retried: a write that raised may have stored rows, and they come again" in told


@virtual
async def test_what_is_no_outage_is_not_written_again() -> None:
    """Neither a refused row nor an error that the class of says nothing of trying again."""
    writes: list[int] = []

    def write(batch: Rows[Any]) -> dict[int, Exception]:
        writes.append(len(batch))
        if 3 in batch.values:
            raise ValueError("a fault of its own")
        return {0: ConnectionRefusedError("of this row")}

    async with runtime() as rt:
        wf = pipeline(kept(write), retry=RETRY)
        for rows in ([1], [3]):
            run = await rt.start(wf, sources={"s": Script([rows])})
            assert (await run.wait()).counts["k"].failed == 1
    assert writes == [1, 1]


@virtual
async def test_a_run_that_is_cancelled_in_an_outage_ends_at_once_and_commits_nothing() -> None:
    def write(batch: Rows[Any]) -> None:
        del batch
        raise ConnectionRefusedError("the broker is away")

    source = Script([[1, 2, 3]])
    async with runtime() as rt:
        retry = {"max_attempts": 9, "initial": "60s", "max_delay": "60s"}
        run = await rt.start(pipeline(kept(write), retry=retry), sources={"s": source})
        await asyncio.sleep(10)
        await run.cancel("enough")
        assert now() == pytest.approx(10.0, abs=0.1)
    assert source.committed["0"] == []


@virtual
async def test_a_request_cancelled_in_an_outage_is_answered_and_the_sink_writes_for_others() -> None:
    def write(batch: Rows[Any]) -> None:
        if now() < 30:
            raise ConnectionRefusedError("the broker is away")

    sink = kept(write)
    wf = Workflow("ask")
    retry = {"max_attempts": 9, "initial": "10s", "multiplier": 1.0, "jitter": 0.0}
    wf.chain(wf.add(same, id="n"), wf.add(sink, id="k", retry=retry))
    async with runtime() as rt:
        first = asyncio.create_task(rt.execute(wf, {"n": {"value": 1}}))
        second = asyncio.create_task(rt.execute(wf, {"n": {"value": 2}}))
        await asyncio.sleep(5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert now() == pytest.approx(5.0, abs=0.1)
        assert (await second).ok
    assert 2 in sink.rows
