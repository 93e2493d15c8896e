"""Bodies of HTTP responses: decoded, whole or piece by piece, never larger than allowed.

Owns: undoing gzip and deflate under a cap, so that a small body cannot become a huge one.
Does not own: where the bytes come from (client), text and JSON (nodes).

Always holds: at no time is more than the cap plus one chunk held, whatever the compressed size.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Protocol

from flowcore.errors import HttpBodyTooLargeError, HttpDecodingError

ACCEPTED: Final = "gzip, deflate"
"""What we ask for and can undo."""

_STEP: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_HEADER_BYTES: Final = 2
_DEFLATED: Final = 8


async def read_body(
    chunks: AsyncIterator[bytes], encoding: str, *, max_bytes: int, method: str, url: str
) -> bytes:
    """The whole decoded body; arguments and errors as of `decoded`."""
    parts = [part async for part in decoded(chunks, encoding, max_bytes=max_bytes, method=method, url=url)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def decoded(
    chunks: AsyncIterator[bytes], encoding: str, *, max_bytes: int, method: str, url: str
) -> AsyncGenerator[bytes, None]:
    """The decoded body in pieces, each as soon as it can be decoded; none is empty.

    Args:
        chunks: the bytes as they come.
        encoding: the header Content-Encoding, empty when there is none.
        max_bytes: of the decoded body.
        method: for messages.
        url: for messages.

    Raises:
        HttpBodyTooLargeError: as soon as it is known; the rest is not read.
        HttpDecodingError: an encoding we did not ask for, or bytes that are not what the header says.
    """
    decoder = _decoder(encoding, method=method, url=url)
    size = 0
    try:
        async for chunk in chunks:
            for part in decoder.feed(chunk, max_bytes - size + 1):
                size += len(part)
                if size > max_bytes:
                    raise HttpBodyTooLargeError(
                        f"{method} {url}: the decoded body is larger than max_body_bytes={max_bytes}; "
                        "the rest was not read. Raise max_body_bytes if such bodies are expected",
                        method=method,
                        url=url,
                        max_body_bytes=max_bytes,
                    )
                if part:
                    yield part
    except zlib.error as fault:
        raise _undecodable(method, url, f"it is not {encoding}: {fault}") from fault
    if not decoder.complete:
        raise _undecodable(method, url, f"its {encoding} data ends in the middle")


class _Decoder(Protocol):
    complete: bool

    def feed(self, chunk: bytes, most: int) -> list[bytes]:
        """Decoded parts, at most `most` bytes in all (or one step more)."""
        ...


class _Plain:
    complete = True

    def feed(self, chunk: bytes, most: int) -> list[bytes]:
        return [chunk]


class _Inflate:
    """gzip (of any number of members), zlib, or deflate without a header, as some servers send it."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._zlib = zlib.decompressobj(window)
        self._head: bytes | None = b""
        """What came before the two bytes that tell a header from none; None once they were seen."""
        self.complete = True

    def feed(self, chunk: bytes, most: int) -> list[bytes]:
        if self._head is not None:
            chunk = self._head + chunk
            self._head = chunk if len(chunk) < _HEADER_BYTES else None
            if self._head is not None:
                self.complete = not chunk
                return []
            self._choose(chunk)
        parts: list[bytes] = []
        size = 0
        full = False
        while (chunk or full) and size < most:
            part, chunk = self._step(chunk)
            full = len(part) == _STEP  # there may be more to come of what was fed
            parts.append(part)
            size += len(part)
        return parts

    def _choose(self, chunk: bytes) -> None:
        """Whether a deflate body has the header of zlib (RFC 1950), or none as some servers send it."""
        has_header = chunk[0] & 0x0F == _DEFLATED and int.from_bytes(chunk[:2], "big") % 31 == 0
        if self._window != _GZIP and not has_header:
            self._window = -zlib.MAX_WBITS
            self._zlib = zlib.decompressobj(self._window)

    def _step(self, chunk: bytes) -> tuple[bytes, bytes]:
        if self._zlib.eof and chunk:
            self._zlib = zlib.decompressobj(self._window)
        part = self._zlib.decompress(chunk, _STEP)
        self.complete = self._zlib.eof
        return part, self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail


def _decoder(encoding: str, *, method: str, url: str) -> _Decoder:
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Inflate(_GZIP)
        case "deflate":
            return _Inflate(zlib.MAX_WBITS)
        case other:
            raise _undecodable(method, url, f"it is encoded as {other!r}; {ACCEPTED} were asked for")


def _undecodable(method: str, url: str, reason: str) -> HttpDecodingError:
    return HttpDecodingError(
        f"{method} {url}: the body cannot be decoded: {reason}", method=method, url=url, reason=reason
    )
