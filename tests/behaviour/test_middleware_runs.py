"""Middleware around runs: requests, continuous runs, `rt.stream`; one start and one end, told truthfully."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from flowcore import Middleware, MiddlewareError, RefusedError, RunCall, RunOutcome, Workflow, node
from flowcore.errors import (
    ContractError,
    NodeFailedError,
    RequestTimeoutError,
    RuntimeClosedError,
    ValidationFailedError,
)
from flowcore.events import (
    TERMINAL_KINDS,
    NodeSkipped,
    NodeStarted,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowStarted,
)
from flowcore.middleware import ProceedRun
from flowcore.node import Node
from flowcore.states import Completed
from flowruntime.execute.result import RunResult
from flowruntime.testing.recorder import EventRecorder, recorded
from tests.behaviour.harness import (
    Nothing,
    Script,
    forever,
    kept,
    later,
    now,
    running,
    runtime,
    same,
    virtual,
)


class Told(Middleware):
    """Notes every hook that is asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.calls: list[RunCall] = []

    def before_run(self, call: RunCall) -> None:
        self.calls.append(call)
        self.log.append(f"{self.name}.before")

    async def after_run(self, call: RunCall, result: RunOutcome) -> None:
        await asyncio.sleep(0)
        self.log.append(f"{self.name}.after {result.state.name}")

    def run_error(self, call: RunCall, error: Exception) -> None:
        self.log.append(f"{self.name}.error {type(error).__name__}")

    async def wrap_run(self, call: RunCall, proceed: ProceedRun) -> RunOutcome:
        self.log.append(f"{self.name}.wrap")
        return await proceed(call)


def one(thing: Any = same, **settings: Any) -> Workflow:
    wf = Workflow("one", settings=settings)
    wf.add(thing, id="it")
    return wf


def streaming(sink: Any, thing: Any = same, **settings: Any) -> Workflow:
    wf = Workflow("streaming", settings=settings)
    wf.chain(wf.add(Script, id="s"), wf.add(thing, id="it"), wf.add(sink, id="k"))
    return wf


@node("mwr.fails")
def fails(value: Any) -> Any:
    raise ValueError(f"no {value}")


class Value(Struct, frozen=True):
    """One input port."""

    value: Any


def ends(events: EventRecorder) -> list[str]:
    """The kinds of start and end, in order."""
    kinds = (WorkflowStarted, *TERMINAL_KINDS)
    return [type(event).__name__ for event in events.events if isinstance(event, kinds)]


# --- order and facts ----------------------------------------------------------------------------------


async def test_hooks_around_a_request_are_asked_from_outside_in_and_back() -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("a", log), Told("b", log)]) as rt:
        result = await rt.execute(one(), {"value": 1})
    assert result.ok
    assert log == ["a.before", "a.wrap", "b.before", "b.wrap", "b.after completed", "a.after completed"]


async def test_a_request_tells_workflow_inputs_mode_execution_and_attributes() -> None:
    told = Told("a", [])
    wf = one()
    async with runtime(middleware=[told]) as rt:
        result = await rt.execute(wf, {"value": 1}, attributes={"user": "ann"})
    (call,) = told.calls
    assert call.workflow is wf
    assert (call.mode, dict(call.inputs), dict(call.attributes)) == ("request", {"value": 1}, {"user": "ann"})
    assert call.execution_id == result.execution_id


@virtual
async def test_hooks_around_a_continuous_run_span_it_from_before_its_nodes_start_to_its_result() -> None:
    log: list[str] = []
    sink = kept()
    told = Told("a", log)
    async with runtime(middleware=[told]) as rt:
        with recorded(rt.events) as events:
            run = await rt.start(streaming(sink), sources={"s": Script([[1, 2]])})
            result = await run.wait()
    assert result.ok
    assert sink.rows == [1, 2]
    assert log == ["a.before", "a.wrap", "a.after completed"]
    assert told.calls[0].mode == "stream"
    assert told.calls[0].execution_id == run.id
    assert ends(events) == ["WorkflowStarted", "WorkflowCompleted"]


@virtual
async def test_hooks_stand_around_rt_stream_once_for_all_items() -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("a", log)]) as rt:
        values = [outcome.value async for outcome in rt.stream(one(), [1, 2, 3])]
    assert values == [1, 2, 3]
    assert log == ["a.before", "a.wrap", "a.after completed"]


