"""The HTTP client nodes get as `ctx.http`: every request through the guard, capped and with one deadline.

Owns: the session's factory, resolving under the guard, redirects.
Does not own: which addresses are allowed (guard), bodies (streaming, body), deadlines, the errors of the
    transport (faults), retries and limits (policies of the node).

Always holds: a connection goes to an address the guard has seen, of the resolution it has seen; a redirect is
a new request to the guard; no proxy, cookie or credential comes from the environment; no status raises here.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple, Self, TypeAlias

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

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
_NO_AUTO_HEADERS: Final = ("content-type", "user-agent", "accept", "accept-encoding")
_LARGE: Final = 1 << 20
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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


def make_session(
    settings: HttpSettings, guard: Guard, resolve: Resolve | None = None
) -> aiohttp.ClientSession:
    """The one factory of sessions, for the running loop."""
    connector = aiohttp.TCPConnector(
        limit=settings.max_connections,
        resolver=GuardedResolver(guard, resolve),
        use_dns_cache=False,  # an address is judged for the connection it was resolved for
        ssl=_trusting(),
    )
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
    )


def _trusting() -> ssl.SSLContext:
    """Whom TLS trusts: SSL_CERT_FILE, SSL_CERT_DIR, else certifi, as not every machine has a list."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    return ssl.create_default_context(cafile=certifi.where())


class Outgoing(NamedTuple):
    """One request as it is sent."""

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes


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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The response, whatever its status.

        Raises:
            HttpRefusedError: the guard does not allow the address or scheme, or too many redirects.
            HttpTimeoutError: not connected, not begun, silent or not whole within the timeouts of `request`.
            HttpConnectionError: no connection, or it broke.
            HttpBodyTooLargeError, HttpDecodingError: see `decoded`.
        """
        deadlines = Deadlines(request, public_url(request.url))
        async with deadlines.exchange() as exchange:
            stream = await self._open(request, deadlines)
            try:
                exchange.begun()
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
            self._guard.check_url(url.scheme, url.raw_host or "", url.explicit_port)
            try:
                response = await self._sent(outgoing, deadlines)
            except CLIENT_FAULTS as fault:
                raise translated(fault, outgoing.method, public_url(str(url)), deadlines) from fault
            location = response.headers.get("Location")
            if not (request.follow_redirects and response.status in _REDIRECTS and location):
                return ResponseStream(response, outgoing.method, request.max_body_bytes, deadlines)
            response.release()
            outgoing = _redirected(outgoing, response.status, location)
        raise HttpRefusedError(
            f"{request.method} {public_url(request.url)} was redirected more than max_redirects="
            f"{self._settings.max_redirects} times",
            method=request.method,
            url=public_url(request.url),
            reason="too many redirects",
        )

    def _first(self, request: HttpRequest) -> Outgoing:
        try:
            url = _parsed(request.url)
            if request.query:
                url = url.update_query(request.query)
        except (ValueError, TypeError) as fault:
            raise _unsendable(request.method, public_url(request.url), fault) from fault
        headers = {"accept": "*/*", "user-agent": _USER_AGENT, "accept-encoding": ACCEPTED}
        headers |= {name.lower(): value for name, value in request.headers.items()}
        if request.body:
            headers.setdefault("content-length", str(len(request.body)))
        return Outgoing(request.method, url, headers, request.body)

    def _sent(self, outgoing: Outgoing, deadlines: Deadlines) -> Awaitable[aiohttp.ClientResponse]:
        """One request, up to the headers of its response."""
        session = self._session
        if session is None:
            session = self._session = make_session(self._settings, self._guard, self._resolve)
        body = outgoing.body
        return session.request(
            outgoing.method,
            outgoing.url,
            headers=outgoing.headers,
            # the driver writes a large one in one go if it is bytes, and says that this blocks the loop
            data=None if not body else body if len(body) < _LARGE else io.BytesIO(body),
            skip_auto_headers=_NO_AUTO_HEADERS,
            allow_redirects=False,
            timeout=deadlines.of_driver,
        )


def _redirected(sent: Outgoing, status: int, location: str) -> Outgoing:
    """The request a redirect asks for; credentials stay with the origin they were meant for."""
    try:
        url = sent.url.join(_parsed(location))
    except (ValueError, TypeError) as fault:
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
    return Outgoing("GET" if as_get else sent.method, url, headers, b"" if as_get else sent.body)


def _unsendable(method: str, url: str, fault: Exception) -> HttpRefusedError:
    return HttpRefusedError(
        f"{method} {url!r} is no request that can be sent: {fault}",
        method=method,
        url=url,
        reason=str(fault),
    )


@lru_cache(maxsize=1_024)
def _parsed(url: str) -> URL:
    """Programs ask few addresses, often; the query of a request is not part of them.

    Raises:
        ValueError: it is no URL.
    """
    if _CONTROL.search(url):  # which the parser leaves out in silence
        raise ValueError("a URL holds no control characters")
    return URL(url)


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.raw_host, url.port
