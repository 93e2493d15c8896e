"""A record goes through the workflow again: with a fresh state, its credit held, the last attempt told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from flowcore import NodeFailed, RetryPolicy, RetryWorkflow, Workflow, WorkflowRetrying, node
from flowcore.context import NodeContext
from flowcore.errors import ValidationFailedError
from flowcore.states import Cancelled, Completed, Failed, Partial
from flowruntime.compile.validate import validate
from flowruntime.registry import Registry
from flowruntime.testing.collected import collected
from flowruntime.testing.recorder import recorded
from flowruntime.testing.running import WorkflowRun, run_workflow
from flowruntime.testing.scripted import scripted
from flowruntime.testing.virtual import run_virtual
from tests.behaviour.harness import now, runtime, virtual

ONCE = RetryPolicy(initial=timedelta(seconds=1), jitter=0.0)


class Flaky:
    """Fails the first `times` calls of each value."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls: list[tuple[float, int, int]] = []
        """When, value, what the state of its record held."""

    def node(self) -> Any:
        @node("again.flaky", retry=RetryPolicy(max_attempts=1, initial=timedelta(seconds=1), jitter=0.0))
        async def flaky(value: int, ctx: NodeContext) -> int:
            held = ctx.state.data.get("seen", 0)
            ctx.state.data["seen"] = held + 1
            self.calls.append((now(), value, held))
            if sum(1 for _, called, _ in self.calls if called == value) <= self.times:
                raise ConnectionError(f"{value} is not there yet")
            return value

        return flaky


@node("again.before")
async def before(value: int) -> int:
    await asyncio.sleep(0.5)
    return value


@node("again.side")
async def side(value: int) -> int:
    return -value


def workflow(flaky: Flaky, on_error: Any = "retry_workflow", **settings: Any) -> Workflow:
    wf = Workflow("again", settings=settings)
    wf.chain(wf.add(before), wf.add(flaky.node(), id="n", on_error=on_error))
    return wf


# --- requests -------------------------------------------------------------------------------------------


@virtual
async def test_a_request_ends_with_its_last_attempt() -> None:
    flaky = Flaky(2)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(workflow(flaky), {"value": 1})
    assert isinstance(result.state, Completed)
    assert (result.attempts, result.outputs["n"]) == (3, {"out": 1})
    assert result.errors == {}
    # half a second to get there, one second and two seconds of backoff; never anything of the attempt before
    assert flaky.calls == [(0.5, 1, 0), (2.0, 1, 0), (4.5, 1, 0)]
    told = seen.of(WorkflowRetrying)
    assert [(event.node, event.attempt, event.max_attempts, event.delay_s) for event in told] == [
        ("n", 1, 3, 1.0),
        ("n", 2, 3, 2.0),
    ]
    assert {event.execution_id for event in told} == {result.execution_id}
    assert [event.then for event in seen.of(NodeFailed)] == ["retry_workflow"] * 2
    seen.ended()


@pytest.mark.parametrize(
    ("then", "state"), [("stop_workflow", Failed), ("continue", Partial), (None, Failed)]
)
def test_what_fails_in_the_last_attempt_does_what_then_says(then: Any, state: type) -> None:
    flaky = Flaky(9)
    said = {"max_attempts": 2} | ({} if then is None else {"then": then})

    async def main() -> Any:
        async with runtime() as rt:
            return await rt.execute(workflow(flaky, {"retry_workflow": said}), {"value": 1})

    result = run_virtual(main())
    assert isinstance(result.state, state)
    assert (result.attempts, len(flaky.calls), len(result.errors["n"])) == (2, 2, 1)


@virtual
async def test_there_is_no_attempt_behind_the_deadline() -> None:
    flaky = Flaky(9)
    async with runtime() as rt:
        result = await rt.execute(workflow(flaky), {"value": 1}, timeout=timedelta(seconds=1.2))
    assert isinstance(result.state, Failed)
    assert isinstance(result.cause, ConnectionError)
    assert now() == 0.5


@virtual
async def test_a_request_may_be_cancelled_and_its_runtime_closed_between_two_attempts() -> None:
    for close in (False, True):
        flaky = Flaky(9)
        rt = runtime()
        asked = asyncio.create_task(rt.execute(workflow(flaky), {"value": 1}))
        await asyncio.sleep(1)
        if close:
            await rt.aclose()
            assert isinstance((await asked).state, Cancelled)
        else:
            asked.cancel()
            await asyncio.wait({asked})
            assert asked.cancelled()
            await rt.aclose()
        await asyncio.sleep(60)
        assert len(flaky.calls) == 1


# --- streams --------------------------------------------------------------------------------------------


def ran(wf: Workflow, source: Any, **options: Any) -> WorkflowRun:
    return run_virtual(run_workflow(wf, source, **options))


def test_a_record_keeps_its_place_until_its_last_attempt() -> None:
    """What came after it is written before, and committed only with it."""
    flaky = Flaky(1)
    source = scripted(1, 2, 3, max_rows=1)
    run = ran(workflow(flaky, max_in_flight=8), source)
    assert isinstance(run.result.state, Completed)
    assert sorted(run.written) == [1, 2, 3]
    assert [held for _, _, held in flaky.calls] == [0] * 6
    assert source.committed == {"0": 3}
    assert (run.result.counts["n"].retried, run.result.counts["n"].failed) == (3, 0)
    assert run.result.records == 3


