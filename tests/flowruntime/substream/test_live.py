"""A live stream by itself, as a test or a node calls it: no chain, no row."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowcore.errors import CancelledRowError, ContractError, NodeFailedError, StreamCancelledError
from flowruntime.substream.live import LiveStream
from flowruntime.testing.contexts import StandaloneNodeContext
from flowruntime.testing.virtual import run_virtual
from tests.behaviour.harness import running, virtual


class Source:
    """What a producer did."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = 0
        self.released = 0

    async def items(self, count: int, *, error: BaseException | None = None) -> AsyncIterator[int]:
        try:
            for number in range(count):
                await asyncio.sleep(0.01)
                self.given += 1
                yield number
            if error is not None:
                raise error
        finally:
            self.closed += 1

    async def release(self) -> None:
        self.released += 1

    def stream(self, count: int, *, capacity: int = 4, error: BaseException | None = None) -> LiveStream[int]:
        self.context = StandaloneNodeContext(node_id="make")
        items = self.items(count, error=error)
        return self.context.stream(items, capacity=capacity, on_close=self.release)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@virtual
async def test_a_stream_gives_what_its_producer_yields_and_closes_it() -> None:
    source = Source()
    stream = source.stream(3)
    assert repr(stream) == "<Stream of node 'make': waiting, 0 items>"
    assert [item async for item in stream] == [0, 1, 2]
    assert (source.closed, source.released) == (1, 1)
    assert repr(stream) == "<Stream of node 'make': ended, 3 items>"


@virtual
async def test_cancelling_is_idempotent_and_runs_the_clean_up_once() -> None:
    for read in (0, 1):
        source = Source()
        stream = source.stream(9)
        reader = aiter(stream)
        for _ in range(read):
            await anext(reader)
        for _ in range(3):
            stream.cancel()
        await turns()
        stream.cancel()
        assert (source.closed, source.released) == (read, 1)
        with pytest.raises(StreamCancelledError, match="cancelled before its end"):
            await anext(reader)


@virtual
async def test_cancelling_one_that_has_ended_does_nothing() -> None:
    source = Source()
    stream = source.stream(1)
    assert [item async for item in stream] == [0]
    stream.cancel()
    await turns()
    assert stream.production.state == "ended"
    assert source.released == 1


@virtual
async def test_a_cancelled_stream_wakes_whoever_waits_for_it() -> None:
    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 0

    stream = StandaloneNodeContext().stream(never())
    waiting = asyncio.ensure_future(anext(aiter(stream)))
    await asyncio.sleep(1)
    stream.cancel()
    with pytest.raises(StreamCancelledError):
        await waiting


@virtual
async def test_a_dropped_iterator_closes_the_producer() -> None:
    """`break` leaves the loop, and nobody refers to the iterator any more."""
    source = Source()
    async for item in source.stream(9):
        assert item == 0
        break
    await turns()
    assert (source.closed, source.released) == (1, 1)


@virtual
async def test_a_closed_iterator_closes_the_producer_also_before_its_first_item() -> None:
    for read in (0, 1):
        source = Source()
        reader: Any = aiter(source.stream(9))
        for _ in range(read):
            await anext(reader)
        await reader.aclose()
        await reader.aclose()
        await turns()
        assert source.released == 1
        assert [item async for item in reader] == []


@virtual
async def test_an_error_comes_behind_the_items_and_once_to_each_reader() -> None:
    source = Source()
    stream = source.stream(2, error=ValueError("broken")).share()
    readers = [aiter(stream), aiter(stream)]
    for reader in readers:
        assert [await anext(reader), await anext(reader)] == [0, 1]
        with pytest.raises(ValueError, match="broken"):
            await anext(reader)
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
    assert source.context.logs == []


@virtual
async def test_an_error_nobody_asks_for_is_logged() -> None:
    """The producer ran ahead, and failed after the consumer had what it wanted."""
    source = Source()
    reader: Any = aiter(source.stream(2, error=ValueError("broken")))
    await anext(reader)
    await asyncio.sleep(1)
    await reader.aclose()
    (line,) = source.context.logs
    assert line.level == "error"
    assert "nobody asked for its next item: ValueError: broken" in line.message


@virtual
async def test_a_producer_that_cancels_itself_has_failed() -> None:
    source = Source()
    with pytest.raises(CancelledRowError, match="nobody had cancelled"):
        assert [item async for item in source.stream(1, error=asyncio.CancelledError())]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_what_would_end_more_than_a_row_fails_the_reader(error: BaseException) -> None:
    @virtual
    async def scenario() -> None:
        source = Source()
        with pytest.raises(NodeFailedError, match=type(error).__name__):
            assert [item async for item in source.stream(1, error=error)]
        assert (source.closed, source.released) == (1, 1)

    scenario()


@virtual
async def test_a_producer_that_cancels_its_own_stream_and_ends_is_cleaned_up_whole() -> None:
    """Its task is cancelled while it runs, and the cancellation must not hit the clean-up."""
    released: list[str] = []

    async def items() -> AsyncIterator[int]:
        yield 1
        stream.cancel()

    async def release() -> None:
        await asyncio.sleep(1)
        released.append("whole")

    stream = StandaloneNodeContext().stream(items(), on_close=release)
    with pytest.raises(StreamCancelledError):
        assert [item async for item in stream]
    await asyncio.sleep(2)
    assert released == ["whole"]
    assert stream.production.state == "cancelled"


