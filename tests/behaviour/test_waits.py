"""Requests that wait for an answer: stored, put down, taken up again; no call is made twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from flowcore import (
    Batch,
    BatchContext,
    DeadLetterPlace,
    Gather,
    Middleware,
    NodeContext,
    RunCall,
    RunOutcome,
    Settings,
    WaitExpiredError,
    WaitRequest,
    Workflow,
    node,
)
from flowcore.errors import ContractError, DefinitionError, RunFailedError, ValidationFailedError
from flowcore.middleware import NodeCall
from flowcore.states import Paused, Running
from flowcore.store_errors import (
    AlreadyStoredError,
    AmbiguousWaitError,
    ExecutionBusyError,
    ExecutionEndedError,
    NotStoredError,
    StoreUnavailableError,
    WaitClosedError,
)
from flowruntime.durable import owner
from flowruntime.runtime import FlowRuntime
from flowruntime.state.store.entries import WaitFilter
from flowruntime.state.store.memory import MemoryStore
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import graveyard, kept, now, runtime, virtual

CALLS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    CALLS.clear()


class Price(msgspec.Struct):
    """A value of a node's own type."""

    net: int


@node("wt.plus")
def plus(value: int) -> int:
    CALLS["plus"] += 1
    return value + 1


@node("wt.price")
def price(value: int) -> Price:
    CALLS["price"] += 1
    return Price(value)


@node("wt.shown")
async def shown(price: Price) -> str:
    CALLS["shown"] += 1
    return f"{price.net} net"


@node("wt.ask", waits=True)
async def ask(value: Any, ctx: NodeContext, *, title: str = "go on?") -> Any:
    CALLS["ask"] += 1
    answer = await ctx.wait(WaitRequest(kind="form", title=title))
    return [value, answer]


@node("wt.parts")
def parts(value: int) -> Iterator[int]:
    CALLS["parts"] += 1
    yield from range(value)


@node("wt.drip")
async def drip(value: int) -> AsyncIterator[int]:
    CALLS["drip"] += 1
    for number in range(value):
        await asyncio.sleep(1)
        yield number


@node("wt.total", kind="collect")
def total(items: list[Any]) -> list[Any]:
    CALLS["total"] += 1
    return items


@node("wt.batched", batch=Batch(max_items=10))
async def batched(values: list[int], ctx: BatchContext) -> list[int]:
    CALLS["batched"] += len(values)
    return [value * 10 for value in values]


@node("wt.both")
def both(left: Any, right: Any) -> list[Any]:
    CALLS["both"] += 1
    return [left, right]


@node("wt.odd", kind="filter")
def odd(value: int) -> bool:
    CALLS["odd"] += 1
    return value % 2 == 1


@node("wt.fails")
def fails(value: Any) -> Any:
    CALLS["fails"] += 1
    raise KeyError(f"no {value}")


def asking(*before: Any, after: tuple[Any, ...] = ()) -> Workflow:
    wf = Workflow("asking")
    wf.chain(*(wf.add(each) for each in (*before, ask, *after)))
    return wf


# --- pausing and going on -------------------------------------------------------------------------------


@virtual
async def test_a_request_that_waits_is_paused_and_goes_on_with_the_answer() -> None:
    wf = asking(plus, after=(shown_list,))
    async with runtime() as rt:
        paused = await rt.execute(wf, {"plus": {"value": 1}}, execution_id="order-7")
        assert (paused.state.name, paused.execution_id, paused.ok) == ("paused", "order-7", False)
        (wait,) = paused.waits
        assert (wait.node, wait.wait_kind, wait.title, wait.expires_at) == ("ask", "form", "go on?", None)
        outcomes = {node: (found.state, found.cause) for node, found in paused.outcomes.items()}
        assert outcomes == {
            "plus": ("completed", None),
            "ask": ("waiting", None),
            "shown_list": ("skipped", "ask"),
        }
        with pytest.raises(RunFailedError, match="resume execution 'order-7'"):
            paused.raise_for_state()
        done = await rt.resume("order-7", "yes", by="ann")
        assert done.raise_for_state().outputs["shown_list"] == {"out": "[2, 'yes']"}
        assert done.execution_id == "order-7"
        kept = await rt.store.waits.get(wait.id)
        assert (kept.state, kept.answer, kept.answered_by) == ("answered", "yes", "ann")
        stored = await rt.store.executions.get("order-7")
        assert stored.state.name == "completed"
        assert stored.result["outputs"]["shown_list"] == {"out": "[2, 'yes']"}
    assert CALLS == {"plus": 1, "ask": 2, "shown_list": 1}


