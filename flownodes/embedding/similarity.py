"""embedding.similarity: how alike two vectors are."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from flowcore.node import node
from flowcore.vectors import BYTES_PER_FLOAT, Measure, Vector, floats_of, similarity_of
from flownodes.fields import wrong_kind


@node("embedding.similarity", deterministic=True)
def similarity(
    a: Vector,
    b: Vector,
    *,
    measure: Annotated[
        Measure,
        Meta(description="cosine: -1 to 1; dot: the product; euclidean: the distance, 0 for equal ones"),
    ] = "cosine",
) -> float:
    """The similarity of two vectors of equally many numbers, computed in float64.

    Emits when      both vectors are there.
    Drops           nothing.
    Fails when      one is no vector, they differ in length, a number is not finite, or, for cosine, one is
                    all zeros: that has no direction, and 0 would be a guess.
    Cost            O(numbers): some 0.1 ms for 1,500.
    Holds           nothing.
    """
    return similarity_of(_numbers(a, "a"), _numbers(b, "b"), measure)


def _numbers(vector: Any, port: str) -> list[float]:
    if isinstance(vector, bytes) and len(vector) % BYTES_PER_FLOAT == 0:
        return floats_of(vector)
    raise wrong_kind(
        vector, f"a vector at {port!r}", "embedding.similarity", "connect what embedding.embed gives"
    )
