"""The event bus: numbering, routing, isolation, resumption, threads, closing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError, RuntimeClosedError
from flowcore.events import ExecutionEvent, Gap, NodeFailed, NodeStarted, WorkflowPaused
from flowruntime.events.bus import EventBus
from flowruntime.events.subscriber import Policy
from flowruntime.events.subscription import SubscriptionLostError
from flowruntime.telemetry.facts import Fact

SOON = timedelta(milliseconds=20)


def started(node: str = "a") -> NodeStarted:
    return NodeStarted(workflow_id="w", node=node, started_at=0.0)


def paused() -> WorkflowPaused:
    return WorkflowPaused(workflow_id="w", reason="asked")


def quiet(_: Fact) -> None:
    """Reports are of no interest here."""


def seqs(entries: Sequence[ExecutionEvent | Gap]) -> list[int | tuple[int, int]]:
    """Events as their seq, gaps as (missed, first)."""
    return [(e.missed, e.first_seq) if isinstance(e, Gap) else e.seq for e in entries]


def test_an_idle_bus_says_so_in_one_attribute() -> None:
    bus = EventBus()
    assert not bus.active
    listener = bus.listen(lambda _: None, {NodeFailed})
    assert bus.active
    assert bus.wants(NodeFailed)
    assert not bus.wants(NodeStarted)
    listener.close()
    assert not bus.active
    assert not bus.wants(NodeFailed)


def test_a_history_wants_everything() -> None:
    bus = EventBus(history=4)
    assert bus.active
    assert bus.wants(NodeStarted)


def test_the_bus_stamps_a_copy_with_number_and_time() -> None:
    bus, seen = EventBus(clock=lambda: 12.5), list[ExecutionEvent]()
    bus.listen(seen.append)
    event = started()
    bus.publish(event)
    bus.publish(event)
    assert [(e.seq, e.at) for e in seen] == [(1, 12.5), (2, 12.5)]
    assert (event.seq, event.at) == (0, 0.0)


def test_events_nobody_wants_are_numbered_all_the_same() -> None:
    bus, seen = EventBus(), list[ExecutionEvent]()
    bus.publish(started())
    bus.listen(seen.append)
    bus.publish(started())
    assert [e.seq for e in seen] == [2]


async def test_a_subscription_is_live_from_the_call_not_from_entering_it() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    bus.publish(started("early"))
    async with subscription as events:
        first = await anext(events)
    assert isinstance(first, NodeStarted)
    assert first.node == "early"


async def test_only_the_kinds_asked_for_come_base_classes_included() -> None:
    bus = EventBus()
    one, every = bus.subscribe({WorkflowPaused}), bus.subscribe({ExecutionEvent})
    bus.publish(started())
    bus.publish(paused())
    assert seqs(await one.batch(9)) == [2]
    assert seqs(await every.batch(9)) == [1, 2]


async def test_a_waiting_consumer_wakes_at_the_publish() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    consumer = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    bus.publish(started())
    first = await consumer
    assert not isinstance(first, Gap)
    assert first.seq == 1


async def test_two_consumers_of_one_subscription_are_refused() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two consumers at once"):
        await anext(subscription)
    first.cancel()


@given(
    policy=st.sampled_from(["drop_oldest", "drop_newest", "conflate", "block", "disconnect"]),
    buffer=st.integers(1, 6),
    history=st.integers(0, 5),
    late=st.booleans(),
    steps=st.lists(st.sampled_from(["a", "b", "c", "take", "thread"]), max_size=50),
)
async def test_delivered_plus_missed_is_published_exactly_to_the_end(
    policy: Policy, buffer: int, history: int, late: bool, steps: list[str]
) -> None:
    """Whatever the policy, the speed of the subscriber, when it comes, and how it ends."""
    bus = EventBus(history=history, thread_buffer=1, report=quiet)
    bus.bind()
    if late:
        for _ in range(4):
            bus.publish(started())
    subscription = bus.subscribe(buffer=buffer, policy=policy, since=0)
    taken = list[ExecutionEvent | Gap]()
    for step in steps:
        if step == "take":
            if (entry := subscription.take()) is not None:
                taken.append(entry)
        elif step == "thread":
            bus.publish_threadsafe(started())
            bus.publish_threadsafe(started())
            await asyncio.sleep(0)
        elif subscription.ended is None:
            bus.publish(started(step))
        now = subscription.statistics()
        assert (
            now.ended is not None or now.delivered + now.missed + now.buffered == bus.statistics().published
        )
    published = now.delivered + now.missed + now.buffered if (now := subscription.statistics()) else 0
    await bus.aclose(timeout=timedelta(0))
    while (entry := subscription.take()) is not None:
        taken.append(entry)
    last = subscription.statistics()
    assert sum(entry.missed if isinstance(entry, Gap) else 1 for entry in taken) == published
    assert (last.delivered + last.missed, last.buffered) == (published, 0)


def test_a_raising_callback_is_unsubscribed_reported_and_harms_nobody() -> None:
    facts, seen = list[Fact](), list[ExecutionEvent]()
    bus = EventBus(report=facts.append)

    def broken(event: ExecutionEvent) -> None:
        raise KeyError(event.seq)

    listener = bus.listen(broken, name="display")
    bus.listen(seen.append)
    bus.publish(started())
    bus.publish(started())
    assert [e.seq for e in seen] == [1, 2]
    assert isinstance(listener.error, KeyError)
    assert listener.statistics().missed == 1
    assert [fact.line() for fact in facts] == [
        "event subscriber 'display' was disconnected: it raised KeyError on NodeStarted seq 1: 1"
    ]


def test_a_callback_that_leaves_inside_itself_or_throws_another_out_is_safe() -> None:
    bus, seen = EventBus(), list[str]()

    def leave(_: ExecutionEvent) -> None:
        seen.append("first")
        first.close()
        second.close()

    first = bus.listen(leave)
    second = bus.listen(lambda _: seen.append("second"))
    bus.listen(lambda _: seen.append("third"))
    bus.publish(started())
    bus.publish(started())
    assert seen == ["first", "third", "third"]


def test_what_a_callback_publishes_reaches_everyone_in_the_same_order() -> None:
    bus, first, second = EventBus(), list[str](), list[str]()

    def answer(event: NodeStarted) -> None:
        first.append(event.node)
        if event.node == "a":
            bus.publish(started("b"))

    bus.listen(answer)
    bus.listen(lambda event: second.append(event.node))
    bus.publish(started("a"))
    bus.publish(started("c"))
    assert first == second == ["a", "b", "c"]


def test_a_callback_that_answers_itself_for_ever_is_stopped() -> None:
    facts = list[Fact]()
    bus = EventBus(report=facts.append)
    listener = bus.listen(lambda _: bus.publish(started()), name="echo")
    bus.publish(started())
    assert isinstance(listener.error, RecursionError)
    assert "must not publish what it listens to" in facts[0].line()


def test_a_condition_that_raises_disconnects_its_subscriber_only() -> None:
    bus, seen = EventBus(report=quiet), list[int]()
    subscription = bus.subscribe({NodeStarted}, where=lambda event: event.started_at / 0 > 1)
    bus.listen(lambda event: seen.append(event.seq))
    bus.publish(started())
    now = subscription.statistics()
    assert seen == [1]
    assert (now.missed, now.buffered) == (1, 0)
    assert now.ended is not None
    assert "ZeroDivisionError" in now.ended


async def test_a_lagging_subscriber_of_policy_disconnect_gets_the_rest_a_gap_and_an_error() -> None:
    bus = EventBus(report=quiet)
    subscription = bus.subscribe(buffer=2, policy="disconnect", name="slow")
    for _ in range(5):
        bus.publish(started())
    assert seqs(await subscription.batch(9)) == [1, 2, (1, 3)]
    with pytest.raises(SubscriptionLostError, match="'slow' was disconnected: it held 2 events") as caught:
        await anext(subscription)
    assert caught.value.facts()["cause"] == "lagged"


# --- resumption -------------------------------------------------------------------------------------------


async def test_resuming_continues_without_hole_or_duplicate() -> None:
    bus = EventBus(history=10)
    for _ in range(5):
        bus.publish(started())
    subscription = bus.subscribe(since=2)
    bus.publish(started())
    assert seqs(await subscription.batch(9)) == [3, 4, 5, 6]


async def test_what_the_history_no_longer_holds_is_a_gap_first() -> None:
    bus = EventBus(history=2)
    for _ in range(5):
        bus.publish(started())
    subscription = bus.subscribe(since=1)
    assert seqs(await subscription.batch(9)) == [(2, 2), 4, 5]
    assert subscription.statistics().missed == 2


async def test_resuming_with_a_filter_says_that_the_gap_is_an_upper_bound() -> None:
    bus = EventBus(history=1)
    bus.publish(started())
    bus.publish(paused())
    (gap, last) = await bus.subscribe({WorkflowPaused}, since=0).batch(9)
    assert gap == Gap(missed=1, first_seq=1, last_seq=1, exact=False)
    assert isinstance(last, WorkflowPaused)


def test_resuming_inside_a_callback_repeats_nothing() -> None:
    bus, late = EventBus(history=10), list[int]()

    def join(event: ExecutionEvent) -> None:
        if event.seq == 2:
            bus.listen(lambda e: late.append(e.seq), since=0)

    bus.listen(join)
    for _ in range(4):
        bus.publish(started())
    assert late == [1, 2, 3, 4]


def test_what_a_callback_publishes_while_it_is_told_the_past_comes_after_the_past() -> None:
    bus, seen = EventBus(history=10), list[str]()
    for node in "ab":
        bus.publish(started(node))

    def answer(event: NodeStarted) -> None:
        seen.append(event.node)
        if event.node == "a":
            bus.publish(started("c"))

    bus.listen(answer, since=0)
    assert seen == ["a", "b", "c"]


def test_resuming_from_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="asks for events since 7, but the newest is 0"):
        EventBus().subscribe(since=7)


# --- block ------------------------------------------------------------------------------------------------


async def test_a_publisher_that_asks_ready_loses_nothing_to_a_slow_block_subscriber() -> None:
    bus = EventBus()
    subscription = bus.subscribe(buffer=4, policy="block")
    seen = list[int]()

    async def consume() -> None:
        async for event in subscription:
            assert not isinstance(event, Gap)
            seen.append(event.seq)
            await asyncio.sleep(0)

    consumer = asyncio.ensure_future(consume())
    for _ in range(100):
        await bus.ready()
        bus.publish(started())
        bus.publish(started())
    await bus.aclose()
    await consumer
    assert seen == list(range(1, 201))


async def test_a_block_subscriber_that_takes_nothing_is_disconnected_after_the_timeout() -> None:
    bus = EventBus(block_timeout=SOON, report=quiet)
    stuck = bus.subscribe(buffer=2, policy="block")
    bus.publish(started())
    await bus.ready()
    assert stuck.ended is not None
    assert "took nothing" in stuck.ended
    assert not bus.active


async def test_leaving_lets_blocked_publishers_go_on() -> None:
    bus = EventBus()
    stuck = bus.subscribe(buffer=2, policy="block")
    bus.publish(started())
    waiting = asyncio.ensure_future(bus.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    stuck.close()
    await waiting


# --- threads ----------------------------------------------------------------------------------------------


async def test_events_of_other_threads_arrive_in_their_order_on_the_loop() -> None:
    bus, threads = EventBus(), set[int]()
    subscription = bus.subscribe({NodeStarted})
    bus.listen(lambda _: threads.add(threading.get_ident()))
    await asyncio.to_thread(lambda: [bus.publish_threadsafe(started(str(n))) for n in range(50)])
    nodes = list[str]()
    async for event in subscription:
        nodes.append("gap" if isinstance(event, Gap) else event.node)
        if len(nodes) == 50:
            break
    assert nodes == [str(n) for n in range(50)]
    assert threads == {threading.get_ident()}


async def test_a_flood_of_other_threads_becomes_a_gap_for_everyone_also_in_the_history() -> None:
    bus = EventBus(thread_buffer=3, history=10, report=quiet)
    subscription = bus.subscribe()
    for _ in range(5):
        bus.publish_threadsafe(started())
    await asyncio.sleep(0)
    bus.publish(started())
    assert seqs(await subscription.batch(9)) == [1, 2, 3, (2, 4), 6]
    assert seqs(await bus.subscribe(since=2).batch(9)) == [3, (2, 4), 6]
    assert seqs(await bus.subscribe(since=4).batch(9)) == [(1, 5), 6]


def test_publishing_from_a_thread_before_a_loop_is_known_is_refused() -> None:
    with pytest.raises(RuntimeClosedError, match=r"call bus\.bind\(\)"):
        EventBus().publish_threadsafe(started())


def test_publishing_from_a_thread_after_the_loop_ended_is_counted() -> None:
    facts = list[Fact]()
    bus = EventBus(report=facts.append)

    async def use() -> None:
        bus.bind()

    asyncio.run(use())
    bus.publish_threadsafe(started())
    assert bus.statistics().refused == 1
    assert "loop of the event bus is closed" in facts[0].line()


# --- closing ----------------------------------------------------------------------------------------------


async def test_closing_lets_subscribers_take_what_is_buffered_and_ends_them() -> None:
    bus = EventBus()
    subscription, seen = bus.subscribe(), list[int]()

    async def consume() -> None:
        async for event in subscription:
            assert not isinstance(event, Gap)
            seen.append(event.seq)

    consumer = asyncio.ensure_future(consume())
    for _ in range(3):
        bus.publish(started())
    await bus.aclose()
    await consumer
    assert seen == [1, 2, 3]


async def test_what_nobody_takes_before_the_close_is_counted_told_and_reported() -> None:
    facts = list[Fact]()
    bus = EventBus(report=facts.append)
    stuck = bus.subscribe(name="stuck")
    for _ in range(3):
        bus.publish(started())
    await bus.aclose(timeout=timedelta(0))
    await bus.aclose()
    assert seqs(await stuck.batch(9)) == [(3, 1)]
    assert await stuck.batch(9) == []
    assert "3 event(s) were not taken" in facts[0].line()


async def test_a_closed_bus_refuses_and_counts() -> None:
    facts = list[Fact]()
    bus = EventBus(report=facts.append)
    await bus.aclose()
    bus.publish(started())
    assert bus.statistics().refused == 1
    assert "NodeStarted of workflow 'w'" in facts[0].line()
    with pytest.raises(RuntimeClosedError, match="after the bus was closed"):
        bus.subscribe()


async def test_leaving_counts_what_was_buffered_as_missed() -> None:
    bus = EventBus()
    async with bus.subscribe() as events:
        bus.publish(started())
        bus.publish(started())
        await anext(events)
    now = events.statistics()
    assert (now.delivered, now.missed, now.buffered, now.ended) == (1, 1, 0, "left")
    assert [event async for event in events] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buffer": 0}, "must be at least 1, got 0"),
        ({"policy": "drop"}, "unknown policy 'drop'"),
        ({"kinds": set[type[ExecutionEvent]]()}, "wants no kinds at all"),
        ({"kinds": {Gap}}, "must be classes of events, got <class"),
        ({"since": -1}, "since -1"),
    ],
)
def test_wrong_arguments_are_refused_with_the_value(arguments: dict[str, object], message: str) -> None:
    subscribe = cast("Callable[..., object]", EventBus().subscribe)
    with pytest.raises(ConfigError, match=message):
        subscribe(**arguments)


# --- Observable -------------------------------------------------------------------------------------------


async def test_the_observable_pushes_events_and_completes_with_the_bus() -> None:
    bus, seen = EventBus(), list[object]()
    observable = bus.observable({WorkflowPaused})
    subscription = observable.subscribe(
        on_next=lambda e: seen.append(type(e).__name__), on_completed=lambda: seen.append("completed")
    )
    bus.publish(started())
    bus.publish(paused())
    await bus.aclose()
    subscription.dispose()
    assert seen == ["WorkflowPaused", "completed"]


def test_disposing_an_observer_leaves_the_bus_idle() -> None:
    bus = EventBus()
    bus.observable().subscribe().dispose()
    assert not bus.active


def test_a_raising_observer_is_disposed_and_harms_nobody() -> None:
    bus, seen = EventBus(report=quiet), list[int]()

    def broken(_: object) -> None:
        raise ValueError

    bus.observable().subscribe(on_next=broken)
    bus.listen(lambda event: seen.append(event.seq))
    bus.publish(started())
    bus.publish(started())
    assert seen == [1, 2]


def test_importing_the_bus_loads_no_heavy_package() -> None:
    heavy = ("reactivex", "opentelemetry", "asyncio", "rich", "structlog")
    program = (
        "import sys, flowruntime.events.bus, flowruntime.events.record, flowruntime.telemetry.facts;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