@node("wt.shown_list")
def shown_list(value: Any) -> str:
    CALLS["shown_list"] += 1
    return repr(value)


@virtual
async def test_one_end_per_pass_and_the_same_execution_behind_it() -> None:
    wf = asking(plus)
    async with runtime() as rt:
        with recorded(rt.events) as seen:
            paused = await rt.execute(wf, {"plus": {"value": 1}})
            await asyncio.sleep(60)
            await rt.resume(paused.execution_id, 5)
    told = [(type(event).__name__, getattr(event, "node", None)) for event in seen.events]
    assert told == [
        ("WorkflowStarted", None),
        ("NodeStarted", "plus"),
        ("NodeCompleted", "plus"),
        ("NodeStarted", "ask"),
        ("WorkflowPaused", None),
        ("WorkflowResumed", None),
        ("NodeStarted", "ask"),
        ("NodeCompleted", "ask"),
        ("WorkflowCompleted", None),
    ]
    assert {getattr(event, "execution_id", None) for event in seen.events} == {paused.execution_id}
    by_name: dict[str, Any] = {type(event).__name__: event for event in seen.events}
    assert by_name["WorkflowPaused"].waits == tuple(paused.waits)
    assert by_name["WorkflowResumed"].paused_s == 60


@virtual
async def test_every_kind_of_node_is_called_once_per_row() -> None:
    """Plain, awaiting, batched, expanding, collecting, filtering nodes, joins: behind and beside the wait."""
    wf = Workflow("kinds")
    first, pieces = wf.add(plus, id="first"), wf.add(parts)
    wf.chain(first, pieces)
    kept, tens, asked = wf.add(odd), wf.add(batched), wf.add(ask)
    wf.chain(pieces, kept, tens, asked)
    beside = wf.add(price)
    wf.chain(first, beside)
    text, all_of = wf.add(shown), wf.add(total)
    wf.chain(beside, text)
    wf.chain(asked, all_of)
    join = wf.add(both)
    wf.connect(all_of, join["left"])
    wf.connect(text, join["right"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"value": 5}})
        assert [wait.path for wait in result.waits] == ["1", "3", "5"]
        left = result
        for number, wait in enumerate(result.waits):
            left = await rt.resume(result.execution_id, number, wait=wait.id)
            assert len(left.waits) == 2 - number
        assert left.raise_for_state().outputs["both"] == {"out": [[[10, 0], [30, 1], [50, 2]], "6 net"]}
    assert CALLS == {
        "plus": 1, "parts": 1, "odd": 6, "batched": 3, "price": 1, "shown": 1, "total": 1, "both": 1,
        "ask": 3 + 3 + 2 + 1,
    }  # fmt: skip


@virtual
async def test_children_of_an_asynchronous_generator_wait_each_by_itself() -> None:
    wf = asking(drip, after=(total,))
    async with runtime() as rt:
        result = await rt.execute(wf, {"drip": {"value": 2}})
        second = await rt.resume(result.execution_id, "b", wait=result.waits[1].id)
        assert second.state.name == "paused"
        done = await rt.resume(result.execution_id, "a")
    assert done.outputs["total"] == {"out": [[0, "a"], [1, "b"]]}
    assert (CALLS["drip"], CALLS["total"]) == (1, 1)


@virtual
async def test_a_node_may_ask_several_times() -> None:
    @node("wt.twice", waits=True)
    async def twice(value: int, ctx: NodeContext) -> list[Any]:
        return [await ctx.wait(WaitRequest(kind="form", title=title)) for title in ("one", "two")]

    wf = Workflow("twice")
    wf.add(twice, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}})
        assert [wait.title for wait in result.waits] == ["one"]
        result = await rt.resume(result.execution_id, 1)
        assert [wait.title for wait in result.waits] == ["two"]
        assert (await rt.resume(result.execution_id, 2)).outputs["n"] == {"out": [1, 2]}


@virtual
async def test_several_asked_at_once_are_all_open() -> None:
    @node("wt.group", waits=True)
    async def group(value: int, ctx: NodeContext) -> list[Any]:
        async def one(title: str) -> Any:
            return await ctx.wait(WaitRequest(kind="form", title=title))

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(one(title)) for title in "ab"]
        return [task.result() for task in asked]

    wf = Workflow("group")
    wf.add(group, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}})
        assert sorted(wait.title for wait in result.waits) == ["a", "b"]
        with pytest.raises(AmbiguousWaitError, match="2 answers"):
            await rt.resume(result.execution_id, 1)
        ids = {wait.title: wait.id for wait in result.waits}
        await rt.resume(result.execution_id, "A", wait=ids["a"])
        done = await rt.resume(result.execution_id, "B", wait=ids["b"])
    assert done.outputs["n"] == {"out": ["A", "B"]}


