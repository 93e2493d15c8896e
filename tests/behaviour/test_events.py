"""Events: one terminal event per run and request, each node's own times, published when it happens."""

from __future__ import annotations

import asyncio
from typing import Any

from flowcore import (
    Gap,
    NodeCompleted,
    NodeEvent,
    NodeFailed,
    NodeStarted,
    Workflow,
    WorkflowStarted,
    node,
)
from flowcore.context import NodeContext
from flowcore.errors import RequestTimeoutError
from flowcore.events import TERMINAL_KINDS, StageProgress
from flowruntime.testing.recorder import EventRecorder, recorded
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual, wait


@virtual
async def test_every_request_has_exactly_one_start_and_one_end_whatever_becomes_of_it() -> None:
    @node("ev.chance")
    async def chance(value: int) -> int:
        await asyncio.sleep(value % 5)
        if value % 3 == 0:
            raise ValueError(value)
        return value

    wf = Workflow("chance", settings={"timeout": "3.5s"})
    wf.add(chance, id="n")
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            tasks = [asyncio.create_task(rt.execute(wf, {"n": {"value": n}})) for n in range(60)]
            await asyncio.sleep(0.5)
            for task in tasks[::7]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    ends = [event.execution_id for event in seen.events if isinstance(event, TERMINAL_KINDS)]
    starts = [event.execution_id for event in seen.of(WorkflowStarted)]
    assert len(starts) == len(ends) == 60
    assert set(starts) == set(ends)
    assert len(set(ends)) == 60


@virtual
async def test_events_of_a_node_come_when_it_happens_and_not_with_the_end_of_the_run() -> None:
    wf = Workflow("chain")
    wf.chain(*(wf.add(wait, id=f"n{index}") for index in range(3)))
    seen: list[tuple[str, str, float]] = []
    async with runtime() as rt:
        rt.events.listen(
            lambda event: seen.append((type(event).__name__, getattr(event, "node", ""), now())),
            kinds={NodeStarted, NodeCompleted},
        )
        await rt.execute(wf, {"n0": {"seconds": 2.0}})
    assert seen == [
        ("NodeStarted", "n0", 0.0),
        ("NodeCompleted", "n0", 2.0),
        ("NodeStarted", "n1", 2.0),
        ("NodeCompleted", "n1", 4.0),
        ("NodeStarted", "n2", 4.0),
        ("NodeCompleted", "n2", 6.0),
    ]


@virtual
async def test_a_failed_nodes_event_carries_when_it_began_and_when_it_failed() -> None:
    @node("ev.fail")
    async def fail(value: float) -> float:
        await asyncio.sleep(value)
        raise ValueError("no")

    wf = Workflow("failing")
    wf.add(fail, id="n")
    await asyncio.sleep(1)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(wf, {"n": {"value": 2.0}})
    assert (seen.one(NodeFailed).started_at, seen.one(NodeFailed).ended_at) == (1.0, 3.0)
    assert (result.outcomes["n"].started_at, result.outcomes["n"].ended_at) == (1.0, 3.0)


