"""The scripted provider: rules, errors, latencies and streams, as its script says; or an error of it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError
from flowcore.llm import errors
from flowcore.llm.answers import Assembly
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import BrokenStreamError, ProviderError, RateLimitedError, RequestRefusedError
from flowcore.llm.messages import assistant, user
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.vectors import floats_of, similarity_of
from flownodes.llm.providers.scripted import ScriptedProvider
from flowruntime.testing import StandaloneNodeContext, run_virtual


class Ctx:
    """A provider's context whose time is the loop's."""

    http: Any = None

    def now_s(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def secret(self, name: str) -> Any:
        return StandaloneNodeContext().secret(name)


def provider(*answers: dict[str, Any], **options: Any) -> ScriptedProvider:
    return ScriptedProvider(Endpoint(provider="scripted", options={"answers": list(answers), **options}))


def asking(text: str, *, model: str = "m") -> GenerateRequest:
    return GenerateRequest(model=model, messages=(user("before"), assistant("..."), user(text)))


async def says(made: ScriptedProvider, text: str, *, model: str = "m") -> str:
    return (await made.generate(asking(text, model=model), Ctx())).text


async def test_the_first_rule_that_fits_the_last_message_answers() -> None:
    made = provider(
        {"when": "hello", "model": "other", "text": "wrong model"},
        {"when": "hello", "text": "once", "times": 1},
        {"matches": "^hel+o (?P<who>[A-Z]+)", "text": r"hi \g<who>", "expand": True},
        {"when": "json", "json": {"a": [1, None]}},
    )
    assert isinstance(made, Provider)
    assert await says(made, "hello ANN") == "once"
    assert await says(made, "hello ANN") == "hi ANN"
    assert await says(made, "hello ANN", model="other") == "wrong model"
    assert await says(made, "some json") == '{"a":[1,null]}'
    assert await says(made, "else") == "else"


async def test_where_no_rule_fits_it_may_fail() -> None:
    with pytest.raises(ProviderError, match="no scripted answer fits 'x'"):
        await says(provider(otherwise="fail"), "x")


@pytest.mark.parametrize(
    "kind", ["RateLimitedError", "AuthenticationError", "BadAnswerError", "ModelNotFoundError"]
)
async def test_every_kind_of_error_can_be_scripted(kind: str) -> None:
    made = provider({"error": {"kind": kind, "status": 418, "retry_after": "2s"}})
    with pytest.raises(getattr(errors, kind)) as caught:
        await says(made, "x")
    facts = caught.value.facts()
    assert (facts["provider"], facts["status"], facts["retry_after_s"]) == ("scripted", 418, 2.0)


def test_latencies_pass_in_the_runtimes_time() -> None:
    async def scenario() -> list[float]:
        made = provider({"when": "fast", "text": "x", "latency": "1s"}, latency="1h")
        began = asyncio.get_running_loop().time()
        await says(made, "fast")
        first = asyncio.get_running_loop().time()
        await says(made, "slow")
        return [first - began, asyncio.get_running_loop().time() - first]

    assert run_virtual(scenario()) == [1.0, 3600.0]


@given(st.text(), st.integers(1, 20))
def test_a_stream_makes_the_answer_that_would_have_been_given(text: str, pieces: int) -> None:
    rule: dict[str, Any] = {
        "text": text,
        "pieces": pieces,
        "tool_calls": [{"name": "f", "arguments": {"a": 1}}],
    }

    async def scenario() -> None:
        whole = Assembly()
        async for delta in provider(rule).stream(asking("x"), Ctx()):
            whole.add(delta)
        expected = await provider(rule).generate(asking("x"), Ctx())
        assert whole.whole() == expected

    asyncio.run(scenario())


def test_a_stream_may_stall_or_break() -> None:
    async def stalls() -> None:
        stream = provider({"text": "abcd", "pieces": 2, "stall_after": 1}).stream(asking("x"), Ctx())
        assert (await anext(stream)).text == "ab"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 3_600)

    async def breaks() -> None:
        stream = provider({"text": "abcd", "pieces": 2, "break_after": 1}).stream(asking("x"), Ctx())
        assert (await anext(stream)).text == "ab"
        with pytest.raises(BrokenStreamError):
            await anext(stream)

    run_virtual(stalls())
    run_virtual(breaks())


async def test_texts_with_common_words_have_vectors_that_are_alike() -> None:
    made = provider(dimensions=128)
    texts = ("my card was stolen", "someone took my card", "", "\ud800")
    found = await made.embed(EmbedRequest(model="e", texts=texts), Ctx())
    numbers = [floats_of(vector) for vector in found.vectors]
    assert [len(each) for each in numbers] == [128] * 4
    assert all(math.isclose(math.hypot(*each), 1.0, abs_tol=1e-5) for each in numbers)
    assert similarity_of(numbers[0], numbers[1]) > 0.3
    again = await provider(dimensions=128).embed(EmbedRequest(model="e", texts=texts), Ctx())
    assert again.vectors == found.vectors
    with pytest.raises(RequestRefusedError, match="at most 2"):
        await provider(max_embed_texts=2).embed(EmbedRequest(model="e", texts=texts), Ctx())


async def test_a_script_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("answers:\n  - {when: hello, text: hi}\n")
    made = ScriptedProvider(Endpoint(provider="scripted", options={"script": str(path)}))
    assert await says(made, "hello") == "hi"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("answers: [", "script.yaml:.*: not YAML"),
        ("answers: {}", "answers"),
        ("answers: [{txt: hi}]", r"answers\[0\].*txt.*text"),
        ("answers: [{text: a, json: 1}]", "text and json exclude each other"),
        ("answers: [{when: a, matches: b}]", "when and matches exclude each other"),
        ("answers: [{matches: '('}]", "no regular expression"),
        ("answers: [{expand: true}]", "it needs both"),
        ("answers: [{error: {kind: Oops}}]", "kind"),
        ("latency: soon", "latency"),
        ("!!python/object:os.system {}", "not YAML"),
    ],
)
def test_a_wrong_script_is_refused_with_its_file_and_place(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        ScriptedProvider(Endpoint(provider="scripted", options={"script": str(path)}))
    assert "script.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (Endpoint(provider="scripted", base_url="http://x.test"), "calls nobody"),
        (Endpoint(provider="scripted", options={"script": "gone.yaml"}), "cannot be read"),
        (Endpoint(provider="scripted", options={"script": 5}), "path of a file"),
        (Endpoint(provider="scripted", options={"script": "x", "latency": "1s"}), "belong into the script"),
        (Endpoint(provider="scripted", options={"answer": []}), "answer"),
    ],
)
def test_an_endpoint_that_makes_no_sense_is_refused(endpoint: Endpoint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScriptedProvider(endpoint)


async def test_a_rate_limit_for_a_while_and_then_an_answer() -> None:
    made = provider({"error": {"kind": "RateLimitedError"}, "times": 2}, {"text": "at last"})
    for _ in range(2):
        with pytest.raises(RateLimitedError):
            await says(made, "x")
    assert await says(made, "x") == "at last"
    assert made.calls == 3