@virtual
async def test_what_nodes_share_survives_the_wait() -> None:
    @node("wt.put")
    async def put(value: int, ctx: NodeContext) -> int:
        ctx.state.data["seen"] = [value]
        return value

    @node("wt.get")
    async def get(value: Any, ctx: NodeContext) -> Any:
        return ctx.state.data["seen"]

    wf = Workflow("shared")
    wf.chain(wf.add(put, id="put"), wf.add(ask, id="ask"), wf.add(get, id="get"))
    async with runtime() as rt:
        result = await rt.execute(wf, {"put": {"value": 3}})
        assert (await rt.resume(result.execution_id, 0)).outputs["get"] == {"out": [3]}


@virtual
async def test_a_call_that_waits_runs_its_clean_up_and_holds_no_permit() -> None:
    cleaned: list[str] = []

    @node("wt.tidy", waits=True, concurrency=1)
    async def tidy(value: int, ctx: NodeContext) -> Any:
        try:
            return await ctx.wait(WaitRequest(kind="signal"))
        except Exception:  # noqa: BLE001 - what users write; it must not catch the end of the call
            return "caught"
        finally:
            cleaned.append("tidy")

    wf = Workflow("tidy")
    wf.add(tidy, id="n")
    async with runtime() as rt:
        results = [await rt.execute(wf, {"n": {"value": number}}) for number in range(3)]
        assert [result.state.name for result in results] == ["paused"] * 3
        assert cleaned == ["tidy"] * 3
        limits: Any = rt.statistics()["workflows"][0]["limits"]
        assert limits["node:n"]["in_use"] == 0
        assert (await rt.resume(results[1].execution_id, None)).outputs["n"] == {"out": None}


@virtual
async def test_a_node_that_keeps_the_end_of_its_call_fails() -> None:
    @node("wt.greedy", waits=True)
    async def greedy(value: int, ctx: NodeContext) -> str:
        try:
            await ctx.wait(WaitRequest(kind="signal"))
        except BaseException:  # noqa: BLE001 - what is wrong here
            return "went on"
        return "answered"

    wf = Workflow("greedy")
    wf.add(greedy, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}})
    assert result.state.name == "failed"
    assert isinstance(result.cause, ContractError)
    assert "catch Exception there" in str(result.cause)


# --- failures -------------------------------------------------------------------------------------------


@virtual
async def test_a_row_that_failed_stays_failed_and_its_error_port_had_it_once() -> None:
    @node("wt.note")
    def note(failed: dict[str, Any]) -> str:
        CALLS["note"] += 1
        return failed["error"]["message"]

    wf = Workflow("failed")
    first = wf.add(plus, id="first")
    broken, noted, asked = wf.add(fails, id="broken"), wf.add(note), wf.add(ask)
    wf.chain(first, broken)
    wf.connect(broken["error"], noted["failed"])
    wf.chain(first, asked)
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"value": 1}})
        assert result.outcomes["note"].state == "completed"
        done = await rt.resume(result.execution_id, "a")
    assert (done.state.name, done.handled) == ("partial", True)
    assert done.outputs["note"] == {"out": "'no 2'"}
    assert str(done.errors["broken"][0]) == "'no 2'"
    assert (CALLS["fails"], CALLS["note"]) == (1, 1)


@virtual
async def test_what_waits_is_no_failure_for_an_error_port() -> None:
    wf = Workflow("port")
    asked, rescue = wf.add(ask), wf.add(shown_list, id="rescue")
    wf.connect(asked["error"], rescue["value"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"ask": {"value": 1}})
        assert result.outcomes["rescue"].state == "skipped"
        assert (await rt.resume(result.execution_id, 2)).outcomes["rescue"].state == "skipped"
    assert CALLS["shown_list"] == 0


@virtual
async def test_a_failure_that_stops_the_workflow_leaves_nothing_open() -> None:
    wf = Workflow("stopped")
    first = wf.add(plus)
    wf.chain(first, wf.add(ask))
    wf.chain(first, wf.add(fails))
    async with runtime() as rt:
        result = await rt.execute(wf, {"plus": {"value": 1}})
        assert (result.state.name, result.waits) == ("failed", [])
        assert (await rt.store.waits.list(WaitFilter())).items == ()
        with pytest.raises(ExecutionEndedError, match="is failed since"):
            await rt.resume(result.execution_id, 1)