@virtual
async def test_a_loop_that_is_taken_down_during_the_clean_up_lets_the_rest_of_it_happen() -> None:
    released: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)

    async def release() -> None:
        released.append("all the same")

    reader = aiter(StandaloneNodeContext().stream(items(), on_close=release))
    assert await anext(reader) == 1
    await asyncio.sleep(0.5)
    (task,) = (task for task in asyncio.all_tasks() if "flow stream" in task.get_name())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert released == ["all the same"]


@virtual
async def test_a_clean_up_that_raises_anything_harms_nobody() -> None:
    async def release() -> None:
        raise SystemExit(3)

    context = StandaloneNodeContext(node_id="make")
    context.stream(Source().items(1), on_close=release).cancel()
    await turns()
    (line,) = context.logs
    assert line.message.startswith(
        "node 'make' has a stream that failed while it was closed: NodeFailedError"
    )


@virtual
async def test_a_cancelled_reader_loses_nothing() -> None:
    source = Source()
    reader = aiter(source.stream(3))
    for _ in range(4):
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0.002)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert [item async for item in reader] == [0, 1, 2]


@virtual
async def test_two_tasks_cannot_wait_at_one_iterator() -> None:
    reader: Any = aiter(Source().stream(3))
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    with pytest.raises(ContractError, match="two tasks"):
        await anext(reader)
    assert await waiting == 0
    await reader.aclose()
    await turns()


@virtual
async def test_the_producer_runs_in_one_task_so_that_timeouts_inside_it_work() -> None:
    tasks: set[Any] = set()

    async def items() -> AsyncIterator[int]:
        async with asyncio.timeout(5):
            for number in range(3):
                tasks.add(asyncio.current_task())
                yield number
                await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        yield 3

    stream = StandaloneNodeContext().stream(items())
    assert [item async for item in stream] == [0, 1, 2, 3]
    assert len(tasks) == 1


@virtual
async def test_the_producer_has_the_context_variables_of_whoever_made_it() -> None:
    name = contextvars.ContextVar("name", default="nobody")

    async def items() -> AsyncIterator[str]:
        yield name.get()

    name.set("maker")
    stream = StandaloneNodeContext().stream(items())
    name.set("reader")
    assert [item async for item in stream] == ["maker"]


@virtual
async def test_any_asynchronous_iterable_will_do() -> None:
    class Countdown:
        def __init__(self) -> None:
            self.left = 3
            self.closed = 0

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

        async def aclose(self) -> None:
            self.closed += 1

    items = Countdown()
    assert [item async for item in StandaloneNodeContext().stream(items)] == [2, 1, 0]
    assert items.closed == 1
    never = Countdown()
    StandaloneNodeContext().stream(never).cancel()
    await turns()
    assert (never.left, never.closed) == (3, 1)


@virtual
async def test_a_stream_of_a_stream_ends_both() -> None:
    source = Source()
    outer = StandaloneNodeContext().stream(source.stream(9))
    async for _ in outer:
        break
    await turns(10)
    assert source.released == 1


@virtual
async def test_a_stream_that_is_read_is_shared_no_more() -> None:
    stream = Source().stream(3)
    aiter(stream)
    with pytest.raises(ContractError, match="share it first"):
        stream.share()
    shared = Source().stream(3).share(2)
    assert shared.share(9) is shared
    with pytest.raises(ContractError, match="at least 1"):
        Source().stream(3).share(0)


@virtual
async def test_the_first_consumer_of_a_shared_stream_takes_its_place() -> None:
    stream = Source().stream(3)
    shared = stream.share()
    with pytest.raises(ContractError, match="one consumer"):
        aiter(stream)
    assert [item async for item in shared] == [0, 1, 2]


@virtual
async def test_a_stream_is_read_on_the_loop_it_belongs_to_and_cancelled_from_anywhere() -> None:
    source = Source()
    stream = source.stream(9).share()
    reader = aiter(stream)
    assert await anext(reader) == 0

    async def elsewhere() -> None:
        with pytest.raises(ContractError, match="outside the event loop"):
            await anext(aiter(stream))
        stream.cancel()

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    await turns()
    assert (source.closed, source.released) == (1, 1)


def test_a_stream_outlives_its_loop_without_harm() -> None:
    """A stream whose loop was taken down is cancelled, and whoever drops it later drops it in peace."""
    source = Source()
    stream = source.stream(9)
    kept: list[Any] = [aiter(stream)]

    async def begin() -> None:
        assert await anext(kept[0]) == 0

    run_virtual(begin())
    assert (source.closed, source.released) == (1, 1)
    stream.cancel()
    kept.clear()
    gc.collect()


def test_a_stream_cannot_be_cancelled_where_no_loop_runs() -> None:
    with pytest.raises(ContractError, match="event loop"):
        Source().stream(1).cancel()


@virtual
async def test_a_loop_that_is_taken_down_closes_the_producer() -> None:
    source = Source()
    reader = aiter(source.stream(9))
    await anext(reader)
    (task,) = (task for task in asyncio.all_tasks() if "flow stream" in task.get_name())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (source.closed, source.released) == (1, 1)
    with pytest.raises(StreamCancelledError):
        await anext(reader)
    assert running() == []
