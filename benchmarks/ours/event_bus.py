"""Our event bus by itself: publishing to nobody, and to readers of whom some never read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from benchmarks.work import AsyncRun, Run
from flowcore.events import Gap, NodeStarted
from flowruntime.events.bus import EventBus

EVENT = NodeStarted(workflow_id="benchmark", execution_id="benchmark", node="node", started_at=0.0)
BURST = 256
"""Events published before the readers get a turn; their buffers hold four bursts."""


@contextmanager
def unheard(events: int) -> Generator[Run]:
    """Nobody has subscribed."""

    def run() -> int:
        bus = EventBus()
        publish = bus.publish
        for _ in range(events):
            publish(EVENT)
        return bus.statistics().published

    yield run


@asynccontextmanager
async def heard(events: int, reading: int, stuck: int) -> AsyncGenerator[AsyncRun]:
    """`reading` subscribers read all, `stuck` subscribers nothing; answers what every reader counted."""

    async def run() -> int:
        bus = EventBus()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(stuck):
                await stack.enter_async_context(bus.subscribe(buffer=4 * BURST))
            readers = [asyncio.create_task(_read(bus, events)) for _ in range(reading)]
            await asyncio.sleep(0)
            for number in range(events):
                bus.publish(EVENT)
                if number % BURST == BURST - 1:
                    await asyncio.sleep(0)
            counts = set(await asyncio.gather(*readers))
        (count,) = counts
        return count

    yield run


async def _read(bus: EventBus, events: int) -> int:
    """Delivered and missed events, until they are as many as were published."""
    count = 0
    async with bus.subscribe(buffer=4 * BURST) as subscription:
        async for event in subscription:
            count += event.missed if isinstance(event, Gap) else 1
            if count >= events:
                break
    return count
