"""Middleware around node calls: order, what hooks may change, every kind of node, failures that name it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from flowcore import (
    Batch,
    BatchContext,
    Middleware,
    MiddlewareError,
    Node,
    NodeCall,
    NodeContext,
    NodeFacts,
    RefusedError,
    RetryPolicy,
    Substitute,
    Workflow,
    node,
)
from flowcore.errors import ContractError, DefinitionError
from flowcore.events import NodeCompleted, NodeFailed
from flowcore.middleware import ProceedNode
from flowruntime.operators.fused import FusedOperator
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, forever, kept, later, now, runtime, same, virtual


class Told(Middleware):
    """Notes every hook that is asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def before_node(self, call: NodeCall) -> None:
        self.log.append(f"{self.name}.before {call.node_id}")

    def after_node(self, call: NodeCall, output: Any) -> None:
        self.log.append(f"{self.name}.after {call.node_id} {output!r}")

    def node_error(self, call: NodeCall, error: Exception) -> None:
        self.log.append(f"{self.name}.error {call.node_id} {error}")

    async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
        self.log.append(f"{self.name}.wrap {call.node_id}")
        return await proceed(call)


@node("mw.double")
def double(n: int) -> int:
    return n * 2


@node("mw.double_later")
async def double_later(n: int) -> int:
    await asyncio.sleep(1)
    return n * 2


@node("mw.even", kind="filter")
def even(n: int) -> bool:
    return n % 2 == 0


@node("mw.count_to")
def count_to(n: int) -> Iterator[int]:
    yield from range(n)


@node("mw.count_to_later")
async def count_to_later(n: int) -> AsyncIterator[int]:
    for each in range(n):
        await asyncio.sleep(0.1)
        yield each


@node("mw.total", kind="collect")
def total(items: Sequence[int]) -> int:
    return sum(items)


@node("mw.fails")
def fails(n: int) -> int:
    raise ValueError(f"no {n}")


@node("mw.fails_later", retry=RetryPolicy(max_attempts=3, jitter=0.0))
async def fails_later(n: int) -> int:
    raise ConnectionError(f"no {n}")


@node("mw.batched", batch=Batch(max_items=10))
async def batched(n: Sequence[int], ctx: BatchContext) -> Sequence[int]:
    return [each * 2 for each in n]


@node("mw.in_a_thread", offload="thread")
def in_a_thread(n: int) -> int:
    return n * 2


class Config(Struct, frozen=True):
    """Configuration."""

    by: int = 2


class Pair(Struct, frozen=True):
    """Two input ports."""

    left: int
    right: int = 0


class Sum(Node[Config, Pair, int], type="mw.sum"):
    """Adds."""

    def execute(self, inputs: Pair, ctx: NodeContext) -> int:
        return (inputs.left + inputs.right) * self.config.by


class SumLater(Node[Config, Pair, int], type="mw.sum_later"):
    """Adds, later."""

    async def execute(self, inputs: Pair, ctx: NodeContext) -> int:
        await asyncio.sleep(0.1)
        return (inputs.left + inputs.right) * self.config.by


def one(thing: Any, **options: Any) -> Workflow:
    wf = Workflow("one")
    wf.add(thing, id="it", **options)
    return wf


def error_of(result: Any, node_id: str = "it") -> Any:
    (error,) = result.errors[node_id]
    return error


# --- order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [double, double_later, in_a_thread])
async def test_the_outermost_middleware_is_first_on_the_way_in_and_last_on_the_way_out(thing: Any) -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("a", log), Told("b", log)]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    assert result.outputs["it"]["out"] == 6
    assert log == ["a.before it", "a.wrap it", "b.before it", "b.wrap it", "b.after it 6", "a.after it 6"]