@virtual
async def test_a_value_that_cannot_be_kept_fails_its_row_with_the_place() -> None:
    @node("wt.odd_value")
    def odd_value(value: int) -> Any:
        return {"it": object()}

    async with runtime() as rt:
        result = await rt.execute(asking(odd_value), {"odd_value": {"value": 1}})
    assert result.state.name == "failed"
    assert "value at it is a object" in str(result.cause)


# --- answers --------------------------------------------------------------------------------------------


@virtual
async def test_a_wrong_answer_is_refused_with_what_is_wrong_and_the_wait_stays_open() -> None:
    schema = {"type": "object", "required": ["days"], "properties": {"days": {"type": "integer"}}}
    wf = Workflow("form")
    wf.add("control.wait_for", id="form", config={"kind": "form", "schema": schema})
    async with runtime() as rt:
        result = await rt.execute(wf, {"form": {"value": 1}})
        for wrong in ({}, {"days": "3"}, [3]):
            with pytest.raises(ValidationFailedError, match="answer"):
                await rt.resume(result.execution_id, wrong)
        done = await rt.resume(result.execution_id, {"days": 3})
    assert done.outputs["form"] == {"value": {"days": 3}, "original": 1}


@virtual
async def test_an_approval_goes_one_of_two_ways() -> None:
    wf = Workflow("approval")
    asked = wf.add("control.wait_for", id="asked", config={"title": "Pay {total} EUR?"})
    wf.connect(asked["approved"], wf.add(shown_list, id="pay")["value"])
    wf.connect(asked["rejected"], wf.add(shown_list, id="refuse")["value"])
    async with runtime() as rt:
        for answer, taken in (
            (True, "pay"),
            (False, "refuse"),
            ({"approved": True, "note": "ok"}, "pay"),
            ({"approved": False}, "refuse"),
        ):
            result = await rt.execute(wf, {"asked": {"value": {"total": 12}}})
            assert result.waits[0].title == "Pay 12 EUR?"
            with pytest.raises(ValidationFailedError, match="fits none of 2 forms"):
                await rt.resume(result.execution_id, "yes")
            done = (await rt.resume(result.execution_id, answer)).raise_for_state()
            assert [name for name in ("pay", "refuse") if name in done.outputs] == [taken]
            assert done.outputs["asked"]["value"] == answer


@virtual
async def test_of_two_answers_at_once_one_is_taken() -> None:
    async with runtime() as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
        given = await asyncio.gather(
            *(rt.resume(result.execution_id, answer) for answer in "abc"), return_exceptions=True
        )
    taken = [each for each in given if not isinstance(each, BaseException)]
    assert len(taken) == 1
    assert all(isinstance(each, WaitClosedError) for each in given if each not in taken)
    assert taken[0].outputs["ask"]["out"][1] in "abc"
    assert CALLS == {"plus": 1, "ask": 2}


@virtual
async def test_answers_to_several_waits_may_come_at_once() -> None:
    wf = asking(parts, after=(total,))
    async with runtime() as rt:
        result = await rt.execute(wf, {"parts": {"value": 3}})
        ends = await asyncio.gather(
            *(rt.resume(result.execution_id, wait.path, wait=wait.id) for wait in result.waits)
        )
        assert ends[-1].state.name == "completed"
        stored = await rt.store.executions.get(result.execution_id)
    assert stored.result["outputs"]["total"] == {"out": [[0, "0"], [1, "1"], [2, "2"]]}
    assert CALLS["total"] == 1


@virtual
async def test_what_is_asked_of_nothing_or_of_what_has_ended_is_refused() -> None:
    async with runtime() as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
        with pytest.raises(NotStoredError, match="no wait 'other'"):
            await rt.resume(result.execution_id, 1, wait="other")
        with pytest.raises(NotStoredError):
            await rt.resume("nobody", 1)
        with pytest.raises(ContractError, match="no answer given"):
            await rt.resume(result.execution_id, wait=result.waits[0].id)
        again = await rt.resume(result.execution_id)
        assert (again.state.name, again.waits) == ("paused", result.waits)
        await rt.resume(result.execution_id, 1)
        with pytest.raises(ExecutionEndedError):
            await rt.resume(result.execution_id, 2)
        with pytest.raises(AlreadyStoredError):
            await rt.execute(asking(plus), {"plus": {"value": 1}}, execution_id=result.execution_id)


