"""Changing bytes and texts as damage, accidents and attackers do.

Owns: `mutated`, for bytes and text alike.
Does not own: the samples that are changed.

Always holds: a result is a function of the random numbers; it is at most some thousand bytes longer than its
sample.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import AnyStr, Final

INTERESTING_BYTES: Final = (
    b"", b"\0", b"\xff", b"\n", b"\r\n", b'"', b"'", b",", b"{", b"}", b"[", b"]", b":", b"\\", b"\\u",
    b"\\ud800",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"true", b"NaN", b"-", b"0", b"1e999", b"9" * 25,
    b"-9223372036854775809", b"18446744073709551616", b"\x80", b"\xc1", b"\xc7\x01", b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"$", b'{"$bytes":"', b'{"$int":"', b"[" * 300,
    b'{"a":' * 300,
    b"\x91" * 300, b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"a" * 200, b"\x7f\xff\xff\xff", b" ", b"\t",
)  # fmt: skip
INTERESTING_TEXTS: Final = (
    "", "\0", "\ud800", "\n", '"', "'", "(", ")", "[", "]", "{", "}", ":", ",", ".", "&", "*", "!", "|",
    ">", "%", "@",
    "`", "#", "- ", "? ", ": ", "<<: ", "---\n", "...\n", "${", "$${", "${N}", "${N:-", "${params.a}",
    "$secret", "$",
    "&a ", "*a", "!!python/object:os.system ", "->", "=>", "null", "~", "1e999", "-0", "0x1f", "9" * 30,
    ".inf",
    "\t", "\u2028", "\ufeff", "\x85", "é", "\U0001f600", "[" * 120, "(" * 40, "{a: " * 40, "true", "x" * 90,
    "\\", "//",
    "has(", "&&", "||", "?", "==", " in ", ".map(x, x)", "timestamp(", "1u", "b'a'", "r'\\d'",
)  # fmt: skip


def mutated(chance: random.Random, samples: Sequence[AnyStr], tokens: Sequence[AnyStr]) -> AnyStr:
    """One of the samples, changed one to six times; one in thirty as it is.

    Args:
        chance: decides.
        samples: what is changed, and what pieces are taken from.
        tokens: put in.
    """
    whole = chance.choice(samples)
    if not chance.randrange(30):
        return whole
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        whole = _changed(chance, whole, samples, tokens)
    return whole


def _changed(  # noqa: PLR0911 - one return per kind of change
    chance: random.Random, whole: AnyStr, samples: Sequence[AnyStr], tokens: Sequence[AnyStr]
) -> AnyStr:
    at = chance.randrange(len(whole) + 1)
    match chance.randrange(8):
        case 0 | 1 if isinstance(whole, bytes):
            damaged = bytearray(whole)
            if damaged:
                damaged[at - 1] ^= 1 << chance.randrange(8)
            return bytes(damaged)
        case 2:
            return whole[:at] + whole[at + chance.choice((1, 1, 2, 8, 64)) :]
        case 3:
            return (
                whole[:at]
                + whole[at : at + chance.choice((1, 4, 40))] * chance.choice((2, 2, 9))
                + whole[at:]
            )
        case 4:
            return whole[:at]
        case 5:
            other = chance.choice(samples)
            begin = chance.randrange(len(other) + 1)
            return whole[:at] + other[begin : begin + chance.choice((3, 20, 200))] + whole[at:]
        case 6:
            return whole[:at] + chance.choice(tokens) + whole[at + chance.choice((0, 1, 4)) :]
        case _:
            return whole[:at] + chance.choice(tokens) + whole[at:]
