"""Calls of a client: limits, lanes, hedges, caches, streams, cancellation; on virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

import pytest

from flowcore import LimitChanged, LlmCall
from flowcore.errors import ConfigError, ControlError, LimitExceededError, RuntimeClosedError
from flowcore.llm.answers import Delta, Generation, RateLimits, Usage
from flowcore.llm.calls import Prompt, Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import (
    BrokenStreamError,
    ModelNotFoundError,
    ProviderUnavailableError,
    RequestRefusedError,
)
from flowcore.llm.policy import BudgetPolicy, CachePolicy, Hedge, ModelLimits
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.policies import RetryPolicy
from flowcore.vectors import floats_of
from flowruntime import FlowRuntime
from flowruntime.models.window import PERIOD_S
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, virtual
from tests.flowruntime.models.counting import FACTS, Counting, ask, at, idle, models_of, too_many, unavailable

ONCE = RetryPolicy(max_attempts=1)


def most_in_a_minute(times: list[float], weight: int = 1) -> int:
    return max(weight * sum(start <= each < start + PERIOD_S for each in times) for start in times)


@virtual
async def test_requests_and_tokens_of_any_minute_stay_within_what_was_declared() -> None:
    provider = Counting(usage=Usage(input_tokens=30, output_tokens=10))
    async with models_of(counting=provider) as rt:
        limits = ModelLimits(concurrency=50, requests_per_minute=30, tokens_per_minute=1_000)
        target = at(limits=limits)
        await asyncio.gather(*(rt.models.generate(ask(str(each)), target) for each in range(150)))
        assert provider.calls == 150
        assert most_in_a_minute(provider.times) <= 30
        assert now() < 8 * 60, "a rate is a bound, and not much less is done"
        (figures,) = rt.models.statistics()["resources"].values()
        assert figures["tokens"] == 150 * 40
        assert figures["estimate_ratio"] == pytest.approx(40 / 15, rel=0.01)
        assert idle(rt)


@virtual
async def test_concurrency_is_what_was_declared_by_the_strictest() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            wide = at(limits=ModelLimits(concurrency=20))
            calls = [asyncio.ensure_future(rt.models.generate(ask(), wide)) for _ in range(40)]
            await asyncio.sleep(0.5)
            assert provider.in_flight == 20
            await rt.models.generate(ask(), at(limits=ModelLimits(concurrency=3)))
            provider.peak = 0
            await asyncio.gather(*calls)
            await asyncio.gather(*(rt.models.generate(ask(), wide) for _ in range(10)))
            assert provider.peak <= 3
        changed = seen.of(LimitChanged)[0]
        assert (changed.before, changed.capacity) == (20, 3)
        assert changed.limit.endswith("/m#" + changed.limit.rpartition("#")[2])


@virtual
async def test_limits_of_a_model_can_be_changed_while_calls_are_under_way() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        target = at(limits=ModelLimits(concurrency=2))
        calls = [asyncio.ensure_future(rt.models.generate(ask(), target)) for _ in range(20)]
        await asyncio.sleep(0.5)
        (name,) = rt.models.statistics()["resources"]
        rt.set_limit(f"model:{name}:concurrency", 18)
        await asyncio.sleep(0.1)
        assert provider.in_flight == 18
        await asyncio.gather(*calls)
        rt.set_limit(f"model:{name}:requests_per_minute", 1)
        for wrong, value in (
            (f"model:{name}:speed", 1),
            ("model:x:concurrency", 1),
            (f"model:{name}:concurrency", 0),
        ):
            with pytest.raises(ControlError):
                rt.set_limit(wrong, value)


@virtual
async def test_what_a_provider_says_is_left_holds_calls_back() -> None:
    left = RateLimits(requests=100, requests_left=0, requests_reset_s=10.0)
    provider = Counting(then=0.01, limits=left)
    async with models_of(counting=provider) as rt:
        await rt.models.generate(ask(), at())
        provider.limits = None
        await rt.models.generate(ask(), at())
        assert provider.times[1] == pytest.approx(0.11, abs=0.02), "one of a hundred is back after 0.1 s"


@virtual
async def test_a_request_that_no_minute_has_room_for_is_refused_at_once() -> None:
    provider = Counting(prompt_tokens=5_000)
    async with models_of(counting=provider) as rt:
        with pytest.raises(LimitExceededError, match="in a minute"):
            await rt.models.generate(ask(), at(limits=ModelLimits(tokens_per_minute=1_000)))
        assert provider.calls == 0


@virtual
async def test_interactive_calls_pass_those_in_the_background_and_tenants_share() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        limits = ModelLimits(concurrency=1)
        slow = [
            asyncio.ensure_future(rt.models.generate(ask(f"b{each}"), at(limits=limits, lane="background")))
            for each in range(50)
        ]
        await asyncio.sleep(0.5)
        await rt.models.generate(ask("now"), at(limits=limits, lane="interactive"))
        assert now() == pytest.approx(2.0)
        loud = rt.models.for_key("loud")
        many = [asyncio.ensure_future(loud.generate(ask(), at(limits=limits))) for _ in range(50)]
        await asyncio.sleep(0)
        before = now()
        await rt.models.for_key("quiet").generate(ask(), at(limits=limits))
        assert now() - before < 5
        for each in (*slow, *many):
            each.cancel()
        await asyncio.gather(*slow, *many, return_exceptions=True)
        assert idle(rt)


@virtual
async def test_ten_thousand_calls_cancelled_anywhere_leave_nothing_behind() -> None:
    """At every point: in the line, in flight, in a backoff, in a hedge, in a shared call, in a stream."""
    rng = random.Random(1)
    provider = Counting(then=0.05, usage=Usage(input_tokens=10, output_tokens=5))

    async def fickle(*_: object) -> None:
        await asyncio.sleep(rng.random() * 0.1)
        if rng.random() < 0.2:
            raise unavailable()
        if rng.random() < 0.1:
            raise too_many(0.05)

    provider.then = fickle
    async with models_of(counting=provider) as rt:
        policies = [
            at(retry=RetryPolicy(initial=timedelta(milliseconds=20))),
            at(hedge=Hedge(after=timedelta(milliseconds=30), budget=1.0)),
            at(single_flight=True, budgets=(BudgetPolicy(tokens=10**9, scope="all"),)),
            at(breaker=None, limits=ModelLimits(concurrency=20)),
        ]

        async def one(number: int) -> None:
            target = policies[number % len(policies)]
            if number % 5 == 4:
                async with aclosing(rt.models.stream(ask(str(number)), target)) as pieces:
                    async for _ in pieces:
                        pass
            else:
                await rt.models.generate(ask(str(number % 50)), target)

        async def cancelled(number: int) -> None:
            task = asyncio.ensure_future(one(number))
            await asyncio.sleep(rng.random() * 0.15)
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

        for start in range(0, 10_000, 100):
            await asyncio.gather(*(cancelled(start + each) for each in range(100)))
        await asyncio.sleep(0)
        assert idle(rt)
        assert provider.in_flight == 0
        assert rt.models.gateway.carrier.turn > 5_000


# --- hedging ------------------------------------------------------------------------------------------


@virtual
async def test_a_slow_call_is_made_a_second_time_and_the_faster_answer_is_taken() -> None:
    provider = Counting(60.0, then=1.0)
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            await rt.models.generate(ask(), at(hedge=Hedge(after=timedelta(seconds=2))))
        assert now() == pytest.approx(3.0)
        assert provider.calls == 2
        assert provider.in_flight == 0, "the slow one was cancelled"
        told = seen.one(LlmCall)
        assert (told.hedged, told.attempts) == (True, 2)
        assert told.cost_usd is not None
        assert told.cost_usd > 20e-6, "both are paid"
        assert idle(rt)


@virtual
async def test_of_many_slow_calls_only_the_budget_is_hedged() -> None:
    provider = Counting(then=5.0)
    async with models_of(counting=provider) as rt:
        target = at(hedge=Hedge(after=timedelta(seconds=1), budget=0.1), limits=ModelLimits(concurrency=200))
        await asyncio.gather(*(rt.models.generate(ask(), target) for _ in range(100)))
        assert provider.calls <= 100 + 10 + 1


@virtual
async def test_without_a_delay_the_95th_percentile_says_what_is_slow() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        for _ in range(30):
            await rt.models.generate(ask(), at(hedge=Hedge(budget=1.0)))
        made, before = provider.calls, now()
        provider.script = [100.0]
        await rt.models.generate(ask(), at(hedge=Hedge(budget=1.0)))
        assert now() - before == pytest.approx(2.0, abs=0.1)
        assert provider.calls == made + 2


# --- caches, single flights ---------------------------------------------------------------------------


@virtual
async def test_equal_deterministic_requests_are_asked_once() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        target = at(cache=CachePolicy(ttl=timedelta(hours=1)))
        with recorded(rt.events) as seen:
            await asyncio.gather(*(rt.models.generate(ask(temperature=0), target) for _ in range(20)))
            await rt.models.generate(ask(temperature=0), target)
            assert provider.calls == 1
            await rt.models.generate(ask("other", temperature=0), target)
            await rt.models.generate(ask(temperature=1), target)
            await rt.models.generate(ask(temperature=1), target)
            assert provider.calls == 4
        assert sum(each.cached for each in seen.of(LlmCall)) == 20
        assert [each.cost_usd for each in seen.of(LlmCall) if each.cached] == [0.0] * 20
        (figures,) = rt.models.statistics()["resources"].values()
        assert (figures["calls"], figures["hits"]) == (4, 1)
        assert figures["cost_usd"] == pytest.approx(4 * 20e-6)
        await asyncio.sleep(3_601)
        await rt.models.generate(ask(temperature=0), target)
        assert provider.calls == 5
        text = [piece.text async for piece in rt.models.stream(ask(temperature=0), target)]
        assert (text, provider.calls) == (["re: hello"], 5)


@virtual
async def test_a_shared_call_outlives_those_who_leave_and_is_cancelled_with_the_last() -> None:
    provider = Counting(then=10.0)
    async with models_of(counting=provider) as rt:
        target = at(single_flight=True)
        tasks = [asyncio.ensure_future(rt.models.generate(ask(), target)) for _ in range(3)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        await asyncio.sleep(1)
        assert provider.in_flight == 1
        assert (await tasks[1]).text == "re: hello"
        assert (await tasks[2]).text == "re: hello"
        assert provider.calls == 1
        alone = asyncio.ensure_future(rt.models.generate(ask(), target))
        await asyncio.sleep(1)
        alone.cancel()
        await asyncio.sleep(0.1)
        assert provider.in_flight == 0
        assert idle(rt)


@virtual
async def test_what_a_shared_call_took_is_told_once_whoever_leaves() -> None:
    provider = Counting(then=10.0)
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            target = at(single_flight=True)
            tasks = [asyncio.ensure_future(rt.models.generate(ask(), target)) for _ in range(3)]
            await asyncio.sleep(1)
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        told = [(each.attempts, each.input_tokens, each.cached) for each in seen.of(LlmCall)]
        assert sorted(told) == [(0, 0, True), (0, 0, True), (1, 10, False)]
        with recorded(rt.events) as seen:
            alone = asyncio.ensure_future(rt.models.generate(ask(), target))
            await asyncio.sleep(1)
            alone.cancel()
            await asyncio.sleep(0.1)
        assert sum(each.attempts for each in seen.of(LlmCall)) == 1, "it was asked, and may have to be paid"


@virtual
async def test_whoever_waits_when_the_runtime_closes_is_told() -> None:
    provider = Counting(then=1.0)
    async with models_of(counting=provider) as rt:
        target = at(limits=ModelLimits(concurrency=1))
        tasks = [asyncio.ensure_future(rt.models.generate(ask(), target)) for _ in range(3)]
        await asyncio.sleep(0.5)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each).__name__ for each in found] == [
        "Generation",
        "RuntimeClosedError",
        "RuntimeClosedError",
    ]


@virtual
async def test_models_nobody_calls_any_more_are_let_go_of() -> None:
    provider = Counting(then=0.001)
    async with models_of(counting=provider) as rt:
        for number in range(10_500):
            endpoint = Endpoint(provider="counting", base_url=f"http://tenant-{number}")
            await rt.models.generate(ask(), Target(endpoints=(endpoint,)))
            await asyncio.sleep(0.1)
        assert len(rt.models.gateway.resources) <= 10_000


@virtual
async def test_an_error_of_a_shared_call_is_everybodys() -> None:
    provider = Counting(then=RequestRefusedError("no", **FACTS, status=400, code="x"))
    async with models_of(counting=provider) as rt:
        found = await asyncio.gather(
            *(rt.models.generate(ask(), at(single_flight=True)) for _ in range(3)), return_exceptions=True
        )
        assert [type(each).__name__ for each in found] == ["RequestRefusedError"] * 3
        assert provider.calls == 1


# --- streams ------------------------------------------------------------------------------------------


@virtual
async def test_a_stream_is_retried_until_its_first_piece_and_told_of_once() -> None:
    provider = Counting(unavailable(), then=0.5)
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            prompt = Prompt(name="greet", version="3")
            pieces = [piece async for piece in rt.models.stream(ask(), at(), prompt=prompt)]
        assert "".join(piece.text for piece in pieces) == "re: hello"
        assert pieces[-1].finish == "stop"
        told = seen.one(LlmCall)
        assert (told.attempts, told.output_tokens, told.prompt, told.prompt_version) == (2, 5, "greet", "3")
        assert told.first_token_s is not None
        assert told.first_token_s < told.duration_s
        assert idle(rt)


class Breaks(Counting):
    """Its streams break after one piece."""

    async def stream(self, request: GenerateRequest, ctx: object):  # noqa: ANN201 - as its parent's
        del ctx
        await self._pass(request)
        yield Delta(text="half")
        raise BrokenStreamError("gone", **FACTS, status=200, reason="closed", received=4)


@virtual
async def test_a_stream_that_breaks_after_its_first_piece_is_not_begun_again() -> None:
    provider = Breaks()
    async with models_of(counting=provider) as rt:
        pieces = rt.models.stream(ask(), at())
        assert (await anext(pieces)).text == "half"
        with pytest.raises(BrokenStreamError):
            await anext(pieces)
        assert provider.calls == 1
        assert idle(rt)


@virtual
async def test_a_reader_that_leaves_ends_the_exchange_and_the_slowest_of_two_is_closed() -> None:
    provider = Counting(then=0.1)
    async with models_of(counting=provider) as rt:
        pieces = rt.models.stream(ask(), at())
        assert (await anext(pieces)).text == "re:"
        assert not idle(rt)
        await pieces.aclose()
        assert idle(rt)
        provider.script = [50.0]
        target = at(hedge=Hedge(after=timedelta(seconds=1)))
        text = [piece.text async for piece in rt.models.stream(ask(), target)]
        assert "".join(text) == "re: hello"
        assert provider.calls == 3
        assert idle(rt)


# --- embedding ----------------------------------------------------------------------------------------


@virtual
async def test_many_texts_are_few_requests_and_keep_their_order() -> None:
    rng = random.Random(2)
    provider = Counting(*(rng.random() for _ in range(10)), max_texts=30)
    async with models_of(counting=provider) as rt:
        texts = tuple("x" * (each % 17) for each in range(100))
        vectors = await rt.models.embed(EmbedRequest(model="m", texts=texts), at())
        assert [floats_of(each)[0] for each in vectors if isinstance(each, bytes)] == [
            float(len(text)) for text in texts
        ]
        assert provider.calls == 4
        assert idle(rt)


@virtual
async def test_a_text_that_cannot_be_embedded_stands_alone_and_the_others_do_not_suffer() -> None:
    provider = Counting(then=0.01, bad_texts=lambda text: "bad" in text)
    async with models_of(counting=provider) as rt:
        texts = tuple("bad" if each in (17, 70) else f"good {each}" for each in range(100))
        found = await rt.models.embed(EmbedRequest(model="m", texts=texts), at())
        assert [index for index, each in enumerate(found) if isinstance(each, Exception)] == [17, 70]
        assert len(found) == 100
        assert provider.calls <= 2 * 2 * 8 + 1
        with pytest.raises(RequestRefusedError):
            await rt.models.embed(EmbedRequest(model="m", texts=("bad",) * 50), at())


@virtual
async def test_what_concerns_all_texts_is_raised_and_ends_the_other_requests() -> None:
    provider = Counting(ModelNotFoundError("none", **FACTS, status=404, code="x"), then=5.0, max_texts=10)
    async with models_of(counting=provider) as rt:
        with pytest.raises(ModelNotFoundError):
            await rt.models.embed(EmbedRequest(model="m", texts=("a",) * 50), at())
        assert now() < 1
        assert idle(rt)


@virtual
async def test_vectors_are_cached_text_by_text() -> None:
    provider = Counting(then=0.1)
    async with models_of(counting=provider) as rt:
        target = at(cache=CachePolicy())
        await rt.models.embed(EmbedRequest(model="m", texts=("a", "b")), target)
        found = await rt.models.embed(EmbedRequest(model="m", texts=("b", "c", "a")), target)
        assert len(found) == 3
        assert provider.texts == [("a", "b"), ("c",)]


# --- endpoints ----------------------------------------------------------------------------------------


@virtual
async def test_a_provider_nobody_knows_is_named_with_those_there_are() -> None:
    async with models_of(counting=Counting()) as rt:
        with pytest.raises(ConfigError, match="counting"):
            await rt.models.generate(ask(), at("countin"))
        with pytest.raises(RequestRefusedError, match="embeds only"):
            await rt.models.generate(ask(), at("local"))
        with pytest.raises(ConfigError, match="at least one endpoint"):
            await rt.models.generate(ask(), Target(endpoints=()))
    with pytest.raises(RuntimeClosedError):
        await rt.models.generate(ask(), at())
    takes_nothing: Any = dict
    async with FlowRuntime(llm_providers={"broken": takes_nothing}) as rt:
        with pytest.raises(ConfigError, match="should take an Endpoint and a ProviderContext"):
            await rt.models.generate(ask(), at("broken"))


@virtual
async def test_a_model_per_endpoint_is_asked_for_there() -> None:
    first, second = Counting(then=ProviderUnavailableError("x", **FACTS, status=503)), Counting()
    async with models_of(first=first, second=second) as rt:
        two = at("first", "second", retry=ONCE)
        target = Target(endpoints=two.endpoints, models=(None, "other"), policy=two.policy)
        answer = await rt.models.generate(ask(), target)
        assert isinstance(answer, Generation)
        assert (first.models, second.models) == (["m"], ["other"])
        assert rt.models.count_tokens(ask(), target) == 10


@virtual
async def test_an_answer_says_what_it_cost_whoever_asks_for_it_and_what_is_kept_costs_nothing() -> None:
    async with models_of(counting=Counting()) as rt:  # 10 tokens in at $1, 5 out at $2 a million
        target = at(cache=CachePolicy())
        first = await rt.models.generate(ask(temperature=0), target)
        again = await rt.models.generate(ask(temperature=0), target)
    assert first.cost_usd == pytest.approx(20e-6)
    assert again.cost_usd == 0.0
