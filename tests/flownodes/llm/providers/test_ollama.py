"""Ollama: its address, what it lacks, loading of models."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from flowcore.errors import ConfigError
from flowcore.llm.endpoint import Endpoint, Timeouts
from flowcore.llm.errors import (
    AddressRefusedError,
    BadAnswerError,
    BrokenStreamError,
    ModelNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RequestRefusedError,
)
from flowcore.llm.messages import ImagePart, Message, OutputSchema, Tool, ToolCall, user
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flownodes.llm.providers.ollama.provider import OllamaProvider, PullProgress
from flowruntime.http.client import GuardedHttpClient
from flowruntime.testing.conformance.provider_subject import StandaloneProviderContext
from flowruntime.testing.contexts import NoHttp
from tests.servers.llm_formats import OllamaChat

Opening = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - what servers listen on
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("gpu.example:1234", "http://gpu.example:1234"),
        ("https://gpu.example/ollama/", "https://gpu.example/ollama"),
        ("http://gpu.example", "http://gpu.example"),
        ("[::1]:11434", "http://[::1]:11434"),
    ],
)
def test_the_address_is_that_of_its_variable(said: str | None, address: str) -> None:
    context = StandaloneProviderContext(NoHttp(), {} if said is None else {"OLLAMA_HOST": said})
    assert repr(OllamaProvider(Endpoint(provider="ollama"), context)).endswith(f"at {address}>")


def test_a_variable_that_is_no_address_is_told() -> None:
    context = StandaloneProviderContext(NoHttp(), {"OLLAMA_HOST": "host:port"})
    with pytest.raises(ConfigError, match="base_url"):
        OllamaProvider(Endpoint(provider="ollama"), context)


async def test_the_guard_refuses_this_machine_and_the_error_says_what_to_set(
    hello: GenerateRequest,
) -> None:
    async with GuardedHttpClient() as http:
        context = StandaloneProviderContext(http)
        provider = OllamaProvider(Endpoint(provider="ollama"), context)
        with pytest.raises(AddressRefusedError, match=r"allowed_hosts.*allow_private_networks"):
            await provider.generate(hello, context)


async def test_a_conversation_is_written_as_its_chat(opened: Opening, tool: Tool) -> None:
    bench = await opened(
        OllamaProvider, OllamaChat(), options={"keep_alive": "10m", "num_ctx": 4096, "think": False}
    )
    request = GenerateRequest(
        model="m",
        messages=(
            Message(role="user", content=(ImagePart(data=b"J"),)),
            Message(role="assistant", tool_calls=(ToolCall(id="call_0", name="look_up", arguments="{}"),)),
            Message(role="tool", tool_call_id="call_0", content="none"),
        ),
        max_tokens=7,
        temperature=0.0,
        seed=3,
        stop=("END",),
        tools=(tool,),
        output=OutputSchema(name="o", schema={"type": "object"}),
        extra={"options": {"mirostat": 1}, "raw": True},
    )
    await bench.generate(request)
    assert bench.asked == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "", "images": ["Sg=="]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "look_up", "arguments": {}}}],
            },
            {"role": "tool", "content": "none", "tool_name": "look_up"},
        ],
        "stream": False,
        "keep_alive": "10m",
        "think": False,
        "tools": [
            {
                "type": "function",
                "function": {"name": "look_up", "description": "finds", "parameters": tool.parameters},
            }
        ],
        "format": {"type": "object"},
        "options": {
            "num_ctx": 4096,
            "temperature": 0.0,
            "seed": 3,
            "stop": ["END"],
            "num_predict": 7,
            "mirostat": 1,
        },
        "raw": True,
    }
    answer = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look_up"}}]}
    bench.says({"message": answer, "done": True, "done_reason": "stop"})
    found = await bench.generate(request)
    assert found.tool_calls == (ToolCall(id="call_1", name="look_up", arguments="{}"),)


async def test_what_it_cannot_do_is_refused_not_dropped(
    opened: Opening, hello: GenerateRequest, tool: Tool
) -> None:
    bench = await opened(OllamaProvider, OllamaChat())
    broken = ToolCall(id="1", name="x", arguments="{half")
    for request in (
        replace(hello, tools=(tool,), tool_choice="required"),
        replace(hello, tools=(tool,), parallel_tools=False),
        replace(hello, messages=(Message(role="user", content=(ImagePart(url="https://x/y"),)),)),
        replace(hello, messages=(Message(role="assistant", tool_calls=(broken,)), user("x"))),
    ):
        with pytest.raises(RequestRefusedError) as caught:
            await bench.generate(request)
        assert caught.value.facts()["code"] == "unsupported"
    assert not bench.server.seen
    await bench.generate(replace(hello, tools=(tool,), tool_choice="none"))
    assert "tools" not in bench.asked


async def test_vectors_are_asked_for_without_cutting_texts(opened: Opening) -> None:
    bench = await opened(OllamaProvider, OllamaChat(), options={"keep_alive": 0, "num_ctx": 512})
    await bench.provider.embed(EmbedRequest(model="e", texts=("a",), dimensions=2), bench.context)
    assert bench.asked == {
        "model": "e",
        "input": ["a"],
        "truncate": False,
        "dimensions": 2,
        "keep_alive": 0,
        "options": {"num_ctx": 512},
    }


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


async def test_errors_inside_a_stream_and_answers_that_are_not_done(
    opened: Opening, hello: GenerateRequest
) -> None:
    bench = await opened(OllamaProvider, OllamaChat())
    begun = {"message": {"content": "so"}, "done": False}
    bench.server.raw(200, lines(begun, {"error": "model runner has unexpectedly stopped"}))
    with pytest.raises(ProviderUnavailableError, match="unexpectedly"):
        await bench.pieces(hello)
    bench.says(begun)
    with pytest.raises(BadAnswerError, match="not done"):
        await bench.generate(hello)


async def pulled(bench: Any) -> list[PullProgress]:
    async with aclosing(bench.provider.pull("llama", bench.context)) as progress:
        return [each async for each in progress]


async def test_loading_a_model_takes_longer_than_any_answer_may(opened: Opening) -> None:
    short = Timeouts(total=timedelta(microseconds=1))
    bench = await opened(OllamaProvider, OllamaChat(), timeouts=short, max_answer_bytes=1_000)
    steps = [{"status": "pulling", "total": 100, "completed": each} for each in range(100)]
    bench.server.raw(200, lines(*steps, {"status": "success"}))
    assert len(await pulled(bench)) == 101
    with pytest.raises(ProviderTimeoutError):
        await bench.generate(GenerateRequest(model="llama", messages=(user("hi"),)))


async def test_a_model_is_loaded_step_by_step(opened: Opening) -> None:
    bench = await opened(OllamaProvider, OllamaChat())
    steps = [
        {"status": "pulling manifest"},
        {"status": "pulling", "digest": "sha256:1", "total": 10, "completed": 5},
        {"status": "success"},
    ]
    bench.server.raw(200, lines(*steps))
    assert await pulled(bench) == [
        PullProgress("pulling manifest"),
        PullProgress("pulling", "sha256:1", 10, 5),
        PullProgress("success"),
    ]
    assert bench.asked == {"model": "llama", "stream": True}
    bench.server.raw(200, lines(*steps[:2]))
    with pytest.raises(BrokenStreamError, match="not loaded"):
        await pulled(bench)
    bench.server.raw(200, lines(steps[0], {"error": "pull model manifest: file does not exist"}))
    with pytest.raises(ProviderUnavailableError, match="file does not exist"):
        await pulled(bench)
    bench.server.raw(404, b'{"error": "no such model"}')
    with pytest.raises(ModelNotFoundError):
        await pulled(bench)
