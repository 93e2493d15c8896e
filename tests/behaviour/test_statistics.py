"""Figures of a runtime: what it has done, what it is doing, and who waits for whom; each of them true."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Middleware, RefusedError, Workflow, node
from flowcore.errors import ValidationFailedError
from tests.behaviour.harness import Script, forever, kept, runtime, same, virtual, wait


@node("stats.fails")
def fails(value: Any) -> Any:
    raise ValueError(f"no {value}")


def one(thing: Any, **options: Any) -> Workflow:
    wf = Workflow("one")
    wf.add(thing, id="it", **options)
    return wf


@virtual
async def test_requests_are_counted_by_how_they_ended() -> None:
    async with runtime() as rt:
        assert rt.statistics()["requests"]["success_rate"] is None
        await rt.execute(one(wait), {"seconds": 3.0})
        await rt.execute(one(wait), {"seconds": 1.0})
        await rt.execute(one(fails), {"value": 1})
        await rt.execute(one(forever), {"value": 1}, timeout=timedelta(seconds=2))
        partial = Workflow("partial", settings={"on_error": "continue"})
        partial.add(fails, id="a")
        partial.add(same, id="b")
        await rt.execute(partial, {"a": {"value": 1}, "b": {"value": 1}})
        work = asyncio.ensure_future(rt.execute(one(forever), {"value": 1}))
        await asyncio.sleep(1)
        assert rt.statistics()["requests"]["in_progress"] == 1
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        with pytest.raises(ValidationFailedError):
            await rt.execute(one(same), {"nowhere": 1})
        figures = rt.statistics()["requests"]
    ended = {state: figures[state] for state in ("completed", "partial", "failed", "cancelled", "total")}
    assert ended == {"completed": 2, "partial": 1, "failed": 2, "cancelled": 1, "total": 6}
    assert figures["in_progress"] == 0
    assert figures["success_rate"] == pytest.approx(2 / 6)
    assert figures["average_s"] == pytest.approx((3 + 1 + 0 + 2 + 0) / 5)
    assert figures["longest_s"] == pytest.approx(3.0)


@virtual
async def test_a_request_a_middleware_refused_has_failed() -> None:
    class No(Middleware):
        def before_run(self, call: Any) -> None:
            raise RefusedError("no")

    async with runtime(middleware=[No()]) as rt:
        await rt.execute(one(same), {"value": 1})
        assert rt.statistics()["requests"]["failed"] == 1


@virtual
async def test_runs_are_counted_when_they_have_ended() -> None:
    def line() -> Workflow:
        wf = Workflow("line")
        wf.chain(wf.add(Script, id="s"), wf.add(wait, id="it"), wf.add(kept(), id="k"))
        return wf

    async with runtime() as rt:
        await (await rt.start(line(), sources={"s": Script([[1.0]])})).wait()
        await (await rt.start(line(), sources={"s": Script([OSError("gone")])})).wait()
        run = await rt.start(line(), sources={"s": Script([[9.0]])})
        await asyncio.sleep(1)
        figures = rt.statistics()
        assert list(figures["runs"]) == [run.id]
        assert figures["runs"][run.id]["pools"]["it"]["in_flight"] == 1
        await run.cancel("enough")
        await asyncio.sleep(0)
        figures = rt.statistics()
    assert figures["runs"] == {}
    assert figures["ended_runs"] == {"completed": 1, "partial": 0, "failed": 1, "cancelled": 1, "total": 3}


@virtual
async def test_what_answers_requests_shows_its_limits_pools_and_budget() -> None:
    wf = one(wait, concurrency=2)
    async with runtime(limits={"type:test.wait": 50}) as rt:
        work = asyncio.gather(*(rt.execute(wf, {"seconds": 1.0}) for _ in range(5)))
        await asyncio.sleep(0.5)
        figures = rt.statistics()
        await work
    (workflow,) = figures["workflows"]
    assert (workflow["workflow"], workflow["in_progress"]) == ("one", 5)
    assert workflow["pools"]["it"]["queued"] == 3
    limit = workflow["limits"]["node:it"]
    assert (limit["capacity"], limit["in_use"], limit["peak"], limit["waiting"]) == (2, 2, 2, 1)
    assert figures["limits"]["type:test.wait"]["in_use"] == 2
    assert figures["requests"]["in_progress"] == 5
    assert figures["uptime_s"] == pytest.approx(0.5)


@virtual
async def test_statistics_are_plain_data() -> None:
    import msgspec

    async with runtime(max_parallel=3) as rt:
        await rt.execute(one(wait), {"seconds": 1.0})
        run = await rt.start(one_stream(), sources={"s": Script([[9.0]])})
        await asyncio.sleep(1)
        assert msgspec.json.decode(msgspec.json.encode(rt.statistics()))["limits"]["runtime:*"]["taken"] == 2
        await run.cancel("enough")


def one_stream() -> Workflow:
    wf = Workflow("line")
    wf.chain(wf.add(Script, id="s"), wf.add(wait, id="it"))
    return wf
