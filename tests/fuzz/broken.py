"""Subjects that are wrong on purpose: each must be found, or the search proves nothing."""

from __future__ import annotations

import ctypes
import json
import random
from typing import Any, Final

from tests.fuzz.codecs import refuses
from tests.fuzz.harness import Subject
from tests.fuzz.mutation import INTERESTING_BYTES, mutated

_SAMPLES: Final = (b'{"a": 1, "b": [true, null]}',)


def _payload(chance: random.Random) -> bytes:
    return mutated(chance, _SAMPLES, INTERESTING_BYTES)


def _lets_another_error_out(data: bytes) -> object:
    return json.loads(data)["a"]  # KeyError, TypeError: not of the codec


def _never_ends(data: bytes) -> object:
    while data[:1] != b"{":
        try:
            json.loads(data)
        except Exception:  # noqa: BLE001, S112 - even what takes every Exception is ended
            continue
    return None


def _crashes(data: bytes) -> object:
    return ctypes.string_at(0) if data[:1] != b"{" else None


_held: Final[list[bytes]] = []


def _keeps_all(data: bytes) -> object:
    _held.append(data * 4_000)
    return None


def _subject(name: str, decode: Any) -> Subject:
    return Subject(
        name=f"tests.fuzz.broken:{name}", payload=_payload, check=refuses(decode, ValueError), most_cpu_s=0.3
    )


SUBJECTS: Final = (
    _subject("error", _lets_another_error_out),
    _subject("hang", _never_ends),
    _subject("crash", _crashes),
    _subject("memory", _keeps_all),
)
