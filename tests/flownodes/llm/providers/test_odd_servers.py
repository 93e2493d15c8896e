"""What compatible servers do differently, or wrongly: understood where it can be, a typed error where not."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from flowcore.llm.answers import Assembly, Generation, Usage
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import BrokenStreamError, ProviderUnavailableError
from flowcore.llm.messages import ToolCall, user
from flowcore.llm.provider import Provider
from flowcore.llm.requests import GenerateRequest
from flowcore.values import Secret
from flownodes.llm.providers.anthropic.provider import AnthropicProvider
from flownodes.llm.providers.openai.presets import AZURE, OPENAI
from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings
from flowruntime.testing.conformance.provider import StandaloneProviderContext
from tests.servers.llm import KEY, FakeLlm, serving
from tests.servers.llm_formats import AnthropicMessages, OpenAIChat

ASKED = GenerateRequest(model="m", messages=(user("hello"),))


@pytest.fixture
async def ctx() -> AsyncGenerator[StandaloneProviderContext, None]:
    async with GuardedHttpClient(HttpSettings(allow_private=True)) as http:
        yield StandaloneProviderContext(http)


@pytest.fixture
async def fake() -> AsyncGenerator[FakeLlm, None]:
    async with serving(OpenAIChat()) as server:
        yield server


async def read(provider: Provider, ctx: StandaloneProviderContext) -> Generation:
    assembly = Assembly()
    async for piece in provider.stream(ASKED, ctx):
        assembly.add(piece)
    return assembly.whole()


def events(*pieces: dict[str, Any]) -> bytes:
    return (
        b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces) + b"data: [DONE]\n\n"
    )


def piece(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}]}


def call(**function: str) -> dict[str, Any]:
    return {"tool_calls": [{"function": function}]}


async def said(fake: FakeLlm, ctx: StandaloneProviderContext, *pieces: dict[str, Any]) -> Generation:
    fake.raw(200, events(*pieces), {"content-type": "text/event-stream"})
    return await read(OPENAI(fake.endpoint(), ctx), ctx)


async def test_calls_without_numbers_follow_each_other_a_name_begins_one(
    fake: FakeLlm, ctx: StandaloneProviderContext
) -> None:
    answer = await said(
        fake,
        ctx,
        piece(call(name="one", arguments='{"x"')),
        piece(call(arguments=":1}")),
        piece(call(name="two", arguments="")),
        piece(finish="stop"),
    )
    assert answer.tool_calls == (
        ToolCall(id="call_0", name="one", arguments='{"x":1}'),
        ToolCall(id="call_1", name="two", arguments="{}"),
    )
    assert answer.finish == "tool_calls"


async def test_a_call_without_a_name_is_no_call_in_a_stream_either(
    fake: FakeLlm, ctx: StandaloneProviderContext
) -> None:
    with pytest.raises(BrokenStreamError, match="has no name"):
        await said(fake, ctx, piece(call(arguments="{}")), piece(finish="tool_calls"))


async def test_null_where_choices_should_be_is_a_piece_without_any(
    fake: FakeLlm, ctx: StandaloneProviderContext
) -> None:
    usage = {"choices": None, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    answer = await said(fake, ctx, piece({"content": "a"}), piece(finish="stop"), usage)
    assert (answer.text, answer.finish) == ("a", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7


async def test_of_several_answers_at_once_only_the_first_is_read(
    fake: FakeLlm, ctx: StandaloneProviderContext
) -> None:
    answer = await said(
        fake,
        ctx,
        piece({"content": "a"}),
        piece({"content": "other"}, index=1),
        piece(finish="length", index=1),
        piece({"content": "b"}, "stop"),
    )
    assert (answer.text, answer.finish) == ("ab", "stop")


async def test_fewer_tokens_than_none_are_none(fake: FakeLlm, ctx: StandaloneProviderContext) -> None:
    """A budget would grow by them."""
    usage: dict[str, Any] = {"choices": [], "usage": {"prompt_tokens": -3, "completion_tokens": 4}}
    answer = await said(fake, ctx, piece({"content": "a"}, "stop"), usage)
    assert answer.usage == Usage(input_tokens=0, output_tokens=4)


async def test_a_response_that_ends_as_failed_has_failed(
    fake: FakeLlm, ctx: StandaloneProviderContext
) -> None:
    end: dict[str, Any] = {"type": "response.completed", "response": {"status": "failed", "output": []}}
    fake.raw(200, events(end), {"content-type": "text/event-stream"})
    with pytest.raises(ProviderUnavailableError, match="the answer failed"):
        await read(OPENAI(fake.endpoint(options={"api": "responses"}), ctx), ctx)


@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
async def test_anthropics_address_may_have_its_version_or_not(
    path: str, ctx: StandaloneProviderContext
) -> None:
    async with serving(AnthropicMessages()) as server:
        server.answer(Generation(text="hi"))
        address = f"http://127.0.0.1:{server.port}{path}"
        provider = AnthropicProvider(server.endpoint(base_url=address), ctx)
        assert (await provider.generate(ASKED, ctx)).text == "hi"
        assert server.seen[0].path == "/v1/messages"


@pytest.mark.parametrize(
    ("below", "path"),
    [
        ("", "/openai/deployments/m/chat/completions?api-version=2024-10-21"),
        ("/openai/v1", "/openai/v1/chat/completions"),
    ],
)
async def test_azures_address_comes_from_its_variable_and_says_which_paths_it_has(
    below: str, path: str, fake: FakeLlm, ctx: StandaloneProviderContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"http://127.0.0.1:{fake.port}{below}/")
    fake.answer(Generation(text="hi"))
    provider = AZURE(Endpoint(provider="azure", api_key=Secret(KEY)), ctx)
    assert (await provider.generate(ASKED, ctx)).text == "hi"
    assert (fake.seen[0].path, fake.seen[0].headers["api-key"]) == (path, KEY)