@virtual
async def test_after_run_is_asked_of_a_failed_result_too() -> None:
    log: list[str] = []
    sink = kept()
    async with runtime(middleware=[Told("a", log)]) as rt:
        request = await rt.execute(one(fails), {"value": 1})
        run = await rt.start(streaming(sink, fails), sources={"s": Script([[1, 2]])})
        await run.wait()
    assert request.state.name == "failed"
    assert log.count("a.after failed") == 2
    assert not any("error" in line for line in log)


# --- refusing -----------------------------------------------------------------------------------------


class Auth(Middleware):
    def before_run(self, call: RunCall) -> None:
        if "user" not in call.attributes:
            raise RefusedError("who is asking?")


async def test_a_refused_request_is_failed_and_nothing_of_it_ran() -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("outer", log), Auth(), Told("inner", log)]) as rt:
        with recorded(rt.events) as events:
            result = await rt.execute(one(), {"value": 1})
        allowed = await rt.execute(one(), {"value": 1}, attributes={"user": "ann"})
    assert allowed.ok
    assert result.state.name == "failed"
    assert isinstance(result.cause, RefusedError)
    assert isinstance(result.cause, PermissionError)
    assert "middleware 'Auth' refused a request of workflow 'one': who is asking?" in str(result.cause)
    assert result.outcomes["it"].state == "cancelled"
    assert result.outcomes["it"].cause == "middleware Auth"
    assert ends(events) == ["WorkflowStarted", "WorkflowFailed"]
    assert events.of(NodeStarted) == []
    assert [event.reason for event in events.of(NodeSkipped)] == ["cancelled"]
    assert events.of(WorkflowFailed)[0].error.kind == "RefusedError"
    assert log[:3] == ["outer.before", "outer.wrap", "outer.error RefusedError"]


@virtual
async def test_a_refused_run_does_not_start_and_says_why() -> None:
    sink, source = kept(), Script([[1]])
    async with runtime(middleware=[Auth()]) as rt:
        with recorded(rt.events) as events:
            with pytest.raises(RefusedError, match="who is asking"):
                await rt.start(streaming(sink), sources={"s": source})
            with pytest.raises(RefusedError, match="who is asking"):
                _ = [outcome async for outcome in rt.stream(one(), [1])]
            assert rt.statistics()["runs"] == {}
            run = await rt.start(streaming(sink), sources={"s": source}, attributes={"user": "ann"})
            assert (await run.wait()).ok
    assert sink.log[0] == "open"
    assert sink.log.count("open") == 1
    assert ends(events) == [
        *["WorkflowStarted", "WorkflowFailed"] * 2,
        "WorkflowStarted",
        "WorkflowCompleted",
    ]
    assert running() == []


async def test_inputs_are_not_even_read_before_the_request_is_let_through() -> None:
    """Somebody who may not ask learns nothing of the ports there are."""
    async with runtime(middleware=[Auth()]) as rt:
        refused = await rt.execute(one(), {"nowhere": 1})
        assert isinstance(refused.cause, RefusedError)
        with pytest.raises(ValidationFailedError, match="nowhere"):
            await rt.execute(one(), {"nowhere": 1}, attributes={"user": "ann"})


async def test_wrong_inputs_are_seen_by_run_error_and_raise_as_ever() -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("a", log)]) as rt:
        with recorded(rt.events) as events, pytest.raises(ValidationFailedError, match="nowhere"):
            await rt.execute(one(), {"nowhere": 1})
    assert log == ["a.before", "a.wrap", "a.error ValidationFailedError"]
    assert ends(events) == []


# --- changing -----------------------------------------------------------------------------------------


async def test_before_run_may_change_inputs_and_add_attributes_that_nodes_see() -> None:
    seen: list[Any] = []

    class Tenant(Middleware):
        async def before_run(self, call: RunCall) -> RunCall:
            return call.with_inputs({"value": call.inputs["value"] * 10}).with_attributes(tenant="t1")

        def before_node(self, call: Any) -> None:
            seen.append(dict(call.attributes))

    async with runtime(middleware=[Tenant()]) as rt:
        result = await rt.execute(one(), {"value": 1}, attributes={"user": "ann"})
    assert result.outputs["it"]["out"] == 10
    assert seen == [{"user": "ann", "tenant": "t1"}]


