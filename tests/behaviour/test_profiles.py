"""Profiles at work: rows at once, rows inside, batches, requests; the same results whatever the pace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Batch, Workflow, node
from flowcore.errors import DefinitionError
from flowcore.profiles import PROFILE_NAMES, PROFILES, ProfileName
from tests.behaviour.harness import Script, kept, now, runtime, virtual


class Gauge:
    """How many calls run at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    async def work(self) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)
        await asyncio.sleep(1)
        self.now -= 1


def gauged(gauge: Gauge) -> Any:
    @node("prof.work")
    async def work(value: int) -> int:
        await gauge.work()
        return value * 2

    return work


def streaming(thing: Any, sink: Any, **settings: Any) -> Workflow:
    wf = Workflow("streaming", settings=settings)
    wf.chain(wf.add(Script, id="s"), wf.add(thing, id="it"), wf.add(sink, id="k"))
    return wf


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@virtual
async def test_a_profile_says_how_many_rows_a_coroutine_works_on_and_results_are_the_same(
    profile: Any,
) -> None:
    gauge, sink = Gauge(), kept()
    async with runtime() as rt:
        wf = streaming(gauged(gauge), sink, profile=profile)
        result = await (await rt.start(wf, sources={"s": Script([list(range(600))])})).wait()
    assert result.ok
    assert sink.rows == [2 * n for n in range(600)]
    assert gauge.peak == PROFILES[profile].concurrency


@virtual
async def test_rows_inside_follow_from_the_frame_and_the_concurrency_of_the_profile() -> None:
    credits: dict[str, int] = {}
    for profile in PROFILE_NAMES:
        source = Script([list(range(100_000))])
        wf = streaming(gauged(Gauge()), kept(), profile=profile)
        async with runtime() as rt:
            run = await rt.start(wf, sources={"s": source}, limit=20_000)
            await asyncio.sleep(0.5)
            chosen = PROFILES[profile]
            inside = 2 * chosen.max_frame + 4 * chosen.concurrency
            assert run.statistics()["budget"]["capacity"] == inside
            assert source.handed_over == min(inside, 20_000)
            assert source.credits[0] == chosen.max_frame
            credits[profile] = inside
            await run.cancel("enough")
    assert credits["memory_optimized"] < credits["low_latency"] < credits["balanced"]
    assert credits["balanced"] < credits["high_throughput"]


@virtual
async def test_what_the_workflow_or_its_node_says_wins_over_the_profile() -> None:
    gauge = Gauge()
    wf = Workflow("own", settings={"profile": "high_throughput", "concurrency": 3})
    wf.add(gauged(gauge), id="by_settings")
    async with runtime() as rt:
        await asyncio.gather(*(rt.execute(wf, {"value": n}) for n in range(10)))
    assert gauge.peak == 3
    gauge = Gauge()
    wf = Workflow("own", settings={"profile": "memory_optimized", "concurrency": 3})
    wf.add(gauged(gauge), id="by_node", concurrency=40)
    async with runtime() as rt:
        await asyncio.gather(*(rt.execute(wf, {"value": n}) for n in range(50)))
    assert gauge.peak == 40


@virtual
async def test_the_runtimes_profile_holds_for_workflows_that_name_none_and_a_runs_for_all() -> None:
    peaks: list[int] = []
    async with runtime(profile="memory_optimized") as rt:
        choices: list[tuple[ProfileName | None, ProfileName | None]] = [
            (None, None),
            ("balanced", None),
            ("balanced", "high_throughput"),
        ]
        for said, of_run in choices:
            gauge = Gauge()
            wf = streaming(gauged(gauge), kept(), **({} if said is None else {"profile": said}))
            run = await rt.start(wf, sources={"s": Script([list(range(600))])}, profile=of_run)
            await run.wait()
            peaks.append(gauge.peak)
    assert peaks == [16, 64, 256]


