"""Durations and sizes as text: `1m30s`, `250ms`, `64MiB`, exact in both directions.

Owns: the grammar and the canonical spelling.
Does not own: which field is a duration or a size (shapes).

Always holds: `parse_duration(format_duration(d)) == d` for every timedelta >= 0; nothing is rounded in
silence.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNIT_US: Final = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_UNIT_BYTES: Final = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,12})?)(ms|us|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,12})?) ?(B|kB|MB|GB|KiB|MiB|GiB)")
_MAX_US = timedelta.max // timedelta(microseconds=1)


def parse_duration(text: str) -> timedelta:
    """`1h30m`, `2s`, `0.5s`, `250ms` as a timedelta; units d, h, m, s, ms, us, each once, largest first.

    Raises:
        ValueError: not a duration, finer than a microsecond, or longer than a timedelta can be.
    """
    from fractions import Fraction  # only where one is read: it would cost every start

    if not _DURATION.fullmatch(text):
        message = "must be a number with a unit of d, h, m, s, ms or us, as in '30s' or '1h30m'"
        raise ValueError(message)
    parts = [(Fraction(number), unit) for number, unit in _PART.findall(text)]
    order = [tuple(_UNIT_US).index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        message = "must name each unit once, largest first, as in '1h30m'"
        raise ValueError(message)
    total_us = sum((number * _UNIT_US[unit] for number, unit in parts), Fraction(0))
    if total_us.denominator != 1:
        message = "must not be finer than a microsecond"
        raise ValueError(message)
    if total_us > _MAX_US:
        message = "must be shorter than 999999999 days"
        raise ValueError(message)
    return timedelta(microseconds=int(total_us))


def format_duration(duration: timedelta) -> str:
    """The shortest exact spelling: 90 s is `1m30s`, 0 is `0s`.

    Raises:
        ValueError: the duration is negative.
    """
    rest = duration // timedelta(microseconds=1)
    if rest < 0:
        message = f"a duration must not be negative, got {duration!r}"
        raise ValueError(message)
    parts: list[str] = []
    for unit, size in _UNIT_US.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """`64MiB`, `10 kB` as a number of bytes; units B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (of 1024).

    Raises:
        ValueError: not a size, or not a whole number of bytes.
    """
    from fractions import Fraction  # as above

    match = _SIZE.fullmatch(text)
    if match is None:
        message = (
            "must be a number of bytes, or one with a unit of B, kB, MB, GB, KiB, MiB or GiB, as in '64MiB'"
        )
        raise ValueError(message)
    size = Fraction(match[1]) * _UNIT_BYTES[match[2]]
    if size.denominator != 1:
        message = "must be a whole number of bytes"
        raise ValueError(message)
    return int(size)