@virtual
async def test_a_sync_nodes_failure_is_published_before_the_nodes_after_it_report() -> None:
    @node("ev.odd")
    def even_only(value: int) -> int:
        if value % 2:
            raise ValueError(value)
        return value

    wf = Workflow("order", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(even_only, id="a"), wf.add(same, id="b"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            await (await rt.start(wf, sources={"s": Script([[1, 2]])})).wait()
    shown = [
        (type(event).__name__, event.subject)
        for event in seen.events
        if isinstance(event, NodeStarted | NodeCompleted | NodeFailed)
    ]
    assert shown == [
        ("NodeStarted", "a"),
        ("NodeFailed", "a"),
        ("NodeStarted", "a"),
        ("NodeCompleted", "a"),
        ("NodeStarted", "b"),
        ("NodeCompleted", "b"),
    ]


@virtual
async def test_every_row_of_a_watched_stream_is_told_of_once_per_node() -> None:
    sink = kept()
    wf = Workflow("told")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"), wf.add(wait, id="w"), wf.add(sink, id="k"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            await (await rt.start(wf, sources={"s": Script([[0.1, 0.2], [0.3]])})).wait()
    for name in ("a", "w", "k"):
        done = [event for event in seen.of(NodeCompleted) if event.node == name]
        assert len(done) == 3
        assert len({event.execution_id for event in done}) == 3
    assert sum(isinstance(event, TERMINAL_KINDS) for event in seen.events) == 1


@virtual
async def test_what_a_node_says_is_published_at_once_with_its_execution() -> None:
    @node("ev.speaks")
    async def speaks(value: int, ctx: NodeContext) -> int:
        ctx.emit("progress", 0.5)
        await asyncio.sleep(1)
        ctx.emit("token", "word")
        return value

    wf = Workflow("speaks")
    wf.add(speaks, id="n")
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(wf, {"n": {"value": 1}})
    said = [(event.channel, event.data, event.at, event.execution_id) for event in seen.of(NodeEvent)]
    assert said == [("progress", 0.5, 0.0, result.execution_id), ("token", "word", 1.0, result.execution_id)]


@virtual
async def test_progress_of_a_run_tells_rates_and_what_is_in_flight() -> None:
    wf = Workflow("progress")
    wf.chain(wf.add(Script, id="s"), wf.add(wait, id="w", concurrency=2))
    seen = EventRecorder()
    async with runtime() as rt:
        rt.events.listen(seen, kinds={StageProgress})
        result: Any = await (await rt.start(wf, sources={"s": Script([[1.0] * 10])})).wait()
    assert result.ok
    stages = seen.of(StageProgress)
    assert any(event.stage == "w" and event.in_flight == 2 and event.queued == 8 for event in stages)
    last = [event for event in stages if event.stage == "w"][-1]
    assert last.counts.completed == 10


@virtual
async def test_a_run_waits_for_a_subscriber_that_must_not_miss_an_event() -> None:
    """Ten times as many events as its buffer holds, and it takes a second for each hundred."""
    wf = Workflow("blocked")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"), wf.add(kept(), id="k"))
    taken: list[Any] = []

    async def slowly(events: Any) -> None:
        async with events:
            async for event in events:
                taken.append(event)
                if len(taken) % 100 == 0:
                    await asyncio.sleep(1)

    async with runtime() as rt:
        reader = asyncio.create_task(slowly(rt.events.subscribe(policy="block", buffer=200)))
        result = await (await rt.start(wf, sources={"s": Script([list(range(500))])})).wait()
        rt.events.subscribe(policy="drop_oldest", buffer=1).close()  # others hold nobody up
    await reader
    assert result.ok
    assert not [event for event in taken if isinstance(event, Gap)]
    assert sum(isinstance(event, NodeCompleted) for event in taken) == 2 * 500
    assert now() >= 10


@virtual
async def test_a_request_waits_for_a_subscriber_that_must_not_miss_an_event_until_its_deadline() -> None:
    wf = Workflow("blocked", settings={"timeout": "5s"})
    wf.add(same, id="a")
    async with runtime() as rt:
        events = rt.events.subscribe(policy="block", buffer=8)
        results = [await rt.execute(wf, {"value": n}) for n in range(3)]
        assert [result.state.name for result in results] == ["completed", "failed", "failed"]
        assert isinstance(results[1].cause, RequestTimeoutError)
        assert now() == 10
        events.close()
        assert (await rt.execute(wf, {"value": 3})).ok


@virtual
async def test_a_paused_reader_of_events_holds_up_neither_drain_nor_cancellation() -> None:
    wf = Workflow("blocked")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"), wf.add(kept(), id="k"))
    async with runtime() as rt:
        events = rt.events.subscribe(policy="block", buffer=20)
        run = await rt.start(wf, sources={"s": Script([list(range(500))])})
        await asyncio.sleep(1)
        result = await run.drain()
        events.close()
    assert 0 < result.records < 500
    assert now() == 1


@virtual
async def test_an_execution_of_a_run_has_one_id_in_events_and_in_its_context_and_no_other_run_has_it() -> (
    None
):
    seen_inside: list[str | None] = []

    @node("ev.named")
    async def named(value: int, ctx: NodeContext) -> int:
        if value == 1:
            ctx.state.data["touched"] = True  # an execution is made only when somebody asks for its state
        seen_inside.append(ctx.execution_id)
        return value

    wf = Workflow("named")
    wf.chain(wf.add(Script, id="s"), wf.add(named, id="n"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            for _ in range(2):
                await (await rt.start(wf, sources={"s": Script([[1, 2]])})).wait()
    told = [event.execution_id for event in seen.of(NodeCompleted)]
    assert sorted(map(str, told)) == sorted(map(str, seen_inside))
    assert len(set(told)) == 4
