"""Anthropic's messages: what is sent, and what is made of the stranger answers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from flowcore.llm.answers import Usage
from flowcore.llm.errors import ProviderUnavailableError, RequestRefusedError
from flowcore.llm.messages import (
    ImagePart,
    Message,
    OutputSchema,
    TextPart,
    Tool,
    ToolCall,
    system,
    user,
)
from flowcore.llm.requests import GenerateRequest
from flownodes.llm.providers.anthropic.provider import AnthropicProvider
from tests.servers.llm_formats import AnthropicMessages

Opening = Callable[..., Awaitable[Any]]

SCHEMA = OutputSchema(name="answer", schema={"type": "object"})
KEPT = {"type": "ephemeral"}
USED = {"type": "tool_use", "id": "u1", "name": "answer", "input": {"a": [1]}}


async def test_a_conversation_is_written_as_messages(opened: Opening, tool: Tool) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages(), options={"beta": ["x", "y"]})
    request = GenerateRequest(
        model="m",
        messages=(
            system("Be brief."),
            user("Hello."),
            Message(
                role="user",
                content=(TextPart("What?"), ImagePart(data=b"J", media_type="image/jpeg")),
            ),
            Message(
                role="assistant",
                content="Let me see.",
                tool_calls=(ToolCall(id="c1", name="look_up", arguments='{"q": 1}'),),
            ),
            Message(role="tool", tool_call_id="c1", content="none", is_error=True),
            Message(role="user", content=(ImagePart(url="https://x/y.png"),)),
        ),
        temperature=0.5,
        stop=("END",),
        tools=(tool,),
        tool_choice="required",
        parallel_tools=False,
        cache_prompt=True,
        extra={"metadata": {"user_id": "u"}},
    )
    await bench.generate(request)
    image = {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(b"J").decode()}
    url = {"type": "url", "url": "https://x/y.png"}
    assert bench.asked == {
        "model": "m",
        "max_tokens": 4_096,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": KEPT}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello."},
                    {"type": "text", "text": "What?"},
                    {"type": "image", "source": image},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"q": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [{"type": "text", "text": "none"}],
                        "is_error": True,
                    },
                    {"type": "image", "source": url, "cache_control": KEPT},
                ],
            },
        ],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "tools": [
            {
                "name": "look_up",
                "description": "finds",
                "input_schema": tool.parameters,
                "cache_control": KEPT,
            }
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "metadata": {"user_id": "u"},
    }
    seen = bench.server.seen[-1]
    assert (seen.path, seen.headers["anthropic-version"]) == ("/v1/messages", "2023-06-01")
    assert seen.headers["anthropic-beta"] == "x,y"
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("look_up", {"type": "tool", "name": "look_up"}),
    ],
)
async def test_which_tool_is_to_be_called_is_written(
    opened: Opening, hello: GenerateRequest, tool: Tool, choice: str | None, written: object
) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    await bench.generate(replace(hello, tools=(tool,), tool_choice=choice))
    assert bench.asked.get("tool_choice") == written


async def test_an_answer_of_a_form_is_asked_for_by_a_tool(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages(), options={"max_tokens": 99})
    request = replace(hello, output=SCHEMA)
    said = {"type": "text", "text": "Here it is: "}
    bench.says({"content": [said, USED], "stop_reason": "tool_use"})
    found = await bench.generate(request)
    assert (found.text, found.tool_calls, found.finish) == ('{"a":[1]}', (), "stop")
    assert bench.asked["tool_choice"] == {
        "type": "tool",
        "name": "answer",
        "disable_parallel_tool_use": True,
    }
    assert bench.asked["tools"][0]["input_schema"] == {"type": "object"}
    assert bench.asked["max_tokens"] == 99


def streamed_form(*more: dict[str, Any]) -> list[dict[str, Any]]:
    def change(place: int, **delta: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": place, "delta": delta}

    empty = {**USED, "input": {}}
    return [
        {"type": "message_start", "message": {"id": "a", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        change(0, type="text_delta", text="Here it is: "),
        {"type": "content_block_start", "index": 1, "content_block": empty},
        change(1, type="input_json_delta", partial_json=""),
        change(1, type="input_json_delta", partial_json='{"a":'),
        change(1, type="input_json_delta", partial_json="[1]}"),
        *more,
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]


async def test_a_form_in_pieces_is_the_text(opened: Opening, hello: GenerateRequest, tool: Tool) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    request = replace(hello, output=SCHEMA)
    again = {"type": "content_block_start", "index": 2, "content_block": USED}
    piece = {"type": "input_json_delta", "partial_json": '{"b":2}'}
    bench.streams(*streamed_form(again, {"type": "content_block_delta", "index": 2, "delta": piece}))
    found = await bench.streamed(request)
    assert (found.text, found.tool_calls, found.finish) == ('{"a":[1]}', (), "stop")
    called: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}
    bench.streams(
        *streamed_form(
            {"type": "content_block_start", "index": 2, "content_block": called},
            {"type": "content_block_stop", "index": 2},
        )
    )
    found = await bench.streamed(replace(request, tools=(tool,)))
    assert bench.asked["tool_choice"] == {"type": "any"}
    assert found.tool_calls == (ToolCall(id="t1", name="look_up", arguments="{}"),)
    assert found.finish == "tool_calls"


async def test_what_was_said_counts_where_the_form_is_not_given(
    opened: Opening, hello: GenerateRequest
) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    request = replace(hello, output=SCHEMA)
    bench.says({"content": [{"type": "text", "text": "I will not."}], "stop_reason": "refusal"})
    whole = await bench.generate(request)
    bench.streams(
        *streamed_form()[:3],
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}},
        {"type": "message_stop"},
    )
    found = await bench.streamed(request)
    assert (whole.text, whole.finish) == ("I will not.", "refusal")
    assert (found.text, found.finish) == ("Here it is: ", "refusal")


async def test_tokens_of_the_cache_are_part_of_the_prompt(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    begun = {"input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 100}
    usage = Usage(input_tokens=123, output_tokens=9, cached_tokens=20, cache_write_tokens=100)
    bench.says({"content": [], "stop_reason": "end_turn", "usage": {**begun, "output_tokens": 9}})
    assert (await bench.generate(hello)).usage == usage
    bench.streams(
        {"type": "message_start", "message": {"usage": {**begun, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    assert (await bench.streamed(hello)).usage == usage


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("pause_turn", "other"),
        ("something_new", "other"),
        ("stop_sequence", "stop"),
        ("model_context_window_exceeded", "length"),
    ],
)
async def test_how_an_answer_ended_is_in_our_words(
    opened: Opening, hello: GenerateRequest, reason: str, finish: str
) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    bench.says({"content": [thinking, {"type": "new_block"}], "stop_reason": reason})
    found = await bench.generate(hello)
    assert (found.finish, found.reasoning) == (finish, "hm")


async def test_an_overloaded_server_says_so_in_a_stream(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    bench.streams(streamed_form()[0], error)
    with pytest.raises(ProviderUnavailableError, match="Overloaded"):
        await bench.pieces(hello)


async def test_what_it_cannot_do_is_refused_not_dropped(opened: Opening, hello: GenerateRequest) -> None:
    bench = await opened(AnthropicProvider, AnthropicMessages())
    broken = Message(role="assistant", tool_calls=(ToolCall(id="1", name="x", arguments="{half"),))
    listed = Message(role="assistant", tool_calls=(ToolCall(id="1", name="x", arguments="[1]"),))
    for request in (
        replace(hello, seed=1),
        replace(hello, messages=(broken,)),
        replace(hello, messages=(listed,)),
    ):
        with pytest.raises(RequestRefusedError) as caught:
            await bench.generate(request)
        assert caught.value.facts()["code"] == "unsupported"
    assert not bench.server.seen
