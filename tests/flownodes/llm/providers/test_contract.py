"""Our adapters against somebody else's idea of the same APIs: npm's `@copilotkit/aimock`.

Our own fake servers prove that an adapter understands what we think a provider says. This one was written by
others for the providers' own clients, so that a misreading of ours does not stand on both sides.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from flowcore.llm.answers import Assembly, Delta, Generation, Usage
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRefusedError,
)
from flowcore.llm.messages import Message, OutputSchema, Tool, ToolCall, system, user
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Secret
from flowcore.vectors import floats_of
from flownodes.llm.providers.anthropic.provider import AnthropicProvider
from flownodes.llm.providers.ollama.provider import OllamaProvider
from flownodes.llm.providers.openai.presets import PRESETS
from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings
from flowruntime.testing.conformance.provider import StandaloneProviderContext
from tests.servers.mock_models import NoMockModelsError, serving

KEY = "sk-contract-0123456789"
HELLO = "Hi there, äöü 😀! This answer has some length, so that it comes in pieces."
WEATHER: list[tuple[str, dict[str, Any]]] = [
    ("get_weather", {"city": "Paris", "days": [1, 2]}),
    ("get_time", {}),
]
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
TOOLS = tuple(Tool(name=name, description=name, parameters=NOTHING) for name, _ in WEATHER)
CITY = OutputSchema(
    name="place", schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
)


@dataclass(frozen=True)
class Api:
    """One API of aimock's, and the adapter of ours that speaks it."""

    name: str
    factory: Any
    path: str
    model: str = "gpt-4o"
    options: dict[str, Any] = field(default_factory=dict[str, Any])


CHAT = Api("openai", PRESETS["openai"], "/v1")
RESPONSES = Api("openai", PRESETS["openai"], "/v1", options={"api": "responses"})
AZURE = Api("azure", PRESETS["azure"], "")
OPENROUTER = Api("openrouter", PRESETS["openrouter"], "/api/v1")
ANTHROPIC = Api("anthropic", AnthropicProvider, "", model="claude-sonnet-4-5")
OLLAMA = Api("ollama", OllamaProvider, "", model="llama3.2")
APIS = [CHAT, RESPONSES, AZURE, OPENROUTER, ANTHROPIC, OLLAMA]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    try:
        with serving() as url:
            yield url
    except NoMockModelsError as missing:
        pytest.skip(str(missing))


@pytest.fixture
async def ctx() -> AsyncGenerator[StandaloneProviderContext, None]:
    async with GuardedHttpClient(HttpSettings(allow_private=True)) as http:
        yield StandaloneProviderContext(http)


def opened(api: Api, address: str, ctx: StandaloneProviderContext) -> Provider:
    endpoint = Endpoint(
        provider=api.name, base_url=address + api.path, api_key=Secret(KEY), options=api.options
    )
    made: Provider = api.factory(endpoint, ctx)
    return made


def asking(api: Api, text: str, **fields: Any) -> GenerateRequest:
    given: dict[str, Any] = {"messages": (system("Be brief."), user(text)), "max_tokens": 500, **fields}
    return GenerateRequest(model=api.model, **given)


async def streamed(
    provider: Provider, request: GenerateRequest, ctx: StandaloneProviderContext
) -> tuple[Generation, list[Delta]]:
    assembly = Assembly()
    pieces = [piece async for piece in provider.stream(request, ctx)]
    for piece in pieces:
        assembly.add(piece)
    return assembly.whole(), pieces


def shown(answer: Generation) -> dict[str, Any]:
    """What must be the same whole and in pieces: ids are made anew for each answer."""
    calls = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
    return {"text": answer.text, "calls": calls, "finish": answer.finish, "reasoning": answer.reasoning}


def ids(apis: list[Api]) -> list[str]:
    return [f"{api.name}{'-responses' if api.options else ''}" for api in apis]


