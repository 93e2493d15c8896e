"""What becomes of a call that fails: attempts, cool-downs, circuits, other endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from flowcore import LimitChanged, LlmCall
from flowcore.errors import CircuitOpenError
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import (
    AuthenticationError,
    NoEndpointError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRefusedError,
)
from flowcore.llm.requests import Timeouts
from flowcore.policies import Breaker, RetryPolicy
from flowruntime.testing.recorder import recorded
from tests.behaviour.harness import now, virtual
from tests.flowruntime.models.counting import (
    Counting,
    ask,
    at,
    idle,
    models_of,
    no_key,
    refused,
    too_many,
    unavailable,
)

THRICE = RetryPolicy(max_attempts=3, initial=timedelta(seconds=0.1), jitter=0.0)


@virtual
async def test_a_wrong_key_is_one_request() -> None:
    provider = Counting(then=no_key())
    async with models_of(counting=provider) as rt:
        with pytest.raises(AuthenticationError):
            await rt.models.generate(ask(), at())
        assert provider.calls == 1
        assert idle(rt)


@virtual
async def test_unavailable_twice_is_three_requests_and_an_answer() -> None:
    provider = Counting(unavailable(), unavailable())
    async with models_of(counting=provider) as rt:
        answer = await rt.models.generate(ask(), at())
        assert answer.text == "re: hello"
        assert provider.calls == 3
        assert idle(rt)


@virtual
async def test_nothing_is_sent_while_the_model_asked_to_be_left_alone() -> None:
    """Whoever made the call that was refused: the others wait, too, those that wait for a place included."""
    provider = Counting(too_many(2.0))
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            target = at(retry=THRICE)
            calls = [rt.models.generate(ask(str(number)), target) for number in range(20)]
            first = asyncio.ensure_future(calls[0])
            await asyncio.sleep(0.0005)
            others = [asyncio.ensure_future(call) for call in calls[1:]]
            await asyncio.sleep(0.01)
            late = asyncio.ensure_future(rt.models.for_key("other").generate(ask("late"), target))
            answers = await asyncio.gather(first, *others, late)
        asked_at = 0.001
        within = [at_ for at_ in provider.times if asked_at < at_ < asked_at + 2.0]
        assert within == []
        assert len(answers) == 21
        told = [(each.before, each.capacity) for each in seen.of(LimitChanged) if "cool_down" in each.limit]
        assert told[0][1] == 0
        assert told[-1][0] == 0
        assert idle(rt)


@virtual
async def test_a_call_counts_once_at_its_circuit_however_often_it_was_tried() -> None:
    provider = Counting(then=unavailable())
    async with models_of(counting=provider) as rt:
        target = at(retry=THRICE, breaker=Breaker(failures=5, window=10))
        for _ in range(2):
            with pytest.raises(ProviderUnavailableError):
                await rt.models.generate(ask(), target)
        (resource,) = rt.models.gateway.resources.values()
        assert provider.calls == 6
        assert resource.circuit is not None
        assert resource.circuit.state == "closed"


@virtual
async def test_too_many_requests_never_open_a_circuit() -> None:
    provider = Counting(then=too_many())
    async with models_of(counting=provider) as rt:
        target = at(retry=RetryPolicy(max_attempts=1), breaker=Breaker(failures=2, window=2))
        for _ in range(10):
            with pytest.raises(RateLimitedError):
                await rt.models.generate(ask(), target)
        assert provider.calls == 10


@virtual
async def test_a_hundred_callers_at_a_half_open_circuit_are_one_request() -> None:
    provider = Counting(unavailable(), unavailable(), then=1.0)
    async with models_of(counting=provider) as rt:
        target = at(
            retry=RetryPolicy(max_attempts=1),
            breaker=Breaker(failures=2, window=2, open_for=timedelta(seconds=15)),
        )
        for _ in range(2):
            with pytest.raises(ProviderUnavailableError):
                await rt.models.generate(ask(), target)
        with pytest.raises(CircuitOpenError, match="has failed too often"):
            await rt.models.generate(ask(), target)
        await asyncio.sleep(15)
        found = await asyncio.gather(
            *(rt.models.generate(ask(), target) for _ in range(100)), return_exceptions=True
        )
        assert provider.calls == 3
        assert sum(isinstance(each, CircuitOpenError) for each in found) == 99
        await rt.models.generate(ask(), target)
        assert idle(rt)


@virtual
async def test_callers_may_wait_for_a_circuit_and_are_served_when_the_probe_succeeds() -> None:
    provider = Counting(unavailable(), then=1.0)
    async with models_of(counting=provider) as rt:
        target = at(
            retry=RetryPolicy(max_attempts=1),
            breaker=Breaker(failures=1, window=1, open_for=timedelta(seconds=5), when_open="wait"),
        )
        with pytest.raises(ProviderUnavailableError):
            await rt.models.generate(ask(), target)
        found = await asyncio.gather(*(rt.models.generate(ask(), target) for _ in range(10)))
        assert len(found) == 10
        assert sum(at_ < 6.0 for at_ in provider.times) == 2, "the one that failed, and one probe"


@virtual
async def test_retries_of_all_callers_draw_on_one_budget() -> None:
    provider = Counting(then=unavailable())
    async with models_of(counting=provider) as rt:
        target = at(retry=RetryPolicy(max_attempts=5, initial=timedelta(0), budget=0.2), breaker=None)
        for _ in range(100):
            with pytest.raises(ProviderUnavailableError):
                await rt.models.generate(ask(), target)
        assert provider.calls <= 100 + 20 + 10 + 5


@virtual
async def test_an_attempt_that_takes_too_long_is_ended_and_tried_again() -> None:
    provider = Counting(1_000.0)
    async with models_of(counting=provider) as rt:
        endpoint = Endpoint(provider="counting", timeouts=Timeouts(total=timedelta(seconds=3)))
        target = Target(endpoints=(endpoint,), policy=at(retry=THRICE).policy)
        await rt.models.generate(ask(), target)
        assert provider.times == pytest.approx([0.0, 3.1], abs=0.01)
        provider.then = 1_000.0
        with pytest.raises(ProviderTimeoutError, match="within 3 s") as caught:
            await rt.models.generate(ask(), target)
        assert caught.value.__dict__["phase"] == "total"
        assert idle(rt)


# --- several endpoints --------------------------------------------------------------------------------


@virtual
@pytest.mark.parametrize("fault", [no_key, unavailable, too_many])
async def test_what_fails_at_one_endpoint_goes_to_the_next(fault: Callable[[], Exception]) -> None:
    first, second = Counting(then=fault()), Counting()
    async with models_of(first=first, second=second) as rt:
        await rt.models.generate(ask(), at("first", "second"))
        assert (first.calls, second.calls) == (1, 1)
        assert idle(rt)


@virtual
async def test_a_request_that_is_refused_is_shown_to_nobody_else() -> None:
    first, second = Counting(then=refused()), Counting()
    async with models_of(first=first, second=second) as rt:
        with pytest.raises(RequestRefusedError):
            await rt.models.generate(ask(), at("first", "second"))
        assert (first.calls, second.calls) == (1, 0)


@virtual
async def test_when_all_fail_the_error_says_what_each_of_them_said() -> None:
    first, second = Counting(then=no_key()), Counting(then=unavailable())
    async with models_of(first=first, second=second) as rt:
        with pytest.raises(NoEndpointError) as caught:
            await rt.models.generate(ask(), at("first", "second", retry=THRICE))
        tried = caught.value.__dict__["tried"]
        assert [(each["error"], each["attempts"]) for each in tried] == [
            ("AuthenticationError", 1),
            ("ProviderUnavailableError", 3),
        ]
        assert "sk-1234567890" not in str(caught.value.facts())


@virtual
async def test_an_endpoint_that_cools_down_is_passed_over_while_another_can_answer() -> None:
    first, second = Counting(too_many(30.0)), Counting()
    async with models_of(first=first, second=second) as rt:
        for _ in range(5):
            await rt.models.generate(ask(), at("first", "second"))
        assert (first.calls, second.calls) == (1, 5)
        await asyncio.sleep(30)
        await rt.models.generate(ask(), at("first", "second"))
        assert first.calls == 2


@virtual
async def test_round_robin_takes_turns_and_least_busy_the_idlest() -> None:
    first, second = Counting(then=1.0), Counting(then=1.0)
    async with models_of(first=first, second=second) as rt:
        for _ in range(10):
            await rt.models.generate(ask(), at("first", "second", balance="round_robin"))
        assert (first.calls, second.calls) == (5, 5)
        first.then = 100.0
        slow = asyncio.ensure_future(rt.models.generate(ask(), at("first")))
        await asyncio.sleep(0)
        for _ in range(5):
            await rt.models.generate(ask(), at("first", "second", balance="least_busy"))
        assert (first.calls, second.calls) == (6, 10)
        await slow


@virtual
async def test_each_call_tells_of_itself_once_and_of_no_key() -> None:
    provider = Counting(unavailable())
    async with models_of(counting=provider) as rt:
        with recorded(rt.events) as seen:
            await rt.models.generate(ask(), at())
            provider.script = [no_key()]
            with pytest.raises(AuthenticationError):
                await rt.models.generate(ask(), at())
        good, bad = told = seen.of(LlmCall)
        assert (good.attempts, good.input_tokens, good.output_tokens, good.error) == (2, 10, 5, None)
        assert good.cost_usd == pytest.approx(20e-6)
        assert good.duration_s > 0.2
        assert (bad.error, bad.attempts) == ("AuthenticationError", 1)
        assert "sk-1234567890" not in str(told)
        assert "sk-1234567890" not in str(rt.statistics())
        assert now() > 0
