"""Hugging Face: where vectors are asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flowcore.llm.errors import BadAnswerError, RequestRefusedError
from flowcore.llm.requests import EmbedRequest
from flowcore.vectors import floats_of
from flownodes.llm.providers.huggingface.provider import HuggingFaceProvider
from tests.servers.llm_formats import HuggingFaceChat

Opening = Callable[..., Awaitable[Any]]
REQUEST = EmbedRequest(model="sentence-transformers/all MiniLM", texts=("a",))


async def test_vectors_come_from_feature_extraction(opened: Opening) -> None:
    bench = await opened(HuggingFaceProvider, HuggingFaceChat(), options={"normalize": True})
    found = await bench.provider.embed(REQUEST, bench.context)
    assert [floats_of(vector) for vector in found.vectors] == [[1.0, 0.0]]
    assert bench.server.seen[-1].path == (
        "/hf-inference/models/sentence-transformers/all%20MiniLM/pipeline/feature-extraction"
    )
    assert bench.asked == {"inputs": ["a"], "truncate": False, "normalize": True}


async def test_an_endpoint_of_ones_own_is_named(opened: Opening) -> None:
    other = await opened(HuggingFaceProvider, HuggingFaceChat())
    url = f"http://127.0.0.1:{other.server.port}/embed-here"
    bench = await opened(HuggingFaceProvider, HuggingFaceChat(), options={"embed_url": url})
    await bench.provider.embed(REQUEST, bench.context)
    assert (other.server.seen[-1].path, bench.server.seen) == ("/embed-here", [])


async def test_a_vector_for_each_token_is_no_vector_of_a_text(opened: Opening) -> None:
    bench = await opened(HuggingFaceProvider, HuggingFaceChat())
    bench.says([[[0.1, 0.2], [0.3, 0.4]]])
    with pytest.raises(BadAnswerError):
        await bench.provider.embed(REQUEST, bench.context)
    with pytest.raises(RequestRefusedError, match="dimensions"):
        await bench.provider.embed(EmbedRequest(model="m", texts=("a",), dimensions=3), bench.context)
