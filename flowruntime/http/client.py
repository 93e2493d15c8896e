"""The HTTP client nodes get as `ctx.http`: every request through the guard, capped and with one deadline.

Owns: the transport's factory, resolving under the guard, redirects.
Does not own: which addresses are allowed (guard), bodies (streaming, body), deadlines, the errors of the
    transport (faults), retries and limits (policies of the node).

Always holds: a connection goes to an address the guard has seen, of the resolution it has seen; a redirect is
a new request to the guard; no proxy, cookie or credential comes from the environment; no status raises here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, Self, TypeAlias

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from flowcore.context import HttpRequest, HttpResponse
from flowcore.errors import HttpRefusedError
from flowruntime.http.body import ACCEPTED
from flowruntime.http.deadlines import Deadlines
from flowruntime.http.faults import CLIENT_FAULTS, public_url, translated
from flowruntime.http.guard import Guard, HttpSettings
from flowruntime.http.streaming import ResponseStream

Resolve: TypeAlias = Callable[[str, int, int], Awaitable[list[ResolveResult]]]
"""`resolve(host, port, family)`: the addresses of a name; a test gives its own."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER: Final = 303
_MOVED: Final = frozenset({301, 302})
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_BODY_HEADERS: Final = frozenset({"content-length", "content-type", "content-encoding", "transfer-encoding"})
_USER_AGENT: Final = "flowrx"


class GuardedResolver(AbstractResolver):
    """Resolves names for the connector; what the guard refuses is never connected to."""

    def __init__(self, guard: Guard, resolve: Resolve | None = None) -> None:
        self._guard: Final = guard
        self._resolve: Final[Resolve] = resolve or _system_resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolve(host, port, family)
        addresses = [ip_address(result["host"].partition("%")[0]) for result in found]
        self._guard.check_addresses(host, addresses, port)
        return found

    async def close(self) -> None:
        """Holds nothing."""


async def _system_resolve(host: str, port: int, family: int) -> list[ResolveResult]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=kind,
            proto=proto,
            flags=socket.AI_NUMERICHOST,
        )
        for kind, _, proto, _, address in found
    ]


def make_transport(settings: HttpSettings, guard: Guard, resolve: Resolve | None = None) -> AiohttpTransport:
    """The one factory of transports; its session is made at the first request, on that request's loop."""
    ssl_context = httpx.create_ssl_context()  # of the environment, only SSL_CERT_FILE and SSL_CERT_DIR

    def make_session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=settings.max_connections,
            resolver=GuardedResolver(guard, resolve),
            use_dns_cache=False,  # an address is judged for the connection it was resolved for
            ssl=ssl_context,
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        )

    return AiohttpTransport(verify=ssl_context, client=make_session)


