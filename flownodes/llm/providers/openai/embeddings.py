"""OpenAI's embeddings: what is asked, and the vectors that are answered.

Owns: `embed_payload`, `EmbeddingsWire`, `vectors_of`. Does not own: the exchange (provider).

Pure. Source: the API reference of OpenAI, "Embeddings"; base64 is of float32 numbers, little-endian, which is
the form of a `Vector`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from flowcore.llm.requests import EmbedRequest
from flowcore.vectors import BYTES_PER_FLOAT, Vector, vector_of
from flownodes.llm.providers.openai.completions import UsageWire
from flownodes.llm.providers.openai.traits import Traits


class _Item(msgspec.Struct, frozen=True):
    embedding: str | list[float]
    index: int | None = None


class EmbeddingsWire(msgspec.Struct, frozen=True):
    """The answer."""

    data: list[_Item]
    model: str | None = None
    usage: UsageWire | None = None


def embed_payload(request: EmbedRequest, traits: Traits) -> dict[str, Any]:
    """The body of a request for vectors."""
    payload: dict[str, Any] = {"model": request.model, "input": list(request.texts)}
    if traits.base64:
        payload["encoding_format"] = "base64"
    if request.dimensions is not None:
        payload[traits.renamed.get("dimensions", "dimensions")] = request.dimensions
    return payload | dict(request.extra)


def vectors_of(answer: EmbeddingsWire, count: int) -> tuple[Vector, ...]:
    """One vector per text, in the order of the request.

    Raises:
        ValueError: not as many vectors as texts, of unequal sizes, or not of finite numbers.
    """
    placed: dict[int, Vector] = {}
    for place, item in enumerate(answer.data):
        placed[place if item.index is None else item.index] = _vector(item.embedding)
    return in_order([placed[index] for index in sorted(placed)], sorted(placed), count)


def in_order(vectors: list[Vector], places: list[int], count: int) -> tuple[Vector, ...]:
    """The vectors, when there is one for each of `count` texts and all have one size.

    Raises:
        ValueError: otherwise.
    """
    if places != list(range(count)):
        raise ValueError(f"it has {len(places)} vectors for {count} texts")
    sizes = sorted({len(vector) // BYTES_PER_FLOAT for vector in vectors})
    if len(sizes) > 1 or sizes == [0]:
        raise ValueError(f"its vectors have {' and '.join(map(str, sizes))} numbers")
    return tuple(vectors)


def _vector(embedding: str | list[float]) -> Vector:
    if isinstance(embedding, list):
        return vector_of(embedding)
    try:
        packed = base64.b64decode(embedding, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise ValueError(f"a vector is no base64: {fault}") from fault
    if len(packed) % BYTES_PER_FLOAT:
        raise ValueError(f"a vector has {len(packed)} bytes, which are no float32 numbers")
    return packed
