"""The HTTP client nodes get as `ctx.http`: every request through the guard, capped and with one deadline.

Owns: the transport's factory, resolving under the guard, redirects, errors of ours for errors of the client.
Does not own: which addresses are allowed (guard), bodies (body), retries and limits (policies of the node).

Always holds: a connection goes to an address the guard has seen, of the resolution it has seen; a redirect is
a new request to the guard; no proxy, cookie or credential comes from the environment; no status raises here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, Self, TypeAlias

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from flowcore.context import HttpRequest, HttpResponse
from flowcore.errors import FlowError, HttpConnectionError, HttpRefusedError, HttpTimeoutError
from flowruntime.http.body import ACCEPTED, read_body
from flowruntime.http.guard import Guard, HttpSettings

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
        self._guard.check_addresses(host, [ip_address(result["host"].partition("%")[0]) for result in found])
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
            HttpTimeoutError: not whole within `request.timeout`.
            HttpConnectionError: no connection, or it broke.
            HttpBodyTooLargeError, HttpDecodingError: see `read_body`.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        shown_url = _public(request.url)
        timeout_s = request.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(request, loop, began)
        except TimeoutError as late:
            if isinstance(late, FlowError):
                raise
            raise HttpTimeoutError(
                f"{request.method} {shown_url} did not finish within {timeout_s:g} s; "
                "it may have had its effect",
                method=request.method,
                url=shown_url,
                timeout_s=timeout_s,
            ) from None

    async def _follow(
        self, request: HttpRequest, loop: asyncio.AbstractEventLoop, began: float
    ) -> HttpResponse:
        outgoing = self._first(request)
        for _ in range(self._settings.max_redirects + 1):
            url = outgoing.url
            self._guard.check_url(url.scheme, url.raw_host.decode("ascii"), url.port)
            response = await self._exchange(outgoing, request)
            location = response.headers.get("location")
            if not (request.follow_redirects and response.status_code in _REDIRECTS and location):
                return HttpResponse(
                    status=response.status_code,
                    headers=_joined(response.headers),
                    body=response.content,
                    url=str(outgoing.url),
                    elapsed_s=loop.time() - began,
                )
            outgoing = _redirected(outgoing, response.status_code, location)
        raise HttpRefusedError(
            f"{request.method} {_public(request.url)} was redirected more than max_redirects="
            f"{self._settings.max_redirects} times",
            method=request.method,
            url=_public(request.url),
            reason="too many redirects",
        )

    def _first(self, request: HttpRequest) -> httpx.Request:
        try:
            url = httpx.URL(request.url)
            if request.query:
                url = url.copy_merge_params(dict(request.query))
            headers = {"accept": "*/*", "user-agent": _USER_AGENT, "accept-encoding": ACCEPTED}
            headers |= {name.lower(): value for name, value in request.headers.items()}
            return httpx.Request(request.method, url, headers=headers, content=request.body or None)
        except (httpx.InvalidURL, ValueError, TypeError) as fault:
            raise HttpRefusedError(
                f"{request.method} {_public(request.url)!r} is no request that can be sent: {fault}",
                method=request.method,
                url=_public(request.url),
                reason=str(fault),
            ) from fault

    async def _exchange(self, outgoing: httpx.Request, request: HttpRequest) -> httpx.Response:
        """One request and its whole body, errors translated."""
        if self._transport is None:
            self._transport = make_transport(self._settings, self._guard, self._resolve)
        url = _public(str(outgoing.url))
        try:
            response = await self._transport.handle_async_request(outgoing)
            try:
                body = await read_body(
                    response.aiter_raw(),
                    response.headers.get("content-encoding", ""),
                    max_bytes=request.max_body_bytes,
                    method=outgoing.method,
                    url=url,
                )
            finally:
                await response.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as fault:
            raise _translated(fault, outgoing.method, url) from fault
        return httpx.Response(response.status_code, headers=_decoded_headers(response.headers), content=body)


def _translated(fault: BaseException, method: str, url: str) -> FlowError | TimeoutError:
    """Ours, when the guard or the body raised it; else a connection error with the innermost reason."""
    cause: BaseException | None = fault
    innermost = fault
    while cause is not None:
        if isinstance(cause, FlowError):
            cause.__dict__.setdefault("method", method)
            cause.__dict__.setdefault("url", url)
            return cause
        innermost = cause
        cause = cause.__cause__ or cause.__context__
    reason = str(innermost) or str(fault) or type(innermost).__name__
    return HttpConnectionError(f"{method} {url}: no answer: {reason}", method=method, url=url, reason=reason)


def _redirected(sent: httpx.Request, status: int, location: str) -> httpx.Request:
    """The request a redirect asks for; credentials stay with the origin they were meant for."""
    try:
        url = sent.url.join(location)
    except (httpx.InvalidURL, ValueError) as fault:
        where = _public(str(sent.url))
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
    )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _joined(headers: httpx.Headers) -> Mapping[str, str]:
    """Names in lower case; values of one name joined by a comma, as the standard allows."""
    return dict(headers.items())


def _decoded_headers(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Without what no longer holds of the decoded body."""
    return [
        (name, value)
        for name, value in headers.raw
        if name.lower() not in (b"content-encoding", b"content-length")
    ]


def _public(url: str) -> str:
    """The URL without credentials, query and fragment, which may hold secrets."""
    try:
        parsed: Any = httpx.URL(url)
        return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError, TypeError):
        return url.partition("?")[0].rpartition("@")[2][:200]
