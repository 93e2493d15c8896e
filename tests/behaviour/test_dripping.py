"""Asynchronous generators: limits bind what computes, a timeout is of one child, a retry ends with the first.

Gauges count what a test sees itself: how many generators are between being asked for a child and answering.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from flowcore import NodeContext, RetryPolicy, Workflow, node
from flowcore.errors import ContractError, DefinitionError, LimitExceededError, NodeTimeoutError
from flowcore.events import NodeRetrying
from flowcore.node import Node
from flowruntime.testing import recorded
from tests.behaviour.harness import Script, kept, now, runtime, same, virtual

CHILDREN = 3


class Gauge:
    """How many compute at once, by name, and how many generators are alive."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self.alive = 0
        self.peak_alive = 0

    async def compute(self, *names: str, seconds: float = 1.0) -> None:
        for name in names:
            self.now[name] = self.now.get(name, 0) + 1
            self.peak[name] = max(self.peak.get(name, 0), self.now[name])
        try:
            await asyncio.sleep(seconds)
        finally:
            for name in names:
                self.now[name] -= 1

    def drip(self, type_name: str, children: int = CHILDREN) -> Any:
        @node(type_name)
        async def drip(value: Any, ctx: NodeContext) -> AsyncIterator[Any]:
            self.alive += 1
            self.peak_alive = max(self.peak_alive, self.alive)
            try:
                for child in range(children):
                    await self.compute("*", type_name, ctx.node_id)
                    yield (value, child)
            finally:
                self.alive -= 1

        return drip

    def wait(self, type_name: str) -> Any:
        @node(type_name)
        async def work(value: Any, ctx: NodeContext) -> Any:
            await self.compute("*", type_name, ctx.node_id)
            return value

        return work


def line(*nodes: tuple[Any, dict[str, Any]], sink: Any = None, **settings: Any) -> Workflow:
    """Source `s` -> `n0` -> `n1` ... -> sink `k`."""
    wf = Workflow("dripping", settings={"on_error": "continue", **settings})
    handles = [wf.add(Script, id="s")]
    handles += [wf.add(kind, id=f"n{index}", **policies) for index, (kind, policies) in enumerate(nodes)]
    wf.chain(*handles, wf.add(sink or kept(), id="k"))
    return wf


async def ran(wf: Workflow, rows: list[Any], **options: Any) -> Any:
    async with runtime(**options) as rt:
        return await (await rt.start(wf, sources={"s": Script([rows])})).wait()


# --- limits ---------------------------------------------------------------------------------------------


@virtual
async def test_its_own_concurrency_bounds_what_computes_over_all_partitions() -> None:
    gauge = Gauge()
    wf = line((gauge.drip("drip.a"), {"concurrency": 4}))
    async with runtime() as rt:
        source = Script(left=[list(range(10))], right=[list(range(10))])
        run = await rt.start(wf, sources={"s": source})
        result = await run.wait()
        assert run.statistics()["pools"]["n0"] == {"in_flight": 0, "peak": 4, "queued": 0}
    assert result.ok
    assert gauge.peak["n0"] == 4
    assert now() == 20 * CHILDREN / 4


@pytest.mark.parametrize("of", ["workflow", "runtime"])
@virtual
async def test_the_global_limit_binds_generators_and_coroutines_together(of: str) -> None:
    gauge = Gauge()
    settings = {"max_parallel": 3} if of == "workflow" else {}
    options = {"max_parallel": 3} if of == "runtime" else {}
    wf = line((gauge.drip("drip.a"), {}), (gauge.wait("drip.b"), {}), **settings)
    result = await ran(wf, list(range(10)), **options)
    assert result.ok
    assert gauge.peak["*"] == 3
    assert now() == 10 * CHILDREN * 2 / 3


