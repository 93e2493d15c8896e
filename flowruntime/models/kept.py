"""Answers as caches and the journal keep them.

Owns: the binary form of a `Generation` and of a vector, its checksum.
Does not own: where it is kept (cache, cache_file, journal).

Always holds: what `unpacked` gives is what `packed` was given, or it raises: a row that has changed by one
bit is never an answer.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

import msgspec

from flowcore.llm.answers import Generation

Answer: TypeAlias = Generation | bytes
"""What one call gave: a whole answer, or the vector of one text."""

_ENCODER = msgspec.msgpack.Encoder()
_GENERATION = msgspec.msgpack.Decoder(Generation)
_TEXT, _VECTOR = b"g", b"v"


class DamagedAnswerError(ValueError):
    """What was kept is not as it was written."""


def packed(answer: Answer) -> bytes:
    """The answer as bytes."""
    return _VECTOR + answer if isinstance(answer, bytes) else _TEXT + _ENCODER.encode(answer)


def unpacked(body: bytes) -> Answer:
    """The answer again.

    Raises:
        DamagedAnswerError: `packed` did not give these bytes.
    """
    if body[:1] == _VECTOR:
        return body[1:]
    if body[:1] != _TEXT:
        raise DamagedAnswerError(f"an answer begins with {body[:1]!r}")
    try:
        return _GENERATION.decode(body[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise DamagedAnswerError(str(fault)) from fault


def sum_of(*columns: object) -> int:
    """CRC-32 of a row, its key included, so that no row passes for another one."""
    return zlib.crc32(msgspec.msgpack.encode(columns))


def checked(body: bytes, found: int, *columns: object) -> Answer:
    """The answer of a row with its checksum, `sum_of(*columns, body)`.

    Raises:
        DamagedAnswerError: the row is not as it was written.
    """
    if found != sum_of(*columns, body):
        raise DamagedAnswerError("its sum differs")
    return unpacked(body)