@virtual
async def test_attributes_before_run_adds_reach_the_nodes_of_a_continuous_run() -> None:
    seen: list[Any] = []

    class Tenant(Middleware):
        def before_run(self, call: RunCall) -> RunCall:
            return call.with_attributes(tenant="t1")

        def before_node(self, call: Any) -> None:
            seen.append(dict(call.attributes))

    async with runtime(middleware=[Tenant()]) as rt:
        run = await rt.start(streaming(kept()), sources={"s": Script([[1]])}, attributes={"user": "ann"})
        await run.wait()
    assert seen == [{"user": "ann", "tenant": "t1"}]


async def test_after_run_may_take_something_out_of_what_the_caller_sees() -> None:
    class Redact(Middleware):
        def after_run(self, call: RunCall, result: RunOutcome) -> RunOutcome:
            return result.with_outputs({node_id: {"out": "***"} for node_id in result.outputs})

    async with runtime(middleware=[Redact()]) as rt:
        result = await rt.execute(one(), {"value": "secret"})
    assert result.ok
    assert result.outputs == {"it": {"out": "***"}}


async def test_wrap_run_may_answer_with_an_earlier_result_under_the_requests_own_id() -> None:
    class Cache(Middleware):
        def __init__(self) -> None:
            self.results: dict[str, RunOutcome] = {}

        async def wrap_run(self, call: RunCall, proceed: ProceedRun) -> RunOutcome:
            key = repr(call.inputs)
            if key not in self.results:
                self.results[key] = await proceed(call)
            return self.results[key]

    calls: list[Any] = []

    @node("mwr.counted")
    def counted(value: Any) -> Any:
        calls.append(value)
        return value

    wf = one(counted)
    async with runtime(middleware=[Cache()]) as rt:
        with recorded(rt.events) as events:
            first = await rt.execute(wf, {"value": 1})
            second = await rt.execute(wf, {"value": 1})
    assert calls == [1]
    assert first.outputs == second.outputs == {"it": {"out": 1}}
    assert first.execution_id != second.execution_id
    assert ends(events) == ["WorkflowStarted", "WorkflowCompleted"] * 2
    assert [event.execution_id for event in events.of(WorkflowStarted)] == [
        first.execution_id,
        second.execution_id,
    ]


# --- truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["before_run", "after_run", "wrap_run"])
async def test_a_hook_that_raises_fails_the_request_is_named_and_hands_out_no_outputs(hook: str) -> None:
    class Broken(Middleware):
        pass

    def raising(*given: Any) -> Any:
        raise KeyError("lost")

    async def raising_later(*given: Any) -> Any:
        if hook == "wrap_run":
            await given[1](given[0])
        raise KeyError("lost")

    broken = Broken()
    setattr(broken, hook, raising_later if hook == "wrap_run" else raising)
    async with runtime(middleware=[broken]) as rt:
        with recorded(rt.events) as events:
            result = await rt.execute(one(), {"value": "secret"})
    assert result.state.name == "failed"
    assert isinstance(result.cause, MiddlewareError)
    assert f"middleware 'Broken' failed in {hook}" in str(result.cause)
    assert result.outputs == {}
    assert "secret" not in repr(result)
    assert result.outcomes["it"].state == ("cancelled" if hook == "before_run" else "completed")
    assert ends(events) == ["WorkflowStarted", "WorkflowFailed"]


@pytest.mark.parametrize("hook", ["after_run", "wrap_run"])
@virtual
async def test_a_hook_that_raises_after_a_continuous_run_fails_it(hook: str) -> None:
    class Broken(Middleware):
        pass

    async def raising(*given: Any) -> Any:
        if hook == "wrap_run":
            await given[1](given[0])
        raise KeyError("lost")

    broken = Broken()
    setattr(broken, hook, raising)
    sink = kept()
    async with runtime(middleware=[broken]) as rt:
        with recorded(rt.events) as events:
            run = await rt.start(streaming(sink), sources={"s": Script([[1, 2]])})
            result = await run.wait()
    assert sink.rows == [1, 2]
    assert result.records == 2
    assert result.state.name == run.state.name == "failed"
    assert isinstance(result.cause, MiddlewareError)
    assert ends(events) == ["WorkflowStarted", "WorkflowFailed"]


