"""What a provider of models must offer, as protocols, and the form in which a vector travels.

Owns: `EmbeddingProvider`, and `Vector` with its two conversions.
Does not own: any provider (entry points of group `flowrx.llm_providers`); batching, retries and limits, which
are the runtime's.

Always holds: a vector is bytes, so it is an ordinary value: it enters state, files and worker processes as it
is, and needs no numpy where it only passes through.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from flowcore.errors import CoercionError

Vector: TypeAlias = bytes
"""Float32 numbers, little-endian, one after the other: 4 bytes per dimension.

`numpy.frombuffer(vector, "<f4")` reads it without a copy; `floats_of` reads it without numpy.
"""

BYTES_PER_FLOAT: Final = 4


class EmbeddingProvider(Protocol):
    """Turns texts into vectors. Holds no resilience code: the runtime applies what the node declares."""

    @property
    def name(self) -> str:
        """The name users write as `provider:`."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers per vector."""
        ...

    async def embed(self, texts: Sequence[str], *, model: str) -> Sequence[Vector]:
        """One vector per text, in order. Never blocks the loop; raises for the whole call or not at all."""
        ...


def vector_of(numbers: Iterable[float]) -> Vector:
    """Pack numbers as a vector; each is rounded to the nearest float32.

    Raises:
        CoercionError: something is not a number, not finite, or too large for float32.
    """
    try:
        packed = array("f", numbers)
    except (TypeError, OverflowError) as error:
        raise CoercionError(f"not the numbers of a vector: {error}; give finite numbers") from error
    for place, number in enumerate(packed):
        if not math.isfinite(number):
            message = f"number {place} of a vector is {number!r} in float32; give finite numbers below 3.4e38"
            raise CoercionError(message)
    return _little_endian(packed).tobytes()


def floats_of(vector: Vector) -> list[float]:
    """The numbers of a vector.

    Raises:
        CoercionError: the length is no multiple of 4, so these bytes are no vector.
    """
    if len(vector) % BYTES_PER_FLOAT:
        raise CoercionError(
            f"{len(vector)} bytes are no vector: float32 takes {BYTES_PER_FLOAT} bytes a number; "
            "give what an embedding node put out, or pack numbers with vector_of"
        )
    packed = array("f")
    packed.frombytes(vector)
    return _little_endian(packed).tolist()


def _little_endian(packed: array[float]) -> array[float]:
    if sys.byteorder == "big":
        packed.byteswap()
    return packed
