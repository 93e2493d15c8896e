"""A response whose body is read as it comes.

Owns: `ResponseStream`, the `HttpStream` of the guarded client.
Does not own: opening it (client), decoding (body), deadlines.

Always holds: the body is read at most once and in time; closing ends the exchange, and a connection whose
body was not read to its end is closed, not reused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import aiohttp

from flowcore.errors import ContractError, FlowError
from flowruntime.http.body import decoded, read_body
from flowruntime.http.deadlines import Deadlines
from flowruntime.http.faults import CLIENT_FAULTS, public_url, translated

_PIECE: Final = 16 * 1024
_UNKNOWN: Final = 1 << 63
_OF_THE_CODED_BODY: Final = frozenset({"content-encoding", "content-length"})


class ResponseStream:
    """The response of one request, its headers read.

    Args:
        response: of the driver.
        method: of the request it answers.
        max_bytes: of the decoded body.
        deadlines: of the exchange.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, method: str, max_bytes: int, deadlines: Deadlines
    ) -> None:
        self._response: Final = response
        self._method: Final = method
        self._max_bytes: Final = max_bytes
        self._deadlines: Final = deadlines
        self._is_read = False
        self.url: Final = str(response.url)
        self.status: Final = response.status
        self._encoding: Final[str] = response.headers.get("Content-Encoding", "")
        self.headers: Final[Mapping[str, str]] = _told(response.raw_headers)

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """See `HttpStream.chunks`."""
        return self._translated(self._deadlines.pieces(self._decoded()))

    async def whole(self, *, in_time: bool) -> bytes:
        """The decoded body; `in_time`: its first and further pieces have deadlines of their own."""
        if in_time:
            async with aclosing(self.chunks()) as pieces:
                return b"".join([piece async for piece in pieces])
        self._begin()
        url = public_url(self.url)
        try:
            if not self._encoding and (self._response.content_length or _UNKNOWN) <= self._max_bytes:
                return await self._response.read()  # the driver reads no more than was announced
            return await read_body(
                self._raw(), self._encoding, max_bytes=self._max_bytes, method=self._method, url=url
            )
        except CLIENT_FAULTS as fault:
            raise translated(fault, self._method, url, self._deadlines) from fault

    async def close(self) -> None:
        """End the exchange; idempotent."""
        self._response.release()

    def _begin(self) -> None:
        if self._is_read:
            raise ContractError(
                f"the body of {self._method} {public_url(self.url)} was read before; keep what it gave"
            )
        self._is_read = True

    def _raw(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_chunked(_PIECE)

    async def _decoded(self) -> AsyncGenerator[bytes, None]:
        self._begin()
        url = public_url(self.url)
        pieces = decoded(self._raw(), self._encoding, max_bytes=self._max_bytes, method=self._method, url=url)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _translated(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            try:
                async for piece in pieces:
                    yield piece
            except CLIENT_FAULTS as fault:
                if isinstance(fault, FlowError):
                    raise
                url = public_url(self.url)
                raise translated(fault, self._method, url, self._deadlines) from fault


def _told(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case, values of one name joined; without those of the body as it was coded."""
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key not in _OF_THE_CODED_BODY:
            found[key] = text if key not in found else f"{found[key]}, {text}"
    return found