# --- time -----------------------------------------------------------------------------------------------


def timed(**config: Any) -> Workflow:
    wf = Workflow("timed")
    asked = wf.add("control.wait_for", id="asked", config={"kind": "form", "timeout": "1h", **config})
    wf.connect(asked["value"], wf.add(shown_list, id="then")["value"])
    return wf


async def _after(rt: FlowRuntime, wf: Workflow, seconds: float) -> Any:
    result = await rt.execute(wf, {"asked": {"value": 1}})
    assert result.waits[0].expires_at == now() + 3600
    await asyncio.sleep(seconds)
    return await rt.store.executions.get(result.execution_id)


@virtual
async def test_a_runtime_notes_that_time_is_up_by_itself() -> None:
    async with runtime() as rt:
        assert (await _after(rt, timed(), 3599)).state.name == "paused"
        failed = await _after(rt, timed(), 3601)
        assert failed.state.name == "failed"
        assert failed.state.error["kind"] == "WaitExpiredError"
        taken = await _after(rt, timed(on_timeout="answer", default=7), 3601)
        assert (taken.state.name, taken.result["outputs"]["then"]) == ("completed", {"out": "7"})
        cancelled = await _after(rt, timed(on_timeout="cancel"), 3601)
        assert cancelled.state.name == "cancelled"
        assert "in time" in cancelled.state.reason
        assert issubclass(WaitExpiredError, TimeoutError)


@virtual
async def test_an_answer_after_the_time_is_not_taken() -> None:
    store = MemoryStore()
    async with runtime(store=store) as rt:
        result = await rt.execute(timed(on_timeout="answer", default="none"), {"asked": {"value": 1}})
    await asyncio.sleep(3600)
    async with runtime(store=store) as rt:
        await rt.store.workflows.get("timed")
        with pytest.raises((WaitClosedError, ValidationFailedError)):
            await rt.resume(result.execution_id, "late")


@virtual
async def test_time_that_was_up_while_no_runtime_was_there_is_noted_by_the_next_one() -> None:
    store = MemoryStore()
    async with runtime(store=store, nodes=[shown_list]) as rt:
        await rt.execute(timed(on_timeout="answer", default=7), {"asked": {"value": 1}})
    await asyncio.sleep(7200)
    async with runtime(store=store, nodes=[shown_list]) as rt:
        (done,) = await rt.expire_waits()
        assert not isinstance(done, Exception)
        assert done.outputs["then"] == {"out": "7"}
        assert await rt.expire_waits() == []


@virtual
async def test_a_node_may_catch_that_nobody_answered() -> None:
    @node("wt.patient", waits=True)
    async def patient(value: int, ctx: NodeContext) -> str:
        try:
            return await ctx.wait(WaitRequest(kind="signal", timeout=timedelta(minutes=5)))
        except WaitExpiredError:
            return "nobody"

    wf = Workflow("patient")
    wf.add(patient, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}})
        await asyncio.sleep(301)
        stored = await rt.store.executions.get(result.execution_id)
    assert stored.result["outputs"]["n"] == {"out": "nobody"}


# --- restarts -------------------------------------------------------------------------------------------


@virtual
async def test_another_runtime_goes_on_where_its_nodes_are_known() -> None:
    store = MemoryStore()
    async with runtime(store=store) as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
    async with runtime(store=store) as rt:
        with pytest.raises(ValidationFailedError, match=r"wt\.plus"):
            await rt.resume(result.execution_id, "a")
        assert (await rt.store.waits.get(result.waits[0].id)).state == "open", "the answer was not taken"
    async with runtime(store=store, nodes=[plus, ask]) as rt:
        done = await rt.resume(result.execution_id, "a")
    assert done.outputs["ask"] == {"out": [2, "a"]}
    assert CALLS == {"plus": 1, "ask": 2}


@virtual
async def test_an_execution_goes_on_with_the_version_it_began_with() -> None:
    store = MemoryStore()
    async with runtime(store=store, nodes=[plus, ask, shown_list]) as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
        await rt.store.workflows.put(asking(after=(shown_list,)))
    async with runtime(store=store, nodes=[plus, ask, shown_list]) as rt:
        done = await rt.resume(result.execution_id, "a")
    assert set(done.outputs) == {"plus", "ask"}


