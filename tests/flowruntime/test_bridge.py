"""Work on another loop: its result, its error, its end, and a loop that is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from flowruntime.bridge import WorkEndedError, done_on


@pytest.fixture
def there() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_what_it_gives_or_raises_is_given_and_raised_here(there: asyncio.AbstractEventLoop) -> None:
    async def work(fails: bool) -> int:
        assert asyncio.get_running_loop() is there
        if fails:
            raise LookupError("no")
        return 5

    assert await done_on(there, lambda: work(fails=False)) == 5
    with pytest.raises(LookupError, match="no"):
        await done_on(there, lambda: work(fails=True))


async def test_work_cancelled_where_it_is_done_is_an_error_here(
    there: asyncio.AbstractEventLoop,
) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(WorkEndedError, match="cancelled where it was done"):
        await done_on(there, work)


async def test_who_is_cancelled_goes_on_when_the_work_has_ended(there: asyncio.AbstractEventLoop) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(done_on(there, work))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_loop_that_is_closed_is_an_error_and_no_endless_wait() -> None:
    closed = asyncio.new_event_loop()
    closed.close()

    async def work() -> None:
        """Never begun."""

    with pytest.raises(WorkEndedError, match="closed"):
        await done_on(closed, work)


async def test_a_loop_that_closes_before_it_has_begun_is_an_error_and_no_endless_wait() -> None:
    stopped = asyncio.new_event_loop()  # nobody runs it

    async def work() -> None:
        """Never begun."""

    task = asyncio.create_task(done_on(stopped, work))
    await asyncio.sleep(0)
    stopped.close()
    async with asyncio.timeout(10):
        with pytest.raises(WorkEndedError, match="closed before it was done"):
            await task