@pytest.mark.parametrize("of", ["workflow", "runtime"])
@virtual
async def test_limits_per_type_and_per_resource_bind_them(of: str) -> None:
    gauge = Gauge()
    limits = {"types": {"drip.a": 2}, "resources": {"gpu": 3}}
    if of == "runtime":
        limits = {"types": {"drip.a": 50}, "resources": {"gpu": 50}}
    wf = Workflow("limits", settings={"limits": limits})
    wf.add(Script, id="s")
    wf.add(gauge.drip("drip.a"), id="a")
    wf.add(gauge.drip("drip.b"), id="b", resource="gpu")
    wf.add(gauge.wait("drip.c"), id="c", resource="gpu")
    for name in "abc":
        wf.connect("s", name)
    options: dict[str, Any] = {} if of == "workflow" else {"limits": {"type:drip.a": 2, "resource:gpu": 3}}
    result = await ran(wf, list(range(12)), **options)
    assert result.ok
    assert gauge.peak["drip.a"] == 2
    assert gauge.peak["b"] + gauge.peak["c"] >= 3
    assert gauge.peak["*"] == 5


@virtual
async def test_a_limit_of_one_over_generator_and_children_does_not_deadlock() -> None:
    """A generator that kept its permit while it has a child would hold that child up."""
    gauge = Gauge()
    sink = kept()
    wf = line(
        (gauge.drip("drip.a"), {}), (gauge.drip("drip.b"), {}), (gauge.wait("drip.c"), {}),
        sink=sink, max_parallel=1,
    )  # fmt: skip
    result = await ran(wf, [0, 1])
    assert result.ok
    assert len(sink.rows) == 2 * CHILDREN * CHILDREN
    assert gauge.peak["*"] == 1


@virtual
async def test_a_generator_that_waits_for_room_holds_no_permit() -> None:
    """Its children are stuck at the sink; another node on the same limit goes on all the same."""
    gauge = Gauge()
    stuck = asyncio.Event()

    async def write(batch: Any) -> None:
        del batch
        await stuck.wait()

    wf = Workflow("room", settings={"max_in_flight": 256, "max_parallel": 1})
    wf.add(Script, id="s")
    wf.add(gauge.drip("drip.many", children=300), id="many")
    wf.add(gauge.wait("drip.other"), id="other")
    wf.add(kept(write), id="k")
    free = kept(name="test.free")
    wf.add(free, id="free")
    wf.connect("s", "many")
    wf.connect("s", "other")
    wf.connect("many", "k")
    wf.connect("other", "free")
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1]])})
        await asyncio.sleep(2_000)
        statistics = run.statistics()
        assert statistics["tasks"]["s/0"]["stages"]["many"]["in_flight"] == 256
        assert statistics["limits"]["*"]["in_use"] == 0
        assert free.rows == [1]
        stuck.set()
        assert (await run.wait()).ok


@virtual
async def test_at_most_concurrency_generators_are_begun_and_each_is_begun_late() -> None:
    gauge = Gauge()
    wf = line((gauge.drip("drip.a"), {"concurrency": 4}))
    assert (await ran(wf, list(range(20)))).ok
    assert gauge.peak_alive == 4
    assert gauge.alive == 0


@virtual
async def test_busy_requests_and_a_quiet_one_take_turns() -> None:
    gauge = Gauge()
    wf = Workflow("turns")
    wf.chain(wf.add(gauge.drip("drip.a", children=50), id="n", concurrency=2), wf.add(same, id="m"))
    async with runtime(max_parallel=1) as rt:
        busy = [asyncio.create_task(rt.execute(wf, {"n": {"value": n}})) for n in range(2)]
        await asyncio.gather(*busy)
    assert gauge.peak["*"] == 1
    assert now() == 100.0


@pytest.mark.parametrize("when", [0.5, 1.5, 100.0])
@virtual
async def test_a_cancelled_request_gives_its_permit_back_and_closes_its_generator(when: float) -> None:
    gauge = Gauge()
    wf = Workflow("cancel")
    wf.chain(wf.add(gauge.drip("drip.a", children=90), id="n"), wf.add(same, id="m"))
    async with runtime(max_parallel=1) as rt:
        tasks = [asyncio.create_task(rt.execute(wf, {"n": {"value": n}})) for n in range(2)]
        await asyncio.sleep(when)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert now() == pytest.approx(when, abs=0.05)
        result = await tasks[1]
        assert result.ok
        assert rt.statistics()["limits"]["runtime:*"]["in_use"] == 0
    assert gauge.alive == 0


