"""The exchanges of an HTTP provider with its endpoint: one request, one answer or one stream.

Owns: `Connection`, `Incoming`; what is common to all wire formats: addresses, headers, timeouts, statuses.
Does not own: the wire formats (providers), sending (the runtime's HTTP client), which error is which
(flowcore.llm.statuses).

Always holds: what leaves here is an answer with a status of 2xx, or a ProviderError; the key is in a header
and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from flowcore.context import CommonContext, HttpRequest, HttpResponse, HttpStream
from flowcore.errors import HttpError
from flowcore.health import Health
from flowcore.llm.answers import RateLimits
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import ProviderError, RequestRefusedError
from flowcore.llm.provider import ProviderContext
from flowcore.llm.rate_headers import rate_limits
from flowcore.llm.statuses import (
    Asked,
    ErrorWords,
    bad_answer,
    broken_stream,
    from_http,
    provider_error,
    read_error,
)
from flowcore.values import Secret
from flownodes.llm.wire.lines import Lines, LineTooLongError
from flownodes.llm.wire.sse import Event, Events

T = TypeVar("T")

_ERROR_BYTES: Final = 64 * 1024
_KEPT_BYTES: Final = 64 * 1024
_LONG: Final = timedelta(days=7)
_LONG_BYTES: Final = 1 << 40
_OK: Final = range(200, 300)
_UNDECODED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def wall(ctx: ProviderContext) -> datetime:
    """The time dates in headers are counted from."""
    return datetime.fromtimestamp(ctx.now_s(), UTC)


def unsupported(asked: Asked, what: str, remedy: str) -> RequestRefusedError:
    """The error for what a provider cannot do."""
    return RequestRefusedError(
        f"{asked}: {what} is not supported; {remedy}",
        provider=asked.provider,
        model=asked.model,
        status=None,
        request_id=None,
        code="unsupported",
    )


class Incoming:
    """A stream of an answer that has begun."""

    def __init__(self, stream: HttpStream, asked: Asked, now: datetime) -> None:
        self._stream: Final = stream
        self.asked: Final = asked
        self._now: Final = now
        self._start = b""
        self.received = 0
        """Characters of the answer so far; whoever reads them counts them."""
        self.limits: Final[RateLimits | None] = rate_limits(stream.headers, now)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The server-sent events of it."""
        reader = Events()
        is_empty = True
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                for event in self._read(reader, piece):
                    is_empty = False
                    yield event
        for event in reader.end():
            is_empty = False
            yield event
        if is_empty:
            raise self._no_stream("it has no event")

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines of it that are not empty."""
        reader = Lines()
        is_empty = True
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                for line in self._read(reader, piece):
                    if line.strip():
                        is_empty = False
                        yield line
        rest = reader.end()
        if rest.strip():
            is_empty = False
            yield rest
        if is_empty:
            raise self._no_stream("it has no line")

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._stream.chunks()) as chunks:
            async for piece in chunks:
                if len(self._start) < _KEPT_BYTES:
                    self._start += piece[: _KEPT_BYTES - len(self._start)]
                yield piece

    def _read(self, reader: Any, piece: bytes) -> list[Any]:
        try:
            return reader.feed(piece)
        except LineTooLongError as fault:
            raise bad_answer(self.asked, str(fault), self._start) from fault

    def _no_stream(self, reason: str) -> ProviderError:
        said = read_error(self._start)
        if said is not None:
            return self.failed(said)
        if not self._start.strip():
            return self.broken("it ended before it began")
        return bad_answer(self.asked, reason, self._start)

    def decoded(self, data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        """One event or line.

        Raises:
            ProviderError: it is an error object, or is not what it should be.
        """
        try:
            return decoder.decode(data)
        except _UNDECODED as fault:
            said = read_error(data)
            if said is not None:
                raise self.failed(said) from fault
            raise bad_answer(self.asked, f"a piece of the stream is not one: {fault}", data) from fault

    def failed(self, said: ErrorWords) -> ProviderError:
        """The error an error object inside the stream means."""
        return provider_error(self.asked, None, said, self._stream.headers, self._now)

    def broken(self, reason: str = "it ended before its answer did") -> ProviderError:
        """The error of a stream that ended too early."""
        return broken_stream(self.asked, reason, self.received)


class Connection:
    """One endpoint over HTTP.

    Args:
        endpoint: its headers, timeouts and bounds.
        address: without a slash at the end.
        headers: ours; those of the endpoint win over them.
        secrets: what no message may have; the secrets of the endpoint's headers are added.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: str,
        headers: Mapping[str, str],
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        given = {name.lower(): value for name, value in endpoint.headers.items()}
        self._endpoint: Final = endpoint
        self.address: Final = address
        self._headers: Final = {
            "content-type": "application/json",
            **{name.lower(): value for name, value in headers.items()},
            **{name: value.reveal() if isinstance(value, Secret) else value for name, value in given.items()},
        }
        own = tuple(value for value in given.values() if isinstance(value, Secret))
        self._secrets: Final = (*secrets, *own)

    def __repr__(self) -> str:
        return f"<Connection to {self.address}>"

    def asked(self, model: str) -> Asked:
        """What errors of a call say."""
        return Asked(provider=self._endpoint.provider, model=model, secrets=self._secrets)

    def _request(
        self,
        asked: Asked,
        path: str,
        payload: Mapping[str, Any],
        query: Mapping[str, str],
        *,
        streams: bool = False,
    ) -> HttpRequest:
        try:
            body = msgspec.json.encode(payload)
        except (TypeError, ValueError, RecursionError) as fault:
            reason = "text that is no Unicode" if isinstance(fault, UnicodeError) else str(fault)
            raise RequestRefusedError(
                f"{asked}: the request cannot be written as JSON: {reason}; correct it (nothing was sent)",
                provider=asked.provider,
                model=asked.model,
                status=None,
                request_id=None,
                code="not_json",
            ) from fault
        timeouts = self._endpoint.timeouts
        return HttpRequest(
            url=path if path.startswith("http") else self.address + path,
            method="POST",
            headers=self._headers,
            query=query,
            body=body,
            timeout=timeouts.total,
            connect_timeout=timeouts.connect,
            first_byte_timeout=timeouts.first_token,
            idle_timeout=timeouts.between_tokens if streams else None,
            max_body_bytes=self._endpoint.max_answer_bytes,
        )

    async def call(
        self,
        ctx: ProviderContext,
        asked: Asked,
        path: str,
        payload: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """The answer to a POST, whole, its status 2xx.

        Raises:
            ProviderError: it was not reached, or has another status.
        """
        request = self._request(asked, path, payload, query or {})
        try:
            response = await ctx.http.send(request)
        except HttpError as fault:
            raise from_http(asked, fault) from fault
        if response.status not in _OK:
            said = read_error(response.body)
            raise provider_error(
                asked, response.status, said or response.body[:_ERROR_BYTES], response.headers, wall(ctx)
            )
        return response

    def decoded(
        self, ctx: ProviderContext, asked: Asked, response: HttpResponse, decoder: msgspec.json.Decoder[T]
    ) -> T:
        """The answer.

        Raises:
            ProviderError: an error object; BadAnswerError: anything else that is no answer.
        """
        try:
            return decoder.decode(response.body)
        except _UNDECODED as fault:
            said = read_error(response.body)
            if said is not None:
                raise provider_error(asked, response.status, said, response.headers, wall(ctx)) from fault
            reason = str(fault) if response.body.strip() else "it is empty"
            raise bad_answer(asked, reason, response.body, status=response.status) from fault

    @asynccontextmanager
    async def stream(
        self,
        ctx: ProviderContext,
        asked: Asked,
        path: str,
        payload: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        is_long: bool = False,
    ) -> AsyncGenerator[Incoming, None]:
        """The answer to a POST while it comes, its status 2xx; leaving the block ends it.

        Args:
            ctx: lends HTTP.
            asked: for errors.
            path: below the address.
            payload: as JSON.
            query: of the address.
            is_long: no answer but a work of hours: silence ends it, not `timeouts.total` or its size.

        Raises:
            ProviderError: as `call`, and of HTTP faults while the block reads.
        """
        request = self._request(asked, path, payload, query or {}, streams=True)
        if is_long:
            request = msgspec.structs.replace(request, timeout=_LONG, max_body_bytes=_LONG_BYTES)
        incoming: Incoming | None = None
        try:
            async with ctx.http.stream(request) as stream:
                if stream.status not in _OK:
                    body = await _start_of(stream)
                    raise provider_error(
                        asked, stream.status, read_error(body) or body, stream.headers, wall(ctx)
                    )
                incoming = Incoming(stream, asked, wall(ctx))
                yield incoming
        except HttpError as fault:
            received = None if incoming is None else incoming.received
            raise from_http(asked, fault, received=received) from fault

    async def health(
        self, ctx: CommonContext, path: str, *, query: Mapping[str, str] | None = None
    ) -> Health:
        """Whether a GET there is answered with 2xx."""
        timeouts = self._endpoint.timeouts
        began = ctx.monotonic()
        request = HttpRequest(
            url=path if path.startswith("http") else self.address + path,
            headers=self._headers,
            query=query or {},
            timeout=timeouts.total,
            connect_timeout=timeouts.connect,
        )
        asked = self.asked("")
        try:
            response = await ctx.http.send(request)
        except HttpError as fault:
            return Health("failing", str(from_http(asked, fault)))
        took_s = ctx.monotonic() - began
        if response.status in _OK:
            return Health("ok", f"{self.address} answers", took_s)
        said = read_error(response.body) or response.body[:_ERROR_BYTES]
        fault = provider_error(asked, response.status, said, response.headers, ctx.now())
        state = "degraded" if fault.retriable else "failing"
        return Health(state, str(fault), took_s)


async def _start_of(stream: HttpStream) -> bytes:
    """The beginning of the body of an error; what breaks while it is read does not hide the status."""
    body = b""
    try:
        async with aclosing(stream.chunks()) as chunks:
            async for piece in chunks:
                body += piece
                if len(body) >= _ERROR_BYTES:
                    break
    except HttpError:
        return body
    return body[:_ERROR_BYTES]
