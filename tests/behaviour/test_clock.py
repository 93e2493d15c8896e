"""The wall clock is set back by an hour while rows wait: nothing is stuck, for time is the loop's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Workflow, node
from flowcore.events import ExecutionEvent
from tests.behaviour.harness import Script, kept, now, runtime, virtual


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.offset_s = 1_000_000.0

    def __call__(self) -> float:
        return now() + self.offset_s


@node("clock.flaky")
async def flaky(value: int) -> int:
    TRIED.append(now())
    if len(TRIED) == 1:
        raise ConnectionError("away")
    return value


TRIED: list[float] = []


async def never() -> None:
    await asyncio.Event().wait()


def waiting(kind: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A node type that holds its row for 10 s, its configuration and its policies."""
    retry = {"max_attempts": 2, "initial": "10s", "jitter": 0.0}
    kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "delay": ("control.delay", {"duration": "10s"}, {}),
        "batch": ("control.batch", {}, {"batch": {"max_items": 100, "linger": "10s"}}),
        "retry": (flaky, {}, {"retry": retry}),
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", ["delay", "batch", "retry"])
@pytest.mark.parametrize("hour_s", [-3600.0, 3600.0])
@virtual
async def test_rows_that_wait_go_on_in_time_whatever_becomes_of_the_wall_clock(
    kind: str, hour_s: float
) -> None:
    TRIED.clear()
    written: list[float] = []
    clock = Clock()
    type_, config, policies = waiting(kind)
    wf = Workflow("clock")
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(type_, id="n", config=config, **policies),
        wf.add(kept(lambda _: written.append(now())), id="k"),
    )
    events: list[ExecutionEvent] = []
    async with runtime(clock=clock) as rt:
        rt.events.listen(lambda event: events.append(event) if isinstance(event, ExecutionEvent) else None)
        run = await rt.start(wf, sources={"s": Script([[1], never])})
        await asyncio.sleep(5)
        clock.offset_s += hour_s
        await asyncio.sleep(6)
        assert written == [pytest.approx(10.0, abs=0.1)]
        await run.drain()
        result = await run.wait()
    assert result.ok
    assert [event.seq for event in events] == sorted(event.seq for event in events), (
        "their order is told by seq"
    )


@virtual
async def test_deadlines_of_requests_and_rates_keep_the_loops_time() -> None:
    clock = Clock()

    @node("clock.hangs")
    async def hangs(value: int) -> int:
        await never()
        return value

    @node("clock.limited")
    async def limited(value: int) -> int:
        return value

    wf = Workflow("hangs")
    wf.add(hangs, id="n")
    slow = Workflow("limited")
    slow.add(limited, id="n", rate=1)
    async with runtime(clock=clock) as rt:
        asked = asyncio.create_task(rt.execute(wf, {"n": {"value": 1}}, timeout=timedelta(seconds=10)))
        await asyncio.sleep(5)
        clock.offset_s -= 3600.0
        assert not (await asked).ok
        assert now() == pytest.approx(10.0, abs=0.1)
        began = now()
        await asyncio.gather(*(rt.execute(slow, {"n": {"value": row}}) for row in range(4)))
        assert now() - began == pytest.approx(3.0, abs=0.1)