# --- timeout --------------------------------------------------------------------------------------------


@node("drip.waits")
async def waits(value: list[float]) -> AsyncIterator[float]:
    for seconds in value:
        await asyncio.sleep(seconds)
        yield seconds


@virtual
async def test_a_timeout_is_of_one_child_and_children_before_go_on() -> None:
    sink = kept()
    wf = line((waits, {"timeout": "2s"}), sink=sink)
    result = await ran(wf, [[1.0] * 10, [1.5, 1.0, 2.5, 1.0], [1.9]])
    assert sorted(sink.rows) == sorted([1.0] * 10 + [1.5, 1.0] + [1.9])
    (error,) = result.errors["n0"]
    assert isinstance(error, NodeTimeoutError)
    assert "'n0'" in str(error)
    assert "2 children before" in str(error)
    assert (result.counts["n0"].completed, result.counts["n0"].failed) == (2, 1)
    assert now() == 10.0


@virtual
async def test_the_clock_stands_still_while_a_generator_waits_for_its_permit_or_for_room() -> None:
    sink = kept()
    wf = line((waits, {"timeout": "2s"}), sink=sink, max_parallel=1)
    result = await ran(wf, [[1.5, 1.5], [1.5, 1.5], [1.5]])
    assert result.ok
    assert len(sink.rows) == 5
    assert now() == 7.5


@virtual
async def test_a_generator_that_swallows_its_cancellation_is_late_all_the_same() -> None:
    @node("drip.stubborn", timeout=timedelta(seconds=1))
    async def stubborn(value: int) -> AsyncIterator[str]:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            yield "late"

    @node("drip.excuse", timeout=timedelta(seconds=1))
    async def excuse(value: int) -> AsyncIterator[str]:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            raise ValueError("an excuse") from error
        yield "never"

    for kind in (stubborn, excuse):
        sink = kept(name=f"test.{kind.__name__}")
        result = await ran(line((kind, {}), sink=sink), [1])
        assert sink.rows == []
        assert [type(error) for error in result.errors["n0"]] == [NodeTimeoutError]


@virtual
async def test_a_timeout_of_its_own_is_the_nodes_error() -> None:
    @node("drip.own", timeout=timedelta(seconds=9))
    async def own(value: int) -> AsyncIterator[str]:
        async with asyncio.timeout(1):
            await asyncio.sleep(5)
        yield "never"

    result = await ran(line((own, {})), [1])
    assert [type(error) for error in result.errors["n0"]] == [TimeoutError]


# --- retry ----------------------------------------------------------------------------------------------


RETRY = RetryPolicy(max_attempts=3, initial=timedelta(seconds=1), jitter=0.0, multiplier=2.0)


def flaky(failures: dict[int, int], at: int, log: list[tuple[int, float]]) -> Any:
    @node("drip.flaky", retry=RETRY)
    async def drip(value: int) -> AsyncIterator[Any]:
        log.append((value, now()))
        for child in range(CHILDREN):
            if child == at and failures.get(value, 0) > 0:
                failures[value] -= 1
                raise ConnectionError("away")
            yield (value, child)

    return drip


@virtual
async def test_one_that_fails_before_its_first_child_is_begun_anew_after_a_backoff_without_a_permit() -> None:
    log: list[tuple[int, float]] = []
    sink = kept()
    wf = line((flaky({0: 2}, 0, log), {}), sink=sink, max_parallel=1)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            run = await rt.start(wf, sources={"s": Script([[0, 1]])})
            result = await run.wait()
    assert result.ok
    assert sorted(sink.rows) == [(value, child) for value in (0, 1) for child in range(CHILDREN)]
    assert log == [(0, 0.0), (1, 0.0), (0, 1.0), (0, 3.0)]
    assert result.counts["n0"].retried == 2
    assert [(event.attempt, event.delay_s) for event in seen.of(NodeRetrying)] == [(1, 1.0), (2, 2.0)]


@virtual
async def test_one_whose_children_have_left_is_not_begun_anew_they_would_come_twice() -> None:
    log: list[tuple[int, float]] = []
    sink = kept()
    result = await ran(line((flaky({0: 1}, 1, log), {}), sink=sink), [0])
    assert sink.rows == [(0, 0)]
    assert [type(error) for error in result.errors["n0"]] == [ConnectionError]
    assert result.counts["n0"].retried == 0
    assert len(log) == 1


