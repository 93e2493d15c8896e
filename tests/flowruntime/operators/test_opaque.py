"""A user's raw operator cannot break the chain: it may end early, be silent, or answer on another thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import reactivex
from reactivex import operators as ops
from reactivex.scheduler import NewThreadScheduler

from flowcore.errors import ContractError, NodeTimeoutError
from flowcore.frame import Frame, Record, Watermark
from flowcore.operator import operator
from flowcore.workflow import Workflow
from flowruntime.testing import assert_marbles, run_virtual, run_workflow, scripted
from flowruntime.testing.conformance.bench import Bench
from flowruntime.testing.scripted import ScriptedSource

Records = reactivex.Observable[Record[Any]]


@operator("opaque.two", settles="explicit", timeout=timedelta(seconds=9))
def first_two() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.take(2))


@operator("opaque.silent", settles="explicit", timeout=timedelta(seconds=9))
def silent() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.filter(lambda _: False))


@operator("opaque.delay", settles="explicit", timeout=timedelta(seconds=9))
def delayed() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.delay(2))


@operator("opaque.thread", settles="explicit", timeout=timedelta(seconds=9))
def elsewhere() -> Callable[[Records], Records]:
    return lambda source: source.pipe(ops.observe_on(NewThreadScheduler()))


def alone(subject: object, **settings: Any) -> Workflow:
    workflow = Workflow("opaque", settings=settings)
    workflow.add(subject, id="operator")
    return workflow


def test_rows_after_an_early_completion_fail_at_once_and_the_run_ends() -> None:
    """They would wait for an answer that can never come."""
    run = run_virtual(run_workflow(alone(first_two, on_error="continue"), scripted(1, 2, 3, 4)))
    assert run.written == [1, 2]
    assert run.result.counts["operator"].failed == 2
    assert run.result.records == 4
    assert run.result.duration < timedelta(seconds=1)
    assert all(isinstance(error, ContractError) for error in run.result.errors.get("operator", []))


def test_a_row_nobody_answers_for_fails_after_the_timeout() -> None:
    run = run_virtual(run_workflow(alone(silent, on_error="continue"), [1]))
    assert run.result.state.name == "partial"
    assert run.result.counts["operator"].failed == 1
    assert run.result.duration < timedelta(seconds=10)
    assert all(isinstance(e, NodeTimeoutError | ContractError) for e in run.result.errors.get("operator", []))


def test_time_operators_follow_the_clock_of_the_loop() -> None:
    assert_marbles(delayed, source="a-b|", result="--a-b|")


async def test_an_operator_on_another_thread_fails_the_run_and_says_so() -> None:
    """ALL-9: its rows would be worked on beside the loop, and corrupt what the loop owns."""
    run = await run_workflow(alone(elsewhere), [1])
    assert run.result.state.name == "failed"
    assert "another thread" in str(run.result.cause)


def test_a_watermark_waits_for_the_rows_that_are_not_answered_for() -> None:
    async def scenario() -> list[str]:
        flow = Workflow("watermark")
        flow.chain(flow.add(ScriptedSource, id="rows"), flow.add(delayed))
        async with Bench(flow) as bench:
            bench.push(Frame(bench.open(["a"]), ["a"]))
            bench.signal(Watermark(1.0))
            await bench.finish()
            return [type(item).__name__ for item in bench.watches[0].items]

    assert run_virtual(scenario()) == ["Frame", "Watermark", "End"]
