"""Workflows whose rows cannot be held, and those that hold none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    NodeContext,
    Workflow,
    node,
)
from flowcore.errors import DefinitionError, ValidationFailedError
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.scripted import ScriptedSource, scripted
from tests.behaviour.harness import kept, runtime, same, virtual
from tests.behaviour.holding import Project, ask, both, parts, total


async def refused(workflow: Workflow, **options: Any) -> str:
    async with runtime(nodes=[ScriptedSource, kept()], **{"store": MemoryStore()} | options) as rt:
        with pytest.raises(ValidationFailedError) as error:
            await rt.start(workflow, sources={"rows": scripted(1)})
    return str(error.value)


@virtual
async def test_rows_that_come_back_cannot_meet_rows_they_were_with() -> None:
    wf = Workflow("join")
    rows, asking, join = wf.add("flow.scripted", id="rows"), wf.add(ask, id="ask"), wf.add(both, id="join")
    wf.connect(rows, asking)
    wf.connect(asking, join["left"])
    wf.connect(rows, join["right"])
    text = await refused(wf)
    assert "nodes.join" in text
    assert "needs rows of 'rows' together with rows of 'ask'" in text
    assert "control.merge" in text


@virtual
async def test_what_follows_from_a_waiting_node_alone_may_meet_again() -> None:
    project = Project(1)
    asking, left = project.add(ask, id="ask"), project.add(same, id="left")
    right = project.add(same, id="right")
    join = project.add(both, id="join")
    project.workflow.chain(project.rows, asking)
    for branch, port in ((left, "left"), (right, "right")):
        project.workflow.connect(asking, branch)
        project.workflow.connect(branch, join[port])
    project.workflow.chain(join, project.add("test.kept", id="out"))
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await project.run(rt)
    assert project.written == [[[1, "yes"], [1, "yes"]]]


@virtual
async def test_a_collect_whose_rows_wait_is_refused_and_one_behind_is_not() -> None:
    wf = Workflow("collect")
    wf.chain(
        wf.add("flow.scripted", id="rows"),
        wf.add(parts, id="parts"),
        wf.add(ask, id="ask"),
        wf.add(total, id="all"),
    )
    text = await refused(wf)
    assert "nodes.all" in text
    assert "'ask' may hold some of them" in text

    project = Project(1)
    project.chain(
        project.add(ask, id="ask"), project.add("transform.split", id="split"), project.add(total, id="all")
    )
    async with project.runtime() as rt:
        await project.run(rt)
        (wait,) = await project.open()
        await rt.resume(wait.execution_id, "yes")
        await project.run(rt)
    assert project.written == [[1, "yes"]]


@virtual
async def test_rows_of_several_records_cannot_be_held() -> None:
    wf = Workflow("batched")
    wf.chain(
        wf.add("flow.scripted", id="rows"),
        wf.add("control.batch", id="some", batch={"max_items": 2}),
        wf.add(ask, id="ask"),
    )
    assert "come from 'some', a batch, whose rows cannot be told apart" in await refused(wf)


@virtual
async def test_rows_are_held_only_where_they_outlive_the_process() -> None:
    wf = Workflow("nowhere")
    wf.chain(wf.add("flow.scripted", id="rows"), wf.add(ask, id="ask"))
    text = await refused(wf, store=None)
    assert "this runtime has no store" in text
    assert "FlowRuntime(store=" in text
    late = Workflow("late")
    late.chain(
        late.add("flow.scripted", id="rows"), late.add("control.delay", id="d", config={"duration": "2m"})
    )
    text = await refused(late, store=None)
    assert "2m, longer than max_hold (1m)" in text
    assert "raise settings.max_hold" in text


@virtual
async def test_a_stream_of_items_refuses_what_waits_and_delays_in_memory() -> None:
    wf = Workflow("items")
    wf.chain(wf.add("flow.scripted", id="rows"), wf.add(ask, id="ask"))
    late = Workflow("late")
    late.chain(
        late.add("flow.scripted", id="rows"), late.add("control.delay", id="d", config={"duration": "2m"})
    )
    async with runtime(nodes=[ScriptedSource]) as rt:
        with pytest.raises(ValidationFailedError, match=r"rt\.stream gives an outcome for each item"):
            async for _ in rt.stream(wf, [1]):
                pass
        outcomes = [outcome.value async for outcome in rt.stream(late, [1, 2])]
    assert outcomes == [1, 2]


def test_a_node_that_delays_says_by_what_and_sleeps() -> None:
    with pytest.raises(DefinitionError, match="not one of its configuration fields"):

        @node("hd.unsaid", delays="duration")
        async def unsaid(value: int, ctx: NodeContext) -> int:
            return value

    with pytest.raises(DefinitionError, match="takes no NodeContext"):

        @node("hd.contextless", delays="duration")
        async def contextless(value: int, *, duration: timedelta) -> int:
            return value


@virtual
async def test_a_workflow_that_holds_nothing_compiles_to_what_it_was() -> None:
    project = Project(1)
    project.chain(project.add(same, id="same"))
    async with project.runtime() as rt:
        graph = rt.validate(project.workflow)
        assert rt._warm_chains().holding(graph) is graph
        await project.run(rt)
        assert (await project.store.workflows.list()).items == ()
