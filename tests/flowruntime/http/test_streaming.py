"""Responses read piece by piece, from a real server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import zlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Protocol

import pytest
from aiohttp import web

from flowcore.context import HttpRequest
from flowcore.errors import (
    ContractError,
    HttpBodyTooLargeError,
    HttpConnectionError,
    HttpDecodingError,
    HttpRefusedError,
    HttpTimeoutError,
)
from flowruntime.http.client import GuardedHttpClient

Write = Callable[[bytes], Awaitable[None]]
_SOON = timedelta(seconds=0.1)


class Server(Protocol):
    handlers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
    left: asyncio.Event
    open: int

    @property
    def url(self) -> str: ...


def streams(
    server: Server, write: Callable[[Write], Awaitable[None]], *, encoding: str = "", status: int = 200
) -> str:
    """An address that answers by what `write` writes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": encoding} if encoding else {}
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await write(response.write)
        await response.write_eof()
        return response

    server.handlers["/stream"] = handle
    return f"{server.url}/stream"


async def stall(write: Write) -> None:
    await write(b"first")
    await asyncio.Event().wait()


async def endless(write: Write) -> None:
    while True:
        await write(b"x" * 10_000)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; 5 s at most."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for is inside the server and the client
            await asyncio.sleep(0)


async def read_all(
    client: GuardedHttpClient, request: HttpRequest, into: list[bytes] | None = None
) -> list[bytes]:
    pieces: list[bytes] = [] if into is None else into
    async with client.stream(request) as stream:
        async for piece in stream.chunks():
            pieces.append(piece)  # noqa: PERF401 - what came before an error counts
    return pieces


async def test_a_piece_arrives_before_the_next_one_is_written(
    server: Server, client: GuardedHttpClient
) -> None:
    may_go_on = asyncio.Event()

    async def write(write: Write) -> None:
        await write(b"one")
        await may_go_on.wait()
        await write(b"two")

    async with client.stream(HttpRequest(url=streams(server, write, status=418) + "?q=1")) as stream:
        assert stream.status == 418
        assert "content-type" in stream.headers
        assert stream.url.endswith("/stream?q=1")
        pieces = stream.chunks()
        assert await anext(pieces) == b"one"
        may_go_on.set()
        assert [piece async for piece in pieces] == [b"two"]
        with pytest.raises(ContractError, match="read before"):
            await anext(stream.chunks())


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
async def test_a_compressed_piece_arrives_before_the_next_one_is_written(
    server: Server, client: GuardedHttpClient, encoding: str, window: int
) -> None:
    may_go_on = asyncio.Event()

    async def write(write: Write) -> None:
        packer = zlib.compressobj(wbits=window)
        await write(packer.compress("ä1".encode()) + packer.flush(zlib.Z_SYNC_FLUSH))
        await may_go_on.wait()
        await write(packer.compress(b"2") + packer.flush())

    async with client.stream(HttpRequest(url=streams(server, write, encoding=encoding))) as stream:
        assert "content-encoding" not in stream.headers
        pieces = stream.chunks()
        assert await anext(pieces) == "ä1".encode()
        may_go_on.set()
        assert b"".join([piece async for piece in pieces]) == b"2"


async def test_an_endless_stream_and_a_bomb_are_capped_and_the_exchange_is_ended(
    server: Server, client: GuardedHttpClient
) -> None:
    async def bomb(write: Write) -> None:
        await write(gzip.compress(b"\0" * 50_000_000))
        await asyncio.Event().wait()

    for write, encoding in ((endless, ""), (bomb, "gzip")):
        server.left.clear()
        request = HttpRequest(url=streams(server, write, encoding=encoding), max_body_bytes=100_000)
        pieces: list[bytes] = []
        async with asyncio.timeout(10):
            with pytest.raises(HttpBodyTooLargeError):
                await read_all(client, request, pieces)
            await server.left.wait()
        assert 0 < len(b"".join(pieces)) <= 100_000


@pytest.mark.parametrize(
    ("phase", "whole", "first_byte"),
    [
        ("first_byte", timedelta(seconds=9), _SOON),
        ("total", _SOON, None),
        ("total", _SOON, timedelta(seconds=9)),
    ],
)
async def test_a_late_first_byte_is_told_from_a_late_end(
    server: Server, client: GuardedHttpClient, phase: str, whole: timedelta, first_byte: timedelta | None
) -> None:
    async def silent(_: Write) -> None:
        await asyncio.Event().wait()

    url = streams(server, silent) + "?key=secret"
    request = HttpRequest(url=url, timeout=whole, first_byte_timeout=first_byte)
    with pytest.raises(HttpTimeoutError, match=r"0\.1 s") as caught:
        await read_all(client, request)
    assert caught.value.facts()["phase"] == phase
    assert "secret" not in str(caught.value.facts())
    async with asyncio.timeout(5):
        await server.left.wait()


