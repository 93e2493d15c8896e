"""Hanging nodes: cut where told, cancelled within 50 ms, and named when they will not end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import structlog

from flowcore import Batch, Workflow, node
from flowcore.errors import CancelledRowError, NodeTimeoutError, RequestTimeoutError
from tests.behaviour.harness import Script, forever, now, running, runtime, same, virtual


@virtual
async def test_a_hanging_node_without_a_timeout_is_cancelled_with_its_request_within_50_ms() -> None:
    wf = Workflow("hang")
    wf.chain(wf.add(forever, id="a"), wf.add(same, id="b"))
    async with runtime() as rt:
        task = asyncio.create_task(rt.execute(wf, {"a": {"value": 1}}))
        await asyncio.sleep(100)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == pytest.approx(100.0, abs=0.05)
        again = await rt.execute(wf, {"a": {"value": 1}}, replace={"a": 5})
        assert again.ok


@virtual
async def test_a_hanging_row_with_a_timeout_does_not_hold_up_the_others() -> None:
    @node("cancel.some")
    async def some(value: int) -> int:
        if value % 10 == 0:
            await asyncio.Event().wait()
        return value

    wf = Workflow("hang", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(some, id="n", timeout="1s", concurrency=4))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([list(range(40))])})).wait()
    assert (result.counts["n"].completed, result.counts["n"].failed) == (36, 4)
    assert all(isinstance(error, NodeTimeoutError) for error in result.errors["n"])
    assert now() <= 4.0


@virtual
async def test_a_node_that_swallows_its_cancellation_is_named_and_does_not_hold_its_request_for_ever() -> (
    None
):
    asked: list[float] = []

    @node("cancel.stubborn")
    async def stubborn(value: int) -> int:
        while now() < 50:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                asked.append(now())
        return value

    wf = Workflow("stubborn")
    wf.add(stubborn, id="n")
    rt = runtime()
    with structlog.testing.capture_logs() as logs:
        result = await rt.execute(wf, {"n": {"value": 1}}, timeout=timedelta(seconds=1))
        assert isinstance(result.cause, RequestTimeoutError)
        assert now() == pytest.approx(6.0, abs=0.1)
        await rt.aclose()
        assert now() == pytest.approx(11.0, abs=0.1)
    text = " ".join(str(line["event"]) for line in logs)
    assert "does not end" in text
    assert "'n'" in text
    await asyncio.sleep(100)  # it ends by itself in the meantime


@virtual
async def test_a_node_that_raises_a_cancellation_of_its_own_making_fails_its_row_and_nothing_else() -> None:
    @node("cancel.inner")
    async def inner(value: int) -> int:
        if value == 2:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future
        return value

    wf = Workflow("inner", settings={"on_error": "continue"})
    wf.chain(wf.add(Script, id="s"), wf.add(inner, id="n"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[1, 2, 3]])})).wait()
    assert (result.counts["n"].completed, result.counts["n"].failed) == (2, 1)
    assert isinstance(result.errors["n"][0], CancelledRowError)


@virtual
async def test_cancelling_takes_queued_and_backing_off_rows_out_at_once_too() -> None:
    @node("cancel.flaky")
    async def flaky(value: int) -> int:
        raise ConnectionError("away")

    wf = Workflow("queued")
    wf.add(flaky, id="flaky", retry={"max_attempts": 10, "initial": "30s", "jitter": 0.0})
    wf.add(forever, id="one", concurrency=1)
    async with runtime() as rt:
        tasks = [
            asyncio.create_task(rt.execute(wf, {"flaky": {"value": 1}, "one": {"value": 1}}))
            for _ in range(5)
        ]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert now() == pytest.approx(1.0, abs=0.05)
    assert running() == []


@virtual
async def test_a_shared_call_goes_on_for_the_rows_that_are_left_and_ends_when_all_are_gone() -> None:
    calls: list[str] = []

    @node("cancel.batch", batch=Batch(max_items=8))
    async def batch(value: Sequence[int]) -> Sequence[int]:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise
        calls.append("done")
        return value

    wf = Workflow("shared")
    wf.add(batch, id="n", batch={"max_items": 8, "linger": "1s"})
    async with runtime() as rt:
        first, second = (asyncio.create_task(rt.execute(wf, {"n": {"value": n}})) for n in range(2))
        await asyncio.sleep(2)
        first.cancel()
        result = await second
        assert result.outputs["n"]["out"] == 1
        assert calls == ["done"]
        third = asyncio.create_task(rt.execute(wf, {"n": {"value": 3}}))
        await asyncio.sleep(2)
        third.cancel()
        await asyncio.gather(first, third, return_exceptions=True)
        assert calls == ["done", "cancelled"]


async def test_a_cancelled_row_in_a_thread_is_answered_at_once_and_its_late_result_ignored() -> None:
    go = threading.Event()

    @node("cancel.thread", offload="thread", concurrency=1)
    def blocking(value: int) -> int:
        go.wait(5)
        return value

    wf = Workflow("thread")
    wf.add(blocking, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}}, timeout=timedelta(milliseconds=20))
        assert isinstance(result.cause, RequestTimeoutError)
        go.set()
        assert (await rt.execute(wf, {"n": {"value": 2}})).outputs["n"]["out"] == 2


@virtual
async def test_an_async_generator_is_closed_when_its_request_is_cancelled() -> None:
    closed: list[int] = []

    @node("cancel.children")
    async def children(value: int) -> Any:
        try:
            for number in range(1_000_000):
                yield number
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0.01)
            closed.append(value)

    wf = Workflow("children")
    wf.chain(wf.add(children, id="c"), wf.add(same, id="n"))
    async with runtime() as rt:
        task = asyncio.create_task(rt.execute(wf, {"c": {"value": 7}}))
        await asyncio.sleep(10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [7]
        assert now() == pytest.approx(10.0, abs=0.05)

        wf2 = Workflow("run")
        wf2.chain(wf2.add(Script, id="s"), wf2.add(children, id="c"), wf2.add(same, id="n"))
        run = await rt.start(wf2, sources={"s": Script([[8]])})
        await asyncio.sleep(5)
        await run.cancel()
        assert closed == [7, 8]
        assert running() == []


@node("cancel.drip")
async def drip(value: int) -> AsyncIterator[int]:
    """Some children, and then none for ever."""
    for child in range(value):
        yield child
    await asyncio.Event().wait()


@node("cancel.untidy")
def untidy(value: int) -> Iterator[int]:
    """Its clean-up raises."""
    try:
        while True:
            yield value
    finally:
        raise OSError("cannot close")


@node("cancel.stubborn_drip")
async def stubborn_drip(value: int) -> AsyncIterator[int]:
    """Swallows its cancellation."""
    yield value
    for _ in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)


@pytest.mark.parametrize("thing", [drip, untidy])
@virtual
async def test_an_expanding_node_that_is_cut_off_is_cancelled_not_completed(thing: Any) -> None:
    wf = Workflow("cut")
    wf.chain(wf.add(thing, id="n"), wf.add(forever, id="after"))
    with structlog.testing.capture_logs() as logs:
        async with runtime() as rt:
            result = await rt.execute(wf, {"value": 3}, timeout=timedelta(seconds=5))
            assert now() == 5
    assert result.state.name == "failed"
    states = {name: (outcome.state, outcome.cause) for name, outcome in result.outcomes.items()}
    assert states == dict.fromkeys(("n", "after"), ("cancelled", "the request did not finish within 5.0 s"))
    told = [line["event"] for line in logs]
    assert told == (
        [] if thing is drip else ["node 'n' failed to clean up after it was cancelled: OSError: cannot close"]
    )


@virtual
async def test_a_generator_that_swallows_its_cancellation_does_not_hold_up_the_end() -> None:
    wf = Workflow("stubborn")
    wf.chain(wf.add(stubborn_drip, id="n"), wf.add(same, id="after"))
    with structlog.testing.capture_logs() as logs:
        async with runtime() as rt:
            result = await rt.execute(wf, {"value": 3}, timeout=timedelta(seconds=5))
        assert now() == 15  # twice what a cancelled call is waited for
    assert result.state.name == "failed"
    assert any("swallow cancellation" in line["event"] for line in logs)
    await asyncio.sleep(2_000)
