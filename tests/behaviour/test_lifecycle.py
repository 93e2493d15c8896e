"""Nodes and connectors: initialised once, shut down always, whatever happened in between."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
import pytest

from flowcore import Node, NodeContext, Workflow, WorkflowFailed
from flowcore.errors import NodeFailedError
from flowcore.events import TERMINAL_KINDS, WorkflowStarted
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Nothing, Script, kept, running, runtime, same, virtual


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
