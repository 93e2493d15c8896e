"""Nodes that call models: what the gateway means for rows, runs and results; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowcore import Batch, LlmCall, Node, RetryPolicy, Workflow, node
from flowcore.context import BatchContext, NodeContext
from flowcore.errors import RunFailedError
from flowcore.llm.calls import Target
from flowcore.llm.errors import BudgetExceededError
from flowcore.llm.policy import BudgetPolicy, ModelLimits
from flowcore.llm.requests import EmbedRequest
from flowcore.vectors import floats_of
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import Script, graveyard, kept, now, runtime, virtual
from tests.flowruntime.models.counting import Counting, ask, at, idle, too_many, unavailable


def calling(target: Target, **options: Any) -> Any:
    """A node that asks a model about its row."""

    @node("models.call", **options)
    async def call(value: Any, ctx: NodeContext) -> str:
        return (await ctx.models.generate(ask(str(value)), target)).text

    return call


def line(*nodes: Any, sink: Any = None, **settings: Any) -> Workflow:
    wf = Workflow("line", settings=settings)
    wf.chain(wf.add(Script, id="s"), *(wf.add(each, id=f"n{at_}") for at_, each in enumerate(nodes)))
    wf.connect(f"n{len(nodes) - 1}", wf.add(sink or kept(), id="k"))
    return wf


def with_models(**providers: Any) -> Any:
    return runtime(llm_providers=providers)


@virtual
async def test_answers_that_come_in_reverse_leave_in_order() -> None:
    async def slower(_: Counting, request: Any) -> None:
        await asyncio.sleep(10.0 - int(request.messages[-1].text))

    provider, sink = Counting(then=slower), kept()
    limits = ModelLimits(concurrency=8)
    async with with_models(counting=provider) as rt:
        wf = line(calling(at(limits=limits), concurrency=8), sink=sink)
        result = await (await rt.start(wf, sources={"s": Script([list(range(8))])})).wait()
    assert result.ok
    assert sink.rows == [f"re: {each}" for each in range(8)]
    assert now() == pytest.approx(10.0, abs=0.1)


@virtual
async def test_a_slow_model_slows_the_source_and_nothing_queues_beyond_the_credit() -> None:
    provider, sink = Counting(then=1.0), kept()
    source = Script([list(range(500))])
    async with with_models(counting=provider) as rt:
        target = at(limits=ModelLimits(concurrency=2))
        wf = line(calling(target, concurrency=20), sink=sink, max_in_flight=30)
        run = await rt.start(wf, sources={"s": source})
        await asyncio.sleep(20.5)
        (figures,) = rt.models.statistics()["resources"].values()
        assert figures["in_flight"] == 2
        assert sum(figures["waiting"].values()) == 18, "the node's own concurrency bounds who waits"
        assert source.handed_over <= 30 + 2 * 21
        await run.cancel()
        assert idle(rt)


@virtual
async def test_the_nodes_own_retry_draws_on_the_budget_its_calls_draw_on() -> None:
    provider = Counting(then=unavailable())
    target = at(
        retry=RetryPolicy(max_attempts=5, initial=timedelta(0), budget=0.2),
        breaker=None,
        limits=ModelLimits(concurrency=4),
    )
    retry = RetryPolicy(max_attempts=5, initial=timedelta(0))
    async with with_models(counting=provider) as rt:
        wf = line(calling(target, retry=retry), on_error="continue")
        result = await (await rt.start(wf, sources={"s": Script([list(range(100))])})).wait()
    assert result.counts["n0"].failed == 100
    assert provider.calls <= 100 * 1.5 + 20, "not 25 for each row"


@virtual
async def test_a_cool_down_holds_back_the_calls_of_every_node() -> None:
    provider = Counting(too_many(5.0), then=0.01)
    target = at(limits=ModelLimits(concurrency=4))
    async with with_models(counting=provider) as rt:
        call = calling(target, concurrency=4)
        wf = line(call, call)
        result = await (await rt.start(wf, sources={"s": Script([list(range(10))])})).wait()
    assert result.ok
    later = [each for each in provider.times if 0.01 < each < 5.0]
    assert later == []


@virtual
async def test_events_name_the_node_and_the_record() -> None:
    provider = Counting()
    async with with_models(counting=provider) as rt:
        with recorded(rt.events) as seen:
            result = await rt.execute(_one(calling(at())), {"call": {"value": "x"}})
            assert result.ok
            told = seen.one(LlmCall)
            assert (told.node, told.execution_id, told.workflow_id) == ("call", result.execution_id, "one")
            run = await rt.start(line(calling(at())), sources={"s": Script([[1]])})
            await run.wait()
        told = seen.of(LlmCall)[-1]
        assert told.node == "n0"
        assert told.execution_id is not None
        assert told.execution_id.startswith(run.id)
        assert told.task == "s/0"


def _one(call: Any) -> Workflow:
    wf = Workflow("one")
    wf.add(call, id="call")
    return wf


@virtual
async def test_a_batch_is_embedded_at_once_and_a_bad_text_fails_its_row_only() -> None:
    provider, sink = Counting(bad_texts=lambda text: text == "bad"), kept()

    @node("models.embed", batch=Batch(max_items=8))
    async def embed(text: str, ctx: BatchContext) -> Sequence[Any]:
        texts: Any = text
        return await ctx.models.embed(EmbedRequest(model="m", texts=tuple(texts)), at())

    async with with_models(counting=provider) as rt:
        wf = line(embed, sink=sink, on_error="continue")
        rows = ["a", "bb", "bad", "dddd"]
        result = await (await rt.start(wf, sources={"s": Script([rows])})).wait()
    assert [floats_of(each)[0] for each in sink.rows] == [1.0, 2.0, 4.0]
    assert result.counts["n0"].failed == 1


@virtual
async def test_a_node_that_streams_an_answer_passes_its_pieces_on_as_they_come() -> None:
    @node("models.stream")
    async def stream(value: str, ctx: NodeContext) -> Any:
        return ctx.stream(piece.text async for piece in ctx.models.stream(ask(value), at()) if piece.text)

    async with with_models(counting=Counting()) as rt:
        wf = _one(stream)
        result = await rt.execute(wf, {"call": {"value": "x"}})
        assert result.ok
        assert idle(rt)


# --- budgets ------------------------------------------------------------------------------------------

CALL_TOKENS = 15
"""Of each call of the tests: 10 in, 5 out, as estimated and as counted."""


def budget(calls: int, **options: Any) -> BudgetPolicy:
    return BudgetPolicy(tokens=calls * CALL_TOKENS, **options)


async def spent(
    policy: BudgetPolicy, rows: int = 10, *, nodes: Sequence[Any] = (), call: Any = None, **settings: Any
) -> tuple[Any, Counting, list[Any]]:
    provider, sink = Counting(then=1.0), kept()
    target = at(budgets=(policy,), limits=ModelLimits(concurrency=1))
    async with runtime(nodes=list(nodes), llm_providers={"counting": provider}) as rt:
        wf = line(call or calling(target, concurrency=1), sink=sink, max_in_flight=2, **settings)
        result = await (await rt.start(wf, sources={"s": Script([[each] for each in range(rows)])})).wait()
        assert idle(rt)
    return result, provider, sink.rows


@virtual
async def test_a_spent_budget_fails_the_calls_beyond_it() -> None:
    result, provider, rows = await spent(budget(4), on_error="continue")
    assert (provider.calls, len(rows), result.counts["n0"].failed) == (4, 4, 6)
    error = result.errors["n0"][0]
    assert isinstance(error, BudgetExceededError)
    assert error.facts()["unit"] == "tokens"
    assert "60 of 60 tokens are spent or reserved" in str(error)


@virtual
async def test_a_spent_budget_stops_the_run_with_what_was_done() -> None:
    """Drained, not cut short: what is inside is finished, and the result is no success."""
    result, provider, rows = await spent(budget(4, reaction="stop"), rows=100)
    assert (provider.calls, len(rows)) == (4, 4)
    assert result.state.name == "partial"
    assert 1 <= result.counts["n0"].failed <= 3
    assert result.abandoned == result.counts["n0"].failed, "their records are left for the next run"
    assert result.counts["s"].completed <= 7, "nothing more was read"


@virtual
@pytest.mark.parametrize("on_error", ["continue", "stop_workflow"])
async def test_what_a_spent_budget_stopped_comes_again_in_the_next_run(tmp_path: Path, on_error: str) -> None:
    """Unless the node goes on after failures, and so has answered for those rows."""
    (tmp_path / "in.txt").write_text("".join(f"{number}\n" for number in range(20)))
    wf = Workflow("line", settings={"on_error": on_error, "max_in_flight": 6})
    config = {"path": str(tmp_path / "in.txt"), "format": "lines"}
    written: list[Any] = []
    told: list[tuple[str, int, int]] = []
    for _ in range(10):
        sink = kept()
        target = at(budgets=(budget(4, reaction="stop"),), limits=ModelLimits(concurrency=3))
        wf = Workflow("line", settings={"on_error": on_error, "max_in_flight": 6})
        wf.chain(
            wf.add("files.source", id="s", config=config),
            wf.add(calling(target, concurrency=3), id="n0"),
            wf.add(sink, id="k"),
        )
        async with runtime(
            state_dir=str(tmp_path / "state"),
            roots=[tmp_path],
            llm_providers={"counting": Counting(then=1.0)},
        ) as rt:
            result = await (await rt.start(wf)).wait()
        written += sink.rows
        told.append((result.state.name, result.counts["n0"].failed, result.abandoned))
        if result.state.name == "completed":
            break
    if on_error == "stop_workflow":
        assert set(written) == {f"re: {number}" for number in range(20)}, "none was lost"
        assert len(written) <= 20 + 6 * len(told), "what was settled behind a record that was left may repeat"
        assert all(failed == left for _, failed, left in told)
    else:
        assert all(left == 0 for _, _, left in told)
        assert len(written) + sum(failed for _, failed, _ in told) == 20, "each row has one outcome"


@virtual
async def test_a_call_that_its_own_row_keeps_out_of_the_budget_does_not_wait_for_ever() -> None:
    """A stream that is being read holds its reservation, and its reader makes another call meanwhile."""
    policy = budget(1)
    target = at(budgets=(policy,), limits=ModelLimits(concurrency=2))

    @node("models.nested")
    async def nested(value: Any, ctx: NodeContext) -> str:
        async for _ in ctx.models.stream(ask(str(value)), target):
            return (await ctx.models.generate(ask(str(value)), target)).text
        return ""

    provider = Counting()
    async with with_models(counting=provider) as rt:
        result = await rt.execute(_one(nested), {"call": {"value": "x"}})
    assert isinstance(result.errors["call"][0], BudgetExceededError)
    assert now() < 3_600


@virtual
async def test_a_spent_budget_that_stops_gives_each_item_of_a_stream_its_outcome() -> None:
    provider = Counting(then=1.0)
    target = at(budgets=(budget(2, reaction="stop"),), limits=ModelLimits(concurrency=1))
    wf = Workflow("items")
    wf.add(calling(target, concurrency=1), id="call")
    outcomes: list[Any] = []
    async with with_models(counting=provider) as rt:
        with suppress(RunFailedError):
            outcomes.extend([each async for each in rt.stream(wf, range(4))])
    assert [each.value for each in outcomes if each.ok] == ["re: 0", "re: 1"]
    assert all(each.ok or each.error is not None for each in outcomes)
    assert provider.calls == 2


@virtual
async def test_a_spent_budget_sends_calls_to_the_cheaper_model() -> None:
    result, provider, rows = await spent(budget(4, reaction="cheaper", cheaper_model="small"))
    assert result.ok
    assert provider.models == ["m"] * 4 + ["small"] * 6
    assert len(rows) == 10


@virtual
async def test_a_spent_budget_defers_calls_to_its_next_window_while_that_is_near() -> None:
    window = timedelta(seconds=30)
    result, provider, rows = await spent(budget(4, reaction="defer", window=window))
    assert result.ok
    assert len(rows) == 10
    assert provider.times == pytest.approx([0, 1, 2, 3, 30, 31, 32, 33, 60, 61], abs=0.1)


@virtual
async def test_a_window_that_is_far_away_is_an_error_that_says_when_it_ends() -> None:
    policy = budget(1, reaction="defer", window=timedelta(hours=1))
    result, _, _ = await spent(policy, rows=2, on_error="continue")
    resets_in_s = result.errors["n0"][0].facts()["resets_in_s"]
    assert resets_in_s == pytest.approx(3_599, abs=1)


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    budgets: tuple[BudgetPolicy, ...] = ()


class Value(msgspec.Struct, frozen=True):
    value: Any


class Text(msgspec.Struct, frozen=True):
    out: str


class Caller(Node[Asking, Value, Text], type="models.caller"):
    """Calls a model under the budgets it is configured with."""

    async def execute(self, inputs: Value, ctx: NodeContext) -> Text:
        target = at(budgets=self.config.budgets, limits=ModelLimits(concurrency=1))
        return Text((await ctx.models.generate(ask(str(inputs.value)), target)).text)


@virtual
async def test_a_spent_budget_makes_dead_letters_whatever_on_error_says() -> None:
    letters = CollectedLetters()
    provider, sink = Counting(then=0.1), kept()
    plain = {"tokens": 4 * CALL_TOKENS, "reaction": "dead_letter"}
    wf = Workflow("line", settings={"dead_letter": {"type": "test.graveyard"}})
    call = wf.add(Caller, id="n0", config={"budgets": [plain]}, on_error="continue", concurrency=1)
    wf.chain(wf.add(Script, id="s"), call, wf.add(sink, id="k"))
    async with runtime(nodes=[graveyard(letters)], llm_providers={"counting": provider}) as rt:
        result = await (await rt.start(wf, sources={"s": Script([list(range(6))])})).wait()
    assert (len(sink.rows), len(letters.letters)) == (4, 2)
    assert {letter.error.kind for letter in letters.letters} == {"BudgetExceededError"}
    assert result.handled


@virtual
async def test_budgets_in_money_stop_at_their_price() -> None:
    from flowruntime.models.pricing import Price

    provider = Counting()
    target = at(budgets=(BudgetPolicy(usd=0.00005),))
    async with runtime(
        llm_providers={"counting": provider}, prices={"counting/m": Price(input=1.0, output=2.0)}
    ) as rt:
        await rt.models.generate(ask(), target)
        await rt.models.generate(ask(), target)
        with pytest.raises(BudgetExceededError, match="4e-05 of 5e-05 usd"):
            await rt.models.generate(ask(), target)
        assert rt.models.statistics()["cost_usd"] == pytest.approx(4e-5)