@virtual
async def test_a_batch_that_does_not_say_lingers_as_long_as_the_profile_says() -> None:
    sizes: list[int] = []

    @node("prof.batched", batch=Batch(max_items=100))
    async def batched(value: Sequence[int]) -> Sequence[int]:
        sizes.append(len(value))
        return value

    async def pause() -> None:
        await asyncio.sleep(0.004)

    reads: list[Any] = [[1], pause, [2], pause, [3]]
    found: dict[str, list[int]] = {}
    for profile in ("balanced", "high_throughput"):
        sizes.clear()
        async with runtime() as rt:
            wf = streaming(batched, kept(), profile=profile)
            await (await rt.start(wf, sources={"s": Script(reads)})).wait()
        found[profile] = list(sizes)
    assert found == {"balanced": [1, 1, 1], "high_throughput": [3]}


@virtual
async def test_a_node_whose_batches_are_its_result_makes_the_same_ones_under_every_profile() -> None:
    async def pause() -> None:
        await asyncio.sleep(0.05)

    found: list[Any] = []
    for profile in PROFILE_NAMES:
        sink = kept()
        wf = Workflow("lists", settings={"profile": profile})
        wf.chain(
            wf.add(Script, id="s"),
            wf.add("control.batch", id="b", batch=Batch(max_items=2)),
            wf.add(sink, id="k"),
        )
        async with runtime() as rt:
            await (await rt.start(wf, sources={"s": Script([[1], pause, [2, 3], pause, [4]])})).wait()
        found.append(sink.rows)
    assert found == [[[1, 2], [3, 4]]] * 4


@virtual
async def test_requests_at_once_are_the_profiles_where_nobody_says_max_in_flight() -> None:
    gauge = Gauge()
    wf = Workflow("many", settings={"profile": "memory_optimized"})
    wf.add(gauged(gauge), id="it", concurrency=1_000)
    async with runtime() as rt:
        await asyncio.gather(*(rt.execute(wf, {"value": n}) for n in range(300)))
    assert gauge.peak == 256


@virtual
async def test_commits_are_as_far_apart_as_the_profile_says() -> None:
    async def pause() -> None:
        await asyncio.sleep(1.1)

    commits: dict[str, int] = {}
    for profile in ("balanced", "high_throughput"):
        source = Script([[1], pause, [2], pause, [3], pause, [4]])
        async with runtime() as rt:
            wf = streaming(gauged(Gauge()), kept(), profile=profile)
            await (await rt.start(wf, sources={"s": source})).wait()
        commits[profile] = len(source.committed["0"])
    assert commits["high_throughput"] == 1
    assert commits["balanced"] > 2


async def test_a_profile_nobody_knows_is_refused_where_it_is_given() -> None:
    with pytest.raises(DefinitionError, match="no profile 'fast'"):
        runtime(profile="fast")
    async with runtime() as rt:
        with pytest.raises(DefinitionError, match="no profile 'fast'"):
            await rt.start(streaming(gauged(Gauge()), kept()), profile="fast")  # type: ignore[arg-type] - wrong on purpose


@virtual
async def test_low_latency_lets_a_row_out_sooner_when_the_source_is_faster_than_the_node() -> None:
    """A row waits for those that were read before it: rows inside by rows a second."""
    last: dict[str, float] = {}
    for profile in ("low_latency", "balanced"):
        read: list[float] = []

        async def all_read(read: list[float] = read) -> None:
            read.append(now())

        async with runtime() as rt:
            wf = streaming(gauged(Gauge()), kept(), profile=profile)
            await (await rt.start(wf, sources={"s": Script([list(range(4_000)), all_read])})).wait()
        last[profile] = now() - read[0]
    assert last["low_latency"] < last["balanced"] / 5


def test_the_intervals_of_the_profiles_are_what_the_guide_says() -> None:
    assert PROFILES["high_throughput"].commit_interval == timedelta(seconds=5)
