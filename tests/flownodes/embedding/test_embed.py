"""embedding.embed: a batch goes through the gateway, and one bad text fails alone."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import Workflow
from flowcore.errors import ConfigError, WrongKindError
from flowcore.llm.answers import Embeddings
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import RequestRefusedError
from flowcore.llm.provider import ProviderContext
from flowcore.llm.requests import EmbedRequest
from flowcore.vectors import floats_of, vector_of
from flownodes.embedding.embed import embed
from flownodes.llm.providers.scripted import ScriptedProvider
from flowruntime import FlowRuntime, StreamOutcome


class Lengths(ScriptedProvider):
    """A provider whose vector is the length of a text; it refuses calls with a shout in them."""

    seen: list[list[str]]

    async def embed(self, request: EmbedRequest, ctx: ProviderContext) -> Embeddings:
        del ctx
        if request.model == "down":
            raise ConnectionError("the provider is down")
        self.seen.append(list(request.texts))
        if any("!" in text for text in request.texts):
            raise RequestRefusedError("no shouting", provider="lengths", model=request.model, code="shout")
        return Embeddings(vectors=tuple(vector_of([float(len(text))]) for text in request.texts))


@pytest.fixture
def seen() -> list[list[str]]:
    return []


async def embedded(texts: list[Any], seen: list[list[str]], **config: Any) -> list[StreamOutcome]:
    """What becomes of the texts, in their order, as one batch."""

    def lengths(endpoint: Endpoint, ctx: ProviderContext) -> Lengths:
        provider = Lengths(endpoint, ctx)
        provider.seen = seen
        return provider

    wf = Workflow("embed", settings={"on_error": "continue"})
    config = {"provider": "lengths", "calls": {"retry": {"max_attempts": 1}}, **config}
    wf.add(embed, id="embed", config=config, batch={"max_items": len(texts), "linger": "1s"})
    async with FlowRuntime(llm_providers={"lengths": lengths}) as rt:
        return [out async for out in rt.stream(wf, texts, order="input")]


async def test_a_batch_is_one_call_and_results_are_in_order(seen: list[list[str]]) -> None:
    found = await embedded(["a", "abc", ""], seen)
    assert [floats_of(out.value) for out in found] == [[1.0], [3.0], [0.0]]
    assert seen == [["a", "abc", ""]]


async def test_a_refused_text_fails_alone(seen: list[list[str]]) -> None:
    found = await embedded([*"abcdefg", "stop!"], seen)
    assert [floats_of(out.value) for out in found[:7]] == [[1.0]] * 7
    assert isinstance(found[7].error, RequestRefusedError)
    assert len(seen) == 7  # halves, not one call a text: 8, 4 + 4, 2 + 2, 1 + 1


async def test_what_is_no_text_never_reaches_the_provider(seen: list[list[str]]) -> None:
    found = await embedded(["a", 5, None], seen)
    assert [type(out.error) for out in found] == [type(None), WrongKindError, WrongKindError]
    await embedded([b"only bytes"], seen)
    assert seen == [["a"]]


async def test_a_provider_that_fails_fails_every_row_of_the_batch(seen: list[list[str]]) -> None:
    found = await embedded(["a", "b"], seen, model="down")
    assert all(isinstance(out.error, ConnectionError) for out in found)


async def test_a_provider_that_is_not_there_is_named_with_those_that_are(seen: list[list[str]]) -> None:
    found = await embedded(["a"], seen, provider="length")
    assert isinstance(found[0].error, ConfigError)
    assert "did you mean 'lengths'" in str(found[0].error)


async def test_the_local_provider_embeds(seen: list[list[str]]) -> None:
    texts = ["my card was stolen", "someone took my card", "the weather is fine"]
    same, near, far = [floats_of(out.value) for out in await embedded(texts, seen, provider="local")]
    assert len(same) == 384
    dots = [sum(a * b for a, b in zip(same, other, strict=True)) for other in (same, near, far)]
    assert dots[0] > 0.99 > dots[1] > dots[2]


async def test_another_model_than_the_local_one_is_refused(seen: list[list[str]]) -> None:
    (found,) = await embedded(["a"], seen, provider="local", model="no-such-model")
    assert isinstance(found.error, ConfigError)
    assert "no-such-model" in str(found.error)