class GuardedHttpClient:
    """An `HttpClient`; one serves a runtime, for as long as its loop runs.

    Holds: at most `max_connections` connections; requests beyond wait for one within their deadline.

    Args:
        settings: what the operator allows.
        resolve: in place of the system's resolver.
    """

    def __init__(self, settings: HttpSettings | None = None, *, resolve: Resolve | None = None) -> None:
        self._settings: Final = settings or HttpSettings()
        self._guard: Final = Guard(self._settings)
        self._resolve: Final = resolve
        self._transport: AiohttpTransport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; idempotent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The response, whatever its status.

        Raises:
            HttpRefusedError: the guard does not allow the address or scheme, or too many redirects.
            HttpTimeoutError: not connected, not begun, silent or not whole within the timeouts of `request`.
            HttpConnectionError: no connection, or it broke.
            HttpBodyTooLargeError, HttpDecodingError: see `decoded`.
        """
        deadlines = Deadlines(request, public_url(request.url))
        return await deadlines.whole(self._whole(request, deadlines))

    async def _whole(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        opening = self._open(request, deadlines)
        stream = await (deadlines.first(opening) if request.first_byte_timeout is not None else opening)
        try:
            body = await stream.whole(in_time=request.idle_timeout is not None)
        finally:
            await stream.close()
        return HttpResponse(
            status=stream.status,
            headers=stream.headers,
            body=body,
            url=stream.url,
            elapsed_s=deadlines.elapsed_s,
        )

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncGenerator[ResponseStream, None]:
        """The response as soon as its headers are there; see `HttpClient.stream`."""
        deadlines = Deadlines(request, public_url(request.url))
        stream = await deadlines.first(self._open(request, deadlines))
        try:
            yield stream
        finally:
            await stream.close()

    async def _open(self, request: HttpRequest, deadlines: Deadlines) -> ResponseStream:
        """The headers of the response that counts, after redirects."""
        outgoing = self._first(request)
        for _ in range(self._settings.max_redirects + 1):
            url = outgoing.url
            self._guard.check_url(url.scheme, url.raw_host.decode("ascii"), url.port)
            response = await self._headers(outgoing, deadlines)
            location = response.headers.get("location")
            if not (request.follow_redirects and response.status_code in _REDIRECTS and location):
                return ResponseStream(response, outgoing, request.max_body_bytes, deadlines)
            await response.aclose()
            outgoing = _redirected(outgoing, response.status_code, location)
        raise HttpRefusedError(
            f"{request.method} {public_url(request.url)} was redirected more than max_redirects="
            f"{self._settings.max_redirects} times",
            method=request.method,
            url=public_url(request.url),
            reason="too many redirects",
        )

    def _first(self, request: HttpRequest) -> httpx.Request:
        try:
            url = _parsed(request.url)
            if request.query:
                url = url.copy_merge_params(dict(request.query))
            headers = {"accept": "*/*", "user-agent": _USER_AGENT, "accept-encoding": ACCEPTED}
            headers |= {name.lower(): value for name, value in request.headers.items()}
            if request.body:  # set here, it is not set again by a slower way
                headers.setdefault("content-length", str(len(request.body)))
            extensions = _connecting(request)
            return httpx.Request(
                request.method, url, headers=headers, content=request.body or None, extensions=extensions
            )
        except (httpx.InvalidURL, ValueError, TypeError) as fault:
            raise HttpRefusedError(
                f"{request.method} {public_url(request.url)!r} is no request that can be sent: {fault}",
                method=request.method,
                url=public_url(request.url),
                reason=str(fault),
            ) from fault

    async def _headers(self, outgoing: httpx.Request, deadlines: Deadlines) -> httpx.Response:
        """One request, up to the headers of its response; errors translated."""
        if self._transport is None:
            self._transport = make_transport(self._settings, self._guard, self._resolve)
        try:
            return await self._transport.handle_async_request(outgoing)
        except CLIENT_FAULTS as fault:
            raise translated(fault, outgoing.method, public_url(str(outgoing.url)), deadlines) from fault


def _redirected(sent: httpx.Request, status: int, location: str) -> httpx.Request:
    """The request a redirect asks for; credentials stay with the origin they were meant for."""
    try:
        url = sent.url.join(location)
    except (httpx.InvalidURL, ValueError) as fault:
        where = public_url(str(sent.url))
        raise HttpRefusedError(
            f"{sent.method} {where} was redirected to {location!r}, which is no URL: {fault}",
            method=sent.method,
            url=where,
            reason=str(fault),
        ) from fault
    as_get = (status == _SEE_OTHER and sent.method not in {"GET", "HEAD"}) or (
        status in _MOVED and sent.method == "POST"
    )
    dropped = {"host", *(_BODY_HEADERS if as_get else ())}
    if _origin(url) != _origin(sent.url):
        dropped.update(_CREDENTIALS)
    headers = {name: value for name, value in sent.headers.items() if name not in dropped}
    return httpx.Request(
        "GET" if as_get else sent.method,
        url,
        headers=headers,
        content=None if as_get else sent.content or None,
        extensions=sent.extensions,
    )


@lru_cache(maxsize=1_024)
def _parsed(url: str) -> httpx.URL:
    """Programs ask few addresses, often; the query of a request is not part of them."""
    return httpx.URL(url)


def _connecting(request: HttpRequest) -> dict[str, Any]:
    """What the transport is told of time: how long a connection to one address may take."""
    limit = request.connect_timeout
    return {} if limit is None else {"timeout": {"connect": limit.total_seconds()}}


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
