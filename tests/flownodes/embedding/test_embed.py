"""embedding.embed: batches through a provider, and one bad text fails alone.

The providers here are installed for real: a distribution in a temporary folder declares them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowcore.errors import ConfigError, WrongKindError
from flowcore.providers import floats_of
from flownodes.embedding.embed import embed, provider_named

PACKAGE = """
from flowcore.providers import vector_of

class Lengths:
    name = "lengths"
    dimensions = 1
    calls = []

    async def embed(self, texts, *, model):
        if model == "down":
            raise ConnectionError("the provider is down")
        self.calls.append(list(texts))
        if any("!" in text for text in texts):
            raise ValueError("no shouting")
        return [vector_of([float(len(text))]) for text in texts]
"""
ENTRY_POINTS = (
    "[flowrx.llm_providers]\nlengths = lengths_of_texts:Lengths\ntwice = lengths_of_texts:Lengths\n"
)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    (tmp_path / "lengths_of_texts.py").write_text(PACKAGE)
    for name, points in (
        ("lengths", ENTRY_POINTS),
        ("other", "[flowrx.llm_providers]\ntwice = other:Thing\n"),
    ):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    provider_named.cache_clear()
    provider: Any = provider_named("lengths")
    yield provider.calls
    provider_named.cache_clear()
    del sys.modules["lengths_of_texts"]


async def test_a_batch_is_one_call_and_results_are_in_order(calls: list[list[str]]) -> None:
    vectors = await embed(["a", "abc", ""], provider="lengths")
    assert [floats_of(vector) for vector in vectors if isinstance(vector, bytes)] == [[1.0], [3.0], [0.0]]
    assert calls == [["a", "abc", ""]]


async def test_a_refused_text_fails_alone(calls: list[list[str]]) -> None:
    results: list[Any] = list(await embed([*"abcdefg", "stop!"], provider="lengths"))
    assert [floats_of(vector) for vector in results[:7]] == [[1.0]] * 7
    assert str(results[7]) == "no shouting"
    assert len(calls) == 7  # halves, not one call a text: 8, 4 + 4, 2 + 2, 1 + 1


async def test_what_is_no_text_never_reaches_the_provider(calls: list[list[str]]) -> None:
    results = await embed(["a", 5, None], provider="lengths")  # pyright: ignore[reportArgumentType] - on purpose
    assert [type(result) for result in results] == [bytes, WrongKindError, WrongKindError]
    await embed([b"only bytes"], provider="lengths")  # pyright: ignore[reportArgumentType] - on purpose
    assert calls == [["a"]]


@pytest.mark.usefixtures("calls")
async def test_a_provider_that_fails_fails_the_batch_so_that_it_can_be_retried() -> None:
    with pytest.raises(ConnectionError, match="down"):
        await embed(["a", "b"], provider="lengths", model="down")


@pytest.mark.usefixtures("calls")
async def test_a_provider_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lengths'"):
        await embed(["a"], provider="length")
    with pytest.raises(ConfigError, match="declared by"):
        await embed(["a"], provider="twice")


async def test_the_local_provider_embeds() -> None:
    same, near, far = [
        floats_of(vector)
        for vector in await embed(["my card was stolen", "someone took my card", "the weather is fine"])
        if isinstance(vector, bytes)
    ]
    assert len(same) == 384
    dots = [sum(a * b for a, b in zip(same, other, strict=True)) for other in (same, near, far)]
    assert dots[0] > 0.99 > dots[1] > dots[2]


async def test_another_model_than_the_local_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-model"):
        await embed(["a"], model="no-such-model")
