"""Retries, breakers, rates, deadlines, divided batches: what a failing outside costs, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from flowcore import BreakerChanged, Workflow, node
from flowcore.errors import CircuitOpenError, HttpUnavailableError, NodeTimeoutError, ValidationFailedError
from flowcore.policies import Batch, RetryPolicy
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, kept, now, runtime, virtual


class Server:
    """Stands for what a node calls: answers as told, and knows when it was asked."""

    def __init__(self, *answers: Exception | None, takes_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes_s = takes_s
        self.asked: list[float] = []
        self.down = False

    async def ask(self, value: Any) -> Any:
        self.asked.append(now())
        await asyncio.sleep(self.takes_s)
        if self.down:
            raise HttpUnavailableError("down", status=503)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return value


def down(**facts: Any) -> HttpUnavailableError:
    return HttpUnavailableError("down", **({"status": 503} | facts))


def calling(server: Server, **options: Any) -> Workflow:
    """One node that asks the server, for requests."""

    @node("resilience.call", **options)
    async def call(value: int) -> int:
        return await server.ask(value)

    wf = Workflow("calling", settings={"on_error": "continue"})
    wf.add(call, id="call")
    return wf


def line_to(server: Server, sink: Any, **options: Any) -> Workflow:
    """A source, a node that asks the server, a sink."""

    @node("resilience.call", **options)
    async def call(value: int) -> int:
        return await server.ask(value)

    wf = Workflow("line", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(call, id="call"), wf.add(sink, id="k"))
    return wf


NO_WAIT = RetryPolicy(max_attempts=3, initial=timedelta(0))


@virtual
async def test_503_twice_is_three_requests_and_success() -> None:
    server = Server(down(), down())
    async with runtime() as rt:
        result = await rt.execute(calling(server, retry=NO_WAIT), {"value": 1})
    assert result.ok
    assert result.outcomes["call"].attempts == 3
    assert len(server.asked) == 3


@virtual
async def test_what_a_retry_cannot_help_is_asked_once() -> None:
    server = Server(ValueError("bad row"))
    async with runtime() as rt:
        result = await rt.execute(calling(server, retry=NO_WAIT), {"value": 1})
    assert not result.ok
    assert len(server.asked) == 1


@virtual
async def test_a_node_that_is_not_idempotent_is_repeated_only_after_refusals() -> None:
    server = Server(down(status=429, retry_after_s=2), down())
    async with runtime() as rt:
        result = await rt.execute(calling(server, retry=NO_WAIT, idempotent=False), {"value": 1})
    assert [str(error) for error in result.errors["call"]] == ["down"]
    assert server.asked == [0.0, 2.0]


@virtual
async def test_the_total_timeout_cuts_the_attempt_under_way_and_names_the_last_error() -> None:
    server = Server(down(), takes_s=3.0)
    policy = RetryPolicy(max_attempts=5, initial=timedelta(0))
    async with runtime() as rt:
        result = await rt.execute(calling(server, retry=policy, total_timeout="4s"), {"value": 1})
        assert now() == 4.0
    error = result.errors["call"][0]
    assert isinstance(error, NodeTimeoutError)
    assert "within 4.0 s in all, after 2 attempts" in str(error)


@virtual
async def test_a_backoff_that_would_end_after_the_deadline_is_not_begun() -> None:
    server = Server(down(retry_after_s=60))
    async with runtime() as rt:
        result = await rt.execute(calling(server, retry=NO_WAIT, total_timeout="10s"), {"value": 1})
        assert now() == 0.0
    assert isinstance(result.errors["call"][0], HttpUnavailableError)


@virtual
async def test_rows_that_wait_for_their_turn_run_out_of_time_there() -> None:
    server = Server(takes_s=3.0)
    sink = kept()
    source = Script([[1, 2]])
    async with runtime() as rt:
        run = await rt.start(line_to(server, sink, concurrency=1, total_timeout="2s"), sources={"s": source})
        result = await run.wait()
    assert result.counts["call"].failed == 2
    assert len(server.asked) == 1
    assert source.committed["0"][-1] == 2


@virtual
async def test_an_outage_costs_a_fifth_more_calls_not_five_times_as_many() -> None:
    server, sink = Server(), kept()
    server.down = True
    rows = 1_000
    source = Script([list(range(rows))])
    policy = RetryPolicy(max_attempts=5, initial=timedelta(0), jitter=0.0)
    async with runtime() as rt:
        run = await rt.start(line_to(server, sink, retry=policy), sources={"s": source})
        result = await run.wait()
    assert len(server.asked) <= 1.2 * rows + 10
    assert result.counts["call"].failed == rows
    assert any(
        "the retry budget is spent" in error.__dict__.get("not_retried", "")
        for error in result.errors["call"]
    )


@virtual
async def test_retries_of_a_nested_workflow_draw_from_the_same_budget_as_those_outside() -> None:
    server = Server()
    server.down = True

    @node(
        "resilience.shared",
        resource="api",
        retry=RetryPolicy(max_attempts=50, initial=timedelta(0), budget=0.0),
    )
    async def shared(value: int) -> int:
        return await server.ask(value)

    inner = Workflow("inner")
    inner.add(shared, id="call")
    wf = Workflow("outer", settings={"on_error": "continue"})
    wf.add(inner, id="a")
    wf.add(shared, id="b")
    async with runtime() as rt:
        await rt.execute(wf, {"a/call": {"value": 1}, "b": {"value": 1}})
    assert len(server.asked) == 2 + 10


@virtual
async def test_two_failing_calls_of_three_retries_do_not_open_a_breaker_of_five() -> None:
    server = Server(*[down()] * 6)
    wf = calling(server, retry=NO_WAIT, breaker={"failures": 5})
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            for _ in range(2):
                assert not (await rt.execute(wf, {"value": 1})).ok
            assert (await rt.execute(wf, {"value": 1})).ok
    assert len(server.asked) == 7
    assert seen.of(BreakerChanged) == []


@virtual
async def test_an_open_breaker_refuses_at_once_and_one_probe_of_a_hundred_callers_finds_out() -> None:
    server = Server(takes_s=1.0)
    server.down = True
    wf = calling(server, breaker={"failures": 5, "open_for": "15s"})
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            for _ in range(20):
                await rt.execute(wf, {"value": 1})
            assert len(server.asked) == 5
            refused = (await rt.execute(wf, {"value": 1})).errors["call"][0]
            assert isinstance(refused, CircuitOpenError)
            assert refused.__dict__["retry_after_s"] == pytest.approx(15.0)
            await asyncio.sleep(15)
            results = await asyncio.gather(*(rt.execute(wf, {"value": 1}) for _ in range(100)))
            assert len(server.asked) == 6
            assert sum(isinstance(r.errors["call"][0], CircuitOpenError) for r in results) == 99
            server.down = False
            await asyncio.sleep(15)
            assert (await rt.execute(wf, {"value": 1})).ok
    steps = [(event.before, event.state) for event in seen.of(BreakerChanged)]
    assert steps == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


@virtual
async def test_a_breaker_is_shared_by_all_that_call_the_same_resource() -> None:
    server = Server()
    server.down = True
    first = calling(server, resource="api", breaker={"failures": 3})

    @node("resilience.other", resource="api", breaker={"failures": 3})
    async def other(value: int) -> int:
        return await server.ask(value)

    second = Workflow("second", settings={"on_error": "continue"})
    second.add(other, id="other")
    async with runtime() as rt:
        for _ in range(3):
            await rt.execute(first, {"value": 1})
        result = await rt.execute(second, {"value": 1})
    assert isinstance(result.errors["other"][0], CircuitOpenError)
    assert len(server.asked) == 3


@virtual
async def test_429_never_opens_a_breaker() -> None:
    server = Server(*[down(status=429, retry_after_s=1)] * 50)
    wf = calling(server, breaker={"failures": 2})
    async with runtime() as rt:
        for _ in range(50):
            await rt.execute(wf, {"value": 1})
        assert (await rt.execute(wf, {"value": 1})).ok
    assert len(server.asked) == 51


@virtual
async def test_rows_may_wait_for_an_open_breaker_and_none_is_lost() -> None:
    server, sink = Server(takes_s=0.01), kept()
    server.down = True
    source = Script([[value] for value in range(40)])
    wf = line_to(server, sink, concurrency=1, breaker={"failures": 4, "open_for": "5s", "when_open": "wait"})
    async with runtime() as rt:
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(12)
        server.down = False
        result = await run.wait()
    failed = result.counts["call"].failed
    assert failed == 6, "four before it opened, and the two probes of the outage"
    assert sorted(sink.rows) == list(range(failed, 40))
    assert source.committed["0"][-1] == 40


@virtual
async def test_a_cancelled_probe_leaves_its_place_to_the_next_call() -> None:
    server = Server(takes_s=1.0)
    server.down = True
    wf = calling(server, breaker={"failures": 2, "open_for": "5s"})
    async with runtime() as rt:
        for _ in range(2):
            await rt.execute(wf, {"value": 1})
        await asyncio.sleep(5)
        probe = asyncio.create_task(rt.execute(wf, {"value": 1}))
        await asyncio.sleep(0.5)
        probe.cancel()
        await asyncio.wait({probe})
        server.down = False
        assert (await rt.execute(wf, {"value": 1})).ok


@virtual
async def test_calls_begin_no_faster_than_the_rate() -> None:
    server, sink = Server(), kept()
    source = Script([list(range(30))])
    async with runtime() as rt:
        run = await rt.start(line_to(server, sink, rate=10), sources={"s": source})
        await run.wait()
    assert server.asked == pytest.approx([index * 0.1 for index in range(30)])
    assert sink.rows == list(range(30))


@virtual
async def test_nodes_that_share_a_rate_take_turns() -> None:
    server = Server()
    rates = {"limits": {"rates": {"api": 1}}, "on_error": "continue"}

    def flow(name: str) -> Workflow:
        @node(f"resilience.{name}", resource="api")
        async def call(value: int) -> int:
            return await server.ask(name)

        wf = Workflow(name, settings=rates)
        wf.add(call, id="call")
        return wf

    ended: list[tuple[str, float]] = []

    async def one(rt: Any, wf: Workflow) -> None:
        await rt.execute(wf, {"value": 1})
        ended.append((wf.name, now()))

    async with runtime() as rt:
        first, second = flow("first"), flow("second")
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one(rt, first))
            for _ in range(5):
                group.create_task(one(rt, second))
    assert [at for _, at in ended] == pytest.approx(list(range(10)))
    names = [name for name, _ in ended]
    assert names[1:9].count("first") == 4, names


def batched(
    seen: list[list[int]], bad: set[int], *, fails_with: type[Exception] = ValueError, **options: Any
) -> Any:
    @node("resilience.batched", batch=Batch(max_items=16), **options)
    async def call(values: Sequence[int]) -> Sequence[int]:
        seen.append(list(values))
        if bad & set(values):
            raise fails_with(f"cannot take {sorted(bad & set(values))}")
        return values

    return call


def batch_line(call: Any, sink: Any) -> Workflow:
    wf = Workflow("batches", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(call, id="call"), wf.add(sink, id="k"))
    return wf


@virtual
async def test_a_failing_batch_is_divided_until_the_row_to_blame_stands_alone() -> None:
    seen: list[list[int]] = []
    sink = kept()
    async with runtime() as rt:
        run = await rt.start(batch_line(batched(seen, {5}), sink), sources={"s": Script([list(range(16))])})
        result = await run.wait()
    assert [str(error) for error in result.errors["call"]] == ["cannot take [5]"]
    assert sink.rows == [value for value in range(16) if value != 5]
    assert [5] in seen
    assert len(seen) == 1 + 2 * 4


@virtual
@pytest.mark.parametrize("options", [{"idempotent": False}, {}])
async def test_a_batch_is_not_divided_when_the_other_side_is_down_or_a_second_call_may_harm(
    options: dict[str, Any],
) -> None:
    seen: list[list[int]] = []
    fails_with = ValueError if options else ConnectionRefusedError
    call = batched(seen, {5}, fails_with=fails_with, **options)
    async with runtime() as rt:
        run = await rt.start(batch_line(call, kept()), sources={"s": Script([list(range(16))])})
        result = await run.wait()
    assert len(seen) == 1
    assert result.counts["call"].failed == 16


@virtual
async def test_a_row_that_hangs_its_batch_is_found_and_cut_at_its_timeout() -> None:
    @node("resilience.hangs", batch=Batch(max_items=8), timeout=timedelta(seconds=1))
    async def hangs(values: Sequence[int]) -> Sequence[int]:
        if 3 in values:
            await asyncio.Event().wait()
        return values

    sink = kept()
    async with runtime() as rt:
        run = await rt.start(batch_line(hangs, sink), sources={"s": Script([list(range(8))])})
        result = await run.wait()
    assert sorted(sink.rows) == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(result.errors["call"][0], NodeTimeoutError)
    assert result.counts["call"].failed == 1


def test_a_breaker_on_a_plain_function_is_refused() -> None:
    @node("resilience.plain")
    def plain(value: int) -> int:
        return value

    wf = Workflow("plain")
    wf.add(plain, breaker={"failures": 3})

    async def check() -> None:
        async with runtime() as rt:
            with pytest.raises(ValidationFailedError, match=r"breaker.*does not apply to a plain function"):
                await rt.execute(wf, {"value": 1})

    asyncio.run(check())
