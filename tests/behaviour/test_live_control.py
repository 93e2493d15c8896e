"""Changing what works: limits raised and lowered live, single nodes paused; told in events and figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Batch, LimitChanged, NodePaused, NodeResumed, Workflow, node
from flowcore.errors import ControlError, RuntimeClosedError
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual, wait


async def never() -> None:
    await asyncio.Event().wait()


@node("live.split")
def split(value: float) -> Iterator[float]:
    yield value


@node("live.batched", batch=Batch(max_items=10))
async def batched(seconds: Sequence[float]) -> Sequence[float]:
    await asyncio.sleep(max(seconds))
    return seconds


def line(*nodes: Any, concurrency: int | None = None, **settings: Any) -> Workflow:
    wf = Workflow("line", settings=settings)
    chain = [wf.add(Script, id="s")]
    for index, thing in enumerate(nodes):
        options: dict[str, Any] = {"concurrency": concurrency} if thing is wait and concurrency else {}
        chain.append(wf.add(thing, id=f"n{index}", **options))
    wf.chain(*chain)
    return wf


# --- limits -------------------------------------------------------------------------------------------


@virtual
async def test_a_raised_limit_puts_waiting_rows_to_work_at_once() -> None:
    sink = kept()
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(wait, sink, concurrency=2), sources={"s": Script([[1.0] * 20])})
            await asyncio.sleep(2.5)
            assert run.statistics()["limits"]["node:n0"]["in_use"] == 2
            run.set_limit("node:n0", 100)
            await asyncio.sleep(0)
            figures = run.statistics()["limits"]["node:n0"]
            result = await run.wait()
    assert result.ok
    assert (figures["capacity"], figures["in_use"], figures["peak"]) == (100, 16, 16)
    assert now() == pytest.approx(3.5)
    event = seen.one(LimitChanged)
    assert (event.limit, event.before, event.capacity, event.execution_id) == ("node:n0", 2, 100, run.id)


@virtual
async def test_a_lowered_limit_lets_rows_in_work_finish_and_takes_no_more_than_it_allows() -> None:
    sink = kept()
    async with runtime() as rt:
        run = await rt.start(line(wait, sink, concurrency=8), sources={"s": Script([[1.0] * 12])})
        await asyncio.sleep(0.5)
        run.set_limit("node:n0", 2)
        assert run.statistics()["limits"]["node:n0"]["in_use"] == 8
        await asyncio.sleep(1)
        assert run.statistics()["limits"]["node:n0"]["in_use"] == 2
        result = await run.wait()
    assert result.ok
    assert now() == pytest.approx(1 + 4 / 2)


@pytest.mark.parametrize("name", ["type:test.wait", "resource:gpu", "*"])
@virtual
async def test_every_limit_of_the_workflow_can_be_changed_by_its_name(name: str) -> None:
    wf = Workflow(
        "limited",
        settings={"max_parallel": 1, "limits": {"types": {"test.wait": 1}, "resources": {"gpu": 1}}},
    )
    wf.chain(wf.add(Script, id="s"), wf.add(wait, id="n", resource="gpu"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1.0] * 4])})
        for each in {"type:test.wait", "resource:gpu", "*"} - {name}:
            run.set_limit(each, 4)
        await asyncio.sleep(0.5)
        assert run.statistics()["pools"]["n"]["in_flight"] == 1
        run.set_limit(name, 4)
        await run.wait()
    assert now() == pytest.approx(1.5)


@virtual
async def test_a_limit_of_the_runtime_is_changed_for_all_its_workflows() -> None:
    wf = Workflow("one")
    wf.add(wait, id="n")
    async with runtime(max_parallel=1) as rt:
        with recorded(rt.events) as seen:
            work = asyncio.gather(*(rt.execute(wf, {"seconds": 1.0}) for _ in range(4)))
            await asyncio.sleep(0.5)
            rt.set_limit("runtime:*", 4)
            await work
    assert now() == pytest.approx(1.5)
    event = seen.one(LimitChanged)
    assert (event.workflow_id, event.limit, event.before, event.capacity) == ("", "runtime:*", 1, 4)


@virtual
async def test_a_limit_of_the_requests_of_a_workflow_is_changed() -> None:
    wf = Workflow("one")
    wf.add(wait, id="n", concurrency=1)
    async with runtime() as rt:
        with pytest.raises(ControlError, match="answered no request yet"):
            rt.set_limit("node:n", 3, workflow=wf)
        work = asyncio.gather(*(rt.execute(wf, {"seconds": 1.0}) for _ in range(4)))
        await asyncio.sleep(0.5)
        rt.set_limit("node:n", 4, workflow=wf)
        await work
    assert now() == pytest.approx(1.5)


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "8"])
@virtual
async def test_a_bound_that_is_none_is_refused_and_changes_nothing(capacity: Any) -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait, concurrency=2), sources={"s": Script([[1.0]])})
        with pytest.raises(ControlError, match="at least 1, got"):
            run.set_limit("node:n0", capacity)
        assert run.statistics()["limits"]["node:n0"]["capacity"] == 2
        await run.wait()


@virtual
async def test_a_limit_nobody_declared_is_refused_with_those_there_are() -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait), sources={"s": Script([[1.0]])})
        with pytest.raises(ControlError, match="no limit 'node:n9'; its limits are node:n0"):
            run.set_limit("node:n9", 2)
        with pytest.raises(ControlError, match=r"this runtime has no limit '\*'; it has none"):
            rt.set_limit("*", 2)
        await run.wait()
        with pytest.raises(RuntimeClosedError, match="cannot change its limits"):
            run.set_limit("node:n0", 2)


@virtual
async def test_limits_count_permits_waits_peaks_and_failures() -> None:
    @node("live.fails")
    async def fails(value: int) -> int:
        await asyncio.sleep(1)
        if value % 2:
            raise ConnectionError("away")
        return value

    wf = Workflow("counted", settings={"on_error": "continue"})
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(fails, id="n", concurrency=2, retry={"max_attempts": 2, "initial": "1s", "jitter": 0}),
        wf.add(kept(), id="k"),
    )
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[0, 1, 2, 3], never])})
        await asyncio.sleep(60)
        figures = run.statistics()["limits"]["node:n"]
        await run.cancel("enough")
    assert figures["taken"] == 6  # two rows need two attempts
    assert figures["failures"] == 4
    assert figures["peak"] == 2
    assert figures["waits"] > 0
    assert figures["in_use"] == 0


# --- single nodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [wait, batched])
@virtual
async def test_a_paused_node_finishes_what_it_has_and_takes_nothing_more(thing: Any) -> None:
    sink = kept()
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            source = Script([[1.0], lambda: asyncio.sleep(2), [1.0, 1.0]])
            run = await rt.start(line(thing, sink), sources={"s": source})
            await asyncio.sleep(0.5)
            await run.pause("maintenance", node="n0")
            await asyncio.sleep(100)
            assert sink.rows == [1.0]
            figures = run.statistics()
            assert figures["paused_nodes"] == ("n0",)
            assert figures["pools"]["n0"]["paused"]
            assert figures["state"] == "running"
            await run.resume(node="n0")
            result = await run.wait()
    assert result.ok
    assert sink.rows == [1.0, 1.0, 1.0]
    assert now() == pytest.approx(101.5)
    assert (seen.one(NodePaused).node, seen.one(NodePaused).reason) == ("n0", "maintenance")
    assert seen.one(NodeResumed).paused_s == pytest.approx(100.0)


@virtual
async def test_credit_bounds_what_waits_in_front_of_a_paused_node_and_other_nodes_go_on() -> None:
    sink = kept()
    wf = Workflow("two", settings={"max_in_flight": 5})
    source = wf.add(Script, id="s")
    wf.connect(source, wf.add(wait, id="slow"))
    wf.connect(source, wf.add(same, id="plain"))
    wf.connect("plain", wf.add(sink, id="k"))
    script = Script([[0.0] * 50])
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": script})
        await run.pause(node="slow")
        await asyncio.sleep(10)
        assert len(sink.rows) == script.handed_over == 5
        assert run.statistics()["pools"]["slow"]["queued"] == 5
        await run.resume(node="slow")
        assert (await run.wait()).ok
    assert len(sink.rows) == 50


@pytest.mark.parametrize("ending", ["drain", "stop"])
@virtual
async def test_a_drain_resumes_paused_nodes_because_what_is_inside_is_to_be_finished(ending: str) -> None:
    sink = kept()
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(wait, sink), sources={"s": Script([[1.0, 1.0], never])})
            await run.pause(node="n0")
            await asyncio.sleep(5)
            result = await (run.drain() if ending == "drain" else run.stop(timedelta(seconds=30)))
    assert result.ok
    assert sink.rows == [1.0, 1.0]
    assert now() == 6.0
    assert seen.one(NodeResumed).node == "n0"


@virtual
async def test_a_run_with_a_paused_node_is_cancelled_at_once() -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait), sources={"s": Script([[1.0, 1.0], never])})
        await run.pause(node="n0")
        await asyncio.sleep(5)
        result = await run.cancel("enough")
    assert result.state.name == "cancelled"
    assert now() == 5.0


@virtual
async def test_pausing_twice_and_resuming_twice_do_nothing_more() -> None:
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(line(wait), sources={"s": Script([[1.0]])})
            for _ in range(2):
                await run.pause(node="n0")
            for _ in range(2):
                await run.resume(node="n0")
            assert (await run.wait()).ok
    assert len(seen.of(NodePaused)) == len(seen.of(NodeResumed)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n1", "'n1' is a plain function, which runs in one piece with its neighbours"),
        ("s", "'s' is a source and cannot be paused by itself"),
        ("n2", "'n2' is a plain function"),
        ("nowhere", "there is no node 'nowhere'"),
    ],
)
@virtual
async def test_a_node_that_cannot_be_paused_by_itself_is_refused_with_those_that_can(
    name: str, message: str
) -> None:
    async with runtime() as rt:
        run = await rt.start(line(wait, same, split), sources={"s": Script([[1.0]])})
        for ask in (run.pause(node=name), run.resume(node=name)):
            with pytest.raises(ControlError, match=message) as refused:
                await ask
            assert name == "nowhere" or "nodes that can be paused: n0" in str(refused.value)
        assert (await run.wait()).ok
        with pytest.raises(RuntimeClosedError, match="it cannot pause"):
            await run.pause(node="n0")
