"""The rules of Reactive Streams the event bus keeps: serial, ended once, nothing after leaving, isolated."""

from __future__ import annotations

import asyncio

from flowcore.events import NodeSkipped
from flowruntime.events.bus import EventBus


def event(number: int) -> NodeSkipped:
    return NodeSkipped(workflow_id="w", execution_id="e", node=f"n{number}", cause="", reason="not_taken")


async def test_nothing_comes_after_a_listener_has_left_and_leaving_twice_is_leaving_once() -> None:
    bus = EventBus(clock=lambda: 0.0)
    seen: list[object] = []
    listener = bus.listen(seen.append)
    bus.publish(event(1))
    listener.close()
    listener.close()
    bus.publish(event(2))
    assert len(seen) == 1
    await bus.aclose()


async def test_a_listener_that_leaves_inside_its_callback_gets_that_one_event() -> None:
    bus = EventBus(clock=lambda: 0.0)
    seen: list[object] = []

    def once(one: object) -> None:
        seen.append(one)
        listener.close()

    listener = bus.listen(once)
    bus.publish(event(1))
    bus.publish(event(2))
    assert len(seen) == 1
    await bus.aclose()


async def test_a_listener_that_raises_never_fails_the_publisher_nor_the_others() -> None:
    bus = EventBus(clock=lambda: 0.0)
    seen: list[object] = []

    def raises(one: object) -> None:
        raise ValueError(repr(one))

    broken = bus.listen(raises)
    bus.listen(seen.append)
    for number in range(3):
        bus.publish(event(number))
    assert len(seen) == 3
    assert isinstance(broken.error, ValueError)
    await bus.aclose()


async def test_a_subscription_ends_once_with_the_bus_and_stays_ended() -> None:
    bus = EventBus(clock=lambda: 0.0)
    async with bus.subscribe(buffer=8) as events:
        bus.publish(event(1))
        await bus.aclose()
        seen = [one async for one in events]
        again = [one async for one in events]
    assert len(seen) == 1
    assert again == []


async def test_events_published_inside_a_callback_come_after_the_one_being_delivered() -> None:
    """Serial for each subscriber, and bounded in depth: a callback does not interrupt itself."""
    bus = EventBus(clock=lambda: 0.0)
    order: list[str] = []

    def publishes(one: NodeSkipped) -> None:
        order.append(f"begins {one.node}")
        if one.node == "n0":
            bus.publish(event(1))
        order.append(f"ends {one.node}")

    bus.listen(publishes)
    bus.publish(event(0))
    await asyncio.sleep(0)
    assert order == ["begins n0", "ends n0", "begins n1", "ends n1"]
    await bus.aclose()
