"""The form in which a vector travels, and how alike two are.

Owns: `Vector` with its two conversions, `similarity_of`.
Does not own: providers of models (flowcore.llm).

Always holds: a vector is bytes, so it is an ordinary value: it enters state, files and worker processes as it
is, and needs no numpy where it only passes through.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from flowcore.errors import CoercionError

Vector: TypeAlias = bytes
"""Float32 numbers, little-endian, one after the other: 4 bytes per dimension.

`numpy.frombuffer(vector, "<f4")` reads it without a copy; `floats_of` reads it without numpy.
"""

BYTES_PER_FLOAT: Final = 4

Measure: TypeAlias = Literal["cosine", "dot", "euclidean"]


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


def similarity_of(left: Sequence[float], right: Sequence[float], measure: Measure = "cosine") -> float:
    """How alike two vectors are, computed in float64.

    Args:
        left: numbers.
        right: as many.
        measure: cosine of the angle, -1 to 1; the product; or the distance, 0 for equal ones.

    Raises:
        CoercionError: different lengths, not finite, or a zero vector for cosine.
    """
    if len(left) != len(right):
        raise CoercionError(
            f"vectors of {len(left)} and {len(right)} numbers cannot be compared; embed both with one model"
        )
    for name, numbers in (("a", left), ("b", right)):
        if not all(map(math.isfinite, numbers)):
            raise CoercionError(f"vector {name} has a number that is not finite")
    if measure == "euclidean":
        return math.dist(left, right)
    product = math.fsum(x * y for x, y in zip(left, right, strict=True))
    if measure == "dot":
        return product
    lengths = [math.hypot(*numbers) for numbers in (left, right)]
    for name, length in zip("ab", lengths, strict=True):
        if length == 0.0:
            raise CoercionError(f"vector {name} is all zeros, which has no direction; cosine is not defined")
    return max(-1.0, min(1.0, product / lengths[0] / lengths[1]))


def _little_endian(packed: array[float]) -> array[float]:
    if sys.byteorder == "big":
        packed.byteswap()
    return packed