@virtual
async def test_a_closed_runtime_puts_down_what_it_is_at_work_on() -> None:
    release = asyncio.Event()

    @node("wt.slow")
    async def slow(value: int) -> int:
        CALLS["slow"] += 1
        await release.wait()
        return value

    store = MemoryStore()
    wf = Workflow("slow")
    wf.chain(wf.add(plus), wf.add(slow), wf.add(ask))
    async with runtime(store=store) as rt:
        asked = asyncio.ensure_future(rt.execute(wf, {"plus": {"value": 1}}))
        await asyncio.sleep(1)
    closed = await asked
    assert (closed.state.name, closed.outcomes["slow"].state) == ("paused", "cancelled")
    release.set()
    async with runtime(store=store, nodes=[plus, slow, ask]) as rt:
        (again,) = await rt.expire_waits()
        assert not isinstance(again, Exception)
        assert [wait.node for wait in again.waits] == ["ask"]
    assert CALLS == {"plus": 1, "slow": 2, "ask": 1}


@virtual
async def test_an_answered_execution_goes_on_although_who_answered_listens_no_more() -> None:
    @node("wt.slowly")
    async def slowly(value: Any) -> Any:
        await asyncio.sleep(10)
        return value

    async with runtime() as rt:
        result = await rt.execute(asking(plus, after=(slowly,)), {"plus": {"value": 1}})
        answered = asyncio.ensure_future(rt.resume(result.execution_id, "a"))
        await asyncio.sleep(1)
        answered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answered
        await asyncio.sleep(10)
        stored = await rt.store.executions.get(result.execution_id)
        assert (stored.state.name, stored.result["outputs"]["slowly"]) == ("completed", {"out": [2, "a"]})


@virtual
async def test_a_pass_nobody_listens_to_is_put_down_when_the_runtime_is_closed() -> None:
    @node("wt.hours")
    async def hours(value: Any) -> Any:
        CALLS["hours"] += 1
        await asyncio.sleep(3600)
        return value

    store = MemoryStore()
    wf = asking(plus, after=(hours,))
    async with runtime(store=store) as rt:
        result = await rt.execute(wf, {"plus": {"value": 1}})
        answered = asyncio.ensure_future(rt.resume(result.execution_id, "a"))
        await asyncio.sleep(1)
    put_down = await answered
    assert put_down.state == Paused("the runtime was closed")
    async with runtime(store=store, nodes=[plus, ask, hours]) as rt:
        (done,) = await rt.expire_waits()
        assert not isinstance(done, Exception)
        assert done.outputs["hours"] == {"out": [2, "a"]}
    assert CALLS == {"plus": 1, "ask": 2, "hours": 2}


@virtual
async def test_an_execution_whose_owner_is_gone_is_taken_over_and_no_other() -> None:
    store = MemoryStore()
    async with runtime(store=store) as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
    head = await store.executions.get(result.execution_id)
    foreign = "elsewhere - - 1@1 0"
    held = await store.executions.step(head, Running(), at=now(), by=foreign)
    async with runtime(store=store, nodes=[plus, ask]) as rt:
        began = now()
        with pytest.raises(ExecutionBusyError, match="not known to be gone"):
            await rt.resume(result.execution_id, "a")
        assert now() - began >= 5
        assert await rt.expire_waits() == []
        assert (await store.waits.get(result.waits[0].id)).answer == "a", "the answer is kept"
        done = await rt.resume(result.execution_id, take_over=True)
        assert done.outputs["ask"] == {"out": [2, "a"]}
    assert (await store.executions.get(result.execution_id)).revision > held.revision


def test_only_an_owner_that_has_ended_is_gone() -> None:
    mine = owner.begin_attempt()
    assert not owner.is_gone(mine)
    owner.end_attempt(mine)
    assert owner.is_gone(mine)
    host, boot, namespace, _, token = mine.split(" ")
    assert owner.is_gone(f"{host} {boot} {namespace} 999999999@1 {token}")
    assert owner.is_gone(f"{host} {boot} {namespace} 1@7 {token}"), "the number was given out again"
    assert owner.is_gone(f"{host} other-boot {namespace} 1@7 {token}")
    assert not owner.is_gone(f"{host} {boot} other 999999999@1 {token}")
    assert not owner.is_gone(f"other {boot} {namespace} 999999999@1 {token}")


