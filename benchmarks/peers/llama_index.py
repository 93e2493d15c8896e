"""LlamaIndex Workflows: steps that wait for the events of their parents."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.work import AsyncRun


class Value1(Event):
    """What node 0 sends to node 1: a class per child, because a step gets all events of its class."""

    value: int


class Value2(Event):
    value: int


class Value3(Event):
    value: int


class Branch1(Event):
    """What nodes 1, 2 and 3 send to node 4."""

    value: int


class Value5(Event):
    value: int


class Value6(Event):
    value: int


class Value7(Event):
    value: int


class Branch2(Event):
    """What nodes 5, 6 and 7 send to node 8."""

    value: int


class Value9(Event):
    value: int


class Dag(Workflow):
    """The ten-node DAG; a step is a node, `send_event` an edge, `collect_events` the wait for all parents."""

    @step
    async def n0(self, ctx: Context, ev: StartEvent) -> Value1 | Value2 | Value3 | None:
        value = data.dag_value(0, [ev.value])
        ctx.send_event(Value1(value=value))
        ctx.send_event(Value2(value=value))
        ctx.send_event(Value3(value=value))
        return None

    @step
    async def n1(self, ev: Value1) -> Branch1:
        return Branch1(value=data.dag_value(1, [ev.value]))

    @step
    async def n2(self, ev: Value2) -> Branch1:
        return Branch1(value=data.dag_value(2, [ev.value]))

    @step
    async def n3(self, ev: Value3) -> Branch1:
        return Branch1(value=data.dag_value(3, [ev.value]))

    @step
    async def n4(self, ctx: Context, ev: Branch1) -> Value5 | Value6 | Value7 | None:
        parents = ctx.collect_events(ev, [Branch1] * 3)
        if parents is None:
            return None
        value = data.dag_value(4, [parent.value for parent in parents])
        ctx.send_event(Value5(value=value))
        ctx.send_event(Value6(value=value))
        ctx.send_event(Value7(value=value))
        return None

    @step
    async def n5(self, ev: Value5) -> Branch2:
        return Branch2(value=data.dag_value(5, [ev.value]))

    @step
    async def n6(self, ev: Value6) -> Branch2:
        return Branch2(value=data.dag_value(6, [ev.value]))

    @step
    async def n7(self, ev: Value7) -> Branch2:
        return Branch2(value=data.dag_value(7, [ev.value]))

    @step
    async def n8(self, ctx: Context, ev: Branch2) -> Value9 | None:
        parents = ctx.collect_events(ev, [Branch2] * 3)
        if parents is None:
            return None
        return Value9(value=data.dag_value(8, [parent.value for parent in parents]))

    @step
    async def n9(self, ev: Value9) -> StopEvent:
        return StopEvent(result=data.dag_value(9, [ev.value]))


@asynccontextmanager
async def dag(requests: int) -> AsyncGenerator[AsyncRun]:
    """The ten-node DAG, one request after the other; events are what it works by, so they are always on."""
    workflow = Dag(timeout=60)

    async def run() -> list[int]:
        return [await workflow.run(value=value) for value in range(requests)]

    yield run