@pytest.mark.parametrize("thing", [fails, fails_later])
@virtual
async def test_error_hooks_are_asked_from_the_inside_out_once_per_attempt(thing: Any) -> None:
    log: list[str] = []
    attempts = 3 if thing is fails_later else 1
    async with runtime(middleware=[Told("a", log), Told("b", log)]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    each = ["a.before it", "a.wrap it", "b.before it", "b.wrap it", "b.error it no 3", "a.error it no 3"]
    assert log == each * attempts
    assert type(error_of(result)) is (ConnectionError if thing is fails_later else ValueError)
    assert result.outcomes["it"].attempts == attempts


async def test_hooks_may_be_coroutines_around_nodes_that_wait() -> None:
    log: list[str] = []

    class Waits(Middleware):
        async def before_node(self, call: NodeCall) -> NodeCall:
            await asyncio.sleep(0)
            log.append("before")
            return call.with_inputs(value=call.inputs["value"] + 1)

        async def after_node(self, call: NodeCall, output: Any) -> Substitute:
            await asyncio.sleep(0)
            log.append("after")
            return Substitute(output * 10)

    async with runtime(middleware=[Waits()]) as rt:
        result = await rt.execute(one(later), {"value": 3})
    assert result.outputs["it"]["out"] == 40
    assert log == ["before", "after"]


# --- what a hook is told ------------------------------------------------------------------------------


class Seen(Middleware):
    def __init__(self) -> None:
        self.calls: list[NodeCall] = []

    def before_node(self, call: NodeCall) -> None:
        self.calls.append(call)


@pytest.mark.parametrize("thing", [Sum, SumLater])
@virtual
async def test_a_call_tells_node_type_execution_attempt_inputs_by_port_and_attributes(thing: Any) -> None:
    seen = Seen()
    async with runtime(middleware=[seen]) as rt:
        result = await rt.execute(
            one(thing, config={"by": 3}), {"it": {"left": 1, "right": 2}}, attributes={"user": "ann"}
        )
    (call,) = seen.calls
    assert result.outputs["it"]["out"] == 9
    assert (call.node_id, call.node_type) == ("it", thing.__flow_node__.type)
    assert (call.attempt, call.mode) == (1, "request")
    assert dict(call.inputs) == {"left": 1, "right": 2}
    assert call.execution_id == result.execution_id
    assert call.attributes == {"user": "ann"}
    assert call.node.workflow == "one"
    assert call.node.waits is (thing is SumLater)


@virtual
async def test_rows_of_a_stream_are_told_apart_and_know_the_attributes_of_their_run() -> None:
    seen, sink = Seen(), kept()
    wf = Workflow("s")
    wf.chain(wf.add(Script, id="s"), wf.add(double, id="it"), wf.add(later, id="w"), wf.add(sink, id="k"))
    async with runtime(middleware=[seen]) as rt:
        run = await rt.start(wf, sources={"s": Script([[1, 2], [3]])}, attributes={"by": "cron"})
        result = await run.wait()
    assert result.ok
    assert sink.rows == [2, 4, 6]
    plain = [call for call in seen.calls if call.node_id == "it"]
    waiting = [call for call in seen.calls if call.node_id == "w"]
    assert [call.inputs["n"] for call in plain] == [1, 2, 3]
    assert len({call.execution_id for call in plain}) == 3
    assert [call.execution_id for call in waiting] == [call.execution_id for call in plain]
    assert all(call.attributes == {"by": "cron"} and call.mode == "stream" for call in seen.calls)


@virtual
async def test_rows_a_filter_took_out_of_a_frame_do_not_shift_the_others() -> None:
    """The second stage is given rows 1 and 3 of a frame; each call still names its own record."""
    seen, sink = Seen(), kept()
    wf = Workflow("s")
    wf.chain(
        wf.add(Script, id="s"),
        wf.add(even, id="e"),
        wf.add(later, id="w"),
        wf.add(double, id="it"),
        wf.add(sink, id="k"),
    )
    async with runtime(middleware=[seen]) as rt:
        await (await rt.start(wf, sources={"s": Script([[1, 2, 3, 4]])})).wait()
    judged = {call.inputs["n"]: call.execution_id for call in seen.calls if call.node_id == "e"}
    doubled = {call.inputs["n"]: call.execution_id for call in seen.calls if call.node_id == "it"}
    assert sink.rows == [4, 8]
    assert doubled == {2: judged[2], 4: judged[4]}


@virtual
async def test_a_batch_is_one_call_with_all_its_rows() -> None:
    seen = Seen()
    async with runtime(middleware=[seen]) as rt:
        await rt.execute(one_batched, {"n": 9})
        seen.calls.clear()
        results = await asyncio.gather(
            *(rt.execute(one_batched, {"n": n}, attributes={"user": n}) for n in range(3))
        )
    (call,) = seen.calls
    assert [result.outputs["it"]["out"] for result in results] == [0, 2, 4]
    assert dict(call.inputs) == {"n": [0, 1, 2]}
    assert [row.execution_id for row in call.rows] == [result.execution_id for result in results]
    assert [row.attributes for row in call.rows] == [{"user": 0}, {"user": 1}, {"user": 2}]
    with pytest.raises(ContractError, match="several executions"):
        _ = call.attributes


one_batched = one(batched)


@virtual
async def test_changed_inputs_reach_every_kind_of_node() -> None:
    class More(Middleware):
        def before_node(self, call: NodeCall) -> NodeCall:
            port, value = next(iter(call.inputs.items()))
            more = (
                [each + 1 for each in value]
                if call.node.batched or call.node.kind == "collect"
                else value + 1
            )
            return call.with_inputs(**{port: more})

    wf = Workflow("many")
    kinds = {"double": double, "double_later": double_later, "sum": Sum, "sum_later": SumLater}
    for name, thing in {**kinds, "batched": batched, "in_a_thread": in_a_thread}.items():
        wf.add(thing, id=name)
    wf.connect(wf.add(count_to, id="count"), wf.add(total, id="total"))
    wf.connect(wf.add(count_to_later, id="count2"), wf.add(total, id="total2"))
    ports = {"sum": {"left": 1}, "sum_later": {"left": 1}}
    inputs: dict[str, Any] = {
        name: ports.get(name, {"n": 1}) for name in wf.nodes if not name.startswith("total")
    }
    async with runtime(middleware=[More()]) as rt:
        result = await rt.execute(wf, inputs)
    result.raise_for_state()
    doubled = ("double", "double_later", "sum", "sum_later", "batched", "in_a_thread")
    assert {name: result.outputs[name]["out"] for name in doubled} == dict.fromkeys(doubled, 4)
    # one more child (0, 1), and each item of the list one more: 1 + 2
    assert result.outputs["total"]["out"] == result.outputs["total2"]["out"] == 3


async def test_a_filter_judges_changed_inputs_and_lets_the_row_through_as_it_came() -> None:
    class More(Middleware):
        def before_node(self, call: NodeCall) -> NodeCall:
            return call.with_inputs(n=call.inputs["n"] + 1)

    async with runtime(middleware=[More()]) as rt:
        outcomes = [outcome async for outcome in rt.stream(one(even), [1, 2, 3])]
    assert [outcome.value for outcome in outcomes] == [1, None, 3]
    assert [outcome.dropped for outcome in outcomes] == [False, True, False]


async def test_a_node_compiled_from_an_expression_is_called_when_it_is_covered() -> None:
    seen = Seen()
    wf = Workflow("cel")
    wf.chain(
        wf.add("transform.filter", id="f", config={"where": "value.n > 1"}),
        wf.add("transform.map", id="m", config={"fields": {"twice": "value.n * 2"}}),
    )
    async with runtime(middleware=[seen]) as rt:
        values = [outcome.value async for outcome in rt.stream(wf, [{"n": 1}, {"n": 2}])]
    assert values == [None, {"twice": 4}]
    assert [call.node_id for call in seen.calls] == ["f", "f", "m"]


# --- use cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [double, double_later, batched, in_a_thread, count_to, count_to_later])
@virtual
async def test_a_node_call_can_be_refused_and_fails_truthfully(thing: Any) -> None:
    class Auth(Middleware):
        def before_node(self, call: NodeCall) -> None:
            if call.attributes.get("role") != "admin":
                raise RefusedError("only an admin may")

    wf = one(thing)
    async with runtime(middleware=[Auth()]) as rt:
        with recorded(rt.events) as events:
            refused = await rt.execute(wf, {"n": 3}, attributes={"role": "guest"})
            allowed = await rt.execute(wf, {"n": 3}, attributes={"role": "admin"})
    assert allowed.ok
    assert not refused.ok
    assert refused.outcomes["it"].state == "failed"
    error = error_of(refused)
    assert isinstance(error, RefusedError)
    assert isinstance(error, PermissionError)
    assert (error.__dict__["middleware"], error.__dict__["node"], error.__dict__["reason"]) == (
        "Auth", "it", "only an admin may",
    )  # fmt: skip
    assert "middleware 'Auth' refused node 'it'" in str(error)
    assert [event.node for event in events.of(NodeFailed)] == ["it"]


async def test_redacted_outputs_are_what_is_recorded_published_and_given_on() -> None:
    class Redact(Middleware):
        def after_node(self, call: NodeCall, output: Any) -> Substitute | None:
            if isinstance(output, dict) and "card" in output:
                return Substitute({**output, "card": "***"})
            return None

    @node("mw.look_up")
    def look_up(user: str) -> dict[str, Any]:
        return {"user": user, "card": "4111-1111"}

    got: list[Any] = []

    @node("mw.next")
    def following(value: Any) -> Any:
        got.append(value)
        return value

    wf = Workflow("redacted", settings={"capture": True})
    wf.chain(wf.add(look_up, id="look"), wf.add(following, id="next"))
    async with runtime(middleware=[Redact()]) as rt:
        with recorded(rt.events) as events:
            result = await rt.execute(wf, {"look": {"user": "ann"}})
    clean = {"user": "ann", "card": "***"}
    assert result.outputs["look"]["out"] == clean
    assert got == [clean]
    assert [event.outputs for event in events.of(NodeCompleted)] == [{"out": clean}, {"out": clean}]
    assert "4111" not in repr(events.events)


@pytest.mark.parametrize("thing", [count_to, count_to_later])
@virtual
async def test_rows_a_node_yields_pass_after_node_one_by_one(thing: Any) -> None:
    class Redact(Middleware):
        def after_node(self, call: NodeCall, output: Any) -> Substitute | None:
            return Substitute("***") if call.node.kind == "expand" and output == 1 else None

    async with runtime(middleware=[Redact()]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    assert result.outputs["it"]["out"] == [0, "***", 2]


class Cache(Middleware):
    """Answers a call it has answered before."""

    def __init__(self) -> None:
        self.answers: dict[Any, Any] = {}
        self.hits = 0

    async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
        key = (call.node_id, repr(call.inputs))
        if key in self.answers:
            self.hits += 1
            return self.answers[key]
        answer = self.answers[key] = await proceed(call)
        return answer


@pytest.mark.parametrize("coroutine", [False, True])
@virtual
async def test_a_cache_answers_without_calling_the_node(coroutine: bool) -> None:
    calls: list[int] = []

    @node("mw.counted")
    def plain(n: int) -> int | None:
        calls.append(n)
        return None if n == 0 else n * 2

    @node("mw.counted_later")
    async def waiting(n: int) -> int | None:
        calls.append(n)
        await asyncio.sleep(1)
        return None if n == 0 else n * 2

    cache = Cache()
    wf = one(waiting if coroutine else plain)
    async with runtime(middleware=[cache]) as rt:
        values = [(await rt.execute(wf, {"n": n})).outputs["it"]["out"] for n in (0, 1, 0, 1)]
    assert values == [None, 2, None, 2]
    assert calls == [0, 1]
    assert cache.hits == 2


@pytest.mark.parametrize("thing", [count_to, count_to_later])
@virtual
async def test_rows_kept_by_a_cache_as_they_came_fail_the_second_row_instead_of_losing_its_children(
    thing: Any,
) -> None:
    async with runtime(middleware=[Cache()]) as rt:
        wf = one(thing)
        first = await rt.execute(wf, {"n": 2})
        second = await rt.execute(wf, {"n": 2})
    assert first.outputs["it"]["out"] == [0, 1]
    assert isinstance(error_of(second), ContractError)
    assert "keep a list" in str(error_of(second))


async def test_a_cache_that_keeps_a_list_of_rows_answers_with_them_again() -> None:
    class Rows(Middleware):
        def __init__(self) -> None:
            self.rows: dict[str, list[Any]] = {}

        async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
            key = repr(call.inputs)
            if key not in self.rows:
                self.rows[key] = list(await proceed(call))
            return self.rows[key]

    async with runtime(middleware=[Rows()]) as rt:
        wf = one(count_to)
        results = [await rt.execute(wf, {"n": 2}) for _ in range(2)]
    assert [result.outputs["it"]["out"] for result in results] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("thing", [double, double_later])
@virtual
async def test_an_experiment_sends_some_calls_to_another_node(thing: Any) -> None:
    async def treble(n: int) -> int:
        return n * 3

    class Experiment(Middleware):
        def covers(self, node: NodeFacts) -> bool:
            return node.id == "it"

        async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
            return await treble(**call.inputs) if call.inputs["n"] % 2 else await proceed(call)

    async with runtime(middleware=[Experiment()]) as rt:
        values = [outcome.value async for outcome in rt.stream(one(thing), [1, 2, 3, 4])]
    assert values == [3, 4, 9, 8]


async def test_an_experiment_gives_some_calls_another_value() -> None:
    class Experiment(Middleware):
        def before_node(self, call: NodeCall) -> NodeCall | None:
            return call.with_inputs(n=100) if call.attributes["group"] == "b" else None

    async with runtime(middleware=[Experiment()]) as rt:
        wf = one(double)
        results = [await rt.execute(wf, {"n": 1}, attributes={"group": group}) for group in "ab"]
    assert [result.outputs["it"]["out"] for result in results] == [2, 200]


# --- what a hook may not do ---------------------------------------------------------------------------


class Broken(Middleware):
    def __init__(self, hook: str) -> None:
        def raising(*given: Any) -> Any:
            raise KeyError("lost")

        async def raising_later(*given: Any) -> Any:
            raise KeyError("lost")

        setattr(self, hook, raising_later if hook == "wrap_node" else raising)


@pytest.mark.parametrize("thing", [double, double_later, batched, in_a_thread, count_to, count_to_later])
@pytest.mark.parametrize("hook", ["before_node", "after_node", "wrap_node"])
@virtual
async def test_a_hook_that_raises_fails_its_row_and_is_named(thing: Any, hook: str) -> None:
    async with runtime(middleware=[Broken(hook)]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    error = error_of(result)
    assert isinstance(error, MiddlewareError)
    assert (error.__dict__["middleware"], error.__dict__["hook"]) == ("Broken", hook)
    assert isinstance(error.__cause__, KeyError)
    assert f"middleware 'Broken' failed in {hook} of node 'it'" in str(error)
    assert result.outcomes["it"].state == "failed"


async def test_a_hook_that_raises_fails_only_its_row_of_a_stream() -> None:
    class Odd(Middleware):
        def after_node(self, call: NodeCall, output: Any) -> None:
            if output == 4:
                raise KeyError("lost")

    wf = Workflow("one", settings={"on_error": "continue"})
    wf.add(double, id="it")
    async with runtime(middleware=[Odd()]) as rt:
        outcomes = [outcome async for outcome in rt.stream(wf, [1, 2, 3])]
    assert [outcome.value for outcome in outcomes] == [2, None, 6]
    assert isinstance(outcomes[1].error, MiddlewareError)


@pytest.mark.parametrize("thing", [fails, fails_later])
@virtual
async def test_an_error_hook_may_put_another_error_in_the_place(thing: Any) -> None:
    class Hide(Middleware):
        def node_error(self, call: NodeCall, error: Exception) -> Exception:
            return RuntimeError("something failed")

    async with runtime(middleware=[Hide()]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    assert type(error_of(result)) is RuntimeError
    assert isinstance(error_of(result).__cause__, ValueError | ConnectionError)


@pytest.mark.parametrize("thing", [fails, fails_later])
@virtual
async def test_wrap_node_may_answer_for_a_node_that_failed(thing: Any) -> None:
    class Fallback(Middleware):
        async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
            try:
                return await proceed(call)
            except (ValueError, ConnectionError):
                return -1

    async with runtime(middleware=[Fallback()]) as rt:
        result = await rt.execute(one(thing), {"n": 3})
    assert result.ok
    assert result.outputs["it"]["out"] == -1


@virtual
async def test_a_failure_of_a_hook_that_may_pass_is_retried_like_the_nodes_own() -> None:
    class Flaky(Middleware):
        def __init__(self) -> None:
            self.attempts: list[int] = []

        def before_node(self, call: NodeCall) -> None:
            self.attempts.append(call.attempt)
            if call.attempt == 1:
                raise ConnectionError("the policy server is away")

    flaky = Flaky()
    wf = one(double_later, retry={"max_attempts": 3})
    async with runtime(middleware=[flaky]) as rt:
        result = await rt.execute(wf, {"n": 3})
    assert result.ok
    assert flaky.attempts == [1, 2]


@pytest.mark.parametrize(
    ("hook", "answer"),
    [("before_node", 7), ("after_node", 7), ("node_error", 7), ("before_node", "other ports")],
)
async def test_an_answer_that_makes_no_sense_is_refused_with_what_to_return(hook: str, answer: Any) -> None:
    class Wrong(Middleware):
        pass

    def wrong(call: NodeCall, *given: Any) -> Any:
        if answer == "other ports":
            return NodeCall(node=call.node, inputs={"x": 1}, rows=call.rows, mode=call.mode)
        return answer

    middleware = Wrong()
    setattr(middleware, hook, wrong)
    async with runtime(middleware=[middleware]) as rt:
        result = await rt.execute(one(fails if hook == "node_error" else double), {"n": 3})
    error = error_of(result)
    assert isinstance(error, MiddlewareError)
    assert isinstance(error.__cause__, ContractError)
    assert error.__dict__["hook"] == hook


@virtual
async def test_a_generator_that_is_begun_anew_knows_its_attempt_and_so_do_its_hooks() -> None:
    told: list[int] = []

    @node("mw.flaky", retry=RetryPolicy(max_attempts=3, jitter=0.0))
    async def flaky(n: int, ctx: NodeContext) -> AsyncIterator[int]:
        told.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ConnectionError("away")
        yield n

    seen = Seen()
    async with runtime(middleware=[seen]) as rt:
        result = await rt.execute(one(flaky), {"n": 7})
    assert result.outputs["it"]["out"] == [7]
    assert told == [call.attempt for call in seen.calls] == [1, 2, 3]


def test_a_port_the_node_does_not_have_is_refused_with_those_it_has() -> None:
    facts = NodeFacts(
        id="it", type="t.n", kind="map", category="t", workflow="w", workflow_id="w", inputs=("text",)
    )
    call = NodeCall(node=facts, inputs={"text": "a"}, rows=(), mode="request")
    with pytest.raises(ContractError, match=r"no input port 'txt'; it has text"):
        call.with_inputs(txt="b")


@pytest.mark.parametrize("given", [Told, object(), "audit"])
async def test_what_is_no_middleware_is_refused_when_the_runtime_is_made(given: Any) -> None:
    with pytest.raises(DefinitionError, match="middleware"):
        runtime(middleware=[given])


async def test_a_plain_wrap_is_refused_with_the_form_it_needs() -> None:
    class Plain(Middleware):
        def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
            return proceed(call)

    with pytest.raises(DefinitionError, match="async def wrap_node"):
        runtime(middleware=[Plain()])


# --- waiting around plain functions -------------------------------------------------------------------


class Slow(Middleware):
    def __init__(self, *, waits: bool, hook: str = "before_node") -> None:
        self.waits = waits
        self.log: list[float] = []

        async def slow(*given: Any) -> Any:
            await asyncio.sleep(1)
            self.log.append(now())
            return await given[1](given[0]) if hook == "wrap_node" else None

        setattr(self, hook, slow)


@pytest.mark.parametrize("hook", ["before_node", "after_node", "wrap_node"])
@virtual
async def test_a_hook_that_waits_around_a_fused_function_fails_its_row_and_says_what_to_do(hook: str) -> None:
    async with runtime(middleware=[Slow(waits=False, hook=hook)]) as rt:
        result = await rt.execute(one(double), {"n": 3})
    assert isinstance(error_of(result), MiddlewareError)
    assert f"'Slow' awaits something in {hook}" in str(error_of(result))
    assert "waits = True" in str(error_of(result))


@pytest.mark.parametrize("hook", ["before_node", "after_node", "wrap_node"])
@virtual
async def test_a_middleware_that_says_it_waits_makes_plain_nodes_stages_of_their_own(hook: str) -> None:
    slow = Slow(waits=True, hook=hook)
    wf = Workflow("plain")
    wf.chain(wf.add(double, id="it"), wf.add(even, id="e"), wf.add(Sum, id="s"))
    async with runtime(middleware=[slow]) as rt:
        values = [outcome.value async for outcome in rt.stream(wf, [1, 2])]
    assert values == [4, 8]
    assert now() == pytest.approx(3.0)  # 1 s each for n, e and s; both rows at once


@virtual
async def test_a_middleware_that_waits_may_stand_around_nodes_that_yield_rows() -> None:
    slow = Slow(waits=True, hook="after_node")
    slow.covers = lambda node, /: node.kind == "expand"
    wf = Workflow("plain")
    wf.connect(wf.add(count_to, id="it"), wf.add(total, id="t"))
    async with runtime(middleware=[slow]) as rt:
        result = await rt.execute(wf, {"n": 3})
    assert result.outputs["t"]["out"] == 3
    assert slow.log == [1.0, 2.0, 3.0]


async def test_a_middleware_that_waits_cannot_stand_around_a_node_that_collects() -> None:
    wf = Workflow("plain")
    wf.connect(wf.add(count_to, id="it"), wf.add(total, id="t"))
    async with runtime(middleware=[Slow(waits=True)]) as rt:
        with pytest.raises(DefinitionError, match=r"covers node 't' .*leave that node out in `covers`"):
            await rt.execute(wf, {"n": 3})


# --- reach --------------------------------------------------------------------------------------------


async def test_covers_is_asked_once_per_node_and_leaves_nodes_out() -> None:
    asked: list[str] = []
    log: list[str] = []

    class Some(Told):
        def covers(self, node: NodeFacts) -> bool:
            asked.append(node.id)
            return node.type == "mw.double"

    wf = Workflow("some")
    wf.chain(wf.add(double, id="a"), wf.add(same, id="b"), wf.add(double, id="c"))
    async with runtime(middleware=[Some("m", log)]) as rt:
        for n in (1, 2, 3):
            await rt.execute(wf, {"a": {"n": n}})
    assert asked == ["a", "b", "c"]
    assert {line.split()[1] for line in log} == {"a", "c"}


async def test_a_middleware_with_run_hooks_alone_leaves_nodes_as_they_are() -> None:
    class Runs(Middleware):
        def before_run(self, call: Any) -> None:
            return None

        def covers(self, node: NodeFacts) -> bool:
            raise AssertionError("nobody asks a middleware without node hooks")

    async with runtime(middleware=[Runs()]) as rt:
        wf = one(double)
        assert rt.covered(graph := rt.validate(wf, mode="request"), wf) is graph
        assert (await rt.execute(wf, {"n": 2})).ok


async def test_without_middleware_the_function_itself_stands_in_the_generated_code() -> None:
    async with runtime() as rt:
        wf = one(double)
        await rt.execute(wf, {"n": 2})
        ((_, chain),) = rt._warm_chains()._chains.values()
        assert chain._warm is not None
        (operator,) = (op for op in chain._warm.operators.values() if isinstance(op, FusedOperator))
    names: dict[str, Any] = vars(operator)["_lean"].__globals__
    assert names["node_it"] is double
    assert operator.place is None


async def test_a_middleware_whose_covers_raises_is_named() -> None:
    class Odd(Told):
        def covers(self, node: NodeFacts) -> bool:
            raise KeyError("lost")

    async with runtime(middleware=[Odd("odd", [])]) as rt:
        with pytest.raises(MiddlewareError, match="'odd' failed in covers of node 'it'"):
            await rt.execute(one(double), {"n": 1})


# --- cancellation and taking down ---------------------------------------------------------------------


@virtual
async def test_cancellation_passes_through_hooks_and_is_no_error_of_the_node() -> None:
    seen: list[str] = []

    class Watch(Told):
        async def wrap_node(self, call: NodeCall, proceed: ProceedNode) -> Any:
            try:
                return await proceed(call)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    log: list[str] = []
    async with runtime(middleware=[Watch("w", log)]) as rt:
        result = await rt.execute(one(forever), {"value": 1}, timeout=timedelta(seconds=1))
    assert seen == ["cancelled"]
    assert result.state.name == "failed"
    assert result.outcomes["it"].state == "cancelled"
    assert not any("error" in line for line in log)


@virtual
async def test_a_row_that_is_cancelled_while_a_hook_waits_leaves_nothing_behind() -> None:
    class Stuck(Middleware):
        async def before_node(self, call: NodeCall) -> None:
            await asyncio.Event().wait()

    async with runtime(middleware=[Stuck()]) as rt:
        result = await rt.execute(one(later), {"value": 1}, timeout=timedelta(seconds=1))
        assert result.outcomes["it"].state == "cancelled"
        assert rt.statistics()["runs"] == {}


@virtual
async def test_the_timeout_of_a_node_counts_its_hooks() -> None:
    wf = one(later, timeout="500ms")
    async with runtime(middleware=[Slow(waits=False)]) as rt:
        result = await rt.execute(wf, {"value": 1})
    assert isinstance(error_of(result), TimeoutError)


@pytest.mark.parametrize("thing", [count_to, count_to_later])
@virtual
async def test_a_generator_that_is_given_up_is_closed_behind_its_hooks(thing: Any) -> None:
    closed: list[str] = []

    @node("mw.endless")
    def endless(n: int) -> Iterator[int]:
        try:
            while True:
                yield n
        finally:
            closed.append("plain")

    @node("mw.endless_later")
    async def endless_later(n: int) -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0.1)
                yield n
        finally:
            closed.append("later")

    wf = Workflow("endless", settings={"max_children": 100})
    wf.add(endless if thing is count_to else endless_later, id="it")
    async with runtime(middleware=[Told("a", []), Told("b", [])]) as rt:
        result = await rt.execute(wf, {"n": 1})
        assert closed == ["plain" if thing is count_to else "later"]
    assert "more than 100 children" in str(error_of(result))


async def test_stand_ins_of_a_request_are_covered_like_the_nodes_they_stand_for() -> None:
    log: list[str] = []
    async with runtime(middleware=[Told("m", log)]) as rt:
        result = await rt.execute(one(double_later), {"n": 1}, replace={"it": double})
    assert result.outputs["it"]["out"] == 2
    assert log[-1] == "m.after it 2"


async def test_a_covered_stage_costs_a_stream_that_has_no_middleware_nothing() -> None:
    """Not a measurement: the generated text is the same, whatever stands around its nodes."""
    wf = one(double)
    texts: list[str] = []
    for middleware in ([], [Told("m", [])]):
        async with runtime(middleware=middleware) as rt:
            await rt.execute(wf, {"n": 1})
            ((_, chain),) = rt._warm_chains()._chains.values()
            texts += [fused.lean for fused, _, _ in chain.program.fused.values()]
    assert len(texts) == 2
    assert texts[0] == texts[1]


async def test_hooks_around_an_offloaded_node_run_on_the_loops_thread() -> None:
    import threading

    threads: list[int] = []

    @node("mw.where", offload="thread")
    def where(n: int) -> int:
        time.sleep(0)
        return threading.get_ident()

    class Where(Middleware):
        def before_node(self, call: NodeCall) -> None:
            threads.append(threading.get_ident())

    async with runtime(middleware=[Where()]) as rt:
        result = await rt.execute(one(where), {"n": 1})
    assert threads == [threading.get_ident()]
    assert result.outputs["it"]["out"] != threading.get_ident()