@virtual
async def test_one_out_of_attempts_has_its_last_error_and_a_refusal_is_not_repeated() -> None:
    log: list[tuple[int, float]] = []
    result = await ran(line((flaky({0: 9}, 0, log), {})), [0])
    assert len(log) == 3
    assert result.counts["n0"].failed == 1

    @node("drip.refusing", retry=RETRY)
    async def refusing(value: int) -> AsyncIterator[int]:
        raise ValueError("never")
        yield value

    result = await ran(line((refusing, {}), sink=kept(name="test.two")), [0])
    assert result.counts["n0"].retried == 0


@virtual
async def test_a_late_first_child_is_a_failed_attempt() -> None:
    log: list[float] = []

    @node("drip.slow_once", timeout=timedelta(seconds=2), retry=RETRY)
    async def slow_once(value: int) -> AsyncIterator[int]:
        log.append(now())
        await asyncio.sleep(5 if len(log) == 1 else 1)
        yield value

    sink = kept()
    result = await ran(line((slow_once, {}), sink=sink), [7])
    assert result.ok
    assert sink.rows == [7]
    assert log == [0.0, 3.0]


@virtual
async def test_a_request_that_is_cancelled_during_a_backoff_ends_at_once() -> None:
    log: list[tuple[int, float]] = []
    wf = Workflow("backoff")
    wf.chain(
        wf.add(flaky({0: 9}, 0, log), id="n", retry=RetryPolicy(initial=timedelta(seconds=20))), wf.add(same)
    )
    async with runtime() as rt:
        task = asyncio.create_task(rt.execute(wf, {"n": {"value": 0}}))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert now() == pytest.approx(5.0, abs=0.05)


# --- breaker and rate -----------------------------------------------------------------------------------


@virtual
async def test_a_rate_of_a_resource_counts_generators_begun_and_calls_together_and_holds_no_permit() -> None:
    gauge = Gauge()
    limits = {"rates": {"api": {"rows": 1, "per": "10s"}}}
    wf = Workflow("rate", settings={"limits": limits, "max_parallel": 1})
    wf.add(Script, id="s")
    wf.add(gauge.drip("drip.a"), id="a", resource="api")
    wf.add(gauge.wait("drip.b"), id="b", resource="api")
    wf.add(gauge.wait("drip.free"), id="free")
    for name in ("a", "b", "free"):
        wf.connect("s", name)
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1, 2, 3]])})
        await asyncio.sleep(15)
        assert run.live_counts()["free"].completed == 3
        result = await run.wait()
    assert result.ok
    assert gauge.peak["*"] == 1
    assert 50.0 < now() <= 50.0 + CHILDREN + 1


@virtual
async def test_a_generator_is_one_call_to_its_breaker_and_the_probe_is_one_generator() -> None:
    away = True
    log: list[float] = []

    @node("drip.away")
    async def drip(value: int) -> AsyncIterator[int]:
        log.append(now())
        yield value
        await asyncio.sleep(1)
        if away:
            raise ConnectionError("away")
        yield value

    sink = kept()
    policies = {
        "breaker": {"failures": 2, "window": 4, "open_for": "60s", "when_open": "wait"},
        "concurrency": 2,
    }
    wf = line((drip, policies), sink=sink)
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": Script([[1, 2, 3, 4, 5]])})
        await asyncio.sleep(30)
        assert log == [0.0, 0.0]
        away = False
        result = await run.wait()
    assert result.counts["n0"].failed == 2
    assert log == [0.0, 0.0, 61.0, 62.0, 62.0]
    assert sorted(sink.rows) == [1, 2, 3, 3, 4, 4, 5, 5]


@virtual
async def test_a_request_that_is_cancelled_while_it_waits_for_a_rate_leaves_the_line() -> None:
    wf = Workflow("rate")
    wf.chain(wf.add(waits, id="n", rate={"rows": 1, "per": "100s"}), wf.add(same, id="m"))
    async with runtime() as rt:
        tasks = [asyncio.create_task(rt.execute(wf, {"n": {"value": [1.0]}})) for _ in range(3)]
        await asyncio.sleep(5)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert now() == pytest.approx(5.0, abs=0.05)
        assert (await tasks[2]).ok
    assert now() == pytest.approx(101.0)


