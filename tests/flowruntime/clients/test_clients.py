"""LlmClient and EmbeddingClient with the scripted provider, in the process' runtime and in one given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import CoercionError, ConfigError, LifecycleError
from flowcore.llm.errors import AuthenticationError, RateLimitedError
from flowcore.llm.messages import user
from flowcore.llm.policy import CallPolicy
from flowcore.policies import RetryPolicy
from flowruntime import FlowRuntime, shutdown
from flowruntime.clients.config import EmbeddingConfig, LlmConfig
from flowruntime.clients.embedding import EmbeddingClient, pieces_of
from flowruntime.clients.llm import LlmClient
from flowruntime.clients.results import Failure
from flowruntime.testing import run_virtual


@pytest.fixture(autouse=True)
def _no_runtime_left() -> Iterator[None]:
    yield
    shutdown()


def config(*answers: dict[str, Any], **options: Any) -> LlmConfig:
    return LlmConfig.scripted(model="m", options={"answers": list(answers), **options})


def test_a_prompt_is_answered_from_any_thread() -> None:
    client = LlmClient(config({"when": "hello", "text": "hi"}))
    assert client.complete("hello") == "hi"
    full = client.complete_full("hello")
    assert (full.text, full.finish, full.model) == ("hi", "stop", "scripted/m")
    assert full.usage is not None
    assert full.usage.output_tokens == 1


async def test_a_prompt_is_answered_on_any_loop() -> None:
    client = LlmClient(config({"when": "hello", "text": "hi"}))
    assert await client.complete_async("hello") == "hi"
    assert (await client.chat([("system", "be kind"), user("hello")])).text == "hi"
    async with FlowRuntime() as rt:
        assert await LlmClient(config({"text": "mine"}), runtime=rt).complete_async("x") == "mine"


async def test_a_client_with_a_runtime_of_its_own_cannot_block_its_loop() -> None:
    async with FlowRuntime() as rt:
        with pytest.raises(LifecycleError, match="await the asynchronous method"):
            LlmClient(config(), runtime=rt).complete("x")


async def test_a_batch_keeps_order_and_length_and_failures_are_objects() -> None:
    client = LlmClient(config({"when": "bad", "error": {"kind": "AuthenticationError", "status": 401}}))
    found = await client.complete_batch(["a", "", "bad", "b", "  "])
    assert [item if isinstance(item, str) else item.kind for item in found] == [
        "a", "ConfigError", "AuthenticationError", "b", "ConfigError",
    ]  # fmt: skip
    failed = found[2]
    assert isinstance(failed, Failure)
    assert (failed.index, failed.provider, failed.model, failed.status) == (2, "scripted", "m", 401)
    assert [item for item in found if item] == ["a", "b"]


def test_a_batch_has_as_many_calls_at_once_as_it_may() -> None:
    async def scenario(at_once: int) -> float:
        async with FlowRuntime() as rt:
            client = LlmClient(LlmConfig.scripted(model="m", options={"latency": "1s"}), runtime=rt)
            began = asyncio.get_running_loop().time()
            found = await client.complete_batch([str(n) for n in range(8)], max_concurrency=at_once)
            assert found == [str(n) for n in range(8)]
            return asyncio.get_running_loop().time() - began

    assert run_virtual(scenario(2)) == pytest.approx(4.0, abs=0.1)


async def test_what_a_rate_limit_says_is_in_the_failure() -> None:
    error = {"kind": "RateLimitedError", "status": 429, "retry_after": "1500ms"}
    client = LlmClient(
        LlmConfig.scripted(
            model="m",
            options={"answers": [{"error": error}]},
            policy=CallPolicy(retry=RetryPolicy(max_attempts=1), breaker=None),
        )
    )
    (failed,) = await client.complete_batch(["x"])
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.status, failed.retry_after_s) == ("RateLimitedError", 429, 1.5)
    with pytest.raises(RateLimitedError):
        await client.complete_async("x")


async def test_an_answer_is_streamed_and_may_be_left_early() -> None:
    client = LlmClient(config({"text": "abcdefgh", "pieces": 4}))
    assert [piece async for piece in client.complete_stream("x")] == ["ab", "cd", "ef", "gh"]
    stream = client.complete_stream("x")
    assert await anext(stream) == "ab"
    await stream.aclose()
    async with FlowRuntime() as rt:
        own = LlmClient(config({"text": "abcd", "pieces": 2}), runtime=rt)
        assert [piece async for piece in own.complete_stream("x")] == ["ab", "cd"]
    assert client.get_stats().in_flight == 0


async def test_a_stream_that_breaks_raises_where_it_is_read() -> None:
    client = LlmClient(config({"text": "abcd", "pieces": 2, "break_after": 1}))
    stream = client.complete_stream("x")
    assert await anext(stream) == "ab"
    with pytest.raises(ConnectionError, match="broke after 1 pieces"):
        await anext(stream)


async def test_who_is_cancelled_cancels_the_call_and_waits_for_its_end() -> None:
    client = LlmClient(LlmConfig.scripted(model="m", options={"latency": "1h"}))
    task = asyncio.create_task(client.complete_async("x"))
    while client.get_stats().in_flight == 0:  # noqa: ASYNC110 - it happens in another thread
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.get_stats().in_flight == 0


async def test_figures_are_kept_and_may_be_reset() -> None:
    client = LlmClient(config({"when": "bad", "error": {"kind": "AuthenticationError"}}))
    await client.warmup()
    await client.complete_async("four")
    with pytest.raises(AuthenticationError):
        await client.complete_async("bad")
    figures = client.get_stats()
    assert (figures.calls, figures.succeeded, figures.failed, figures.in_flight) == (3, 2, 1, 0)
    assert figures.input_tokens == 2
    assert figures.average_s is not None
    client.reset_stats()
    assert client.get_stats().calls == 0
    assert client.get_stats().average_s is None


@pytest.mark.parametrize("prompt", ["", "   ", 5, None])
def test_what_is_no_prompt_is_refused_without_a_call(prompt: Any) -> None:
    client = LlmClient(config())
    with pytest.raises(ConfigError, match="prompt is"):
        client.complete(prompt)
    assert client.get_stats().calls == 0


def test_a_configuration_is_made_by_the_name_of_any_installed_provider() -> None:
    made = LlmConfig.scripted("secret-key", model="m", max_tokens=5)
    assert made.provider == "scripted"
    assert made.max_tokens == 5
    assert "secret-key" not in repr(made)
    assert "scripted" in dir(LlmConfig)
    with pytest.raises(AttributeError, match="no provider 'scripte' is installed; did you mean 'scripted'"):
        LlmConfig.scripte(model="m")
    with pytest.raises(ConfigError, match="needs a model"):
        LlmConfig.scripted()
    with pytest.raises(ConfigError, match="has no field 'max_token'; did you mean 'max_tokens'"):
        LlmConfig.scripted(model="m", max_token=5)


def vectors() -> EmbeddingClient:
    return EmbeddingClient(EmbeddingConfig.scripted(model="e", options={"dimensions": 8}))


def test_texts_are_embedded_one_by_one_and_in_batches() -> None:
    client = vectors()
    one = client.embed_text("my card was stolen")
    assert len(one) == 8
    same, empty = client.embed_batch(["my card was stolen", ""])
    assert same == one
    assert isinstance(empty, Failure)
    assert (empty.index, empty.kind) == (1, "ConfigError")
    assert client.similarity(one, one) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="the text is empty"):
        client.embed_text(" ")
    with pytest.raises(CoercionError, match="all zeros"):
        client.similarity(one, [0.0] * 8)


async def test_texts_are_embedded_on_any_loop() -> None:
    client = vectors()
    assert await client.embed_text_async("a") == (await client.embed_batch_async(["a"]))[0]


def test_a_document_is_embedded_in_pieces() -> None:
    found = vectors().embed_document("one two three four", characters=9)
    assert [piece for piece, _ in found] == ["one two", "three", "four"]
    assert all(isinstance(vector, list) for _, vector in found)
    with pytest.raises(ConfigError, match="the text is empty"):
        vectors().embed_document(" ")


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 20))
def test_pieces_hold_every_character_that_is_no_white_space(text: str, characters: int) -> None:
    if not text.strip():
        return
    pieces = pieces_of(text, characters)
    assert all(0 < len(piece) <= characters for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


async def test_a_stream_left_with_more_ready_than_may_wait_ends_all_the_same() -> None:
    """Whoever leaves reads no more, so nothing may wait for room."""
    client = LlmClient(config({"text": "x" * 1_000, "pieces": 1_000}))
    stream = client.complete_stream("x")
    assert await anext(stream) == "x"
    await asyncio.sleep(0.05)  # in real time: the other loop fills what may wait
    async with asyncio.timeout(10):
        await stream.aclose()
    assert client.get_stats().in_flight == 0