@pytest.mark.parametrize("api", APIS, ids=ids(APIS))
async def test_an_answer_is_the_same_whole_and_in_pieces(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    whole = await provider.generate(asking(api, "hello"), ctx)
    assert (whole.text, whole.finish, whole.tool_calls) == (HELLO, "stop", ())
    assert whole.model
    answer, pieces = await streamed(provider, asking(api, "hello"), ctx)
    assert shown(answer) == shown(whole)
    assert sum(bool(piece.text) for piece in pieces) > 5
    assert [piece.finish for piece in pieces if piece.finish] == ["stop"]
    assert pieces[-1].finish == "stop"


@pytest.mark.parametrize("api", APIS, ids=ids(APIS))
async def test_tools_are_asked_for_and_their_answers_are_understood(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    request = asking(api, "weather", tools=TOOLS)
    whole = await provider.generate(request, ctx)
    assert [(call.name, json.loads(call.arguments)) for call in whole.tool_calls] == WEATHER
    assert whole.finish == "tool_calls"
    assert len({call.id for call in whole.tool_calls} - {""}) == 2
    answer, _ = await streamed(provider, request, ctx)
    assert shown(answer) == shown(whole)
    assert len({call.id for call in answer.tool_calls} - {""}) == 2


WITH_CALL_IDS = [CHAT, RESPONSES, AZURE, OPENROUTER, ANTHROPIC]  # Ollama's API knows no ids of calls


@pytest.mark.parametrize("api", WITH_CALL_IDS, ids=ids(WITH_CALL_IDS))
async def test_a_conversation_goes_on_with_what_a_tool_gave(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    """The server finds the call by its id, in the form of each API."""
    call = ToolCall(id="call_weather", name="get_weather", arguments='{"city": "Paris"}')
    turns = (
        system("Be brief."),
        user("How is it there?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="sunny", tool_call_id=call.id),
    )
    provider = opened(api, address, ctx)
    answer = await provider.generate(asking(api, "", messages=turns, tools=TOOLS), ctx)
    assert answer.text == "It is sunny in Paris."


THINKING = [CHAT, RESPONSES, AZURE, OPENROUTER, ANTHROPIC]


@pytest.mark.parametrize("api", THINKING, ids=ids(THINKING))
async def test_what_the_model_thought_is_apart_from_what_it_said(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    whole = await provider.generate(asking(api, "think"), ctx)
    assert (whole.text, whole.reasoning) == ("42", "Six times seven.")
    assert shown((await streamed(provider, asking(api, "think"), ctx))[0]) == shown(whole)


COUNTING = [CHAT, RESPONSES, AZURE, OPENROUTER, ANTHROPIC]


@pytest.mark.parametrize("api", COUNTING, ids=ids(COUNTING))
async def test_usage_is_what_was_counted_in_streams_too(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    usage = Usage(input_tokens=17, output_tokens=5)
    assert (await provider.generate(asking(api, "counted"), ctx)).usage == usage
    assert (await streamed(provider, asking(api, "counted"), ctx))[0].usage == usage


BOUNDED = [
    CHAT,
    AZURE,
    OPENROUTER,
    ANTHROPIC,
]  # of the responses API it gives no reason, as the real one does


@pytest.mark.parametrize("api", BOUNDED, ids=ids(BOUNDED))
async def test_an_answer_that_was_cut_says_so(api: Api, address: str, ctx: StandaloneProviderContext) -> None:
    provider = opened(api, address, ctx)
    whole = await provider.generate(asking(api, "long"), ctx)
    assert whole.finish == "length"
    assert shown((await streamed(provider, asking(api, "long"), ctx))[0]) == shown(whole)


SCHEMAS = [(CHAT, "as a schema"), (AZURE, "as a schema"), (ANTHROPIC, "as a tool")]


@pytest.mark.parametrize(("api", "text"), SCHEMAS, ids=ids([api for api, _ in SCHEMAS]))
async def test_an_answer_held_to_a_schema_is_its_json(
    api: Api, text: str, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    whole = await provider.generate(asking(api, text, output=CITY), ctx)
    assert json.loads(whole.text) == {"city": "Paris"}
    assert (whole.finish, whole.tool_calls) == ("stop", ())
    answer, _ = await streamed(provider, asking(api, text, output=CITY), ctx)
    assert (json.loads(answer.text), answer.finish, answer.tool_calls) == ({"city": "Paris"}, "stop", ())


@pytest.mark.parametrize("api", APIS, ids=ids(APIS))
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("busy", RateLimitedError),
        ("overloaded", ProviderUnavailableError),
        ("refused", RequestRefusedError),
        ("nobody", AuthenticationError),
        ("what no fixture has", ModelNotFoundError),
    ],
)
async def test_each_failure_is_the_same_error_whole_and_in_a_stream(
    api: Api, text: str, kind: type[ProviderError], address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    with pytest.raises(ProviderError) as whole:
        await provider.generate(asking(api, text), ctx)
    with pytest.raises(ProviderError) as in_pieces:
        await streamed(provider, asking(api, text), ctx)
    assert (type(whole.value), type(in_pieces.value)) == (kind, kind)
    assert KEY not in str(whole.value.facts()) + str(in_pieces.value.facts())
    if kind is RateLimitedError:
        assert whole.value.facts()["retry_after_s"] == 1


@pytest.mark.parametrize("api", APIS, ids=ids(APIS))
async def test_a_stream_that_breaks_off_is_an_error_that_can_be_retried(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    with pytest.raises(ProviderError) as caught:
        await streamed(opened(api, address, ctx), asking(api, "broken off"), ctx)
    assert caught.value.retriable


EMBEDDING = [CHAT, AZURE]


@pytest.mark.parametrize("api", EMBEDDING, ids=ids(EMBEDDING))
async def test_vectors_come_in_order_in_the_form_that_was_asked_for(
    api: Api, address: str, ctx: StandaloneProviderContext
) -> None:
    provider = opened(api, address, ctx)
    request = EmbedRequest(model="text-embedding-3-small", texts=("one", "two", "one"), dimensions=8)
    first, second, third = [floats_of(vector) for vector in (await provider.embed(request, ctx)).vectors]
    assert first == third != second
    assert len(first) == 8
    alone = msgspec.structs.replace(request, texts=("two",))
    assert [floats_of(vector) for vector in (await provider.embed(alone, ctx)).vectors] == [second]
