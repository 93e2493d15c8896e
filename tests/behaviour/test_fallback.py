"""A row that failed goes on with the node's fallback: told truthfully, once, whatever kind of node it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest

from flowcore import Batch, Breaker, Fallback, NodeFailed, RetryPolicy, Workflow, node
from flowcore.errors import CircuitOpenError, NodeTimeoutError
from flowcore.node import Outputs
from flowcore.states import Failed, Partial
from flowruntime.execute.result import RunResult
from flowruntime.testing.recorder import recorded
from flowruntime.testing.running import WorkflowRun, run_workflow
from flowruntime.testing.virtual import run_virtual
from tests.behaviour.harness import runtime


class OddError(ValueError):
    """What the nodes below raise."""


def even(value: int) -> int:
    if value % 2:
        raise OddError(f"{value} is odd")
    return value


@node("fall.plain")
def plain(value: int) -> int:
    return even(value)


@node("fall.slow")
async def slow(value: int) -> int:
    await asyncio.sleep(value % 3)
    return even(value)


@node("fall.batched", batch=Batch(max_items=2))
async def batched(values: Sequence[int]) -> list[Any]:
    return [OddError("odd") if value % 2 else value for value in values]


@node("fall.thread", offload="thread")
def thread(value: int) -> int:
    return even(value)


@node("fall.add")
def add(value: int) -> int:
    return value + 1


@node("fall.mark")
def mark(value: dict[str, Any]) -> dict[str, Any]:
    """Changes what it is given, as a careless node may."""
    value["seen"] = value.get("seen", 0) + 1
    return value


def line(first: Any, fallback: object = 100, **policies: Any) -> Workflow:
    wf = Workflow("line")
    wf.chain(wf.add(first, id="n", on_error={"fallback": fallback}, **policies), wf.add(add, id="then"))
    return wf


def ran(wf: Workflow, items: Sequence[Any]) -> WorkflowRun:
    return run_virtual(run_workflow(wf, items))


@pytest.mark.parametrize("kind", [plain, slow, batched, thread])
def test_the_row_goes_on_with_the_value_and_the_failure_is_told(kind: Any) -> None:
    run = ran(line(kind), [1, 2, 3, 4, 6])
    assert run.written == [101, 3, 101, 5, 7]
    result, counts = run.result, run.result.counts["n"]
    assert isinstance(result.state, Partial)
    assert result.handled
    assert not result.ok
    assert (counts.completed, counts.failed, counts.handled, counts.replaced) == (3, 2, 2, 2)
    assert result.counts["then"].completed == 5
    assert [type(error) for error in result.errors["n"]] == [OddError, OddError]
    failed = run.events.of(NodeFailed)
    assert [(event.node, event.then) for event in failed] == [("n", "fallback")] * 2


@pytest.mark.parametrize("kind", [plain, slow, batched, thread])
def test_a_request_shows_the_value_as_output_of_a_failed_node(kind: Any) -> None:
    async def main() -> RunResult:
        async with runtime() as rt:
            return await rt.execute(line(kind), {"n": {port_of(kind): 1}})

    result = run_virtual(main())
    assert (result.state.name, result.ok, result.handled) == ("partial", False, True)
    assert result.outputs == {"n": {"out": 100}, "then": {"out": 101}}
    outcome = result.outcomes["n"]
    assert (outcome.state, outcome.rows, outcome.failed, outcome.replaced) == ("failed", 0, 1, 1)
    assert result.outcomes["then"].state == "completed"


def port_of(kind: Any) -> str:
    return "values" if kind is batched else "value"


def test_each_row_gets_a_value_of_its_own() -> None:
    """A node that changes what it is given would change it for every later row."""
    wf = Workflow("own")
    wf.chain(wf.add(untyped, id="n", on_error=Fallback({"label": "other"})), wf.add(mark))
    assert ran(wf, [1, 3, 5]).written == [{"label": "other", "seen": 1}] * 3


@node("fall.untyped")
def untyped(value: Any) -> Any:
    return even(value)


@pytest.mark.parametrize("value", [None, 0, "", [], {"$x": b"\x00"}, float("inf"), 2**70])
def test_any_value_that_has_a_plain_form_is_one(value: object) -> None:
    wf = Workflow("any")
    wf.add(untyped, id="n", on_error={"fallback": value})
    assert ran(wf, [1]).written == [value]


def test_it_counts_after_the_retries_and_only_then() -> None:
    calls: list[int] = []

    @node("fall.flaky", retry=RetryPolicy(max_attempts=3, budget=10))
    async def flaky(value: int) -> int:
        calls.append(value)
        raise ConnectionError("down")

    run = ran(line(flaky), [1])
    assert calls == [1, 1, 1]
    assert run.written == [101]
    assert [event.attempt for event in run.events.of(NodeFailed)] == [3]


def test_a_timeout_and_a_breaker_are_replaced_as_well() -> None:
    @node("fall.hangs", timeout="1s", concurrency=1, breaker=Breaker(failures=1, window=1))
    async def hangs(value: int) -> int:
        await asyncio.sleep(3_600)
        return value

    result = ran(line(hangs), [1, 2]).result
    assert [type(error) for error in result.errors["n"]] == [NodeTimeoutError, CircuitOpenError]
    assert result.handled


# --- nodes that make several rows of one, or one of several ---------------------------------------------


@node("fall.early")
def early(value: int) -> Iterator[int]:
    even(value)
    yield value
    yield value


@node("fall.early_slow")
async def early_slow(value: int) -> AsyncIterator[int]:
    await asyncio.sleep(1)
    even(value)
    yield value
    yield value


@node("fall.late")
def late(value: int) -> Iterator[int]:
    yield value
    even(value)


@node("fall.late_slow")
async def late_slow(value: int) -> AsyncIterator[int]:
    yield value
    even(value)


@node("fall.all", kind="collect")
def everything(items: list[int]) -> list[int]:
    if not items:
        raise OddError("nothing")
    return items


@pytest.mark.parametrize("kind", [early, early_slow])
def test_before_the_first_child_the_value_is_the_one_child(kind: Any) -> None:
    wf = Workflow("many")
    wf.chain(wf.add(kind, id="n", on_error={"fallback": 9}), wf.add(everything, id="all"))
    run = ran(wf, [1, 2])
    assert sorted(run.written) == [[2, 2], [9]]
    counts = run.result.counts["n"]
    assert (counts.completed, counts.failed, counts.replaced) == (1, 1, 1)


@pytest.mark.parametrize("kind", [late, late_slow])
def test_after_the_first_child_has_left_the_workflow_decides(kind: Any) -> None:
    """The child is on its way; a value instead of all children would come beside it."""
    wf = Workflow("late", settings={"on_error": "continue"})
    wf.add(kind, id="n", on_error={"fallback": 9})
    run = ran(wf, [1])
    assert run.written == [1]
    assert not run.result.handled
    assert [event.then for event in run.events.of(NodeFailed)] == ["continue"]


def test_a_list_that_cannot_be_reduced_is_replaced() -> None:
    @node("fall.none")
    def none(value: int) -> Iterator[int]:
        yield from range(value)

    wf = Workflow("reduce")
    wf.chain(wf.add(none), wf.add(everything, id="n", on_error={"fallback": [7]}))
    assert ran(wf, [0, 2]).written == [[7], [0, 1]]


# --- several ports --------------------------------------------------------------------------------------


class Sides(Outputs):
    left: int
    right: str


@node("fall.sides")
def sides(value: int) -> Sides:
    return Sides(left=even(value), right="even")


@pytest.mark.parametrize("given", [{"left": 5}, {"right": "odd"}, {"left": 5, "right": "odd"}])
def test_of_several_ports_those_that_are_named_give_a_value(given: Mapping[str, Any]) -> None:
    wf = Workflow("ports")
    wf.add(sides, id="n", on_error={"fallback": given})
    received = ran(wf, [1]).received
    assert {name.removeprefix("n."): values for name, values in received.items() if values} == {
        port: [value] for port, value in given.items()
    }

    async def main() -> RunResult:
        async with runtime() as rt:
            return await rt.execute(wf, {"value": 1})

    assert run_virtual(main()).outputs == {"n": dict(given)}


# --- what is not replaced -------------------------------------------------------------------------------


def test_a_row_that_fails_on_its_way_in_follows_the_workflow() -> None:
    """It has not reached the node, and stop_workflow says that nothing may be lost unseen."""
    wf = Workflow("way")
    first = wf.add(untyped, id="first")
    wf.connect(first, wf.add(plain, id="n", on_error={"fallback": 1}), when="value.missing > 1")
    result = ran(wf, [2]).result
    assert isinstance(result.state, Failed)
    assert result.counts["n"].replaced == 0


def test_every_stream_item_has_both_its_value_and_its_error() -> None:
    async def main() -> list[Any]:
        async with runtime() as rt:
            return [out async for out in rt.stream(line(plain), [1, 2])]

    odd, whole = run_virtual(main())
    assert (odd.value, type(odd.error), odd.ok) == (101, OddError, False)
    assert (whole.value, whole.ok) == (3, True)


def test_the_events_of_a_request_say_what_was_done() -> None:
    async def main() -> list[Any]:
        async with runtime() as rt:
            with recorded(rt.events) as seen:
                await rt.execute(line(slow), {"value": 1})
        return seen.of(NodeFailed)

    assert [event.then for event in run_virtual(main())] == ["fallback"]
