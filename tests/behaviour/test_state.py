"""NodeState: shared by the nodes of one execution, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from flowcore import NodeContext, Workflow, node
from tests.behaviour.harness import Script, runtime, virtual


@node("state.add")
async def add(value: int, ctx: NodeContext) -> list[int]:
    seen: Any = ctx.state.data.setdefault("seen", [])
    seen.append(value)
    await asyncio.sleep(0.1 * (value % 3))
    return list(seen)


@node("state.read")
def read(value: Any, ctx: NodeContext) -> Any:
    return (ctx.execution_id, list(ctx.state.data["seen"]))


@virtual
async def test_nodes_of_one_request_share_a_state_and_requests_at_the_same_time_do_not() -> None:
    """NOD-4."""
    wf = Workflow("state")
    wf.chain(wf.add(add, id="a"), wf.add(read, id="b"))
    async with runtime() as rt:
        results = await asyncio.gather(*(rt.execute(wf, {"a": {"value": n}}) for n in range(20)))
    seen = [result.outputs["b"]["out"] for result in results]
    assert [values for _, values in seen] == [[n] for n in range(20)]
    assert [execution for execution, _ in seen] == [result.execution_id for result in results]


@virtual
async def test_each_record_of_a_stream_has_its_own_state() -> None:
    wf = Workflow("state")
    wf.chain(wf.add(add, id="a", concurrency={"max": 8, "order": "unordered"}), wf.add(read, id="b"))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(20))]
    assert [out.value[1] for out in outcomes] == [[n] for n in range(20)]
    assert len({out.value[0] for out in outcomes}) == 20


@virtual
async def test_the_children_of_a_record_share_its_state() -> None:
    @node("state.split")
    def split(value: list[int]) -> Iterator[int]:
        yield from value

    @node("state.all", kind="collect")
    def collect(items: Any) -> list[Any]:
        return list(items)

    wf = Workflow("state")
    a, b = wf.add(add, id="a", concurrency=1), wf.add(read, id="b")
    wf.chain(wf.add(split, id="s"), a, wf.add(collect, id="c"), b)
    async with runtime() as rt:
        result = await rt.execute(wf, {"s": {"value": [1, 2, 3]}})
    assert result.outputs["b"]["out"][1] == [1, 2, 3]


@virtual
async def test_the_state_of_a_settled_record_is_forgotten() -> None:
    wf = Workflow("state")
    wf.chain(wf.add(Script, id="s"), wf.add(add, id="a"))
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[n] for n in range(100)])})
        task = None
        while task is None:
            await asyncio.sleep(0)
            task = next(iter(run.tasks.values()), None)
        opened: list[Any] = []
        open_root = task.kernel.open_root

        def noted(*args: Any, **columns: Any) -> Any:
            opened.append(open_root(*args, **columns))
            return opened[-1]

        task.kernel.open_root = noted
        await run.wait()
    assert opened
    assert all(not frame.executions for frame in opened)
