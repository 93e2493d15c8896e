"""Limits on concurrent work: global, per node type, per node, per resource; peaks are exact."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Batch, NodeContext, Workflow, node
from flowcore.errors import ValidationFailedError
from tests.behaviour.harness import now, runtime, virtual


class Gauge:
    """How many calls run at once, by name."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.peak: dict[str, int] = {}

    async def work(self, *names: str, seconds: float = 1.0) -> None:
        for name in names:
            self.now[name] = self.now.get(name, 0) + 1
            self.peak[name] = max(self.peak.get(name, 0), self.now[name])
        await asyncio.sleep(seconds)
        for name in names:
            self.now[name] -= 1


def gauged(gauge: Gauge, type_name: str) -> Any:
    @node(type_name)
    async def work(value: Any, ctx: NodeContext) -> Any:
        await gauge.work("*", type_name, ctx.node_id)
        return value

    return work


def fan(gauge: Gauge, counts: dict[str, int], **settings: Any) -> tuple[Workflow, dict[str, Any]]:
    wf = Workflow("fan", settings=settings)
    inputs: dict[str, Any] = {}
    for type_name, count in counts.items():
        kind = gauged(gauge, type_name)
        for index in range(count):
            name = f"{type_name.partition('.')[2]}{index}"
            wf.add(kind, id=name)
            inputs[name] = {"value": index}
    return wf, inputs


@virtual
async def test_the_workflows_global_limit_is_reached_and_never_exceeded() -> None:
    gauge = Gauge()
    wf, inputs = fan(gauge, {"g.a": 20, "g.b": 20}, max_parallel=8)
    async with runtime() as rt:
        result = await rt.execute(wf, inputs)
    assert result.ok
    assert gauge.peak["*"] == 8
    assert now() == 5.0


@virtual
async def test_the_runtimes_global_limit_holds_over_all_workflows_and_requests() -> None:
    gauge = Gauge()
    first, inputs = fan(gauge, {"g.a": 10})
    second, more = fan(gauge, {"g.b": 10})
    async with runtime(max_parallel=4) as rt:
        await asyncio.gather(rt.execute(first, inputs), rt.execute(second, more), rt.execute(first, inputs))
    assert gauge.peak["*"] == 4
    assert now() == 30 / 4 + 0.5


@virtual
async def test_a_limit_per_node_type_binds_that_type_only() -> None:
    gauge = Gauge()
    wf, inputs = fan(gauge, {"g.a": 12, "g.b": 12}, limits={"types": {"g.a": 3}})
    async with runtime() as rt:
        await rt.execute(wf, inputs)
    assert gauge.peak["g.a"] == 3
    assert gauge.peak["g.b"] == 12


@virtual
async def test_a_limit_per_node_binds_all_its_rows_over_all_requests() -> None:
    """NOD-10."""
    gauge = Gauge()
    wf = Workflow("one")
    wf.add(gauged(gauge, "g.a"), id="n", concurrency=5)
    async with runtime() as rt:
        await asyncio.gather(*(rt.execute(wf, {"n": {"value": n}}) for n in range(20)))
    assert gauge.peak["n"] == 5
    assert now() == 4.0


@virtual
async def test_a_resource_is_shared_by_the_nodes_that_name_it() -> None:
    gauge = Gauge()
    wf = Workflow("gpu", settings={"limits": {"resources": {"gpu": 2}}})
    for name in ("a", "b", "c", "d"):
        wf.add(gauged(gauge, f"g.{name}"), id=name, resource="gpu")
    wf.add(gauged(gauge, "g.free"), id="free")
    async with runtime() as rt:
        await rt.execute(wf, {name: {"value": 0} for name in ("a", "b", "c", "d", "free")})
    assert gauge.peak["*"] == 3
    assert now() == 2.0


@virtual
async def test_a_resource_nobody_declared_is_refused_before_anything_runs() -> None:
    wf = Workflow("gpu")
    wf.add(gauged(Gauge(), "g.a"), id="a", resource="printer")
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match="printer"):
            await rt.execute(wf, {"a": {"value": 0}})


@pytest.mark.parametrize(("of_runtime", "of_workflow"), [(2, 8), (8, 2)])
@virtual
async def test_of_the_runtimes_and_the_workflows_limit_the_tighter_one_binds(
    of_runtime: int, of_workflow: int
) -> None:
    gauge = Gauge()
    limits = {"types": {"g.a": of_workflow}, "resources": {"gpu": of_workflow}}
    wf = Workflow("both", settings={"limits": limits})
    kind, other = gauged(gauge, "g.a"), gauged(gauge, "g.b")
    for index in range(10):
        wf.add(kind, id=f"a{index}")
        wf.add(other, id=f"b{index}", resource="gpu")
    shared = {"type:g.a": of_runtime, "resource:gpu": of_runtime}
    async with runtime(limits=shared) as rt:
        await rt.execute(wf, {f"{k}{n}": {"value": n} for k in "ab" for n in range(10)})
    assert gauge.peak["g.a"] == 2
    assert gauge.peak["g.b"] == 2