@pytest.mark.parametrize("whole", [False, True], ids=["stream", "send"])
async def test_silence_within_a_body_is_a_timeout_of_its_own(
    server: Server, client: GuardedHttpClient, whole: bool
) -> None:
    request = HttpRequest(url=streams(server, stall), idle_timeout=_SOON)
    with pytest.raises(HttpTimeoutError, match="nothing more for") as caught:
        await (client.send(request) if whole else read_all(client, request))
    assert caught.value.facts()["phase"] == "idle"


async def test_send_counts_the_first_byte_by_the_headers(server: Server, client: GuardedHttpClient) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.handlers["/silent"] = silent
    request = HttpRequest(url=f"{server.url}/silent", first_byte_timeout=_SOON)
    with pytest.raises(HttpTimeoutError) as caught:
        await client.send(request)
    assert caught.value.facts()["phase"] == "first_byte"


async def test_leaving_the_block_early_ends_the_exchange(server: Server, client: GuardedHttpClient) -> None:
    async with client.stream(HttpRequest(url=streams(server, endless))) as stream:
        async with aclosing(stream.chunks()) as pieces:
            assert await anext(pieces)
        assert server.open == 1
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_cancelling_a_reader_ends_the_exchange(server: Server, client: GuardedHttpClient) -> None:
    task = asyncio.ensure_future(read_all(client, HttpRequest(url=streams(server, stall))))
    await until(lambda: server.open == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.open == 0)


async def test_a_connection_that_breaks_in_the_middle_is_a_connection_error(
    server: Server, client: GuardedHttpClient
) -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def cut(write: Write) -> None:
        await write(gzip.compress(b"hello " * 100)[:-10])

    server.handlers["/torn"] = torn
    with pytest.raises(HttpConnectionError):
        await read_all(client, HttpRequest(url=f"{server.url}/torn"))
    with pytest.raises(HttpDecodingError, match="ends in the middle"):
        await read_all(client, HttpRequest(url=streams(server, cut, encoding="gzip")))


async def test_the_guard_and_redirects_hold_for_streams_as_well(
    server: Server, client: GuardedHttpClient
) -> None:
    async def write(write: Write) -> None:
        await write(b"there")

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/stream"})

    async def inside(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://169.254.169.254/"})

    streams(server, write)
    server.handlers |= {"/elsewhere": elsewhere, "/inside": inside}
    there = HttpRequest(url=f"{server.url}/elsewhere", follow_redirects=True)
    assert await read_all(client, there) == [b"there"]
    for url, guarded in (
        (f"{server.url}/inside", client),
        (f"{server.url}/stream", GuardedHttpClient()),
    ):
        with pytest.raises(HttpRefusedError):
            await read_all(guarded, HttpRequest(url=url, follow_redirects=True))


async def test_many_streams_cancelled_at_random_points_leak_nothing(
    server: Server, client: GuardedHttpClient
) -> None:
    async def some(write: Write) -> None:
        for _ in range(5):
            await write(b"x" * 1_000)
            await asyncio.sleep(0)

    url = streams(server, some)
    before = len(asyncio.all_tasks())
    dice = random.Random(7)
    ended = 0
    for _ in range(300):
        task = asyncio.ensure_future(read_all(client, HttpRequest(url=url)))
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            assert b"".join(await task) == b"x" * 5_000
            ended += 1
    await until(lambda: server.open == 0)
    assert b"".join(await read_all(client, HttpRequest(url=url))) == b"x" * 5_000
    assert ended < 300
    connector = getattr(client._session, "connector", None)
    assert connector is not None
    assert not connector._acquired
    await until(lambda: len(asyncio.all_tasks()) <= before + 4)  # the server's own, of connections kept


async def test_a_server_that_never_ends_the_handshake_is_too_slow_to_connect(
    client: GuardedHttpClient,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        request = HttpRequest(url=url, connect_timeout=_SOON)
        for call in (client.send(request), read_all(client, request)):
            with pytest.raises(HttpTimeoutError, match=r"connected within 0\.1 s") as caught:
                await call
            assert caught.value.facts()["phase"] == "connect"
