"""Rows by node and outcome, as metrics of the runtime."""

from __future__ import annotations

from flowcore import Workflow, node
from flowruntime import FlowRuntime


@node("totals.double")
def double(x: int) -> int:
    return 2 * x


@node("totals.small", kind="filter")
def small(x: int) -> bool:
    return x < 10


def _workflow() -> Workflow:
    workflow = Workflow("totals")
    workflow.chain(workflow.add(double, id="double"), workflow.add(small, id="small"))
    return workflow


def _totals(runtime: FlowRuntime) -> dict[tuple[str, str], float]:
    return {
        (dict(sample.labels)["node"], dict(sample.labels)["outcome"]): sample.value
        for sample in runtime.metrics.snapshot()
        if sample.name == "flow_rows_total" and sample.value
    }


async def test_requests_and_streams_add_up_in_one_series_per_node_and_outcome() -> None:
    """A figure that began anew with every run would look like a restart to whoever collects it."""
    workflow = _workflow()
    async with FlowRuntime(state_dir=None) as runtime:
        for value in (1, 7):
            await runtime.execute(workflow, {"double": {"x": value}})
        assert [out.value async for out in runtime.stream(workflow, [2, 3, 8])] == [4, 6, None]
        assert _totals(runtime) == {
            ("double", "completed"): 5,
            ("small", "completed"): 5,
            ("small", "dropped"): 2,
        }


async def test_nothing_is_in_flight_when_all_has_ended() -> None:
    async with FlowRuntime(state_dir=None) as runtime:
        assert [out.value async for out in runtime.stream(_workflow(), [1])] == [2]
        in_flight = [s.value for s in runtime.metrics.snapshot() if s.name == "flow_in_flight_rows"]
    assert in_flight == [0]


async def test_a_workflow_of_many_nodes_shares_a_series_instead_of_being_refused() -> None:
    """Series are bounded; a large workflow must run all the same, and no row may go uncounted."""
    workflow = Workflow("large")
    workflow.chain(*(workflow.add(double, id=f"n{index}") for index in range(1_003)))
    async with FlowRuntime(state_dir=None) as runtime:
        await runtime.execute(workflow, {"n0": {"x": 0}})
        totals = _totals(runtime)
    assert totals["n999", "completed"] == 1
    assert totals["(others)", "completed"] == 3