@virtual
async def test_a_row_that_backs_off_holds_no_permit() -> None:
    """OPR-11."""
    tries: list[float] = []

    @node("g.flaky", retry=None)
    async def flaky(value: int) -> int:
        tries.append(now())
        if value == 0 and len(tries) == 1:
            raise ConnectionError("away")
        await asyncio.sleep(1)
        return value

    wf = Workflow("backoff", settings={"max_parallel": 1})
    retry = {"max_attempts": 2, "initial": "10s", "jitter": 0.0}
    for index in range(3):
        wf.add(flaky, id=f"n{index}", retry=retry)
    async with runtime() as rt:
        result = await rt.execute(wf, {f"n{index}": {"value": index} for index in range(3)})
    assert result.ok
    assert tries == [0.0, 0.0, 1.0, 10.0]


@virtual
async def test_a_limit_of_one_over_a_whole_stream_with_several_stages_does_not_deadlock() -> None:
    gauge = Gauge()
    wf = Workflow("narrow", settings={"max_parallel": 1})
    wf.chain(*(wf.add(gauged(gauge, f"g.n{index}"), id=f"n{index}") for index in range(4)))
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(5))]
    assert [out.value for out in outcomes] == list(range(5))
    assert gauge.peak["*"] == 1
    assert now() == 20.0


@virtual
async def test_nested_workflows_eight_deep_run_under_a_global_limit_of_eight() -> None:
    gauge = Gauge()
    inner = Workflow("deepest")
    leaf = gauged(gauge, "g.leaf")
    for index in range(4):
        inner.add(leaf, id=f"leaf{index}")
    for depth in range(7):
        outer = Workflow(f"level{depth}")
        outer.add(gauged(gauge, f"g.l{depth}"), id="a")
        outer.add(inner, id="inner")
        inner = outer
    async with runtime(max_parallel=8) as rt:
        graph = rt.validate(inner, mode="request")
        inputs = {f"{name}": {"value": 0} for name in graph.nodes}
        results = await asyncio.gather(*(rt.execute(inner, inputs) for _ in range(8)))
    assert all(result.ok for result in results)
    assert gauge.peak["*"] == 8
    assert now() == 11.0


@virtual
async def test_batches_count_as_one_call_against_their_limits() -> None:
    sizes: list[int] = []

    @node("g.batch", batch=Batch(max_items=4))
    async def batch(values: Sequence[int]) -> Sequence[int]:
        sizes.append(len(values))
        await asyncio.sleep(1)
        return values

    wf = Workflow("batched")
    wf.add(batch, id="b", batch=4, concurrency=1)
    async with runtime() as rt:
        outcomes = [out async for out in rt.stream(wf, range(12))]
    assert [out.value for out in outcomes] == list(range(12))
    assert sizes == [4, 4, 4]
    assert now() == 3.0


@node("lim.lingers", batch=Batch(max_items=10, linger=timedelta(milliseconds=5)))
async def lingers(values: list[int]) -> list[int]:
    return values


@node("lim.holds")
async def holds(value: int) -> int:
    await asyncio.sleep(0.1)
    return value


@virtual
async def test_a_row_lingers_anew_after_a_release_that_had_to_wait_and_was_cancelled() -> None:
    """Its time was up while another batch waited for its turn; then both were cancelled."""
    batches, other = Workflow("batches"), Workflow("other")
    batches.add(lingers, id="n")
    other.add(holds, id="n")

    async with runtime(max_parallel=1) as rt:

        def ask(wf: Workflow, value: int) -> asyncio.Task[Any]:
            return asyncio.create_task(rt.execute(wf, {"n": {"value" if wf is other else "values": value}}))

        busy = ask(other, 0)
        await asyncio.sleep(0.01)
        queued, gathering = ask(batches, 1), None
        await asyncio.sleep(0.01)
        gathering = ask(batches, 2)
        await asyncio.sleep(0.01)
        for asked in (gathering, queued):
            asked.cancel()
            await asyncio.wait({asked})
        assert (await busy).ok
        async with asyncio.timeout(1):
            assert (await ask(batches, 3)).outputs == {"n": {"out": 3}}