@virtual
async def test_a_retry_beyond_the_budget_of_all_rows_is_not_made() -> None:
    log: list[tuple[int, float]] = []
    rows = list(range(60))
    wf = line(
        (
            flaky(dict.fromkeys(rows, 9), 0, log),
            {"retry": {"max_attempts": 9, "initial": "1ms", "budget": 0.0}},
        )
    )
    result = await ran(wf, rows)
    assert result.counts["n0"].failed == 60
    assert len(log) < 2 * len(rows)


# --- forms ----------------------------------------------------------------------------------------------


class In(msgspec.Struct):
    value: int


def test_a_class_may_yield_asynchronously() -> None:
    class Counted(Node[None, In, int], type="drip.counted", max_children=2, timeout=timedelta(seconds=1)):
        async def execute(self, inputs: In, ctx: NodeContext) -> AsyncIterator[int]:
            for child in range(inputs.value):
                await asyncio.sleep(0.5)
                yield child

    definition = Counted.__flow_node__
    assert (definition.kind, definition.is_async) == ("expand", True)

    @virtual
    async def scenario() -> None:
        sink = kept()
        result = await ran(line((Counted, {}), sink=sink), [2, 3])
        assert sorted(sink.rows) == [0, 0, 1, 1]
        assert [type(error) for error in result.errors["n0"]] == [LimitExceededError]

    scenario()


@virtual
async def test_a_function_that_gives_an_asynchronous_iterator_counts_as_one() -> None:
    class Numbers:
        def __init__(self, most: int) -> None:
            self.most = most

        async def __aiter__(self) -> AsyncIterator[int]:
            for number in range(self.most):
                await asyncio.sleep(1)
                yield number

    @node("drip.given", concurrency=1)
    def given(value: int) -> AsyncIterable[int]:
        return Numbers(value)

    sink = kept()
    result = await ran(line((given, {}), sink=sink), [2, 2])
    assert result.ok
    assert sink.rows == [0, 1, 0, 1]
    assert now() == 4.0


@virtual
async def test_a_node_that_gives_the_other_kind_than_it_says_fails_its_rows_with_what_to_write() -> None:
    @node("drip.liar", kind="expand")
    def liar(value: int) -> Any:
        return waits([0.0])

    @node("drip.sync_liar")
    def sync_liar(value: int) -> AsyncIterator[int]:
        return [1]  # type: ignore[return-value] - what is refused here

    for kind, part in ((liar, "-> AsyncIterator"), (sync_liar, "gave a list, not an asynchronous iterator")):
        result = await ran(line((kind, {}), sink=kept(name=f"test.{kind.__name__}")), [1])
        (error,) = result.errors["n0"]
        assert isinstance(error, ContractError)
        assert part in str(error)


def test_ways_to_write_a_node_that_nothing_would_carry_out_are_refused_with_what_to_write_instead() -> None:
    def refused(part: str, function: Any, **options: Any) -> None:
        with pytest.raises(DefinitionError, match=part):
            node("drip.refused", **options)(function)

    async def gives(value: int) -> Iterator[int]:
        return iter([value])

    async def awaits(items: list[int]) -> int:
        return len(items)

    def context(items: list[int], ctx: NodeContext) -> int:
        return len(items)

    def plain(items: list[int]) -> int:
        return len(items)

    def many(value: int) -> Iterator[int]:
        yield value

    refused("write it with yield", gives)
    refused("nothing would await it", awaits, kind="collect")
    refused("nothing would await it", awaits, kind="batch")
    refused("takes a context", context, kind="collect")
    refused("cannot be offloaded to a thread", plain, kind="batch", offload="thread")
    refused("cannot be offloaded to a process", many, offload="process")
    with pytest.raises(DefinitionError, match="kind='collect' is not one of"):
        types.new_class("Collecting", (Node[None, In, int],), {"type": "drip.c", "kind": "collect"})