@pytest.mark.parametrize("thing", [fails, same])
async def test_no_hook_can_change_the_state_of_a_run(thing: Any) -> None:
    class Lies(Middleware):
        async def wrap_run(self, call: RunCall, proceed: ProceedRun) -> RunOutcome:
            result = await proceed(call)
            state = Completed() if not result.ok else None
            if state is None:
                return result
            return RunResult(workflow_id=result.workflow_id, execution_id=result.execution_id, state=state)

    async with runtime(middleware=[Lies()]) as rt:
        result = await rt.execute(one(thing), {"value": 1})
    assert result.ok is (thing is same)
    if thing is fails:
        assert isinstance(result.cause, MiddlewareError)
        assert "never the state" in str(result.cause)
        assert [str(error) for error in result.errors["it"]] == ["no 1"]


@pytest.mark.parametrize("answer", [7, "twice", "another run", "no result"])
async def test_an_answer_that_makes_no_sense_fails_the_request_and_says_what_to_return(answer: Any) -> None:
    class Wrong(Middleware):
        async def wrap_run(self, call: RunCall, proceed: ProceedRun) -> Any:
            if answer == "twice":
                await proceed(call)
                return await proceed(call)
            if answer == "another run":
                return await proceed(
                    RunCall(workflow=call.workflow, workflow_id="x", execution_id="x", mode="request")
                )
            return None if answer == "no result" else answer

    async with runtime(middleware=[Wrong()]) as rt:
        result = await rt.execute(one(), {"value": 1})
    assert isinstance(result.cause, MiddlewareError)
    cause: Any = result.cause
    while isinstance(cause, MiddlewareError):
        cause = cause.__cause__
    assert isinstance(cause, ContractError)


@virtual
async def test_a_continuous_run_has_no_result_without_proceeding() -> None:
    class Answers(Middleware):
        async def wrap_run(self, call: RunCall, proceed: ProceedRun) -> RunOutcome:
            return RunResult(workflow_id=call.workflow_id, execution_id=call.execution_id, state=Completed())

    async with runtime(middleware=[Answers()]) as rt:
        with pytest.raises(MiddlewareError, match="proceed, or raise RefusedError"):
            await rt.start(streaming(kept()), sources={"s": Script([[1]])})


@virtual
async def test_a_node_that_cannot_be_started_is_seen_by_run_error_and_raises_as_ever() -> None:
    class Unready(Node[Nothing, Value, Any], type="mwr.unready"):
        async def initialize(self, ctx: Any) -> None:
            raise OSError("no model file")

        async def execute(self, inputs: Value, ctx: Any) -> Any:
            return inputs.value

    log: list[str] = []
    async with runtime(middleware=[Told("a", log)]) as rt:
        with pytest.raises(NodeFailedError, match="no model file"):
            await rt.start(streaming(kept(), Unready), sources={"s": Script([[1]])})
        with pytest.raises(NodeFailedError, match="no model file"):
            await rt.execute(one(Unready), {"value": 1})
    assert log == ["a.before", "a.wrap", "a.error NodeFailedError"] * 2


# --- time and cancellation ----------------------------------------------------------------------------


class Slow(Middleware):
    def __init__(self, *, before: float = 0.0, after: float = 0.0) -> None:
        self._before, self._after = before, after

    async def before_run(self, call: RunCall) -> None:
        await asyncio.sleep(self._before)

    async def after_run(self, call: RunCall, result: RunOutcome) -> None:
        await asyncio.sleep(self._after)


@virtual
async def test_the_deadline_of_a_request_counts_the_hooks_before_it() -> None:
    async with runtime(middleware=[Slow(before=0.6)]) as rt:
        in_time = await rt.execute(one(later), {"value": 1}, timeout=timedelta(seconds=1))
        late = await rt.execute(one(forever), {"value": 1}, timeout=timedelta(seconds=1))
        assert now() == pytest.approx(1.6)
    assert in_time.ok
    assert isinstance(late.cause, RequestTimeoutError)


