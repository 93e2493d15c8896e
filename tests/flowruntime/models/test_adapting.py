"""The gateway in front of a server of limited capacity, without any limit declared; seeded, on virtual time.

server   answers `capacity` calls at once in half a second each, shares itself among more, and refuses
         beyond `bound`
"""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

from flowcore import LimitChanged
from flowcore.llm.errors import ProviderError
from flowcore.llm.policy import ModelLimits
from flowcore.policies import RetryPolicy
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, virtual
from tests.flowruntime.models.counting import Counting, ask, at, idle, models_of, too_many, unavailable

CAPACITY = 24
BASE_S = 0.5


class Limited(Counting):
    """See the module."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.down = False
        self.refusals = 0
        self.then = self.serve

    async def serve(self, _: Counting, request: Any) -> None:
        del request
        if self.down:
            await asyncio.sleep(0.05)
            raise unavailable()
        if self.in_flight > 4 * CAPACITY:
            self.refusals += 1
            raise too_many()
        noise = self.rng.lognormvariate(0.0, 0.2)
        await asyncio.sleep(BASE_S * max(1.0, self.in_flight / CAPACITY) * noise)


TARGET = at(retry=RetryPolicy(max_attempts=1), breaker=None)


async def pressed(rt: FlowRuntime, calls: int, workers: int = 100) -> list[int]:
    """So many calls by so many callers; the limit after each."""
    seen: list[int] = []
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            try:
                await rt.models.generate(ask(), TARGET)
            except ProviderError:
                await asyncio.sleep(0.05)
            (resource,) = rt.models.gateway.resources.values()
            seen.append(resource.limit)

    await asyncio.gather(*(caller() for _ in range(workers)))
    return seen


def mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers)


@pytest.mark.parametrize("seed", range(3))
def test_without_any_setting_the_limit_settles_at_what_the_server_takes(seed: int) -> None:
    @virtual
    async def run() -> None:
        provider = Limited(seed)
        async with models_of(counting=provider) as rt:
            with recorded(rt.events) as seen:
                limits = await pressed(rt, 5_000)
                assert 0.75 * CAPACITY <= mean(limits[-2_000:]) <= 1.25 * CAPACITY
                assert provider.refusals <= 50
                assert now() < 1.35 * 5_000 * BASE_S / CAPACITY, "and little of the server is left idle"
                provider.down = True
                await pressed(rt, 1_000)
                provider.down = False
                limits = await pressed(rt, 4_000)
                assert 0.75 * CAPACITY <= mean(limits[-1_000:]) <= 1.25 * CAPACITY
            assert 0 < len(seen.of(LimitChanged)) <= now() / 5 + 1, "told of, and no flood"
            assert idle(rt)

    run()


@virtual
async def test_an_idle_model_keeps_its_limit() -> None:
    provider = Limited(1)
    async with models_of(counting=provider) as rt:
        limits = await pressed(rt, 500, workers=1)
        assert set(limits) == {limits[0]}


@virtual
async def test_ten_times_more_calls_than_the_server_takes_hold_no_more_memory_than_their_callers() -> None:
    provider = Limited(2)
    async with models_of(counting=provider) as rt:
        await pressed(rt, 2_000, workers=10 * CAPACITY)
        gc.collect()
        before = len(gc.get_objects())
        await pressed(rt, 10_000, workers=10 * CAPACITY)
        gc.collect()
        assert len(gc.get_objects()) <= before + 2_000
        (figures,) = rt.models.statistics()["resources"].values()
        assert figures["peak"] <= 4 * CAPACITY
        assert idle(rt)


@virtual
async def test_the_bound_of_the_adaptive_limit_is_kept() -> None:
    provider = Counting(then=0.1)
    async with models_of(counting=provider) as rt:
        target = at(limits=ModelLimits(most=6))
        await asyncio.gather(*(rt.models.generate(ask(), target) for _ in range(500)))
        assert provider.peak == 6
