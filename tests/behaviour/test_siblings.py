"""No barrier between siblings: a node starts when its own inputs are there, whatever others do."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import NodeCompleted, Workflow, node
from flowcore.definition import Gather
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, runtime, virtual, wait


@node("sib.clock")
async def clock(value: float) -> float:
    return now()


@node("sib.clock_sync")
def clock_sync(value: float) -> float:
    return now()


@pytest.mark.parametrize("child", [clock, clock_sync])
@virtual
async def test_the_child_of_a_fast_node_starts_while_its_slow_sibling_runs(child: Any) -> None:
    wf = Workflow("siblings")
    fast, slow = wf.add(wait, id="fast"), wf.add(wait, id="slow")
    wf.chain(fast, wf.add(child, id="after_fast"))
    wf.chain(slow, wf.add(child, id="after_slow"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"fast": {"seconds": 0.05}, "slow": {"seconds": 1.0}})
    assert result.outputs["after_fast"]["out"] == pytest.approx(0.05)
    assert result.outputs["after_slow"]["out"] == pytest.approx(1.0)


@virtual
async def test_rows_of_a_stream_join_as_soon_as_their_own_inputs_are_there() -> None:
    """Row 1 needs 1 s on one side, row 2 is done at once: 2 is not held back by 1."""

    @node("sib.pair")
    def pair(a: float, b: float) -> float:
        return now()

    wf = Workflow("join")
    enter = wf.add(_same, id="enter")
    left = wf.add(wait, id="left", concurrency={"max": 8, "order": "unordered"})
    right = wf.add(wait, id="right", concurrency={"max": 8, "order": "unordered"})
    both = wf.add(pair, id="both")
    wf.connect(enter["out.a"], left)
    wf.connect(enter["out.b"], right)
    wf.connect(left, both["a"])
    wf.connect(right, both["b"])
    rows = [{"a": 1.0, "b": 0.1}, {"a": 0.1, "b": 0.2}]
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, rows, order="completion")]
    assert [(out.index, out.value) for out in outcomes] == [(1, pytest.approx(0.2)), (0, pytest.approx(1.0))]


@virtual
async def test_independent_nodes_run_at_the_same_time() -> None:
    wf = Workflow("independent")
    for index in range(64):
        wf.add(wait, id=f"n{index}")
    async with runtime() as rt:
        result = await rt.execute(wf, {f"n{index}": {"seconds": 0.2} for index in range(64)})
    assert result.ok
    assert now() == pytest.approx(0.2)


@virtual
async def test_a_gather_of_different_speeds_takes_as_long_as_the_slowest() -> None:
    @node("sib.all")
    def all_of(values: Gather[float]) -> list[float]:
        return list(values)

    wf = Workflow("gather")
    gathered = wf.add(all_of, id="all")
    for index in range(5):
        wf.connect(wf.add(wait, id=f"n{index}"), gathered["values"])
    async with runtime() as rt:
        result = await rt.execute(wf, {f"n{index}": {"seconds": 5.0 - index} for index in range(5)})
    assert result.outputs["all"]["out"] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert now() == pytest.approx(5.0)


@virtual
async def test_each_node_reports_its_own_end_at_that_time_and_not_when_its_siblings_are_done() -> None:
    wf = Workflow("ends")
    for name in ("fast", "slow"):
        wf.add(wait, id=name)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            await rt.execute(wf, {"fast": {"seconds": 0.5}, "slow": {"seconds": 9.0}})
    ends = {event.node: (event.started_at, event.ended_at, event.at) for event in seen.of(NodeCompleted)}
    assert ends["fast"] == (0.0, pytest.approx(0.5), pytest.approx(0.5))
    assert ends["slow"] == (0.0, pytest.approx(9.0), pytest.approx(9.0))


@node("sib.same")
def _same(value: Any) -> Any:
    return value
