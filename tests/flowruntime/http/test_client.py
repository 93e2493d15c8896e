"""The guarded client against a real server on loopback, and its guard against made-up name servers."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from flowcore.context import HttpRequest
from flowcore.errors import (
    HttpBodyTooLargeError,
    HttpConnectionError,
    HttpRefusedError,
    HttpTimeoutError,
)
from flowruntime.http.client import GuardedHttpClient
from flowruntime.http.guard import HttpSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server(Protocol):
    seen: list[tuple[str, str, dict[str, str], bytes]]
    handlers: dict[str, Handler]
    left: asyncio.Event

    @property
    def url(self) -> str: ...
    @property
    def port(self) -> int: ...


def resolver_of(*addresses: str) -> Callable[[str, int, int], Awaitable[list[ResolveResult]]]:
    async def resolve(host: str, port: int, _: int) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=6, flags=0)
            for address in addresses
        ]

    return resolve


async def test_method_query_headers_and_body_arrive_as_given(
    server: Server, client: GuardedHttpClient
) -> None:
    response = await client.send(
        HttpRequest(
            url=f"{server.url}/a?x=1",
            method="POST",
            headers={"X-One": "1"},
            query={"y": "ä&"},
            body=b"\x00hello",
        )
    )
    assert (response.status, response.body) == (200, b'{"ok": true}')
    assert response.headers["content-type"].startswith("application/json")
    assert response.elapsed_s >= 0
    method, path, headers, body = server.seen[0]
    assert (method, path, body) == ("POST", "/a?x=1&y=%C3%A4%26", b"\x00hello")
    assert headers["x-one"] == "1"
    assert headers["content-length"] == "6"


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, 3_000_001])
async def test_a_large_body_arrives_whole_and_blocks_nothing(
    server: Server, client: GuardedHttpClient, size: int
) -> None:
    """Bytes written in one go would be a warning of aiohttp, and warnings are errors here."""
    body = bytes(size)
    await client.send(HttpRequest(url=f"{server.url}/large", method="PUT", body=body))
    (_, _, headers, arrived) = server.seen[-1]
    assert (len(arrived), arrived == body) == (size, True)
    assert headers["content-length"] == str(size)


async def test_any_status_is_a_response(server: Server, client: GuardedHttpClient) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "2"}, text="later")

    server.handlers["/busy"] = busy
    response = await client.send(HttpRequest(url=f"{server.url}/busy"))
    assert (response.status, response.headers["retry-after"], response.body) == (503, "2", b"later")


async def test_a_gzip_body_comes_decoded_and_a_bomb_does_not_come(
    server: Server, client: GuardedHttpClient
) -> None:
    async def zipped(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"\0" * 3_000_000), headers={"Content-Encoding": "gzip"})

    server.handlers["/zipped"] = zipped
    response = await client.send(HttpRequest(url=f"{server.url}/zipped"))
    assert response.body == b"\0" * 3_000_000
    assert "content-encoding" not in response.headers
    with pytest.raises(HttpBodyTooLargeError) as caught:
        await client.send(HttpRequest(url=f"{server.url}/zipped", max_body_bytes=100_000))
    assert caught.value.facts()["max_body_bytes"] == 100_000


async def test_one_deadline_covers_headers_and_a_body_that_trickles(
    server: Server, client: GuardedHttpClient
) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.01)

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.handlers |= {"/trickle": trickle, "/silent": silent}
    for path in ("/trickle", "/silent"):
        server.left.clear()
        with pytest.raises(HttpTimeoutError, match=r"0\.5 s") as caught:
            await client.send(
                HttpRequest(url=f"{server.url}{path}?key=secret", timeout=timedelta(seconds=0.5))
            )
        assert caught.value.retriable
        assert "secret" not in str(caught.value.facts())
        async with asyncio.timeout(5):
            await server.left.wait()  # the connection was closed, not left to the server


async def test_cancelling_closes_the_connection(server: Server, client: GuardedHttpClient) -> None:
    began = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.handlers["/silent"] = silent
    task = asyncio.ensure_future(client.send(HttpRequest(url=f"{server.url}/silent")))
    async with asyncio.timeout(5):
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


async def test_a_server_that_is_not_there_or_hangs_up_is_a_connection_error(
    server: Server, client: GuardedHttpClient
) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.handlers["/hang-up"] = hang_up
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"{server.url}/hang-up", f"http://127.0.0.1:{port}/"):
        with pytest.raises(HttpConnectionError) as caught:
            await client.send(HttpRequest(url=url))
        assert caught.value.facts()["url"] == url


async def test_redirects_are_responses_unless_asked_for(server: Server, client: GuardedHttpClient) -> None:
    async def move(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/there"})

    server.handlers["/move"] = move
    assert (await client.send(HttpRequest(url=f"{server.url}/move"))).status == 302
    response = await client.send(
        HttpRequest(url=f"{server.url}/move", method="POST", body=b"x", follow_redirects=True)
    )
    assert (response.status, response.url) == (200, f"{server.url}/there")
    assert (server.seen[-1][0], server.seen[-1][3]) == ("GET", b"")


async def test_credentials_stay_with_the_origin_they_were_meant_for(server: Server) -> None:
    async def move(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"http://other.example:{server.port}/there"})

    server.handlers["/move"] = move
    settings = HttpSettings(allow_private=True)
    async with GuardedHttpClient(settings, resolve=resolver_of("127.0.0.1")) as client:
        request = HttpRequest(
            url=f"{server.url}/move",
            method="POST",
            body=b"x",
            headers={"Authorization": "Bearer s", "Cookie": "s", "X-Kept": "1"},
            follow_redirects=True,
        )
        assert (await client.send(request)).status == 200
    method, _, headers, body = server.seen[-1]
    assert (method, body, headers["x-kept"]) == ("POST", b"x", "1")
    assert headers["host"] == f"other.example:{server.port}"
    assert not {"authorization", "cookie"} & headers.keys()


async def test_a_redirect_to_a_private_address_is_refused(server: Server) -> None:
    async def move(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    server.handlers["/move"] = move
    settings = HttpSettings(allowed_hosts=("open.example",))
    async with GuardedHttpClient(settings, resolve=resolver_of("127.0.0.1")) as client:
        for target in ("http://127.0.0.1/", "http://inside.example/", "file:///etc/passwd", "http://[::1]/"):
            with pytest.raises(HttpRefusedError):
                await client.send(
                    HttpRequest(
                        url=f"http://open.example:{server.port}/move",
                        query={"to": target},
                        follow_redirects=True,
                    )
                )
    assert {path.partition("?")[0] for _, path, _, _ in server.seen} == {"/move"}


async def test_a_permission_for_one_port_of_a_host_is_for_that_port(server: Server) -> None:
    """A literal address is checked before anything is resolved, a name when it is."""
    for host in ("127.0.0.1", "inside.example"):
        settings = HttpSettings(allowed_hosts=(f"{host}:{server.port}",))
        async with GuardedHttpClient(settings, resolve=resolver_of("127.0.0.1")) as client:
            assert (await client.send(HttpRequest(url=f"http://{host}:{server.port}/"))).status == 200
            with pytest.raises(HttpRefusedError, match=f"{host}:1'"):
                await client.send(HttpRequest(url=f"http://{host}:1/"))


async def test_redirects_without_end_are_refused(server: Server) -> None:
    async def again(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/again"})

    server.handlers["/again"] = again
    async with GuardedHttpClient(HttpSettings(allow_private=True, max_redirects=3)) as client:
        with pytest.raises(HttpRefusedError, match="max_redirects=3"):
            await client.send(HttpRequest(url=f"{server.url}/again", follow_redirects=True))
    assert len(server.seen) == 4


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("169.254.169.254",), ("1.1.1.1", "10.0.0.1")])
async def test_a_name_that_resolves_to_a_private_address_is_never_connected_to(
    addresses: tuple[str, ...],
) -> None:
    async with GuardedHttpClient(resolve=resolver_of(*addresses)) as client:
        with pytest.raises(HttpRefusedError, match=r"inside\.example") as caught:
            await client.send(HttpRequest(url="http://inside.example/?token=secret"))
    assert not caught.value.retriable
    assert "secret" not in str(caught.value.facts())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:7f00:1]/", "file:///etc/passwd", "ftp://a.example/",
        "gopher://a", "//a.example", "a.example/path", "", "http://", "http://a b/", "http://a.example:99999/",
    ],
)  # fmt: skip
async def test_urls_that_lead_nowhere_allowed_are_refused(url: str) -> None:
    async with GuardedHttpClient(resolve=resolver_of("1.1.1.1")) as client:
        with pytest.raises(HttpRefusedError):
            await client.send(HttpRequest(url=url))


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "017700000001"])
async def test_odd_spellings_of_loopback_are_refused_however_they_resolve(host: str) -> None:
    async with GuardedHttpClient() as client:
        with pytest.raises((HttpRefusedError, HttpConnectionError)):
            await client.send(HttpRequest(url=f"http://{host}:1/"))


async def test_cookies_and_proxies_of_the_environment_are_not_used(
    server: Server, client: GuardedHttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cookie(_: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.handlers["/cookie"] = cookie
    await client.send(HttpRequest(url=f"{server.url}/cookie"))
    await client.send(HttpRequest(url=f"{server.url}/after"))
    assert "cookie" not in server.seen[1][2]


@pytest.mark.parametrize("control", ["\t", "\n", "\r\nX-Evil: 1", "\x00", "\x7f"])
@pytest.mark.parametrize(
    "where", ["http://{host}{control}/", "http://{host}/a{control}b", "ht{control}tp://{host}/"]
)
async def test_control_characters_in_an_address_are_refused_not_left_out(
    server: Server, client: GuardedHttpClient, where: str, control: str
) -> None:
    """The parser would drop some of them: another address than the one that was written."""
    url = where.format(host=server.url.removeprefix("http://"), control=control)
    with pytest.raises(HttpRefusedError, match="control characters"):
        await client.send(HttpRequest(url=url))
    assert server.seen == []


async def test_a_header_that_would_split_the_request_is_refused(
    server: Server, client: GuardedHttpClient
) -> None:
    with pytest.raises((HttpRefusedError, HttpConnectionError)):
        await client.send(HttpRequest(url=server.url, headers={"X": "1\r\nY: 2"}))
    assert server.seen == []


async def test_closing_twice_is_closing_once(server: Server) -> None:
    client = GuardedHttpClient(HttpSettings(allow_private=True))
    await client.close()
    await client.send(HttpRequest(url=server.url))
    await client.close()
    await client.close()
