"""Asking for health: all at once, each with its own time; one that misbehaves is its own failed result."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore.health import CheckResult, Health, HealthReport, HealthState, worst
from flowruntime.health.asking import Ask, ask_all
from flowruntime.health.process import judge_loop, judge_memory, loop_turns, memory_left
from flowruntime.system import Memory
from tests.behaviour.harness import now, virtual

MIB = 1 << 20


def answering(health: Any, *, after_s: float = 0.0) -> Ask:
    async def ask() -> Any:
        await asyncio.sleep(after_s)
        return health

    return ask


async def asked(timeout_s: float = 5.0, **checks: Ask) -> HealthReport:
    return await ask_all(checks, timeout=timedelta(seconds=timeout_s), clock=lambda: 100.0)


def one(report: HealthReport, name: str) -> CheckResult:
    (found,) = [check for check in report.checks if check.name == name]
    return found


@virtual
async def test_all_are_asked_at_once_and_timed_each() -> None:
    report = await asked(
        a=answering(Health("ok"), after_s=1),
        b=answering(Health("ok", "fine"), after_s=3),
        c=answering(Health("ok", latency_s=0.25), after_s=2),
    )
    assert report.ok
    assert now() == report.duration_s == 3.0
    assert report.at == 100.0
    assert [check.latency_s for check in report.checks] == [1.0, 3.0, 0.25]
    assert one(report, "b").detail == "fine"


@virtual
async def test_one_that_hangs_is_its_own_failed_result_and_delays_no_other() -> None:
    cancelled: list[str] = []

    async def hangs() -> Health:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise
        return Health("ok")

    report = await asked(timeout_s=2.0, hangs=hangs, good=answering(Health("ok")))
    assert now() == 2.0
    assert report.state == "failing"
    assert (one(report, "hangs").state, one(report, "hangs").detail) == ("failing", "no answer within 2 s")
    assert one(report, "good").state == "ok"
    await asyncio.sleep(0)
    assert cancelled == ["yes"]


@virtual
async def test_one_that_swallows_its_cancellation_is_left_behind() -> None:
    release = asyncio.Event()

    async def swallows() -> Health:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise KeyError("too late to matter")

    report = await asked(timeout_s=1.0, swallows=swallows)
    assert now() == 1.0
    assert one(report, "swallows").state == "failing"
    release.set()
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("ask", "detail"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (answering(None), "the check answered None; it must return a Health"),
        (answering("ok"), "the check answered 'ok'; it must return a Health"),
    ],
)
@virtual
async def test_one_that_raises_or_answers_nonsense_is_failing_and_says_so(ask: Any, detail: str) -> None:
    report = await asked(bad=ask, good=answering(Health("ok")))
    assert (one(report, "bad").state, one(report, "bad").detail) == ("failing", detail)
    assert one(report, "good").state == "ok"


@virtual
async def test_one_that_cancels_itself_is_failing() -> None:
    async def cancels() -> Health:
        raise asyncio.CancelledError

    report = await asked(bad=cancels)
    assert one(report, "bad").detail == "the check was cancelled from inside"


@virtual
async def test_cancelling_the_caller_cancels_every_check() -> None:
    ended: list[str] = []

    async def waits() -> Health:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("one")
        return Health("ok")

    work = asyncio.ensure_future(asked(a=waits, b=waits))
    await asyncio.sleep(1)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.sleep(0)
    assert ended == ["one", "one"]


@virtual
async def test_secrets_are_taken_out_of_what_checks_say() -> None:
    """HLT-3."""
    report = await ask_all(
        {"a": answering(Health("failing", "password hush is wrong"))},
        timeout=timedelta(seconds=1),
        clock=lambda: 0.0,
        scrub=lambda text: text.replace("hush", "***"),
    )
    assert report.checks[0].detail == "password *** is wrong"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "ok"),
        (["ok", "ok"], "ok"),
        (["ok", "degraded"], "degraded"),
        (["degraded", "failing", "ok"], "failing"),
    ],
)
def test_a_report_is_as_bad_as_the_worst_answer(states: list[HealthState], expected: str) -> None:
    assert worst(states) == expected


@pytest.mark.parametrize(
    ("waited_s", "state"),
    [(0.0, "ok"), (0.099, "ok"), (0.1, "degraded"), (0.99, "degraded"), (1.0, "failing")],
)
def test_a_loop_is_judged_by_how_long_callbacks_wait(waited_s: float, state: str) -> None:
    found = judge_loop(waited_s)
    assert (found.state, found.latency_s) == (state, waited_s)
    assert bool(found.detail) is (state != "ok")


@pytest.mark.parametrize(
    ("available", "state"), [(1_000, "ok"), (100, "ok"), (99, "degraded"), (30, "degraded"), (29, "failing")]
)
def test_memory_is_judged_by_the_share_that_is_left(available: int, state: str) -> None:
    memory = Memory(
        limit_bytes=1_000 * MIB, available_bytes=available * MIB, resident_bytes=1, is_limited=True
    )
    assert judge_memory(memory).state == state
    assert f"{available:,} MiB of 1,000 MiB left" in judge_memory(memory).detail


def test_memory_that_cannot_be_told_is_not_called_short() -> None:
    nothing = Memory(limit_bytes=None, available_bytes=None, resident_bytes=None, is_limited=False)
    assert judge_memory(nothing).state == "ok"


async def test_this_process_is_well() -> None:
    assert (await loop_turns()).latency_s is not None
    assert "MiB left" in (await memory_left()).detail