@virtual
async def test_a_hook_that_hangs_ends_with_the_deadline_and_one_behind_the_request_may_finish() -> None:
    async with runtime(middleware=[Slow(before=5)]) as rt:
        with recorded(rt.events) as events:
            result = await rt.execute(one(), {"value": 1}, timeout=timedelta(seconds=1))
        assert now() == 1.0
    assert isinstance(result.cause, RequestTimeoutError)
    assert "did not get past its middleware within 1.0 s" in str(result.cause)
    assert ends(events) == ["WorkflowStarted", "WorkflowFailed"]
    async with runtime(middleware=[Slow(after=5)]) as rt:
        result = await rt.execute(one(forever), {"value": 1}, timeout=timedelta(seconds=1))
        assert now() == 7.0
    assert isinstance(result.cause, RequestTimeoutError)


@pytest.mark.parametrize("where", ["before", "inside", "after"])
@virtual
async def test_cancelling_the_caller_passes_through_hooks_and_ends_the_request_once(where: str) -> None:
    log: list[str] = []
    slow = Slow(before=9.0 if where == "before" else 0, after=9.0 if where == "after" else 0)
    async with runtime(middleware=[Told("a", log), slow]) as rt:
        with recorded(rt.events) as events:
            thing = forever if where == "inside" else same
            work = asyncio.ensure_future(rt.execute(one(thing), {"value": 1}))
            await asyncio.sleep(1)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
    assert ends(events) == ["WorkflowStarted", "WorkflowCancelled"]
    assert events.of(WorkflowCancelled)[0].reason == "the caller was cancelled"
    assert not any("error" in line for line in log)


@pytest.mark.parametrize("where", ["before", "after"])
@virtual
async def test_cancelling_a_run_passes_through_its_hooks(where: str) -> None:
    sink = kept()
    slow = Slow(before=9.0 if where == "before" else 0, after=1.0 if where == "after" else 0)
    async with runtime(middleware=[slow]) as rt:
        with recorded(rt.events) as events:
            starting = asyncio.ensure_future(rt.start(streaming(sink, forever), sources={"s": Script([[1]])}))
            await asyncio.sleep(1)
            if where == "before":
                starting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await starting
            else:
                result = await (await starting).cancel("enough")
                assert result.state.name == "cancelled"
                assert now() == 2.0
    assert ends(events) == ["WorkflowStarted", "WorkflowCancelled"]


@pytest.mark.parametrize("where", ["before", "starting", "after"])
@virtual
async def test_a_run_whose_hook_or_start_hangs_is_cancelled_at_once(where: str) -> None:
    class Hangs(Node[Nothing, Value, Any], type="mwr.hangs"):
        async def initialize(self, ctx: Any) -> None:
            await asyncio.Event().wait()

        async def execute(self, inputs: Value, ctx: Any) -> Any:
            return inputs.value

    thing = Hangs if where == "starting" else same
    slow = Slow(before=1e9 if where == "before" else 0, after=1e9 if where == "after" else 0)
    async with runtime(middleware=[slow]) as rt:
        with recorded(rt.events) as events:
            starting = asyncio.ensure_future(rt.start(streaming(kept(), thing), sources={"s": Script([[1]])}))
            await asyncio.sleep(1)
            (run,) = rt._runs
            result = await run.cancel("enough")
            assert (result.state.name, now()) == ("cancelled", 1.0)
            if where == "after":
                assert await starting is run
                assert result.records == 1
            else:
                with pytest.raises(RuntimeClosedError, match="cancelled while it started: enough"):
                    await starting
    assert ends(events) == ["WorkflowStarted", "WorkflowCancelled"]
    assert events.of(WorkflowCancelled)[0].reason == "enough"


@virtual
async def test_a_run_is_drained_and_stopped_as_ever_inside_its_hooks() -> None:
    log: list[str] = []
    sink = kept()

    async def endless() -> None:
        await asyncio.Event().wait()

    async with runtime(middleware=[Told("a", log)]) as rt:
        run = await rt.start(streaming(sink), sources={"s": Script([[1, 2], endless])})
        await asyncio.sleep(1)
        result = await run.stop()
    assert result.ok
    assert sink.rows == [1, 2]
    assert log[-1] == "a.after completed"
