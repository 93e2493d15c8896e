"""A turnstile: permits for the length of one call, lanes in turn, and nothing kept by who has gone."""

from __future__ import annotations

import asyncio
import random

import pytest

from flowruntime.flowcontrol.permits import Limit, Permits
from flowruntime.flowcontrol.turnstile import Turnstile
from flowruntime.testing import run_virtual


def turnstile(*limits: Limit) -> Turnstile:
    return Turnstile(Permits(limits))


async def call(gate: Turnstile, lane: object, log: list[object], seconds: float = 1.0) -> None:
    await gate.enter(lane)
    try:
        log.append(lane)
        await asyncio.sleep(seconds)
    finally:
        gate.leave()


def test_no_more_at_once_than_every_limit_allows() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        limits = Limit("node", 3), Limit("*", 2)
        gate, log = turnstile(*limits), list[object]()
        await asyncio.gather(*(call(gate, "a", log) for _ in range(8)))
        assert loop.time() == 4.0
        assert [limit.peak for limit in limits] == [2, 2]
        assert [limit.in_use for limit in limits] == [0, 0]
        assert gate.statistics() == {"in_flight": 0, "peak": 2, "queued": 0}

    run_virtual(scenario())


def test_lanes_take_turns_and_within_one_the_first_comes_first() -> None:
    async def scenario() -> None:
        gate, log = turnstile(Limit("node", 1)), list[object]()
        lanes = ["busy"] * 6 + ["other"] * 2
        await asyncio.gather(*(call(gate, lane, log) for lane in lanes))
        assert log == ["busy", "busy", "other", "busy", "other", "busy", "busy", "busy"]

    run_virtual(scenario())


def test_whoever_waits_is_passed_by_nobody_who_comes_later() -> None:
    async def scenario() -> None:
        gate, log = turnstile(Limit("node", 1)), list[object]()
        tasks = [asyncio.create_task(call(gate, n, log)) for n in range(3)]
        await asyncio.sleep(1.0)
        tasks.append(asyncio.create_task(call(gate, 3, log)))
        await asyncio.gather(*tasks)
        assert log == [0, 1, 2, 3]

    run_virtual(scenario())


@pytest.mark.parametrize("when", ["waiting", "as its turn comes", "inside"])
def test_a_cancelled_call_keeps_no_permit_and_holds_up_nobody(when: str) -> None:
    async def scenario() -> None:
        limit = Limit("node", 1)
        gate, log = turnstile(limit), list[object]()
        first, second, third = (asyncio.create_task(call(gate, n, log)) for n in range(3))
        await asyncio.sleep(0.5)
        if when == "waiting":
            second.cancel()
        elif when == "as its turn comes":
            first.add_done_callback(lambda _: second.cancel())
        else:
            first.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert third.exception() is None
        assert 2 in log
        assert limit.in_use == 0
        assert gate.statistics()["queued"] == 0

    run_virtual(scenario())


def test_random_calls_and_cancellations_leave_no_permit_out() -> None:
    async def scenario(seed: int) -> None:
        chance = random.Random(seed)
        limits = Limit("node", chance.randint(1, 3)), Limit("*", chance.randint(1, 4))
        gates = [turnstile(*limits), turnstile(limits[1])]
        log: list[object] = []
        tasks: list[asyncio.Task[None]] = []
        for _ in range(60):
            lane, seconds = chance.randrange(3), chance.choice((0.0, 0.5, 2.0))
            tasks.append(asyncio.create_task(call(chance.choice(gates), lane, log, seconds)))
            if chance.random() < 0.4:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0.0, 0.3)))
            assert all(limit.in_use <= limit.capacity for limit in limits)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [limit.in_use for limit in limits] == [0, 0]
        assert all(gate.in_flight == 0 for gate in gates)

    for seed in range(40):
        run_virtual(scenario(seed), seed=seed)
