"""The row "event bus" of the reliability bars, at its full size except for the publisher's speed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from flowcore.events import ExecutionEvent, Gap, NodeStarted
from flowruntime.events.bus import EventBus
from flowruntime.events.subscription import Subscription
from flowruntime.telemetry.facts import Fact

EVENTS = 100_000
TURN = 500


async def test_stuck_slow_raising_and_leaving_subscribers_cost_the_healthy_one_nothing() -> None:
    """For each, delivered + missed = published while it was there; the healthy one misses nothing."""
    facts = list[Fact]()
    bus = EventBus(clock=lambda: 1.0, report=facts.append)
    healthy, slow = bus.subscribe(buffer=2 * TURN), bus.subscribe(buffer=64, policy="drop_newest")
    stuck = [bus.subscribe(buffer=64, policy=policy) for policy in ("drop_oldest", "drop_newest", "conflate")]
    cut_off = bus.subscribe(buffer=64, policy="disconnect")
    left = list[int]()

    def broken(event: ExecutionEvent) -> None:
        assert event.seq < 1000

    def leave(event: ExecutionEvent) -> None:
        left.append(event.seq)
        if event.seq == 2000:
            leaving.close()

    raising, leaving = bus.listen(broken), bus.listen(leave)
    received = list[int]()

    async def consume_all() -> None:
        async for event in healthy:
            received.append(-1 if isinstance(event, Gap) else event.seq)

    counted = 0

    async def consume_slowly() -> None:
        nonlocal counted
        async for event in slow:
            counted += event.missed if isinstance(event, Gap) else 1
            await asyncio.sleep(0)

    consumers = [asyncio.ensure_future(consume_all()), asyncio.ensure_future(consume_slowly())]
    event = NodeStarted(workflow_id="w", node="a", started_at=0.0)
    for _ in range(EVENTS // TURN):
        for _ in range(TURN):
            bus.publish(event)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await bus.aclose(timeout=timedelta(seconds=0.2))
    await asyncio.gather(*consumers)

    assert received == list(range(1, EVENTS + 1))
    assert counted == EVENTS
    assert left == list(range(1, 2001))
    assert isinstance(raising.error, AssertionError)
    assert total(healthy) == total(slow) == EVENTS
    assert [total(subscription) for subscription in stuck] == [EVENTS] * 3
    assert total(cut_off) == 65
    assert len(facts) == 1 + 1 + 3  # raised, lagged, three stuck ones unflushed at the close


def total(subscription: Subscription[ExecutionEvent]) -> int:
    now = subscription.statistics()
    return now.delivered + now.missed + now.buffered