def test_an_earlier_attempt_may_have_been_written() -> None:
    """At least once: this is what the plan says weakens the promise."""
    flaky = Flaky(1)
    wf = Workflow("twice")
    first = wf.add(before)
    wf.connect(first, wf.add(flaky.node(), id="n", on_error="retry_workflow"))
    wf.connect(first, wf.add(side))
    run = ran(wf, [1])
    assert run.received["n"] == [1]
    assert run.received["side"] == [-1, -1]


def test_the_source_has_no_credit_for_more_while_records_are_tried_again() -> None:
    flaky = Flaky(1)
    source = scripted(*range(6), max_rows=1)
    run = ran(workflow(flaky, max_in_flight=1), source)
    assert run.written == list(range(6))
    assert [value for _, value, _ in flaky.calls] == [value for value in range(6) for _ in range(2)]


def test_a_sink_that_refuses_a_row_sends_its_record_through_again() -> None:
    refusals: list[int] = []

    def refuse(value: int) -> Exception | None:
        refusals.append(value)
        return ConnectionError("full") if len(refusals) == 1 else None

    wf = Workflow("full", settings={"on_error": "retry_workflow"})
    wf.chain(wf.add(before), wf.add("memory.sink", id="k"))
    run = ran(wf, [7], sinks={"k": collected(refuse=refuse)})
    assert isinstance(run.result.state, Completed)
    assert run.received["k"] == [7]


def test_after_the_last_attempt_the_record_becomes_a_letter() -> None:
    flaky = Flaky(9)
    place = {"type": "files.sink", "config": {"path": "never.jsonl"}}
    run = ran(workflow(flaky, RetryWorkflow(max_attempts=2, then="dead_letter"), dead_letter=place), [1, 2])
    assert sorted(str(letter.record) for letter in run.letters) == [
        "{'before': {'value': 1}}",
        "{'before': {'value': 2}}",
    ]
    assert run.result.handled


def test_each_item_of_a_stream_has_the_outcome_of_its_last_attempt() -> None:
    async def main() -> list[Any]:
        async with runtime() as rt:
            return [out async for out in rt.stream(workflow(Flaky(1)), [1, 2])]

    assert [(out.ok, out.value) for out in run_virtual(main())] == [(True, 1), (True, 2)]


def test_a_run_that_is_stopped_leaves_a_record_that_waits_uncommitted() -> None:
    async def main() -> tuple[Any, Any]:
        flaky, source = Flaky(9), scripted(1, 2)
        async with runtime() as rt:
            wf = Workflow("s")
            wf.chain(
                wf.add("memory.source", id="s", config={"values": [1]}),
                wf.add(flaky.node(), id="n", on_error="retry_workflow"),
            )
            run = await rt.start(wf, sources={"s": source})
            await asyncio.sleep(0.5)
            return await run.stop(timedelta(0)), source

    result, source = run_virtual(main())
    assert isinstance(result.state, Cancelled)
    assert result.abandoned == 2
    assert source.committed == {}


# --- what is refused ------------------------------------------------------------------------------------


@node("again.lists", kind="batch")
def lists(items: list[int]) -> list[int]:
    return items


@pytest.mark.parametrize("where", ["node", "settings"])
def test_rows_of_several_records_that_are_kept_together_cannot_be_taken_back(where: str) -> None:
    wf = Workflow("state", settings={"on_error": "retry_workflow"} if where == "settings" else {})
    said: Any = {"on_error": "retry_workflow"} if where == "node" else {}
    wf.chain(wf.add(before, **said), wf.add(lists))
    with pytest.raises(ValidationFailedError) as refused:
        validate(wf, Registry(), mode="request")
    (found,) = refused.value.problems
    assert found.path == ("nodes.before.on_error" if where == "node" else "settings.on_error")
    assert "keeps rows of several records together" in found.message


def test_a_source_is_read_again_not_tried_again() -> None:
    wf = Workflow("source")
    wf.add("memory.source", id="s", config={"values": [1]}, on_error="retry_workflow")
    with pytest.raises(ValidationFailedError, match="never went through the workflow"):
        validate(wf, Registry())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"retry_workflow": 0}, "must be a whole number from 1 to 100"),
        ({"retry_workflow": {"max_attempt": 3}}, "did you mean 'max_attempts'?"),
        ({"retry_workflow": 3, "then": "continue"}, "write what belongs to it inside"),
        ({"retry_workflow": {"then": "retry_workflow"}}, "must be one of stop_workflow, continue"),
    ],
)
def test_wrong_forms_say_what_to_write(said: Any, words: str) -> None:
    for declare in (
        lambda: Workflow("w").add(before, on_error=said),
        lambda: Workflow("w", settings={"on_error": said}),
    ):
        with pytest.raises(ValidationFailedError) as refused:
            declare()
        (found,) = refused.value.problems
        assert words in f"{found.message}; {found.remedy}"
