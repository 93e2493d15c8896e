"""Nodes and connectors: initialised once, shut down always, whatever happened in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import pytest
import structlog

from flowcore import Node, NodeContext, Workflow, WorkflowFailed
from flowcore.errors import NodeFailedError, RequestTimeoutError, RuntimeClosedError
from flowcore.events import TERMINAL_KINDS, WorkflowStarted
from flowruntime import FlowRuntime
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Nothing, Script, kept, now, running, runtime, same, virtual, wait


class In(msgspec.Struct, frozen=True):
    """One port."""

    value: Any


def lived(name: str, *, fails_at: str = "", slow: bool = False) -> Any:
    """A node class that logs its life."""

    class Lived(Node[Nothing, In, Any], type=f"life.{name}"):
        log: ClassVar[list[str]] = []

        async def initialize(self, ctx: NodeContext) -> None:
            self.log.append("initialize")
            if slow:
                await asyncio.sleep(10)
            if fails_at == "initialize":
                raise OSError("no model")

        def execute(self, inputs: In, ctx: NodeContext) -> Any:
            if fails_at == "execute":
                raise ValueError("no")
            return inputs.value

        async def shutdown(self) -> None:
            self.log.append("shutdown")
            if fails_at == "shutdown":
                raise OSError("still open")

    return Lived


def line(*nodes: Any) -> Workflow:
    wf = Workflow("life")
    handles = [wf.add(thing, id=f"n{index}") for index, thing in enumerate(nodes)]
    if len(handles) > 1:
        wf.chain(*handles)
    return wf


@virtual
async def test_a_node_is_initialised_once_for_all_requests_and_shut_down_with_the_runtime() -> None:
    kind = lived("fine")
    wf = line(kind, same)
    async with runtime() as rt:
        await asyncio.gather(*(rt.execute(wf, {"n0": {"value": n}}) for n in range(10)))
        assert kind.log == ["initialize"]
    assert kind.log == ["initialize", "shutdown"]


@pytest.mark.parametrize("fails_at", ["", "execute", "shutdown"])
@virtual
async def test_a_run_shuts_its_nodes_down_though_rows_or_a_shutdown_failed(fails_at: str) -> None:
    kind, other = lived("one", fails_at=fails_at), lived("other")
    sink = kept()
    source = Script([[1, 2]])
    async with runtime() as rt:
        run = await rt.start(line(Script, kind, other, sink), sources={"n0": source})
        await run.wait()
        assert kind.log == other.log == ["initialize", "shutdown"]
    assert sink.log[-1] == "close"
    assert (source.closed, source.shut_down) == (["0"], 1)


@virtual
async def test_a_cancelled_run_shuts_its_nodes_down() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    kind = lived("fine")
    async with runtime() as rt:
        run = await rt.start(line(Script, kind), sources={"n0": Script([[1], never])})
        await asyncio.sleep(1)
        await run.cancel()
        assert kind.log == ["initialize", "shutdown"]


@virtual
async def test_a_failing_initialize_fails_the_start_shuts_down_what_was_begun_and_says_so_once() -> None:
    """NOD-9."""
    first, second, third = lived("first"), lived("second", fails_at="initialize"), lived("third")
    sink = kept()
    async with runtime() as rt:
        with recorded(rt.events) as seen, pytest.raises(NodeFailedError, match=r"'n2'.*initialize.*no model"):
            await rt.start(line(Script, first, second, third, sink), sources={"n0": Script([[1]])})
    assert first.log == ["initialize", "shutdown"]
    assert second.log == ["initialize", "shutdown"]
    assert third.log == []
    assert isinstance(seen.ended(), WorkflowFailed)
    assert seen.one(WorkflowFailed).node == "n2"
    assert running() == []


@virtual
async def test_a_failing_initialize_fails_requests_with_the_reason_each_time() -> None:
    kind = lived("bad", fails_at="initialize")
    wf = line(kind)
    async with runtime() as rt:
        for _ in range(2):
            with pytest.raises(NodeFailedError, match="no model"):
                await rt.execute(wf, {"n0": {"value": 1}})
    assert kind.log == ["initialize", "shutdown"] * 2


@virtual
async def test_a_start_that_is_cancelled_shuts_down_what_was_begun_and_has_one_end() -> None:
    kind = lived("slow", slow=True)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            task = asyncio.create_task(rt.start(line(Script, kind), sources={"n0": Script([[1]])}))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert rt.statistics()["runs"] == {}
    assert kind.log == ["initialize", "shutdown"]
    assert len(seen.of(WorkflowStarted)) == sum(isinstance(event, TERMINAL_KINDS) for event in seen.events)


@virtual
async def test_a_sink_that_cannot_be_opened_fails_the_start_before_anything_is_read() -> None:
    kind = kept(name="test.unopened")

    async def refuse(self: Any, ctx: Any) -> None:
        raise PermissionError("read-only")

    kind.open = refuse
    source = Script([[1]])
    async with runtime() as rt:
        with pytest.raises(NodeFailedError, match="read-only"):
            await rt.start(line(Script, kind), sources={"n0": source})
    assert source.handed_over == 0
    assert kind.log == ["close"]


@virtual
async def test_every_run_has_instances_of_its_own() -> None:
    made: list[object] = []

    class Own(Node[Nothing, In, Any], type="life.own"):
        def __init__(self, config: Nothing) -> None:
            super().__init__(config)
            made.append(self)

        def execute(self, inputs: In, ctx: NodeContext) -> Any:
            return inputs.value

    wf = line(Script, Own)
    async with runtime() as rt:
        first = await rt.start(wf, sources={"n0": Script([[1]])})
        second = await rt.start(wf, sources={"n0": Script([[1]])})
        await asyncio.gather(first.wait(), second.wait())
    assert len(made) == 2


def released(name: str, *, fault: Any = None, hangs: bool = False, stubborn: bool = False) -> Any:
    """A node class whose shutdown raises, never ends, or does not even let itself be cancelled."""

    class Released(Node[Nothing, In, Any], type=f"life.{name}"):
        log: ClassVar[list[str]] = []

        def execute(self, inputs: In, ctx: NodeContext) -> Any:
            return inputs.value

        async def shutdown(self) -> None:
            self.log.append("shutdown")
            while hangs or stubborn:
                try:
                    await asyncio.sleep(40 if stubborn else 1e6)
                    return
                except asyncio.CancelledError:
                    self.log.append("cancelled")
                    if not stubborn:
                        raise
            if fault is not None:
                raise fault

    return Released


def fed(*nodes: Any) -> Workflow:
    wf = Workflow("fed", settings={"drain_timeout": "10s"})
    wf.chain(wf.add(Script, id="s"), *(wf.add(thing, id=f"n{index}") for index, thing in enumerate(nodes)))
    return wf


@pytest.mark.parametrize(
    "fault", [ValueError("v"), SystemExit(3), asyncio.CancelledError("mine"), GeneratorExit()]
)
@virtual
async def test_whatever_a_shutdown_raises_the_others_are_shut_down_and_the_result_stands(
    fault: BaseException,
) -> None:
    first, second, third = released("a"), released("b", fault=fault), released("c")
    async with runtime() as rt:
        run = await rt.start(fed(first, second, third), sources={"s": Script([[1]])})
        result = await run.wait()
    assert result.ok
    assert first.log == second.log == third.log == ["shutdown"]


@pytest.mark.parametrize("stubborn", [False, True])
@virtual
async def test_a_shutdown_that_never_ends_is_given_up_after_the_drain_timeout(stubborn: bool) -> None:
    first, second = released("a"), released("b", hangs=not stubborn, stubborn=stubborn)
    with structlog.testing.capture_logs() as logs:
        async with runtime() as rt:
            run = await rt.start(fed(first, second), sources={"s": Script([[1]])})
            assert (await run.wait()).ok
            assert now() == (15 if stubborn else 10)
    assert first.log == ["shutdown"]
    assert second.log == ["shutdown", "cancelled"]
    assert any("n1" in line["event"] and "did not end within 10 s" in line["event"] for line in logs)
    await asyncio.sleep(60)  # the stubborn one comes to its own end


@virtual
async def test_a_caller_cancelled_during_a_shutdown_still_leaves_everything_shut_down() -> None:
    first, second = released("a"), released("b", hangs=True)

    async def use() -> None:
        async with runtime() as rt:
            await rt.execute(fed(first, second), {"s": 1})

    task = asyncio.create_task(use())
    await asyncio.sleep(1)
    assert second.log == ["shutdown"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 1
    assert first.log == ["shutdown"]
    assert second.log == ["shutdown", "cancelled"]


@virtual
async def test_closing_the_runtime_ends_a_request_that_is_starting() -> None:
    kind = lived("slow", slow=True)
    async with runtime() as rt:
        request = asyncio.create_task(rt.execute(line(kind), {"n0": {"value": 1}}))
        await asyncio.sleep(1)
    assert kind.log == ["initialize", "shutdown"]
    with pytest.raises(RuntimeClosedError, match="while the request was starting"):
        await request
    assert now() == 1


@virtual
async def test_closing_the_runtime_ends_a_run_that_is_starting_with_its_one_event() -> None:
    kind = lived("slow", slow=True)
    with recorded((rt := runtime()).events) as seen:
        async with rt:
            start = asyncio.create_task(rt.start(line(Script, kind), sources={"n0": Script([[1]])}))
            await asyncio.sleep(1)
        assert kind.log == ["initialize", "shutdown"]
        with pytest.raises(RuntimeClosedError, match="the runtime was closed"):
            await start
    assert now() == 1
    assert [type(event).__name__ for event in seen.events] == ["WorkflowStarted", "WorkflowCancelled"]


@virtual
async def test_closing_the_runtime_ends_requests_that_wait_for_their_turn() -> None:
    wf = Workflow("turns", settings={"max_in_flight": 1})
    wf.add(wait, id="w")
    async with runtime() as rt:
        requests = [asyncio.create_task(rt.execute(wf, {"seconds": 100.0})) for _ in range(3)]
        await asyncio.sleep(1)
    results = await asyncio.gather(*requests)
    assert [result.state.name for result in results] == ["cancelled"] * 3
    assert now() == 1


@virtual
async def test_the_deadline_of_a_request_holds_for_initialising_its_nodes_too() -> None:
    kind = lived("slow", slow=True)
    wf = line(kind)
    async with runtime() as rt:
        with pytest.raises(RequestTimeoutError, match=r"not initialised within 2\.0 s"):
            await rt.execute(wf, {"n0": {"value": 1}}, timeout=timedelta(seconds=2))
        assert now() == 2
        assert kind.log == ["initialize", "shutdown"]
        result = await rt.execute(wf, {"n0": {"value": 1}}, timeout=timedelta(seconds=20))
    assert result.ok


@pytest.mark.parametrize("fault", [SystemExit(3), asyncio.CancelledError("mine"), GeneratorExit()])
@pytest.mark.parametrize("where", ["initialize", "open"])
@virtual
async def test_a_start_fails_with_the_reason_whatever_is_raised(where: str, fault: BaseException) -> None:
    refuse: Any = _refusing(fault)
    first, second, sink = released("a"), released("b"), kept()
    if where == "open":
        sink.open = refuse
    else:
        second.initialize = refuse
    wf = fed(first, second)
    wf.connect("n1", wf.add(sink, id="k"))
    async with runtime() as rt:
        with pytest.raises(NodeFailedError, match=type(fault).__name__):
            await rt.start(wf, sources={"s": Script([[1]])})
    assert first.log == second.log == ["shutdown"]


def _refusing(fault: BaseException) -> Any:
    async def refuse(*_: Any) -> None:
        raise fault

    return refuse


def test_a_runtime_used_on_a_second_loop_says_so_instead_of_waiting_for_the_first_one() -> None:
    wf = Workflow("loops")
    wf.add(wait, id="w")
    rt = FlowRuntime(state_dir=None, watchdog=None)
    assert asyncio.run(rt.execute(wf, {"seconds": 0.0})).ok
    for call in (rt.execute(wf, {"seconds": 0.0}), rt.start(wf)):
        with pytest.raises(RuntimeClosedError, match="another event loop"):
            asyncio.run(call)
    asyncio.run(rt.aclose())
