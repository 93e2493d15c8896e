"""OpenAI's wire formats: what is sent, and what is made of the stranger answers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from flowcore.errors import ConfigError
from flowcore.llm.answers import RateLimits, Usage
from flowcore.llm.errors import (
    BadAnswerError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    RequestRefusedError,
)
from flowcore.llm.messages import (
    ImagePart,
    Message,
    OutputSchema,
    TextPart,
    Tool,
    ToolCall,
    assistant,
    system,
)
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.values import Secret
from flownodes.llm.providers.openai.presets import AZURE, DEEPSEEK, GROQ, MISTRAL, OPENAI, PRESETS
from tests.servers.llm_formats import AzureChat, OpenAIChat, OpenAIResponses

Opening = Callable[..., Awaitable[Any]]

CONVERSATION = (
    system("Be brief."),
    Message(
        role="user",
        content=(
            TextPart("What is it?"),
            ImagePart(data=b"\x89PNG", media_type="image/png"),
            ImagePart(url="https://x/y.jpg"),
        ),
    ),
    Message(role="assistant", tool_calls=(ToolCall(id="c1", name="look_up", arguments='{"q": 1}'),)),
    Message(role="tool", tool_call_id="c1", content="no such thing", is_error=True),
)
SCHEMA = OutputSchema(name="answer", schema={"type": "object"})
DATA_URL = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


async def test_a_conversation_is_written_as_chat_completions(opened: Opening, tool: Tool) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    request = GenerateRequest(
        model="m",
        messages=CONVERSATION,
        max_tokens=7,
        temperature=0.0,
        top_p=0.5,
        stop=("END",),
        seed=3,
        tools=(tool,),
        tool_choice="look_up",
        parallel_tools=False,
        output=SCHEMA,
        extra={"user": "u", "temperature": 1},
    )
    await bench.generate(request)
    function = {"name": "look_up", "arguments": '{"q": 1}'}
    assert bench.asked == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": DATA_URL}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.jpg"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Error: no such thing"},
        ],
        "max_completion_tokens": 7,
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["END"],
        "seed": 3,
        "tools": [
            {
                "type": "function",
                "function": {"name": "look_up", "description": "finds", "parameters": tool.parameters},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "user": "u",
    }
    await bench.pieces(replace(request, extra={}))
    assert (bench.asked["stream"], bench.asked["stream_options"]) == (True, {"include_usage": True})


async def test_a_conversation_is_written_for_the_responses_api(opened: Opening, tool: Tool) -> None:
    bench = await opened(OPENAI, OpenAIResponses())
    request = GenerateRequest(
        model="m",
        messages=(*CONVERSATION, assistant("I see.")),
        max_tokens=7,
        tools=(tool,),
        tool_choice="required",
        output=SCHEMA,
    )
    await bench.generate(request)
    assert bench.server.seen[-1].path == "/v1/responses"
    assert bench.asked == {
        "model": "m",
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": DATA_URL},
                    {"type": "input_image", "image_url": "https://x/y.jpg"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"q": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "Error: no such thing"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I see."}]},
        ],
        "store": False,
        "max_output_tokens": 7,
        "tools": [
            {
                "type": "function",
                "name": "look_up",
                "description": "finds",
                "parameters": tool.parameters,
                "strict": False,
            }
        ],
        "tool_choice": "required",
        "text": {
            "format": {
                "type": "json_schema",
                "name": "answer",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
    }


async def test_what_the_responses_api_lacks_is_refused_not_dropped(
    opened: Opening, hello: GenerateRequest
) -> None:
    bench = await opened(OPENAI, OpenAIResponses())
    for request in (replace(hello, seed=1), replace(hello, stop=("x",))):
        with pytest.raises(RequestRefusedError, match="api: responses") as caught:
            await bench.generate(request)
        assert caught.value.facts()["code"] == "unsupported"
    assert not bench.server.seen


async def test_presets_differ_in_what_they_send(opened: Opening, hello: GenerateRequest) -> None:
    request = replace(hello, seed=3, max_tokens=7, output=SCHEMA)
    bench = await opened(MISTRAL, OpenAIChat(), provider="mistral")
    await bench.pieces(request)
    assert (bench.asked["random_seed"], bench.asked["max_tokens"]) == (3, 7)
    assert "stream_options" not in bench.asked
    await bench.provider.embed(EmbedRequest(model="e", texts=("a",), dimensions=2), bench.context)
    assert bench.asked == {"model": "e", "input": ["a"], "output_dimension": 2}
    bench = await opened(DEEPSEEK, OpenAIChat(), provider="deepseek")
    await bench.generate(request)
    assert bench.asked["response_format"] == {"type": "json_object"}
    assert '{"type":"object"}' in bench.asked["messages"][0]["content"]
    bench = await opened(OPENAI, OpenAIChat())
    await bench.provider.embed(EmbedRequest(model="e", texts=("a",), dimensions=2), bench.context)
    assert bench.asked["encoding_format"] == "base64"
    assert bench.asked["dimensions"] == 2


async def test_azure_has_the_model_in_the_path_and_a_header_of_its_own(
    opened: Opening, hello: GenerateRequest
) -> None:
    bench = await opened(AZURE, AzureChat())
    await bench.generate(replace(hello, model="gpt 4o/x"))
    seen = bench.server.seen[-1]
    assert seen.path == ("/openai/deployments/gpt%204o%2Fx/chat/completions?api-version=2024-10-21")
    assert "api-key" in seen.headers
    assert "authorization" not in seen.headers
    options = {"deployment": "mine", "api_version": "2025-01-01-preview"}
    bench = await opened(AZURE, AzureChat(), options=options)
    await bench.provider.embed(EmbedRequest(model="e", texts=("a",)), bench.context)
    assert bench.server.seen[-1].path == "/openai/deployments/mine/embeddings?api-version=2025-01-01-preview"


async def test_organization_and_project_are_headers(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(OPENAI, OpenAIChat(), options={"organization": "org-1", "project": "p-1"})
    await bench.generate(hello)
    headers = bench.server.seen[-1].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "p-1")


async def test_a_header_of_the_endpoint_may_stand_for_the_key(
    opened: Opening, hello: GenerateRequest
) -> None:
    headers = {"Authorization": Secret("Bearer of another gateway")}
    bench = await opened(OPENAI, OpenAIChat(), api_key=None, headers=headers)
    await bench.generate(hello)
    assert bench.server.seen[-1].headers["authorization"] == "Bearer of another gateway"


async def test_a_misspelt_option_is_told_with_the_nearest_one(opened: Opening) -> None:
    with pytest.raises(ConfigError, match="organization"):
        await opened(OPENAI, OpenAIChat(), options={"organisation": "o"})
    with pytest.raises(ConfigError, match="api"):
        await opened(OPENAI, OpenAIChat(), options={"api": "completions"})
    with pytest.raises(ConfigError, match="it has none"):
        await opened(GROQ, OpenAIChat(), provider="groq", options={"organization": "o"})
    with pytest.raises(ConfigError, match=r"openai\.azure\.com"):
        await opened(AZURE, AzureChat(), base_url=None)


async def test_limits_and_the_request_are_read_from_headers(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "6m0s"}
    bench.server.raw(200, body, headers)
    limits = RateLimits(requests=60, requests_reset_s=360.0)
    assert (await bench.generate(hello)).limits == limits
    bench.server.raw(200, b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', headers)
    assert (await bench.streamed(hello)).limits == limits


@pytest.mark.parametrize(
    ("message", "reason", "text", "finish"),
    [
        ({"content": "x"}, "stop", "x", "stop"),
        ({"content": "x"}, "brand_new_reason", "x", "other"),
        ({"content": "x"}, None, "x", "other"),
        ({"content": None, "refusal": "I will not."}, "stop", "I will not.", "refusal"),
        ({"content": ""}, "content_filter", "", "content_filter"),
        ({"content": "x"}, "model_length", "x", "length"),
    ],
)
async def test_how_an_answer_ended_is_in_our_words(
    opened: Opening,
    hello: GenerateRequest,
    message: dict[str, Any],
    reason: str | None,
    text: str,
    finish: str,
) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    bench.says({"choices": [{"message": message, "finish_reason": reason}]})
    found = await bench.generate(hello)
    assert (found.text, found.finish) == (text, finish)
    if reason is not None:
        bench.streams(
            {"choices": [{"delta": message}]}, {"choices": [{"delta": {}, "finish_reason": reason}]}, "[DONE]"
        )
        found = await bench.streamed(hello)
        assert (found.text, found.finish) == (text, finish)


async def test_thoughts_come_apart_from_the_answer(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    chunks = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
    ]
    for message in (
        {"content": "yes", "reasoning_content": "hm"},
        {"content": "yes", "reasoning": "hm"},
        {"content": chunks},
    ):
        bench.says({"choices": [{"message": message, "finish_reason": "stop"}]})
        found = await bench.generate(hello)
        assert (found.text, found.reasoning) == ("yes", "hm")
        bench.streams({"choices": [{"delta": message}]}, {"choices": [{"finish_reason": "stop"}]})
        found = await bench.streamed(hello)
        assert (found.text, found.reasoning) == ("yes", "hm")


async def test_calls_of_servers_that_write_them_otherwise_are_read(
    opened: Opening, hello: GenerateRequest
) -> None:
    """Arguments as an object, no index, no id, and `stop` where a tool was forced."""
    bench = await opened(OPENAI, OpenAIChat())
    calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b"}}]
    expected = (
        ToolCall(id="call_0", name="a", arguments='{"x":1}'),
        ToolCall(id="call_1", name="b", arguments="{}"),
    )
    bench.says({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "stop"}]})
    found = await bench.generate(hello)
    assert (found.tool_calls, found.finish) == (expected, "tool_calls")
    bench.streams({"choices": [{"delta": {"tool_calls": calls}}]}, {"choices": [{"finish_reason": "stop"}]})
    found = await bench.streamed(hello)
    assert (found.tool_calls, found.finish) == (expected, "tool_calls")
    bench.says({"choices": [{"message": {"tool_calls": [{"function": {}}]}, "finish_reason": "stop"}]})
    with pytest.raises(BadAnswerError, match="no name"):
        await bench.generate(hello)


EVENTS: list[tuple[Any, type[ProviderError]]] = [
    ({"error": {"message": "busy", "type": "server_error"}}, ProviderUnavailableError),
    ({"error": {"message": "slow down", "code": 429}}, RateLimitedError),
    (
        {"error": {"code": 429}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
        RateLimitedError,
    ),
    ({"choices": [{"delta": {}, "finish_reason": "error"}]}, ProviderUnavailableError),
    ({"choices": [{"delta": {"content": 7}}]}, BadAnswerError),
    ("{broken", BadAnswerError),
]


@pytest.mark.parametrize(("event", "kind"), EVENTS)
async def test_an_error_inside_a_stream_is_that_error(
    opened: Opening, hello: GenerateRequest, event: object, kind: type[ProviderError]
) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    bench.streams({"choices": [{"delta": {"content": "so far"}}]}, event)
    with pytest.raises(kind):
        await bench.pieces(hello)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, RateLimitedError),
        (
            {
                "type": "response.failed",
                "response": {"output": [], "error": {"code": "server_error", "message": "m"}},
            },
            ProviderUnavailableError,
        ),
        ({"type": "response.failed"}, ProviderUnavailableError),
    ],
)
async def test_an_error_inside_a_stream_of_responses_is_that_error(
    opened: Opening, hello: GenerateRequest, event: object, kind: type[ProviderError]
) -> None:
    bench = await opened(OPENAI, OpenAIResponses())
    bench.streams({"type": "response.output_text.delta", "delta": "so far"}, event)
    with pytest.raises(kind):
        await bench.pieces(hello)
    bench.says({"status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "m"}})
    with pytest.raises(RateLimitedError):
        await bench.generate(hello)


async def test_responses_tell_thoughts_refusals_and_usage(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(OPENAI, OpenAIResponses())
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    bench.says(
        {
            "status": "completed",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                refusal,
                {"type": "something_new", "content": [{"type": "x"}]},
            ],
            "usage": {
                "input_tokens": 9,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
        }
    )
    found = await bench.generate(hello)
    assert (found.text, found.finish, found.reasoning) == ("No.", "refusal", "hm")
    assert found.usage == Usage(input_tokens=9, output_tokens=4, cached_tokens=8, reasoning_tokens=3)


async def test_vectors_that_are_none_are_refused(opened: Opening) -> None:
    bench = await opened(OPENAI, OpenAIChat())
    request = EmbedRequest(model="e", texts=("a",))
    for embedding in ("!!!", "AAA=", "", [], [1e400], ["x"], None):
        bench.says({"data": [{"index": 0, "embedding": embedding}]})
        with pytest.raises(BadAnswerError):
            await bench.provider.embed(request, bench.context)
    bench.says({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]})
    with pytest.raises(BadAnswerError, match="vectors"):
        await bench.provider.embed(EmbedRequest(model="e", texts=("a", "b")), bench.context)


@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_each_preset_opens_by_its_variable_and_says_what_it_lacks(opened: Opening, name: str) -> None:
    preset = PRESETS[name]
    traits = preset.traits
    secrets = {} if traits.key is None else {traits.key: "from-the-environment"}
    base_url = None if traits.base_url else "https://somewhere.example/v1"
    bench = await opened(
        preset, OpenAIChat(), provider=name, api_key=None, base_url=base_url, secrets=secrets
    )
    assert (traits.base_url or "somewhere") in repr(bench.provider)
    assert "from-the-environment" not in repr(bench.provider)
    if traits.key_required:
        with pytest.raises(ConfigError, match=rf"{traits.key}.*api_key: \{{\$secret: NAME\}}"):
            await opened(preset, OpenAIChat(), provider=name, api_key=None, base_url=base_url)
    else:
        await opened(preset, OpenAIChat(), provider=name, api_key=None, base_url=base_url)
    if traits.base_url is None:
        with pytest.raises(ConfigError, match="base_url"):
            await opened(preset, OpenAIChat(), provider=name, base_url=None)