@virtual
async def test_stand_ins_have_to_be_given_again_elsewhere() -> None:
    store = MemoryStore()

    def tens(value: int) -> int:
        return value * 10

    wf = asking(plus)
    async with runtime(store=store, nodes=[plus, ask]) as rt:
        result = await rt.execute(wf, {"plus": {"value": 2}}, replace={"plus": tens})
        assert (await rt.execute(wf, {"plus": {"value": 2}})).state.name == "paused"
    async with runtime(store=store, nodes=[plus, ask]) as rt:
        with pytest.raises(ValidationFailedError, match="was replaced when the execution began"):
            await rt.resume(result.execution_id, "a")
        done = await rt.resume(result.execution_id, "a", replace={"plus": tens})
    assert done.outputs["ask"] == {"out": [20, "a"]}


@virtual
async def test_a_store_that_goes_away_fails_the_request_and_loses_nothing() -> None:
    store = MemoryStore()
    put = store.journal.put
    gone = [False]

    async def maybe(entries: Any) -> None:
        if gone[0]:
            raise StoreUnavailableError("away")
        await put(entries)

    store.journal.put = maybe

    @node("wt.unplug")
    def unplug(value: int) -> int:
        CALLS["unplug"] += 1
        gone[0] = CALLS["unplug"] == 1
        return value

    wf = Workflow("away")
    wf.chain(wf.add(plus), wf.add(unplug), wf.add(ask))
    async with runtime(store=store, nodes=[plus, unplug, ask]) as rt:
        result = await rt.execute(wf, {"plus": {"value": 1}})
        assert (result.state.name, type(result.cause)) == ("failed", StoreUnavailableError)
        assert now() == pytest.approx(2.6), "it was asked again for a while"
        gone[0] = False
        (again,) = await rt.expire_waits()
        assert not isinstance(again, Exception)
        assert [wait.node for wait in again.waits] == ["ask"]
    assert CALLS == {"plus": 1, "unplug": 2, "ask": 1}


# --- what may wait, and where ---------------------------------------------------------------------------


@virtual
async def test_only_nodes_that_say_so_may_wait() -> None:
    @node("wt.unsaid")
    async def unsaid(value: int, ctx: NodeContext) -> Any:
        return await ctx.wait(WaitRequest(kind="signal"))

    wf = Workflow("unsaid")
    wf.add(unsaid, id="n")
    async with runtime() as rt:
        result = await rt.execute(wf, {"n": {"value": 1}})
    assert "declare it with waits=True" in str(result.cause)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (lambda: node("wt.w1", waits=True)(_plain), "is no coroutine"),
        (lambda: node("wt.w2", waits=True)(_contextless), "takes no NodeContext"),
        (lambda: node("wt.w3", waits=True)(_dripping), "is of kind 'expand'"),
        (lambda: node("wt.w4", waits=True, batch=Batch(max_items=2))(_batch), "works on batches"),
    ],
)
def test_what_could_not_wait_is_refused(declared: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        declared()


def _plain(value: int, ctx: NodeContext) -> int:
    return value


async def _contextless(value: int) -> int:
    return value


async def _dripping(value: int, ctx: NodeContext) -> AsyncIterator[int]:
    yield value


async def _batch(values: list[int], ctx: BatchContext) -> list[int]:
    return values


@virtual
async def test_nodes_without_lineage_refuse_what_waits() -> None:
    mixed = Workflow("mixed")
    mixed.chain(mixed.add(plus), mixed.add("control.batch", batch={"max_items": 2}), mixed.add(ask))
    again = Workflow("again", settings={"on_error": "retry_workflow"})
    again.chain(again.add(plus), again.add(ask))
    async with runtime() as rt:
        with pytest.raises(ValidationFailedError, match="cannot be told apart"):
            await rt.execute(mixed, {"plus": {"value": 1}})
        with pytest.raises(ValidationFailedError, match="through the whole workflow again"):
            await rt.execute(again, {"plus": {"value": 1}})


@virtual
async def test_a_workflow_in_which_nothing_waits_stores_nothing() -> None:
    wf = Workflow("plain")
    wf.add(plus)
    async with runtime() as rt:
        await rt.execute(wf, {"plus": {"value": 1}}, execution_id="mine")
        assert rt._store is None


@virtual
async def test_middleware_sees_each_call_once() -> None:
    seen: list[str] = []

    class Watch(Middleware):
        def before_node(self, call: NodeCall) -> None:
            seen.append(call.node.id)

        def after_node(self, call: NodeCall, output: Any) -> None:
            seen.append(f"-{call.node.id}")

    async with runtime(middleware=[Watch()]) as rt:
        result = await rt.execute(asking(plus), {"plus": {"value": 1}})
        assert (await rt.resume(result.execution_id, "a")).ok
    assert seen == ["plus", "-plus", "ask", "ask", "-ask"]


@virtual
async def test_branches_that_meet_again_are_told_apart() -> None:
    """Two connections give one node the same row twice: each is a call of its own."""
    wf = Workflow("meet")
    first, left, right = wf.add(plus, id="first"), wf.add(plus, id="left"), wf.add(plus, id="right")
    wf.chain(first, left)
    wf.chain(first, right)
    asked = wf.add(ask)
    wf.connect(left, asked["value"])
    wf.connect(right, asked["value"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"value": 1}})
        assert [wait.path for wait in result.waits] == ["0", "1"]
        await rt.resume(result.execution_id, "r", wait=result.waits[1].id)
        done = await rt.resume(result.execution_id, "l")
    assert sorted(done.outputs["ask"]["out"]) == [[3, "l"], [3, "r"]]
    assert CALLS["plus"] == 3


