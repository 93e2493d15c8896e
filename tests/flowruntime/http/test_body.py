"""Bodies: decoded, and never larger than allowed."""

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import HttpBodyTooLargeError, HttpDecodingError
from flowruntime.http.body import read_body


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, encoding: str = "", *, max_bytes: int = 10_000_000, size: int = 16_384) -> bytes:
    return await read_body(pieces(data, size), encoding, max_bytes=max_bytes, method="GET", url="http://a")


def repeated(given: tuple[bytes, int]) -> bytes:
    part, times = given
    return part * times


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


@given(
    st.one_of(
        st.binary(max_size=3_000),
        st.tuples(st.binary(max_size=9), st.integers(0, 60_000)).map(repeated),
    ),
    st.sampled_from(["", "identity", "gzip", "deflate", "raw"]),
    st.sampled_from([1, 7, 16_384]),
)
async def test_what_was_sent_comes_out_in_every_encoding(data: bytes, encoding: str, size: int) -> None:
    encoders = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}
    sent = encoders[encoding](data) if encoding in encoders else data
    size = size if len(sent) < 20_000 else 16_384
    assert await read(sent, "deflate" if encoding == "raw" else encoding, size=size) == data


async def test_several_gzip_members_are_one_body() -> None:
    assert await read(gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0), "GZIP") == b"ab"


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_the_cap_holds_to_the_byte(encoding: str) -> None:
    body = b"x" * 1_000
    sent = gzip.compress(body, mtime=0) if encoding else body
    assert await read(sent, encoding, max_bytes=1_000) == body
    with pytest.raises(HttpBodyTooLargeError, match="max_body_bytes=999"):
        await read(sent, encoding, max_bytes=999)


async def test_a_bomb_is_left_as_soon_as_it_is_known_to_be_one() -> None:
    """A gigabyte of zeros in 1 MB: what comes after the cap is not even read."""
    piece = gzip.compress(b"\0" * 50_000_000, mtime=0)
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        while True:
            seen += 1
            yield piece

    with pytest.raises(HttpBodyTooLargeError):
        await read_body(endless(), "gzip", max_bytes=100_000, method="GET", url="http://a")
    assert seen == 1


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"hello", "gzip", "not gzip"),
        (gzip.compress(b"hello" * 99, mtime=0)[:-9], "gzip", "ends in the middle"),
        (gzip.compress(b"hello", mtime=0)[:5], "gzip", "ends in the middle"),
        (gzip.compress(b"a", mtime=0) + b"junk", "gzip", "not gzip"),
        (b"\xff\xff\xff", "deflate", "not deflate"),
        (b"hello", "br", "'br'"),
    ],
)
async def test_a_body_that_is_not_what_its_header_says_is_an_error(
    data: bytes, encoding: str, message: str
) -> None:
    with pytest.raises(HttpDecodingError, match=message):
        await read(data, encoding)
