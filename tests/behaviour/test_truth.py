"""A failed node never yields a successful run; what it kept from running is skipped, with the cause."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import (
    NodeFailed,
    NodeRetrying,
    NodeSkipped,
    RetryPolicy,
    Workflow,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPartial,
    node,
)
from flowcore.errors import NodeTimeoutError, RunFailedError
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, forever, kept, later, now, runtime, same, virtual


@node("truth.fail")
def fail(value: Any) -> Any:
    raise ValueError(f"no {value!r}")


@node("truth.fail_later")
async def fail_later(value: Any) -> Any:
    await asyncio.sleep(1)
    raise ValueError(f"no {value!r}")


@node("truth.offloaded", offload="thread")
def fail_in_thread(value: Any) -> Any:
    raise ValueError(f"no {value!r}")


@node("truth.expand")
def fail_expanding(value: Any) -> Any:
    yield 1
    raise ValueError(f"no {value!r}")


def broken(failing: Any, **policies: Any) -> Workflow:
    """Before -> failing -> child -> grandchild, and before -> sibling."""
    wf = Workflow("broken")
    before = wf.add(same, id="before")
    bad = wf.add(failing, id="bad", **policies)
    wf.chain(before, bad, wf.add(later, id="child"), wf.add(same, id="grandchild"))
    wf.chain(before, wf.add(same, id="sibling"))
    return wf


@pytest.mark.parametrize("on_error", ["stop_workflow", "continue"])
@pytest.mark.parametrize("failing", [fail, fail_later])
@virtual
async def test_a_failed_node_fails_the_request_and_its_children_are_skipped_with_the_cause(
    failing: Any, on_error: Any
) -> None:
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(broken(failing, on_error=on_error), {"before": {"value": 7}})
    assert not result.ok
    assert result.state.name == ("failed" if on_error == "stop_workflow" else "partial")
    states = {name: (outcome.state, outcome.cause) for name, outcome in result.outcomes.items()}
    assert states == {
        "before": ("completed", None),
        "bad": ("failed", None),
        "child": ("skipped", "bad"),
        "grandchild": ("skipped", "bad"),
        "sibling": ("completed", None),
    }
    assert [str(error) for error in result.errors["bad"]] == ["no 7"]
    assert seen.one(NodeFailed).node == "bad"
    assert [(event.node, event.cause) for event in seen.of(NodeSkipped)] == [
        ("child", "bad"),
        ("grandchild", "bad"),
    ]
    expected = WorkflowFailed if on_error == "stop_workflow" else WorkflowPartial
    assert isinstance(seen.ended(), expected)
    with pytest.raises(RunFailedError, match="no 7") as raised:
        result.raise_for_state()
    assert isinstance(raised.value.__cause__, ValueError)


async def test_a_failure_in_a_thread_is_the_rows_failure() -> None:
    async with runtime() as rt:
        result = await rt.execute(broken(fail_in_thread), {"before": {"value": 7}})
    assert not result.ok
    assert result.outcomes["child"].cause == "bad"
    assert [str(error) for error in result.errors["bad"]] == ["no 7"]


@virtual
async def test_an_expanding_node_that_fails_midway_fails_its_record_although_it_had_children() -> None:
    async with runtime() as rt:
        result = await rt.execute(broken(fail_expanding, on_error="continue"), {"before": {"value": 7}})
    assert result.state.name == "partial"
    assert result.outcomes["bad"].state == "failed"
    assert result.outputs["child"]["out"] == [1]


@virtual
async def test_stop_workflow_ends_the_run_and_commits_nothing_from_the_failed_row_on() -> None:
    """The failed row and those after it come again: nothing is lost to a failure."""
    for failing in (fail_on_three, fail_on_three_later):
        sink = kept()
        wf = Workflow("stop")
        wf.chain(wf.add(Script, id="s"), wf.add(failing, id="f"), wf.add(sink, id="k"))
        source = Script([[1], [2], [3], [4], [5]])
        async with runtime() as rt:
            with recorded(rt.events) as seen:
                result = await (await rt.start(wf, sources={"s": source})).wait()
        assert result.state.name == "failed"
        assert [str(error) for error in result.errors["f"]] == ["three"]
        assert seen.one(WorkflowFailed).node == "f"
        assert 3 not in sink.rows
        assert max(source.committed["0"], default=0) <= 2


@node("truth.three")
def fail_on_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


@node("truth.three_later")
async def fail_on_three_later(value: int) -> int:
    await asyncio.sleep(0.1)
    return fail_on_three(value)


@pytest.mark.parametrize("failing", [fail_on_three, fail_on_three_later])
@virtual
async def test_a_failing_last_node_is_not_committed_either_when_it_stops_the_workflow(failing: Any) -> None:
    wf = Workflow("leaf")
    wf.chain(wf.add(Script, id="s"), wf.add(failing, id="f"))
    source = Script([[1, 2, 3, 4]])
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert result.state.name == "failed"
    assert max(source.committed["0"], default=0) <= 2


@pytest.mark.parametrize("failing", [fail_on_three, fail_on_three_later])
@virtual
async def test_continue_goes_on_with_the_other_rows_and_says_partial(failing: Any) -> None:
    sink = kept()
    wf = Workflow("go on")
    wf.chain(wf.add(Script, id="s"), wf.add(failing, id="f", on_error="continue"), wf.add(sink, id="k"))
    source = Script([[1, 2, 3], [4, 5]])
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await (await rt.start(wf, sources={"s": source})).wait()
    assert sink.rows == [1, 2, 4, 5]
    assert result.state.name == "partial"
    assert not result.ok
    assert (result.counts["f"].completed, result.counts["f"].failed) == (4, 1)
    assert [str(error) for error in result.errors["f"]] == ["three"]
    assert seen.one(WorkflowPartial).failed_nodes == ("f",)
    assert source.committed["0"][-1] == 5


# --- error ports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [fail_on_three, fail_on_three_later])
@virtual
async def test_an_error_port_is_given_the_failed_row_with_error_attempts_and_record(failing: Any) -> None:
    good, bad = kept(), kept(name="test.bad")
    wf = Workflow("port")
    f = wf.add(failing, id="f")
    wf.chain(wf.add(Script, id="s"), f, wf.add(good, id="good"))
    wf.connect(f["error"], wf.add(bad, id="bad"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await (await rt.start(wf, sources={"s": Script([[1, 2, 3, 4]])})).wait()
    assert good.rows == [1, 2, 4]
    assert bad.rows == [
        {"node": "f", "error": {"kind": "ValueError", "message": "three"}, "attempts": 1, "record": 3}
    ]
    assert result.state.name == "partial"
    assert not result.ok
    assert result.handled
    assert result.records == 4
    assert isinstance(seen.ended(), WorkflowPartial)


@virtual
async def test_a_node_behind_an_error_port_sees_failures_only_and_is_skipped_otherwise() -> None:
    wf = Workflow("handled")
    f = wf.add(fail_on_three, id="f")
    wf.chain(f, wf.add(same, id="good"))
    wf.connect(f["error"], wf.add(same, id="handler"))
    async with runtime() as rt:
        fine = await rt.execute(wf, {"f": {"value": 1}})
        failed = await rt.execute(wf, {"f": {"value": 3}})
    assert fine.ok
    assert fine.outcomes["handler"].state == "skipped"
    assert failed.state.name == "partial"
    assert failed.handled
    assert failed.outputs["handler"]["out"]["error"]["message"] == "three"
    assert failed.outcomes["good"].state == "skipped"
    assert failed.outcomes["good"].cause == "f"


@virtual
async def test_a_failing_handler_is_not_handled() -> None:
    wf = Workflow("unhandled")
    f = wf.add(fail_on_three, id="f")
    wf.connect(f["error"], wf.add(fail, id="handler", on_error="continue"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"f": {"value": 3}})
    assert result.state.name == "partial"
    assert not result.handled


@pytest.mark.parametrize("kind", ["sync", "async"])
@virtual
async def test_the_error_port_of_an_expanding_node_is_given_the_record_that_failed(kind: str) -> None:
    @node("truth.sync_children")
    def sync_children(value: int) -> Any:
        yield value
        if value == 3:
            raise ValueError("three")

    @node("truth.async_children")
    async def async_children(value: int) -> Any:
        for child in sync_children(value):
            yield child

    good, bad = kept(), kept(name="test.bad")
    wf = Workflow("port")
    f = wf.add(sync_children if kind == "sync" else async_children, id="f")
    wf.chain(wf.add(Script, id="s"), f, wf.add(good, id="good"))
    wf.connect(f["error"], wf.add(bad, id="bad"))
    source = Script([[1, 2, 3, 4]])
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": source})).wait()
    assert sorted(good.rows) == [1, 2, 3, 4]
    assert [row["record"] for row in bad.rows] == [3]
    assert result.handled
    assert source.committed["0"][-1] == 4


@virtual
async def test_the_error_port_of_a_batching_node_is_given_every_row_of_the_batch_that_failed() -> None:
    @node("truth.batch", kind="batch", batch={"max_items": 2})
    def batch(items: Any) -> Any:
        if 3 in items:
            raise ValueError("three")
        return list(items)

    good, bad = kept(), kept(name="test.bad")
    wf = Workflow("port")
    f = wf.add(batch, id="f", batch=2)
    wf.chain(wf.add(Script, id="s"), f, wf.add(good, id="good"))
    wf.connect(f["error"], wf.add(bad, id="bad"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[1, 2, 3, 4, 5]])})).wait()
    assert good.rows == [[1, 2], [5]]
    assert sorted(row["record"] for row in bad.rows) == [3, 4]
    assert result.handled
    assert result.records == 5


# --- retry and timeout --------------------------------------------------------------------------------


@virtual
async def test_a_retry_repeats_after_its_backoff_and_the_result_says_how_many_attempts_it_took() -> None:
    tries: list[float] = []

    @node("truth.flaky", retry=RetryPolicy(max_attempts=3, initial=timedelta(seconds=1), jitter=0.0))
    async def flaky(value: int) -> int:
        tries.append(now())
        if len(tries) < 3:
            raise ConnectionError("away")
        return value

    wf = Workflow("retry")
    wf.add(flaky, id="flaky")
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(wf, {"flaky": {"value": 1}})
    assert result.ok
    assert tries == [0.0, 1.0, 3.0]
    assert result.outcomes["flaky"].attempts == 3
    assert [(event.attempt, event.delay_s) for event in seen.of(NodeRetrying)] == [(1, 1.0), (2, 2.0)]


@virtual
async def test_an_error_that_is_not_worth_it_is_not_retried_and_the_last_attempt_is_the_error() -> None:
    tries: list[str] = []

    @node("truth.refusing", retry=RetryPolicy(max_attempts=3, jitter=0.0))
    async def refusing(value: str) -> str:
        tries.append(value)
        raise ConnectionError(value) if value == "away" else ValueError(value)

    wf = Workflow("retry")
    wf.add(refusing, id="r")
    async with runtime() as rt:
        wrong = await rt.execute(wf, {"r": {"value": "wrong"}})
        away = await rt.execute(wf, {"r": {"value": "away"}})
    assert tries == ["wrong", "away", "away", "away"]
    assert wrong.outcomes["r"].attempts == 1
    assert away.outcomes["r"].attempts == 3
    assert isinstance(away.errors["r"][0], ConnectionError)


@virtual
async def test_a_hanging_node_is_cut_at_its_timeout_each_attempt_anew() -> None:
    wf = Workflow("hang")
    wf.add(
        forever,
        id="f",
        timeout="2s",
        retry=RetryPolicy(max_attempts=2, initial=timedelta(seconds=1), jitter=0.0),
    )
    async with runtime() as rt:
        result = await rt.execute(wf, {"f": {"value": 1}})
    assert now() == pytest.approx(5.0)
    assert isinstance(result.errors["f"][0], NodeTimeoutError)
    assert result.outcomes["f"].attempts == 2


@virtual
async def test_an_answer_that_comes_after_the_timeout_does_not_count() -> None:
    """A node may catch its cancellation and still return something: it was too late."""

    @node("truth.late", timeout=timedelta(seconds=1))
    async def late(value: int) -> int:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return value
        return value

    wf = Workflow("late")
    wf.add(late, id="late")
    async with runtime() as rt:
        result = await rt.execute(wf, {"late": {"value": 1}})
    assert isinstance(result.errors["late"][0], NodeTimeoutError)


@virtual
async def test_a_run_whose_every_row_succeeds_completes() -> None:
    wf = Workflow("fine")
    wf.chain(wf.add(Script, id="s"), wf.add(same, id="a"))
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await (await rt.start(wf, sources={"s": Script([[1, 2]])})).wait()
    assert result.ok
    assert result.records == 2
    assert isinstance(seen.ended(), WorkflowCompleted)