@virtual
async def test_gathered_values_wait_for_all_of_them() -> None:
    @node("wt.sum")
    def summed(values: Gather[Any]) -> list[Any]:
        return list(values)

    wf = Workflow("gathered")
    first = wf.add(plus, id="first")
    asked, other, end = wf.add(ask), wf.add(plus, id="other"), wf.add(summed, id="end")
    wf.chain(first, asked)
    wf.chain(first, other)
    wf.connect(asked, end["values"])
    wf.connect(other, end["values"])
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": {"value": 1}})
        assert result.outcomes["end"].state == "skipped"
        assert (await rt.resume(result.execution_id, 9)).outputs["end"] == {"out": [[2, 9], 3]}


@virtual
async def test_sinks_and_dead_letters_are_written_once() -> None:
    letters = CollectedLetters()
    sink = kept(name="test.out")
    settings = Settings(on_error="dead_letter", dead_letter=DeadLetterPlace(type="test.graveyard"))
    wf = Workflow("letters", settings=settings)
    first = wf.add("memory.source", id="first", config={"values": [1]})
    wf.chain(first, wf.add(fails))
    asked, out = wf.add(ask), wf.add("test.out", id="out")
    wf.chain(first, out)
    wf.chain(first, asked, out)
    async with runtime(nodes=[graveyard(letters), sink]) as rt:
        result = await rt.execute(wf, {"first": 1}, write=True)
        assert (result.state.name, sink.rows, len(letters.letters)) == ("paused", [1], 1), result
        assert result.dead_letters == 1
        done = await rt.resume(result.execution_id, "a")
    assert (done.state.name, done.handled, done.dead_letters) == ("partial", True, 1)
    assert done.letters == result.letters
    assert sink.rows == [1, [1, "a"]]
    assert len(letters.letters) == 1
    assert done.outcomes["out"].rows == 2
    assert CALLS == {"fails": 1, "ask": 2}


@virtual
async def test_captured_sinks_show_all_rows_at_the_end() -> None:
    wf = Workflow("captured")
    first = wf.add("memory.source", id="first", config={"values": [1]})
    out = wf.add("memory.sink", id="out")
    wf.chain(first, out)
    wf.chain(first, wf.add(ask), out)
    async with runtime() as rt:
        result = await rt.execute(wf, {"first": 1})
        assert result.captured == {"out": [1]}
        assert (await rt.resume(result.execution_id, "a")).captured == {"out": [1, [1, "a"]]}


@virtual
async def test_hooks_around_requests_stand_around_each_pass() -> None:
    seen: list[str] = []

    class Hide(Middleware):
        async def before_run(self, call: RunCall) -> None:
            seen.append(f"{call.mode} {call.execution_id} {call.attributes['who']} {call.inputs}")

        async def after_run(self, call: RunCall, outcome: RunOutcome) -> None:
            seen.append(outcome.state.name)

    async with runtime(middleware=[Hide()]) as rt:
        with recorded(rt.events) as events:
            result = await rt.execute(
                asking(plus), {"plus": {"value": 1}}, attributes={"who": "ann"}, execution_id="e"
            )
            assert [wait.node for wait in result.waits] == ["ask"]
            assert (await rt.resume("e", "a")).ok
    told = [type(event).__name__ for event in events.events if type(event).__name__.startswith("Workflow")]
    assert told == ["WorkflowStarted", "WorkflowPaused", "WorkflowResumed", "WorkflowCompleted"]
    begun = "request e ann {'plus': {'value': 1}}"
    assert seen == [begun, "paused", begun, "completed"]
