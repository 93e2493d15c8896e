"""A small OpenAI-like server on loopback, in a process of its own: answers after a fixed wait.

Owns: the server, and `Loopback`, the handle its user starts it by and asks what it saw.
Does not own: what is asked of it (benchmarks.peers.graphbit, benchmarks.ours).

Always holds: standard library only. It answers for a peer that works only through such a server, so it is as
cheap as plain asyncio streams can be; its CPU time is never counted in the contender's.

A chat prompt starts with its orders, `node=NAME sleep=SECONDS`; the answer is `done NAME`. An embeddings
request is answered after the server's own delay, with `benchmarks.data.vector` of each text. `GET /calls`
gives what was served since `POST /reset`: `[name, start, end]` on the monotonic clock, which all processes of
a machine share.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Generator

ORDERS = re.compile(r"node=(\w+) sleep=([0-9.]+)")
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Call:
    """One answered request: `start` and `end` on the monotonic clock, seconds."""

    name: str
    start: float
    end: float


def peak(calls: list[Call]) -> int:
    """Largest number of calls open at once."""
    changes = sorted([(call.start, 1) for call in calls] + [(call.end, -1) for call in calls])
    most = level = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    return most


class Server:
    """State of the server process."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.calls: list[tuple[str, float, float]] = []

    async def serve(self) -> None:
        """Listen on a free port, print it, serve until killed."""
        server = await asyncio.start_server(self.connection, HOST, 0, backlog=4096)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive: a request at a time."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = re.search(r"content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                answer = json.dumps(await self.answer(head.split(" ", 2)[1], body)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left; nothing is owed to it
        finally:
            writer.close()

    async def answer(self, path: str, body: bytes) -> object:
        """What to send back for one request."""
        if path == "/calls":
            return self.calls
        if path == "/reset":
            self.calls.clear()
            return {}
        request = json.loads(body)
        start = time.monotonic()
        if "input" in request:
            texts: str | list[str] = request["input"]
            await asyncio.sleep(self.delay_s)
            self.calls.append(("embed", start, time.monotonic()))
            return _embeddings([texts] if isinstance(texts, str) else texts)
        orders = ORDERS.search(str(request["messages"][-1]["content"]))
        name, seconds = (orders[1], float(orders[2])) if orders else ("unnamed", 0.0)
        if seconds:
            await asyncio.sleep(seconds)
        self.calls.append((name, start, time.monotonic()))
        return _completion(f"done {name}")


def _completion(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "loopback",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _embeddings(texts: list[str]) -> dict[str, Any]:
    items = [
        {"object": "embedding", "index": index, "embedding": data.vector(text)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": items, "model": "loopback", "usage": usage}


class Loopback:
    """The server as its user sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"

    def reset(self) -> None:
        """Forget the calls so far."""
        self._ask("POST", "/reset")

    def calls(self) -> list[Call]:
        """The calls since the last reset, in order of their end."""
        return [Call(*fields) for fields in self._ask("GET", "/calls")]

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def loopback(*, delay_s: float = 0.0) -> Generator[Loopback]:
    """A server in a new process, stopped on leaving; `delay_s` is how long an embeddings request takes."""
    command = [sys.executable, "-m", "benchmarks.loopback", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                message = f"the loopback server did not start; it ended with code {process.wait()}"
                raise RuntimeError(message)
            yield Loopback(int(line))
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(Server(float(sys.argv[1])).serve())
