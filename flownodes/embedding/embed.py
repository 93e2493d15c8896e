"""embedding.embed: turns texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Annotated, Final

from msgspec import Meta

from flowcore.errors import ConfigError
from flowcore.findings import did_you_mean, shown
from flowcore.node import node
from flowcore.policies import Batch
from flowcore.providers import EmbeddingProvider, Vector
from flownodes.fields import wrong_kind

GROUP: Final = "flowrx.llm_providers"


@node(
    "embedding.embed",
    batch=Batch(max_items=64, linger=timedelta(milliseconds=5)),
    concurrency=2,
    deterministic=True,
)
async def embed(
    texts: Sequence[str],
    *,
    provider: Annotated[str, Meta(min_length=1, description="local, or an installed provider")] = "local",
    model: Annotated[str, Meta(min_length=1, description="as the provider names it")] = "all-MiniLM-L6-v2",
) -> Sequence[Vector | Exception]:
    """A vector for each text: float32 numbers, little-endian, as bytes.

    `local` computes all-MiniLM-L6-v2 (384 numbers) on this machine, in threads of its own.

    Emits when      the batch is embedded; the policy `batch: {max_items, linger}` sets its size.
    Drops           nothing.
    Fails when      a value is no text, a text is refused (it alone), or the provider is not there.
    Cost            one call a batch; `local`: all cores, some 5 ms a short text and core.
    Holds           `batch.max_items` texts for each call in flight.
    """
    embedder = provider_named(provider)
    results: list[Vector | Exception] = [_fault(text) or b"" for text in texts]
    places = [place for place, result in enumerate(results) if isinstance(result, bytes)]
    vectors = await _embed([texts[place] for place in places], embedder, model)
    for place, vector in zip(places, vectors, strict=True):
        results[place] = vector
    return results


def _fault(text: object) -> Exception | None:
    if isinstance(text, str):
        return None
    return wrong_kind(text, "text", "embedding.embed", "connect a field that holds text")


async def _embed(texts: list[str], embedder: EmbeddingProvider, model: str) -> Sequence[Vector | Exception]:
    """One result a text; when the call fails for a text it refuses, each half is tried by itself."""
    if not texts:
        return []
    try:
        return await embedder.embed(texts, model=model)
    except ValueError as refused:
        if isinstance(refused, ConfigError):
            raise
        if len(texts) == 1:
            return [refused]
    middle = len(texts) // 2
    return [*await _embed(texts[:middle], embedder, model), *await _embed(texts[middle:], embedder, model)]


@lru_cache(maxsize=64)
def provider_named(name: str) -> EmbeddingProvider:
    """The provider an installed package declares under that name; one object per process.

    Raises:
        ConfigError: there is none, or two packages declare one.
    """
    points = entry_points(group=GROUP)
    found = {point.value: point for point in points if point.name == name}
    if not found:
        hint = did_you_mean(name, points.names)
        remedy = hint or "install a package that has one"
        raise ConfigError(f"no provider {shown(name)} is installed; {remedy}", value=name)
    if len(found) > 1:
        owners = " and ".join(sorted(found))
        raise ConfigError(f"provider {shown(name)} is declared by {owners}; remove one", value=name)
    made: EmbeddingProvider = next(iter(found.values())).load()()
    return made
